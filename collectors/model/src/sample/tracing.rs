//! What is switched on in the kernel's tracing machinery, and by whom.

use serde::{Deserialize, Serialize};

use crate::{Name, Reading, Reason, bounded};

/// Everything that traces on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tracing {
    /// When this state was read (`CLOCK_BOOTTIME`, ns).
    pub at_ns: u64,
    /// tracefs (Documentation/trace/ftrace.rst, events.rst, kprobetrace.rst).
    pub tracefs: Reading<Tracefs>,
    /// debugfs `kprobes/` (Documentation/trace/kprobes.rst).
    pub kprobes: Reading<KernelProbes>,
    /// Loaded BPF programs and links (bpf(2)).
    pub bpf: Reading<BpfObjects>,
    /// Users of perf events without BPF (`perf record -e sched:...`), which no file lists.
    #[serde(
        default = "Reading::not_recorded",
        deserialize_with = "bounded::measured_some"
    )]
    pub perf: Reading<Vec<PerfUse>>,
    /// The look at the host that goes on now and does not end, since when (`CLOCK_BOOTTIME`, ns);
    /// 0 for none: the rest is what was known before it.
    #[serde(default)]
    pub reading_since_ns: u64,
}

impl Tracing {
    /// Nothing of it is known, for one reason.
    pub fn off(why: &Reason) -> Self {
        Self {
            at_ns: 0,
            tracefs: Reading::Off(why.clone()),
            kprobes: Reading::Off(why.clone()),
            bpf: Reading::Off(why.clone()),
            perf: Reading::Off(why.clone()),
            reading_since_ns: 0,
        }
    }
}

/// A process that uses a perf event without a BPF program: found by no file of the kernel, only
/// by a BPF iterator over descriptors (kernel/bpf/task_iter.c). Events that the kernel itself
/// holds, such as its hard lockup detector's, have no descriptor and are not among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerfUse {
    /// `tracepoint`, `hardware`, `software`, `cache`, `raw`, `breakpoint`, `kprobe`, `kretprobe`,
    /// `uprobe`, `uretprobe`, or the name of the PMU.
    pub kind: Name,
    /// The event: `sched:sched_switch`, `cpu-clock`, `cycles`; its number where it has no name.
    pub event: Name,
    /// How many descriptors: one per CPU and thread.
    pub descriptors: u32,
    /// Of these, switched on (`PERF_EVENT_STATE_ACTIVE` or `INACTIVE`).
    pub on: u32,
    /// Who holds them.
    pub holder: Holder,
    /// Whether that is stalltop.
    pub ours: bool,
}

/// State of tracefs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tracefs {
    /// Where it is mounted.
    pub mount: Name,
    /// The top level (name empty) and `instances/*`.
    #[serde(deserialize_with = "bounded::some")]
    pub instances: Vec<Instance>,
    /// `kprobe_events`, `uprobe_events`, `dynamic_events`.
    #[serde(deserialize_with = "bounded::many")]
    pub dynamic: Vec<DynamicEvent>,
}

/// One trace instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Empty for the top level.
    pub name: Name,
    /// `current_tracer`; `nop` when none.
    pub current_tracer: Reading<Name>,
    /// `tracing_on`.
    pub tracing_on: Reading<bool>,
    /// `set_event_pid`, as the kernel prints it; empty when not restricted.
    pub set_event_pid: Reading<Name>,
    /// Events that are on, soft-armed, filtered or triggered; others are left out.
    #[serde(deserialize_with = "bounded::many")]
    pub events: Vec<Event>,
    /// How many events exist in this instance.
    pub events_available: u64,
    /// Whether `set_event` and the `events/*/enable` tree agree; the differing events if not.
    #[serde(deserialize_with = "bounded::many")]
    pub disagreement: Vec<Name>,
    /// Entries written to all CPUs' buffers since start or reset (`per_cpu/*/stats`).
    pub buffer_entries: Reading<u64>,
    /// Entries that were overwritten before anybody read them, or found no room (`overrun`,
    /// `dropped events`).
    #[serde(default = "Reading::not_recorded")]
    pub buffer_lost: Reading<u64>,
    /// Processes that hold `trace_pipe` or `trace_pipe_raw` open.
    #[serde(deserialize_with = "bounded::measured_some")]
    pub readers: Reading<Vec<Holder>>,
    /// Whether stalltop made this instance.
    pub ours: bool,
}

/// One trace event that is not plainly off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// For example `sched`.
    pub system: Name,
    /// For example `sched_switch`.
    pub name: Name,
    /// Its `enable` file.
    pub state: EnableState,
    /// Its `filter`, if any.
    pub filter: Option<Name>,
    /// Its `trigger` lines without the comments.
    #[serde(deserialize_with = "bounded::some")]
    pub triggers: Vec<Name>,
}

