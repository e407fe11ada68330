//! What the iterator over descriptors tells of one descriptor, and what it looks for.

use core::mem::{offset_of, size_of};

/// Name of the map of one [`Filter`].
pub const FILTER_MAP: &str = "HELD_FILTER";

/// Kinds of descriptors: bits 0 to 7 of [`Descriptor::kind`], and index of [`Filter::release`].
pub mod kind {
    /// A perf event.
    pub const PERF: u64 = 0;
    /// A BPF program.
    pub const PROGRAM: u64 = 1;
    /// A BPF link.
    pub const LINK: u64 = 2;
    /// A BPF map.
    pub const MAP: u64 = 3;
    /// A BPF iterator.
    pub const ITER: u64 = 4;
    /// tracefs' `trace_pipe`.
    pub const PIPE: u64 = 5;
    /// tracefs' `trace_pipe_raw`.
    pub const PIPE_RAW: u64 = 6;
    /// How many kinds are looked for.
    pub const COUNT: usize = 7;
    /// Any descriptor of the process [`super::Filter::learn`]: `id` is the function that ends its
    /// file, `program` the one of the file's inode (of a path that was opened with `O_PATH`, whose
    /// file has none).
    pub const ANY: u64 = 255;
    /// In [`super::Descriptor::kind`]: the descriptor is a perf event, or a link on one, and
    /// what is said of an event is filled in.
    pub const EVENT: u64 = 1 << 8;
}

/// What the iterator looks for: written by user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Filter {
    /// Tell all descriptors of this process, and no others; 0 to tell those of the kinds.
    pub learn: u64,
    /// `file_operations.release` of each kind; 0 where it is not known.
    pub release: [u64; kind::COUNT],
}

/// Words of [`Descriptor::name`].
pub const NAME: usize = 16;
/// Words of [`Descriptor::system`].
pub const SYSTEM: usize = 4;

/// One descriptor of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Descriptor {
    /// The process in bits 0 to 31, the descriptor's number in the others.
    pub process: u64,
    /// See [`kind`].
    pub kind: u64,
    /// The kernel's id of the program, link or map.
    pub id: u64,
    /// The id of the program that a perf event, a link or an iterator runs; 0 where there is none.
    pub program: u64,
    /// `PERF_TYPE_*` in bits 0 to 31, `enum perf_event_state` in the others.
    pub event: u64,
    /// `perf_event_attr.config`.
    pub config: u64,
    /// `perf_event_attr.config1`: of a breakpoint its address.
    pub config1: u64,
    /// `perf_event_attr.config2`: of a kprobe or uprobe its offset in the function or file.
    pub config2: u64,
    /// The CPU it is bound to; -1, as 32 bits, where it goes with a task.
    pub cpu: u64,
    /// Name of the trace event, function or file, ended by a NUL.
    pub name: [u64; NAME],
    /// The trace event's subsystem.
    pub system: [u64; SYSTEM],
}

impl Descriptor {
    /// One of which nothing is known.
    pub const ZERO: Self = Self {
        process: 0,
        kind: 0,
        id: 0,
        program: 0,
        event: 0,
        config: 0,
        config1: 0,
        config2: 0,
        cpu: 0,
        name: [0; NAME],
        system: [0; SYSTEM],
    };
}

