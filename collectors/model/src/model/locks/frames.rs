//! What the functions of a call stack tell: which are the lock's own, which somebody's probe put
//! there.

use crate::Name;

/// Whose probe a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// A BPF program, or what runs it.
    Bpf,
    /// A kprobe.
    Kprobe,
    /// A kretprobe.
    Kretprobe,
    /// A uprobe or uretprobe.
    Uprobe,
    /// ftrace: the function tracer, an event that is recorded.
    Ftrace,
    /// perf: an event that is recorded.
    Perf,
}

impl Probe {
    /// A short name for a mark.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::Uprobe => "uprobe",
            Self::Ftrace => "ftrace",
            Self::Perf => "perf",
        }
    }
}

/// Beginnings of names, the most special first. kernel/kprobes.c, kernel/trace/rethook.c,
/// kernel/trace/fprobe.c, arch/x86/kernel/kprobes/, kernel/events/uprobes.c,
/// kernel/trace/ftrace.c, kernel/trace/trace_event_perf.c, kernel/trace/bpf_trace.c.
const PROBES: &[(Probe, &[&str])] = &[
    (
        Probe::Kretprobe,
        &[
            "kretprobe_",
            "__kretprobe_",
            "pre_handler_kretprobe",
            "rethook_",
            "arch_rethook_",
            "trampoline_handler",
        ],
    ),
    (
        Probe::Kprobe,
        &[
            "kprobe_",
            "fprobe_",
            "aggr_pre_handler",
            "aggr_post_handler",
            "opt_pre_handler",
            "optimized_callback",
        ],
    ),
    (
        Probe::Uprobe,
        &[
            "uprobe_",
            "uretprobe_",
            "arch_uprobe_",
            "__uprobe_",
            "__uretprobe_",
            "handle_swbp",
        ],
    ),
    (
        Probe::Bpf,
        &[
            "bpf_trampoline_",
            "trace_call_bpf",
            "bpf_trace_run",
            "__bpf_trace_",
            "__bpf_prog_run",
            "bpf_overflow_handler",
        ],
    ),
    (
        Probe::Perf,
        &[
            "perf_trace_",
            "perf_tp_event",
            "perf_swevent_",
            "perf_event_output",
            "__perf_event_output",
            "perf_output_",
            "perf_ftrace_",
        ],
    ),
    (
        Probe::Ftrace,
        &[
            "ftrace_ops_",
            "ftrace_call",
            "ftrace_caller",
            "ftrace_regs_c",
            "ftrace_graph_c",
            "ftrace_return_to_handler",
            "arch_ftrace_ops_",
            "function_trace_call",
            "function_stack_trace_call",
            "function_graph_enter",
            "trace_event_raw_event_",
            "trace_event_buffer_",
            "trace_function",
            "trace_graph_",
        ],
    ),
];

/// Whose probe a function belongs to, by its name; `None` for the kernel's own.
pub fn probe(frame: &str) -> Option<Probe> {
    if frame.ends_with("[bpf]") || is_program(frame) {
        return Some(Probe::Bpf);
    }
    let name = bare(frame);
    let (probe, _) = PROBES
        .iter()
        .find(|(_, begins)| begins.iter().any(|b| name.starts_with(b)))?;
    Some(*probe)
}

/// The probe that a stack runs through: of those inside each other the one that is nearest to
/// the lock, a BPF program before what carries it.
pub fn probe_of(frames: &[Name]) -> Option<Probe> {
    let program = frames.iter().any(|f| is_program(f));
    if program {
        return Some(Probe::Bpf);
    }
    frames.iter().find_map(|f| probe(f))
}