/// What an event's `enable` file reads (kernel/trace/trace_events.c, `event_enable_read`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnableState {
    /// `0`: off.
    #[serde(rename = "0")]
    Off,
    /// `1`: on.
    #[serde(rename = "1")]
    On,
    /// `0*`: soft-armed by a trigger or another user, not recording.
    #[serde(rename = "0*")]
    SoftArmed,
    /// `1*`: on, and soft-armed as well.
    #[serde(rename = "1*")]
    OnSoftArmed,
}

impl EnableState {
    /// Reads the text of an `enable` file; `None` if it is none of the four
    /// (`X` for a mixed subsystem is not an event's).
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text.trim_ascii() {
            b"0" => Some(Self::Off),
            b"1" => Some(Self::On),
            b"0*" => Some(Self::SoftArmed),
            b"1*" => Some(Self::OnSoftArmed),
            _ => None,
        }
    }

    /// As the kernel writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::On => "1",
            Self::SoftArmed => "0*",
            Self::OnSoftArmed => "1*",
        }
    }

    /// Whether the event records.
    pub fn is_on(self) -> bool {
        matches!(self, Self::On | Self::OnSoftArmed)
    }
}

/// A dynamic event (`dynamic_events`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicEvent {
    /// What it is.
    pub kind: DynamicKind,
    /// Group, for example `kprobes`.
    pub group: Name,
    /// Event name.
    pub name: Name,
    /// The line that re-creates it, as `dynamic_events` prints it.
    pub definition: Name,
    /// Its state in the top-level instance; other instances list it among their events.
    pub state: Reading<EnableState>,
    /// Hits since it was made (`kprobe_profile`, `uprobe_profile`).
    pub hits: Reading<u64>,
    /// Missed hits (`kprobe_profile`).
    pub misses: Reading<u64>,
}

/// The kinds of dynamic events (first character of a `dynamic_events` line).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynamicKind {
    /// `p:` on a kernel symbol.
    Kprobe,
    /// `r:` on a kernel symbol.
    Kretprobe,
    /// `p:` on a file's offset.
    Uprobe,
    /// `r:` on a file's offset.
    Uretprobe,
    /// `e:` event probe on another event.
    Eprobe,
    /// `f:` function probe (fprobe), entry or exit.
    Fprobe,
    /// `t:` probe on a tracepoint.
    Tprobe,
    /// `s:` synthetic event.
    Synthetic,
    /// Something newer than stalltop.
    Other,
}

/// debugfs `kprobes/`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelProbes {
    /// `kprobes/enabled`: the master switch.
    pub enabled: Reading<bool>,
    /// `kprobes/list`.
    #[serde(deserialize_with = "bounded::many")]
    pub list: Vec<KernelProbe>,
}

/// One line of `kprobes/list` (kernel/kprobes.c, `report_probe`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelProbe {
    /// `k` or `r`.
    pub kind: KernelProbeKind,
    /// Address; 0 where kptr_restrict hides it.
    pub address: u64,
    /// Symbol, as the kernel resolves it (an alias is possible).
    pub symbol: Name,
    /// Offset into the symbol.
    pub offset: u64,
    /// Module, if not the kernel itself.
    pub module: Option<Name>,
    /// `[DISABLED]`.
    pub disabled: bool,
    /// `[FTRACE]`.
    pub ftrace: bool,
    /// `[OPTIMIZED]`.
    pub optimized: bool,
    /// `[GONE]`.
    pub gone: bool,
}

/// Kind of a kernel probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelProbeKind {
    /// `k`.
    Kprobe,
    /// `r`.
    Kretprobe,
}

/// Loaded BPF programs and links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BpfObjects {
    /// Programs by id.
    #[serde(deserialize_with = "bounded::many")]
    pub programs: Vec<BpfProgram>,
    /// Links by id, those that no listed program explains included.
    #[serde(deserialize_with = "bounded::many")]
    pub links: Vec<BpfLink>,
    /// Whether descriptors of processes could be read, so that "nobody" means nobody.
    #[serde(with = "crate::reason::works")]
    pub holders: Reading<()>,
}

/// One loaded BPF program (`bpf_prog_info`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BpfProgram {
    /// The kernel's id.
    pub id: u32,
    /// Type, as bpftool names it.
    pub kind: Name,
    /// Name, cut to 15 characters by the kernel.
    pub name: Name,
    /// Hash of the instructions, hexadecimal.
    pub tag: Name,
    /// When it was loaded (`CLOCK_BOOTTIME`, ns).
    pub loaded_at_ns: u64,
    /// The loader's user id.
    pub uid: u32,
    /// Ids of the maps it uses.
    #[serde(deserialize_with = "bounded::some")]
    pub maps: Vec<u32>,
    /// What it is attached to.
    #[serde(deserialize_with = "bounded::many")]
    pub attached: Vec<Attachment>,
    /// Processes that hold it, directly or through a link or perf event.
    #[serde(deserialize_with = "bounded::some")]
    pub holders: Vec<Holder>,
    /// Paths in bpffs at which it or its link is pinned.
    #[serde(deserialize_with = "bounded::some")]
    pub pins: Vec<Name>,
    /// Whether stalltop loaded it.
    pub ours: bool,
}

