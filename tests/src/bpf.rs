//! bpf(2) and perf_event_open(2), just enough to be *somebody else's* tool: the tests load
//! programs through these calls, not through our own loader, and stalltop must find them.
//!
//! Layouts are those of include/uapi/linux/bpf.h (`union bpf_attr`) and perf_event.h
//! (`struct perf_event_attr`); both calls take a size, so older kernels take the same bytes.
#![expect(
    unsafe_code,
    reason = "system calls and an option of sockets that no library here wraps"
)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

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
    /// Messages of the sockets in a map.
    SkMsg = 16,
    /// A raw tracepoint.
    RawTracepoint = 17,
    /// Takes packets apart, for a network namespace.
    FlowDissector = 22,
    /// tp_btf, fentry, iterators.
    Tracing = 26,
    /// Finds the socket of a packet, for a network namespace.
    SkLookup = 30,
    /// A hook of netfilter.
    Netfilter = 32,
}

/// `enum bpf_attach_type` of the programs made here.
pub mod attach {
    /// A cgroup's incoming packets.
    pub const CGROUP_INET_INGRESS: u32 = 0;
    /// Messages of the sockets in a map.
    pub const SK_MSG_VERDICT: u32 = 7;
    /// A network namespace's flow dissector.
    pub const FLOW_DISSECTOR: u32 = 17;
    /// A raw tracepoint with BTF arguments.
    pub const TRACE_RAW_TP: u32 = 23;
    /// A function's entry through its trampoline.
    pub const TRACE_FENTRY: u32 = 24;
    /// An iterator.
    pub const TRACE_ITER: u32 = 28;
    /// A network namespace's lookup of sockets.
    pub const SK_LOOKUP: u32 = 36;
    /// A network device.
    pub const XDP: u32 = 37;
    /// A perf event, held by a link (5.15 and later).
    pub const PERF_EVENT: u32 = 41;
    /// Many functions at once through fprobe (5.18 and later).
    pub const TRACE_KPROBE_MULTI: u32 = 42;
    /// A hook of netfilter (6.4 and later).
    pub const NETFILTER: u32 = 45;
    /// What comes in at a network device, by a link (6.6 and later).
    pub const TCX_INGRESS: u32 = 46;
    /// Many places of a file at once (6.6 and later).
    pub const TRACE_UPROBE_MULTI: u32 = 48;
}

/// `struct perf_event_attr` fields that are used here; zeros otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerfEvent {
    /// `PERF_TYPE_*` or a PMU's number from /sys/bus/event_source/devices.
    pub kind: u32,
    /// What to count, by type.
    pub config: u64,
    /// One sample every so many events; 0 counts only.
    pub period: u64,
    /// `kprobe_func` or `uprobe_path`, an address in this process.
    pub config1: u64,
    /// `probe_offset`.
    pub config2: u64,
}

/// `union bpf_attr` as bytes.
struct Attr([u8; 144]);

impl Attr {
    fn new() -> Self {
        Self([0; 144])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &OwnedFd) -> Self {
        let fd = u32::try_from(fd.as_raw_fd()).expect("an open descriptor");
        self.u32(at, fd)
    }

    fn name(mut self, at: usize, name: &str) -> Self {
        let name = &name.as_bytes()[..name.len().min(15)];
        self.0[at..at + name.len()].copy_from_slice(name);
        self
    }