/// Names of the read-only globals with the offsets of fields.
pub mod offset {
    /// `file.f_op`.
    pub const FILE_OP: &str = "FILE_OP";
    /// `file.private_data`.
    pub const FILE_PRIVATE: &str = "FILE_PRIVATE";
    /// `file.f_inode`.
    pub const FILE_INODE: &str = "FILE_INODE";
    /// `inode.i_fop`.
    pub const INODE_FOP: &str = "INODE_FOP";
    /// `file_operations.release`.
    pub const FOP_RELEASE: &str = "FOP_RELEASE";
    /// `task_struct.tgid`.
    pub const TASK_TGID: &str = "TASK_TGID";
    /// `task_struct.files`.
    pub const TASK_FILES: &str = "TASK_FILES";
    /// `task_struct.group_leader`.
    pub const TASK_LEADER: &str = "TASK_LEADER";
    /// `bpf_prog.aux`.
    pub const PROG_AUX: &str = "PROG_AUX";
    /// `bpf_prog_aux.id`.
    pub const AUX_ID: &str = "AUX_ID";
    /// `bpf_map.id`.
    pub const MAP_ID: &str = "MAP_ID";
    /// `bpf_link.id`.
    pub const LINK_ID: &str = "LINK_ID";
    /// `bpf_link.type`.
    pub const LINK_TYPE: &str = "LINK_TYPE";
    /// `bpf_link.prog`.
    pub const LINK_PROG: &str = "LINK_PROG";
    /// `bpf_perf_link.perf_file` (5.15).
    pub const LINK_PERF_FILE: &str = "LINK_PERF_FILE";
    /// `seq_file.private`.
    pub const SEQ_PRIVATE: &str = "SEQ_PRIVATE";
    /// `bpf_iter_priv_data.prog`.
    pub const ITER_PROG: &str = "ITER_PROG";
    /// `bpf_iter_priv_data.target_private`.
    pub const ITER_TARGET: &str = "ITER_TARGET";
    /// `perf_event.attr.type`.
    pub const EVENT_TYPE: &str = "EVENT_TYPE";
    /// `perf_event.attr.config`.
    pub const EVENT_CONFIG: &str = "EVENT_CONFIG";
    /// `perf_event.attr.config1`.
    pub const EVENT_CONFIG1: &str = "EVENT_CONFIG1";
    /// `perf_event.attr.config2`.
    pub const EVENT_CONFIG2: &str = "EVENT_CONFIG2";
    /// `perf_event.state`.
    pub const EVENT_STATE: &str = "EVENT_STATE";
    /// `perf_event.cpu`.
    pub const EVENT_CPU: &str = "EVENT_CPU";
    /// `perf_event.prog`.
    pub const EVENT_PROG: &str = "EVENT_PROG";
    /// `perf_event.tp_event`.
    pub const EVENT_CALL: &str = "EVENT_CALL";
    /// `trace_event_call.flags`.
    pub const CALL_FLAGS: &str = "CALL_FLAGS";
    /// `trace_event_call.name`.
    pub const CALL_NAME: &str = "CALL_NAME";
    /// `trace_event_call.class`.
    pub const CALL_CLASS: &str = "CALL_CLASS";
    /// `trace_event_class.system`.
    pub const CLASS_SYSTEM: &str = "CLASS_SYSTEM";
    /// `tracepoint.name`.
    pub const TRACEPOINT_NAME: &str = "TRACEPOINT_NAME";
    /// `trace_probe_event.call`.
    pub const PROBE_CALL: &str = "PROBE_CALL";
    /// `trace_probe_event.probes.next`.
    pub const PROBE_FIRST: &str = "PROBE_FIRST";
    /// `trace_probe.list`.
    pub const PROBE_LIST: &str = "PROBE_LIST";
    /// `trace_uprobe.tp`.
    pub const UPROBE_PROBE: &str = "UPROBE_PROBE";
    /// `trace_uprobe.filename`.
    pub const UPROBE_FILE: &str = "UPROBE_FILE";
}

/// Name of the read-only global with the bit of `trace_event_call.flags` that tells a tracepoint's
/// event (`TRACE_EVENT_FL_TRACEPOINT`, include/linux/trace_events.h); 0 where it is not known.
pub const CALL_TRACEPOINT: &str = "CALL_TRACEPOINT";

/// Name of the read-only global with the `PERF_TYPE` of uprobes, which a kernel gives out as it
/// starts (/sys/bus/event_source/devices/uprobe/type); [`crate::NO_OFFSET`] where there is none.
pub const UPROBE_TYPE: &str = "UPROBE_TYPE";

const _: () = {
    assert!(size_of::<Filter>() == 64);
    assert!(offset_of!(Filter, release) == 8);
    assert!(size_of::<Descriptor>() == 232);
    assert!(offset_of!(Descriptor, process) == 0);
    assert!(offset_of!(Descriptor, kind) == 8);
    assert!(offset_of!(Descriptor, id) == 16);
    assert!(offset_of!(Descriptor, program) == 24);
    assert!(offset_of!(Descriptor, event) == 32);
    assert!(offset_of!(Descriptor, config) == 40);
    assert!(offset_of!(Descriptor, config1) == 48);
    assert!(offset_of!(Descriptor, config2) == 56);
    assert!(offset_of!(Descriptor, cpu) == 64);
    assert!(offset_of!(Descriptor, name) == 72);
    assert!(offset_of!(Descriptor, system) == 200);
};
