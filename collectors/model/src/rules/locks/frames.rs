//! What a call stack of a wait runs through, from the lock outward.

use crate::Name;
use crate::model::locks::frames::{self, Probe, bare};

/// Frames from the lock outward: without those of the tracepoints that told of it, ours among
/// them.
fn from_the_lock(frames: &[Name]) -> &[Name] {
    let tells = |frame: &Name| {
        ["contention_begin", "contention_end"]
            .iter()
            .any(|tracepoint| bare(frame).ends_with(tracepoint))
    };
    let from = frames.iter().rposition(tells).map_or(0, |at| at + 1);
    frames.get(from..).unwrap_or_default()
}

/// The probe machinery that a stack, innermost function first, runs through.
pub(super) fn through(frames: &[Name]) -> Option<Probe> {
    let frames = from_the_lock(frames).iter();
    frames.filter_map(|frame| frames::probe(frame)).min()
}

/// The tag and the name of the innermost BPF program in a stack: of
/// `bpf_prog_0123456789abcdef_name [bpf]`.
pub(super) fn program(frames: &[Name]) -> Option<(&str, &str)> {
    from_the_lock(frames).iter().find_map(|frame| {
        let rest = bare(frame).strip_prefix("bpf_prog_")?;
        let (tag, name) = rest.split_at_checked(16)?;
        let is_tag = tag.bytes().all(|b| b.is_ascii_hexdigit());
        is_tag.then(|| (tag, name.strip_prefix('_').unwrap_or(name)))
    })
}

/// The function that waits for a lock: the innermost one that is none of the lock's own.
pub(super) fn waits_in(frames: &[Name]) -> Option<&Name> {
    frames::caller(from_the_lock(frames))
}

#[cfg(test)]
mod tests {
    use super::Probe::{Bpf, Fprobe, Kprobe, Kretprobe, Perf};
    use super::*;
    use crate::made::names;

    #[test]
    fn stacks_of_each_kernel_are_known() {
        for (frames, expected) in [
            // Incident I1, 5.10.
            (
                &[
                    "native_queued_spin_lock_slowpath",
                    "_raw_spin_lock_irqsave",
                    "__pcpu_freelist_pop",
                    "htab_map_update_elem",
                    "bpf_prog_2ad4aea7f8cb0d1f_nd_sendmsg [bpf]",
                    "trace_call_bpf",
                    "kretprobe_perf_func",
                    "kretprobe_dispatcher",
                    "trampoline_handler",
                    "kretprobe_trampoline",
                    "sock_sendmsg",
                ][..],
                Some(Kretprobe),
            ),
            // 6.1: rethook, by way of ftrace.
            (
                &[
                    "queued_spin_lock_slowpath",
                    "htab_map_update_elem",
                    "bpf_prog_2ad4aea7f8cb0d1f_x\t[bpf]",
                    "trace_call_bpf",
                    "kprobe_perf_func",
                    "kprobe_ftrace_handler",
                    "0xffffffffc0a0d0dc",
                    "tcp_sendmsg",
                ],
                Some(Kprobe),
            ),
            (
                &[
                    "bpf_prog_2ad4aea7f8cb0d1f_x",
                    "kprobe_multi_link_prog_run.isra.0",
                    "fprobe_handler.part.0",
                    "arch_ftrace_ops_list_func",
                    "ftrace_regs_call",
                ],
                Some(Fprobe),
            ),
            (
                &[
                    "_raw_spin_lock",
                    "perf_tp_event",
                    "perf_trace_sched_switch",
                    "__schedule",
                ],
                Some(Perf),
            ),
            (
                &[
                    "_raw_spin_lock",
                    "bpf_prog_2ad4aea7f8cb0d1f_x [bpf]",
                    "bpf_trace_run2",
                    "__bpf_trace_sched_switch",
                ],
                Some(Bpf),
            ),
            // Setting probes up is no probe, nor is the kernel's own bookkeeping of programs.
            (
                &["__mutex_lock", "perf_trace_init", "perf_event_open"],
                None,
            ),
            (
                &["__mutex_lock", "bpf_prog_load", "bpf_trampoline_link_prog"],
                None,
            ),
            (&["_raw_spin_lock", "ep_poll", "do_epoll_wait"], None),
            // What tells of the wait is not what waits.
            (
                &[
                    "bpf_prog_2ad4aea7f8cb0d1f_contention [bpf]",
                    "bpf_trace_run2",
                    "__traceiter_contention_begin",
                    "native_queued_spin_lock_slowpath",
                    "ep_poll",
                ],
                None,
            ),
            (&[], None),
        ] {
            assert_eq!(through(&names(frames)), expected, "{frames:?}");
        }
    }

    #[test]
    fn names_from_a_hostile_host_are_only_names() {
        for name in [
            "",
            ".",
            "bpf_prog_",
            "bpf_prog_é123456789abcde_x",
            "\x1b[2J",
            "+",
            "...x",
        ] {
            assert_eq!(through(&names(&[name])), None, "{name:?}");
            assert_eq!(program(&names(&[name])), None, "{name:?}");
        }
        let long = "bpf_prog_0123456789abcdef_".to_owned() + &"x".repeat(100_000);
        assert_eq!(through(&names(&[&long])), Some(Bpf));
    }

    #[test]
    fn the_function_that_waits_is_named() {
        let frames = names(&[
            "native_queued_spin_lock_slowpath",
            "_raw_spin_lock",
            "ep_poll",
        ]);
        assert_eq!(&**waits_in(&frames).unwrap(), "ep_poll");
        let frames = names(&["_raw_spin_lock"]);
        assert_eq!(&**waits_in(&frames).unwrap(), "_raw_spin_lock");
        assert_eq!(waits_in(&[]), None);
        let frames = names(&["x", "bpf_prog_0123456789abcdef_nd [bpf]"]);
        assert_eq!(program(&frames), Some(("0123456789abcdef", "nd")));
    }
}