    fn call(mut self, command: i32) -> io::Result<i64> {
        // SAFETY: the kernel reads at most the given size from the array, and writes within it;
        // the pointers inside were taken from values that the caller keeps alive over the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    fn open(self, command: i32) -> io::Result<OwnedFd> {
        owned(self.call(command)?)
    }
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program of two instructions that returns `returns`. `btf` is the BTF type it attaches
/// to, or 0.
///
/// # Errors
/// The kernel's answer.
pub fn load(
    kind: ProgramType,
    name: &str,
    returns: i32,
    attach_type: u32,
    btf: u32,
) -> io::Result<OwnedFd> {
    // BPF_MOV64_IMM(BPF_REG_0, returns); BPF_EXIT_INSN()
    let program = [instruction(0xb7, 0, 0, returns), instruction(0x95, 0, 0, 0)];
    load_instructions(kind, name, &program, attach_type, btf)
}

/// Loads a program that sets the one key 0 of a hash made by [`hash`]: on every CPU that runs it
/// at a time, the same lock of the same bucket.
///
/// # Errors
/// The kernel's answer.
pub fn load_update(kind: ProgramType, name: &str, hash: &OwnedFd) -> io::Result<OwnedFd> {
    let program = [
        instruction(0xb7, 1, 0, 0),                   // r1 = 0
        instruction(0x63, 0x1a, -4, 0),               // *(u32 *)(r10 - 4) = r1
        instruction(0x7b, 0x1a, -16, 0),              // *(u64 *)(r10 - 16) = r1
        instruction(0x18, 0x11, 0, hash.as_raw_fd()), // r1 = the map
        instruction(0, 0, 0, 0),
        instruction(0xbf, 0xa2, 0, 0), // r2 = r10
        instruction(0x07, 2, 0, -4),   // r2 += -4
        instruction(0xbf, 0xa3, 0, 0), // r3 = r10
        instruction(0x07, 3, 0, -16),  // r3 += -16
        instruction(0xb7, 4, 0, 0),    // r4 = BPF_ANY
        instruction(0x85, 0, 0, 2),    // bpf_map_update_elem
        instruction(0xb7, 0, 0, 0),
        instruction(0x95, 0, 0, 0),
    ];
    load_instructions(kind, name, &program, 0, 0)
}

/// `struct bpf_insn`: code, destination and source registers, offset, immediate.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (offset, immediate) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    let mut bytes = [code, registers, offset[0], offset[1], 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&immediate);
    bytes
}

fn load_instructions(
    kind: ProgramType,
    name: &str,
    program: &[[u8; 8]],
    attach_type: u32,
    btf: u32,
) -> io::Result<OwnedFd> {
    let license = c"GPL";
    Attr::new()
        .u32(0, kind as u32)
        .u32(4, u32::try_from(program.len()).map_err(io::Error::other)?)
        .u64(8, program.as_ptr() as u64)
        .u64(16, license.as_ptr() as u64)
        .name(48, name)
        .u32(68, attach_type)
        .u32(108, btf)
        .open(5)
}

/// Creates an array of one 8-byte value.
///
/// # Errors
/// The kernel's answer.
pub fn map(name: &str) -> io::Result<OwnedFd> {
    make_map(2, 1, name)
}

/// Creates a hash of 4-byte keys and 8-byte values, shared by all CPUs.
///
/// # Errors
/// The kernel's answer.
pub fn hash(name: &str) -> io::Result<OwnedFd> {
    make_map(1, 10_240, name)
}

/// `kind` is `BPF_MAP_TYPE_*`.
fn make_map(kind: u32, entries: u32, name: &str) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, kind)
        .u32(4, 4)
        .u32(8, 8)
        .u32(12, entries)
        .name(28, name)
        .open(0)
}

/// Creates a map of one socket.
///
/// # Errors
/// The kernel's answer.
pub fn sockmap(name: &str) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, 15)
        .u32(4, 4)
        .u32(8, 4)
        .u32(12, 1)
        .name(28, name)
        .open(0)
}