/// Whether it is a BPF program's machine code: `bpf_prog_` and the 16 digits of its tag. The
/// kernel has functions of its own that begin so (kernel/bpf/core.c, `bpf_get_prog_name`).
pub fn is_program(frame: &str) -> bool {
    let tag = frame.strip_prefix("bpf_prog_").and_then(|t| t.get(..16));
    tag.is_some_and(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Beginnings of functions that belong to a lock, not to whom it keeps waiting
/// (kernel/locking/, kernel/bpf/rqspinlock.c), with what carries the tracepoint.
const LOCKS: &[&str] = &[
    "_raw_spin_",
    "__raw_spin_",
    "_raw_read_",
    "_raw_write_",
    "do_raw_",
    "raw_spin_rq_lock",
    "native_queued_spin",
    "__pv_queued_spin",
    "queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "resilient_",
    "virt_spin_lock",
    "kvm_wait",
    "pv_wait",
    "osq_lock",
    "mutex_lock",
    "mutex_spin_on_owner",
    "mutex_optimistic_spin",
    "__mutex_lock",
    "ww_mutex_lock",
    "__ww_mutex_lock",
    "rwsem_",
    "down_read",
    "down_write",
    "__down",
    "percpu_down_",
    "__percpu_down_",
    "percpu_rwsem_",
    "rt_mutex_",
    "__rt_mutex_",
    "rt_spin_lock",
    "rtlock_",
    "rt_read_lock",
    "rt_write_lock",
    "__traceiter_contention",
    "trace_contention",
    "schedule_preempt_disabled",
];

/// Whether a function is the lock's own.
pub fn is_lock(frame: &str) -> bool {
    let name = bare(frame);
    matches!(
        name,
        "down" | "down_interruptible" | "down_killable" | "down_timeout" | "schedule"
    ) || name == "__schedule"
        || LOCKS.iter().any(|b| name.starts_with(b))
}

/// The function that wanted the lock: the innermost one that is not the lock's own; the
/// innermost of all where there is none.
pub fn caller(frames: &[Name]) -> Option<&Name> {
    frames
        .iter()
        .find(|f| !is_lock(f))
        .or_else(|| frames.first())
}

/// A name without its offset, its module and what the compiler appended.
fn bare(frame: &str) -> &str {
    let end = frame.find(['+', ' ', '\t', '.']).unwrap_or(frame.len());
    &frame[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(frames: &[&str]) -> Vec<Name> {
        frames.iter().map(|f| Name::from(*f)).collect()
    }

    #[test]
    fn incident_i1_runs_through_a_program_and_a_kretprobe() {
        // Innermost first, as a machine with 6.1 showed it.
        let frames = names(&[
            "native_queued_spin_lock_slowpath",
            "_raw_spin_lock_irqsave",
            "htab_lock_bucket",
            "htab_map_update_elem",
            "bpf_prog_6deef7357e7b4530_count [bpf]",
            "trace_call_bpf",
            "kretprobe_perf_func",
            "kretprobe_dispatcher",
            "__kretprobe_trampoline_handler",
            "trampoline_handler",
            "__kretprobe_trampoline",
            "entry_SYSCALL_64_after_hwframe",
        ]);
        assert_eq!(caller(&frames).unwrap().as_ref(), "htab_lock_bucket");
        assert_eq!(probe_of(&frames), Some(Probe::Bpf));
        assert_eq!(probe_of(&frames[5..]), Some(Probe::Bpf));
        assert_eq!(probe_of(&frames[6..]), Some(Probe::Kretprobe));
        assert_eq!(probe_of(&frames[..4]), None);
    }

    #[test]
    fn the_kernels_own_functions_are_no_programs() {
        for own in [
            "bpf_prog_put",
            "bpf_prog_load",
            "htab_map_update_elem",
            "perf_event_alloc",
            "ftrace_set_filter",
            "bpf_prog_é6deef7357e7b4530",
            "",
        ] {
            assert_eq!(probe(own), None, "{own}");
        }
        assert_eq!(probe("bpf_prog_6deef7357e7b4530"), Some(Probe::Bpf));
        assert_eq!(probe("bpf_trampoline_6442507_0"), Some(Probe::Bpf));
        assert_eq!(
            probe("kprobe_ftrace_handler+0x1a/0x30"),
            Some(Probe::Kprobe)
        );
        assert_eq!(probe("perf_trace_sched_switch"), Some(Probe::Perf));
        assert_eq!(
            probe("trace_event_raw_event_sched_switch"),
            Some(Probe::Ftrace)
        );
        assert_eq!(probe("uprobe_notify_resume"), Some(Probe::Uprobe));
    }

    #[test]
    fn a_lock_is_not_its_own_caller() {
        for lock in [
            "__mutex_lock.constprop.0",
            "rwsem_down_write_slowpath",
            "down",
            "__schedule",
        ] {
            assert!(is_lock(lock), "{lock}");
        }
        for own in ["download", "schedule_work", "ep_poll_callback", "downgrade"] {
            assert!(!is_lock(own), "{own}");
        }
        assert_eq!(caller(&[]), None);
        assert_eq!(caller(&names(&["down"])).unwrap().as_ref(), "down");
    }
}
