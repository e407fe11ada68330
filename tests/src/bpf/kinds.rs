//! Types of programs and ways to attach them, as bpf(2) numbers them (include/uapi/linux/bpf.h).

/// `enum bpf_prog_type` of the programs made here.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum ProgramType {
    /// A socket's packets.
    SocketFilter = 1,
    /// kprobe, kretprobe, uprobe, kprobe.multi.
    Kprobe = 2,
    /// A tc filter.
    SchedCls = 3,
    /// A classic tracepoint.
    Tracepoint = 5,
    /// Express data path.
    Xdp = 6,
    /// A sampled perf event.
    PerfEvent = 7,
    /// A cgroup's packets.
    CgroupSkb = 8,
    /// Packets that a route sends out.
    LwtXmit = 12,
    /// Streams of the sockets in a map.
    SkSkb = 14,
    /// Which devices a cgroup may use.
    CgroupDevice = 15,
    /// Messages of the sockets in a map.
    SkMsg = 16,
    /// A raw tracepoint.
    RawTracepoint = 17,
    /// Which socket of a group gets a packet.
    SkReuseport = 21,
    /// Takes packets apart, for a network namespace.
    FlowDissector = 22,
    /// What a cgroup reads and writes of sysctls.
    CgroupSysctl = 23,
    /// What a cgroup asks of its sockets.
    CgroupSockopt = 25,
    /// tp_btf, fentry, iterators.
    Tracing = 26,
    /// In place of a function of the kernel.
    StructOps = 27,
    /// In place of a function of another program.
    Ext = 28,
    /// A hook of security modules.
    Lsm = 29,
    /// Finds the socket of a packet, for a network namespace.
    SkLookup = 30,
    /// Only run by its loader.
    Syscall = 31,
    /// A hook of netfilter.
    Netfilter = 32,
}

/// `enum bpf_attach_type` of the programs made here.
pub mod attach {
    /// A cgroup's incoming packets.
    pub const CGROUP_INET_INGRESS: u32 = 0;
    /// Streams of the sockets in a map.
    pub const SK_SKB_STREAM_VERDICT: u32 = 5;
    /// A cgroup's devices.
    pub const CGROUP_DEVICE: u32 = 6;
    /// Messages of the sockets in a map.
    pub const SK_MSG_VERDICT: u32 = 7;
    /// A network namespace's flow dissector.
    pub const FLOW_DISSECTOR: u32 = 17;
    /// A cgroup's sysctls.
    pub const CGROUP_SYSCTL: u32 = 18;
    /// What a cgroup asks of its sockets.
    pub const CGROUP_GETSOCKOPT: u32 = 21;
    /// A raw tracepoint with BTF arguments.
    pub const TRACE_RAW_TP: u32 = 23;
    /// A function's entry through its trampoline.
    pub const TRACE_FENTRY: u32 = 24;
    /// A function's return through its trampoline.
    pub const TRACE_FEXIT: u32 = 25;
    /// A function's value, changed through its trampoline.
    pub const MODIFY_RETURN: u32 = 26;
    /// A hook of security modules.
    pub const LSM_MAC: u32 = 27;
    /// An iterator.
    pub const TRACE_ITER: u32 = 28;
    /// A network namespace's lookup of sockets.
    pub const SK_LOOKUP: u32 = 36;
    /// A network device.
    pub const XDP: u32 = 37;
    /// Which socket of a group gets a packet.
    pub const SK_REUSEPORT_SELECT: u32 = 39;
    /// A perf event, held by a link (5.15 and later).
    pub const PERF_EVENT: u32 = 41;
    /// Many functions at once through fprobe (5.18 and later).
    pub const TRACE_KPROBE_MULTI: u32 = 42;
    /// A hook of security modules, for one cgroup (6.0 and later).
    pub const LSM_CGROUP: u32 = 43;
    /// A map of functions (6.4 and later).
    pub const STRUCT_OPS: u32 = 44;
    /// A hook of netfilter (6.4 and later).
    pub const NETFILTER: u32 = 45;
    /// What comes in at a network device, by a link (6.6 and later).
    pub const TCX_INGRESS: u32 = 46;
    /// Many places of a file at once (6.6 and later).
    pub const TRACE_UPROBE_MULTI: u32 = 48;
    /// A netkit device (6.7 and later).
    pub const NETKIT_PRIMARY: u32 = 54;
    /// Entry and return of many functions at once (6.10 and later).
    pub const TRACE_KPROBE_SESSION: u32 = 56;
    /// Entry and return of many places of a file at once (6.13 and later).
    pub const TRACE_UPROBE_SESSION: u32 = 57;
}