/// Creates an array of one value of that size which begins with a `struct bpf_spin_lock`: what it
/// is, the kernel wants to know from BTF.
///
/// # Errors
/// The kernel's answer.
pub fn locked_array(value_size: u32) -> io::Result<OwnedFd> {
    // int; struct bpf_spin_lock { int val; }; struct value { struct bpf_spin_lock lock; ... }
    let strings = b"\0int\0bpf_spin_lock\0val\0value\0lock\0";
    let (int, structure) = (1_u32 << 24, 4_u32 << 24 | 1);
    let types: [&[u32]; 3] = [
        &[1, int, 4, 1 << 24 | 32],
        &[5, structure, 4, 19, 1, 0],
        &[23, structure, value_size, 29, 2, 0],
    ];
    let types = types.concat();
    let bytes = types.len() as u32 * 4;
    let header = [0x0001_eb9f, 24, 0, bytes, bytes, strings.len() as u32];
    let words = header.iter().chain(&types);
    let mut btf: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
    btf.extend_from_slice(strings);
    let types = Attr::new()
        .u64(0, btf.as_ptr() as u64)
        .u32(16, btf.len() as u32)
        .open(18)?;
    Attr::new()
        .u32(0, 2)
        .u32(4, 4)
        .u32(8, value_size)
        .u32(12, 1)
        .name(28, "locked")
        .fd(48, &types)
        .u32(52, 1)
        .u32(56, 3)
        .open(0)
}

/// Writes the value of a map of [`locked_array`] while its lock is held (`BPF_F_LOCK`).
///
/// # Errors
/// The kernel's answer.
pub fn update_locked(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    Attr::new()
        .fd(0, map)
        .u64(8, std::ptr::from_ref(&key) as u64)
        .u64(16, value.as_ptr() as u64)
        .u64(24, 4)
        .call(2)?;
    Ok(())
}

/// Attaches a program by a link: `target` is a perf event, a cgroup or, for
/// [`attach::XDP`], nothing and `ifindex` is given.
///
/// # Errors
/// The kernel's answer.
pub fn link(
    program: &OwnedFd,
    target: Option<&OwnedFd>,
    ifindex: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr = Attr::new()
        .fd(0, program)
        .u32(4, ifindex)
        .u32(8, attach_type);
    match target {
        Some(target) => attr.fd(4, target),
        None => attr,
    }
    .open(28)
}

/// Attaches a program to several functions at once.
///
/// # Errors
/// The kernel's answer.
pub fn link_kprobe_multi(program: &OwnedFd, symbols: &[&str]) -> io::Result<OwnedFd> {
    let symbols: Vec<CString> = symbols
        .iter()
        .map(|name| CString::new(*name))
        .collect::<Result<_, _>>()?;
    let pointers: Vec<_> = symbols.iter().map(|name| name.as_ptr()).collect();
    let count = u32::try_from(pointers.len()).map_err(io::Error::other)?;
    Attr::new()
        .fd(0, program)
        .u32(8, attach::TRACE_KPROBE_MULTI)
        .u32(20, count)
        .u64(24, pointers.as_ptr() as u64)
        .open(28)
}

/// Attaches a program to several places of a file at once.
///
/// # Errors
/// The kernel's answer.
pub fn link_uprobe_multi(program: &OwnedFd, path: &str, offsets: &[u64]) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let count = u32::try_from(offsets.len()).map_err(io::Error::other)?;
    Attr::new()
        .fd(0, program)
        .u32(8, attach::TRACE_UPROBE_MULTI)
        .u64(16, path.as_ptr() as u64)
        .u64(24, offsets.as_ptr() as u64)
        .u32(48, count)
        .open(28)
}

/// Attaches a program to a hook of netfilter: `family` is `NFPROTO_*`, `hook` one of
/// `nf_inet_hooks`.
///
/// # Errors
/// The kernel's answer.
pub fn link_netfilter(
    program: &OwnedFd,
    family: u32,
    hook: u32,
    priority: i32,
) -> io::Result<OwnedFd> {
    Attr::new()
        .fd(0, program)
        .u32(8, attach::NETFILTER)
        .u32(16, family)
        .u32(20, hook)
        .u32(24, priority.cast_unsigned())
        .open(28)
}

/// Attaches a program the old way, without a link, to a cgroup or a map of sockets: it stays until
/// that is gone.
///
/// # Errors
/// The kernel's answer.
pub fn attach(program: &OwnedFd, target: &OwnedFd, attach_type: u32) -> io::Result<()> {
    Attr::new()
        .fd(0, target)
        .fd(4, program)
        .u32(8, attach_type)
        .call(8)
        .map(drop)
}