impl BpfProgram {
    /// Why it is not said what it is attached to: what of its kind the kernel does not tell, or
    /// where alone it was looked for. `None` where something is said.
    #[must_use]
    pub fn nowhere(&self) -> Option<&'static str> {
        if !self.attached.is_empty() {
            return None;
        }
        Some(match &*self.kind {
            "socket_filter" | "sk_reuseport" => {
                "where is not known: the kernel does not list programs of sockets"
            }
            "lwt_in" | "lwt_out" | "lwt_xmit" | "lwt_seg6local" => {
                "where is not known: routes do not tell their programs' ids (ip route show)"
            }
            "sched_act" => "where is not known: actions of tc are not looked at (tc actions show)",
            "lirc_mode2" => "where is not known: infrared receivers are not looked at",
            "sched_cls" => "on no device of this network namespace, as a filter of a qdisc or tcx",
            "xdp" => "on no device of this network namespace",
            "sk_msg" | "sk_skb" => "in no map of sockets (before 5.17 the kernel does not say)",
            "struct_ops" => "in no struct_ops map that is in use",
            "syscall" => "never attached: who holds it runs it",
            "ext" => "replaces no function",
            kind if kind.starts_with("cgroup") || kind == "sock_ops" => {
                "on no cgroup that is mounted here"
            }
            _ => "not attached, or called by other programs only",
        })
    }
}

/// What a BPF program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `tracepoint`, `raw_tracepoint`, `tp_btf`, `kprobe`, `kretprobe`, `uprobe`, `uretprobe`,
    /// `perf_event`, `fentry`, `fexit`, `kprobe_multi`, `iter`, `xdp`, `tc`; else the attach type
    /// as bpftool names it: `cgroup_inet_ingress`, `tcx_ingress`, `sk_lookup`, ...
    pub kind: Name,
    /// Function, tracepoint, file and offset, cgroup path or device; empty if the kernel does not say.
    pub target: Name,
    /// The link that attaches it, if one does.
    pub link: Option<u32>,
}

/// One BPF link (`bpf_link_info`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BpfLink {
    /// The kernel's id.
    pub id: u32,
    /// Type, as bpftool names it.
    pub kind: Name,
    /// The program's id.
    pub program: u32,
    /// What it attaches to; empty if the kernel does not say.
    pub target: Name,
    /// Processes that hold it.
    #[serde(deserialize_with = "bounded::some")]
    pub holders: Vec<Holder>,
    /// Paths at which it is pinned.
    #[serde(deserialize_with = "bounded::some")]
    pub pins: Vec<Name>,
}

/// A process that holds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub comm: Name,
    /// `/proc/PID/cmdline`, arguments joined by spaces, cut.
    pub cmdline: Name,
    /// Who a person would say it is.
    pub owner: Owner,
    /// Through what.
    pub by: HeldBy,
}

/// Through what a process holds a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// A perf event's descriptor.
    PerfEvent,
    /// A BPF link's descriptor.
    Link,
    /// A BPF program's descriptor.
    Program,
    /// A BPF map's descriptor.
    Map,
    /// An open file of tracefs.
    TracefsFile,
}

/// Who a cgroup belongs to, as a person would name it, from the path alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// What kind of owner.
    pub kind: OwnerKind,
    /// The name to show: `netdata.service`, `docker 3f2a9c1b7d44`, `pod 2f6e…/container 9b1c…`.
    pub name: Name,
    /// The cgroup path it was read from.
    pub cgroup: Name,
}

/// Kinds of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// The root cgroup: nobody in particular.
    Root,
    /// A systemd service, scope, socket or mount.
    Unit,
    /// A systemd slice.
    Slice,
    /// A login session.
    Session,
    /// A Docker container.
    Docker,
    /// A containerd container.
    Containerd,
    /// A CRI-O container.
    CriO,
    /// A podman container.
    Podman,
    /// An LXC, LXD or Incus container.
    Lxc,
    /// A Kubernetes pod (the pod's own cgroup).
    Pod,
    /// A container whose runtime the path does not tell (64 hexadecimal digits
    /// below a Kubernetes pod, an ECS task, garden, ...).
    Container,
    /// A machine registered with systemd: nspawn container or virtual machine.
    Machine,
    /// None of these: the path itself is the name.
    Other,
}

impl Default for Owner {
    fn default() -> Self {
        Self {
            kind: OwnerKind::Root,
            name: "/".into(),
            cgroup: "/".into(),
        }
    }
}
