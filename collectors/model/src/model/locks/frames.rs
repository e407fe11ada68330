//! What the functions of a call stack tell: which are the lock's own, which somebody's probe put
//! there.

use crate::Name;

mod table;

/// Whose probe a function belongs to. The most telling first: a kretprobe that runs by way of
/// ftrace and calls a BPF program is a kretprobe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// The return of a probed function (kernel/kprobes.c, kernel/trace/rethook.c).
    Kretprobe,
    /// A probed instruction.
    Kprobe,
    /// `kprobe.multi` and `fprobe` events (kernel/trace/fprobe.c).
    Fprobe,
    /// A probe of a program in user space (kernel/events/uprobes.c).
    Uprobe,
    /// ftrace itself: the function tracers.
    Ftrace,
    /// A perf event on a tracepoint or a counter.
    Perf,
    /// A trace event that writes to a buffer of tracefs.
    TraceEvent,
    /// A BPF program, or what runs it, whatever it is attached to.
    Bpf,
}

impl Probe {
    /// A short name for a mark.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::Fprobe => "fprobe",
            Self::Uprobe => "uprobe",
            Self::Ftrace => "ftrace",
            Self::TraceEvent => "event",
            Self::Perf => "perf",
        }
    }

    /// What a sentence calls one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftrace => "function tracer",
            Self::Perf => "perf event",
            Self::TraceEvent => "trace event",
            Self::Bpf => "BPF program",
            Self::Kretprobe | Self::Kprobe | Self::Fprobe | Self::Uprobe => self.as_str(),
        }
    }
}

/// Whose probe a function belongs to, by its name; `None` for the kernel's own.
pub fn probe(frame: &str) -> Option<Probe> {
    let name = bare(frame);
    if frame.ends_with("[bpf]") || is_program(frame) || is_trampoline(name) {
        return Some(Probe::Bpf);
    }
    if let Some((_, probe)) = table::FRAMES.iter().find(|(frame, _)| *frame == name) {
        return Some(*probe);
    }
    let (_, probe) = table::FAMILIES.iter().find(|(b, _)| name.starts_with(b))?;
    (!table::SET_UP.contains(&name)).then_some(*probe)
}

/// Whether it is the trampoline that runs BPF programs around a function: `bpf_trampoline_` and a
/// number (kernel/bpf/trampoline.c). The kernel has functions of its own that begin so.
fn is_trampoline(bare: &str) -> bool {
    let number = bare.strip_prefix("bpf_trampoline_");
    number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
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
    "__bpf_spin_lock",
    "bit_spin_lock",
    "bpf_res_spin_lock",
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
pub(crate) fn bare(frame: &str) -> &str {
    let end = frame.find(['+', ' ', '\t', '.']).filter(|at| *at > 0);
    end.map_or(frame, |end| &frame[..end])
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
    fn each_function_stands_once_and_can_be_found() {
        for (i, (name, kind)) in table::FRAMES.iter().enumerate() {
            assert!(
                table::FRAMES[..i].iter().all(|(other, _)| other != name),
                "{name}"
            );
            assert_eq!((bare(name), probe(name)), (*name, Some(*kind)));
        }
    }

    #[test]
    fn the_kernels_own_functions_are_no_programs() {
        for own in [
            "bpf_prog_put",
            "bpf_prog_load",
            "htab_map_update_elem",
            "perf_event_alloc",
            "ftrace_set_filter",
            "perf_trace_init",
            "bpf_trampoline_link_prog",
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
            Some(Probe::TraceEvent)
        );
        assert_eq!(probe("fprobe_handler.part.0"), Some(Probe::Fprobe));
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