/// Attaches a program to a socket (`SO_ATTACH_BPF`).
///
/// # Errors
/// The kernel's answer.
pub fn attach_to_socket(program: &OwnedFd, socket: &OwnedFd) -> io::Result<()> {
    let value: libc::c_int = program.as_raw_fd();
    // SAFETY: the kernel reads the four bytes of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Attaches a raw tracepoint by name, or, with no name, a tp_btf or fentry program to what it was
/// loaded for.
///
/// # Errors
/// The kernel's answer.
pub fn raw_tracepoint(program: &OwnedFd, name: Option<&str>) -> io::Result<OwnedFd> {
    let name = name.map(CString::new).transpose()?;
    let pointer = name.as_ref().map_or(0, |name| name.as_ptr() as u64);
    Attr::new().u64(0, pointer).fd(8, program).open(17)
}

/// Makes an iterator's readable descriptor from its link.
///
/// # Errors
/// The kernel's answer.
pub fn iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    Attr::new().fd(0, link).open(33)
}

/// Pins a program, map or link in a bpffs.
///
/// # Errors
/// The kernel's answer.
pub fn pin(object: &OwnedFd, path: &str) -> io::Result<()> {
    let path = CString::new(path)?;
    Attr::new()
        .u64(0, path.as_ptr() as u64)
        .fd(8, object)
        .call(6)
        .map(drop)
}

/// Opens what is pinned in a bpffs.
///
/// # Errors
/// The kernel's answer.
pub fn pinned(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    Attr::new().u64(0, path.as_ptr() as u64).open(7)
}

/// Opens a perf event of every process on one CPU, or of one process on every CPU (`cpu` -1).
///
/// # Errors
/// The kernel's answer.
pub fn perf_event(event: PerfEvent, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    let attr = Attr::new()
        .u32(0, event.kind)
        .u32(4, 112)
        .u64(8, event.config)
        .u64(16, event.period)
        .u64(56, event.config1)
        .u64(64, event.config2);
    // PERF_FLAG_FD_CLOEXEC
    let flags = 8_u64;
    // SAFETY: the kernel reads 112 bytes, the size given at offset 4, of an array of 144; the
    // strings behind config1 are kept alive by the caller.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr.0.as_ptr(),
            pid,
            cpu,
            -1_i32,
            flags,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    owned(fd)
}

/// Attaches a program to a perf event the old way, without a link, and enables the event.
///
/// # Errors
/// The kernel's answer.
pub fn set_bpf(event: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    for (request, argument) in [
        (PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
        (PERF_EVENT_IOC_ENABLE, 0),
    ] {
        // SAFETY: both requests take an integer, not a pointer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The id of a named type in the running kernel's BTF. `kind` is `BTF_KIND_*`: 8 a typedef,
/// 12 a function.
///
/// # Errors
/// No BTF, or no such type.
pub fn btf_id(name: &str, kind: u32) -> io::Result<u32> {
    let bytes = fs::read(Path::new("/sys/kernel/btf/vmlinux"))?;
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let find = || -> Option<u32> {
        let size = |at| word(at).map(|value| value as usize);
        let header = size(4)?;
        let types = header + size(8)?;
        let end = types + size(12)?;
        let strings = header + size(16)?;
        let (mut at, mut id) = (types, 1);
        while at < end {
            let info = word(at + 4)?;
            let (this, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let start = strings + size(at)?;
            if this == kind
                && bytes[start..].starts_with(name.as_bytes())
                && bytes[start + name.len()] == 0
            {
                return Some(id);
            }
            // What follows the three words of each kind: include/uapi/linux/btf.h.
            at += 12
                + match this {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => 12 * count,
                    6 | 13 => 8 * count,
                    _ => 0,
                };
            id += 1;
        }
        None
    };
    find().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no BTF type {name}")))
}
