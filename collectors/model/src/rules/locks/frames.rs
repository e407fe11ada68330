//! Which functions of a call stack belong to probes, and which to locks.

use crate::Name;

/// What runs a probe's handler. The most telling first: a kretprobe that runs by way of ftrace
/// and calls a BPF program is a kretprobe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Machinery {
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
    /// A BPF program, whatever it is attached to.
    Bpf,
}

impl Machinery {
    /// What one is called.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kretprobe => "kretprobe",
            Self::Kprobe => "kprobe",
            Self::Fprobe => "fprobe",
            Self::Uprobe => "uprobe",
            Self::Ftrace => "function tracer",
            Self::Perf => "perf event",
            Self::TraceEvent => "trace event",
            Self::Bpf => "BPF program",
        }
    }
}

use Machinery::{Bpf, Fprobe, Ftrace, Kprobe, Kretprobe, Perf, TraceEvent, Uprobe};

/// Functions between a probed function and what its probe does, sorted by name. All kernels from
/// 4.18 to 6.18: a name that another kernel gave to something else is not in it.
const FRAMES: &[(&str, Machinery)] = &[
    // kernel/events/core.c, kernel/trace/trace_event_perf.c.
    ("__perf_event_overflow", Perf),
    // arch/*/kernel/kprobes*: the entry from assembler since 5.15.
    ("__kretprobe_trampoline", Kretprobe),
    // kernel/kprobes.c, 5.11 to 5.18, and since where there is no rethook.
    ("__kretprobe_trampoline_handler", Kretprobe),
    // kernel/trace/ftrace.c; `arch_` since 5.16.
    ("__ftrace_ops_list_func", Ftrace),
    ("__uprobe_perf_func", Uprobe),
    ("__uprobe_trace_func", Uprobe),
    // kernel/kprobes.c: several probes on one instruction.
    ("aggr_post_handler", Kprobe),
    ("aggr_pre_handler", Kprobe),
    ("arch_ftrace_ops_list_func", Ftrace),
    // kernel/trace/rethook.c, 5.18+; kretprobes, and fprobes until 6.13.
    ("arch_rethook_trampoline", Kretprobe),
    ("arch_rethook_trampoline_callback", Kretprobe),
    // kernel/trace/bpf_trace.c.
    ("bpf_overflow_handler", Perf),
    ("event_triggers_call", TraceEvent),
    // kernel/trace/fprobe.c: `fprobe_handler` 5.18 to 6.13, `_entry` and `_return` since 6.14.
    ("fprobe_entry", Fprobe),
    ("fprobe_exit_handler", Fprobe),
    ("fprobe_fgraph_entry", Fprobe),
    ("fprobe_ftrace_entry", Fprobe),
    ("fprobe_handler", Fprobe),
    ("fprobe_kprobe_handler", Fprobe),
    ("fprobe_return", Fprobe),
    ("ftrace_call", Ftrace),
    ("ftrace_caller", Ftrace),
    ("ftrace_graph_caller", Ftrace),
    ("ftrace_graph_func", Ftrace),
    ("ftrace_ops_assist_func", Ftrace),
    ("ftrace_ops_list_func", Ftrace),
    ("ftrace_ops_no_ops", Ftrace),
    ("ftrace_regs_call", Ftrace),
    ("ftrace_regs_caller", Ftrace),
    ("ftrace_return_to_handler", Ftrace),
    ("function_graph_enter", Ftrace),
    ("function_graph_enter_regs", Ftrace),
    ("function_profile_call", Ftrace),
    ("function_stack_trace_call", Ftrace),
    ("function_trace_call", Ftrace),
    ("function_trace_probe_call", Ftrace),
    // kernel/events/uprobes.c.
    ("handle_swbp", Uprobe),
    ("handle_uretprobe_chain", Uprobe),
    ("handler_chain", Uprobe),
    // arch/arm64/kernel/probes/kprobes.c.
    ("kprobe_breakpoint_handler", Kprobe),
    ("kprobe_breakpoint_ss_handler", Kprobe),
    ("kprobe_brk_handler", Kprobe),
    // kernel/trace/trace_kprobe.c.
    ("kprobe_dispatcher", Kprobe),
    // arch/x86/kernel/kprobes/ftrace.c.
    ("kprobe_ftrace_handler", Kprobe),
    ("kprobe_handler", Kprobe),
    ("kprobe_int3_handler", Kprobe),
    // kernel/trace/bpf_trace.c.
    ("kprobe_multi_link_exit_handler", Fprobe),
    ("kprobe_multi_link_handler", Fprobe),
    ("kprobe_multi_link_prog_run", Fprobe),
    ("kprobe_perf_func", Kprobe),
    ("kprobe_trace_func", Kprobe),
    ("kretprobe_dispatcher", Kretprobe),
    ("kretprobe_perf_func", Kretprobe),
    ("kretprobe_rethook_handler", Kretprobe),
    ("kretprobe_trace_func", Kretprobe),
    // The entry from assembler until 5.14.
    ("kretprobe_trampoline", Kretprobe),
    // kernel/kprobes.c, arch/x86/kernel/kprobes/opt.c: a jump in place of a breakpoint.
    ("opt_pre_handler", Kprobe),
    ("optimized_callback", Kprobe),
    ("optprobe_template_func", Kprobe),
    ("perf_ftrace_function_call", Perf),
    ("perf_swevent_event", Perf),
    ("perf_tp_event", Perf),
    ("perf_trace_buf_alloc", Perf),
    ("perf_trace_run_bpf_submit", Perf),
    ("pre_handler_kretprobe", Kretprobe),
    ("prepare_ftrace_return", Ftrace),
    ("rethook_trampoline_handler", Kretprobe),
    ("return_to_handler", Ftrace),
    ("ring_buffer_lock_reserve", TraceEvent),
    // kernel/trace/bpf_trace.c: every program on a kprobe, uprobe or classic tracepoint.
    ("trace_call_bpf", Bpf),
    ("trace_event_buffer_commit", TraceEvent),
    ("trace_event_buffer_lock_reserve", TraceEvent),
    ("trace_event_buffer_reserve", TraceEvent),
    ("trace_graph_entry", Ftrace),
    ("trace_graph_return", Ftrace),
    // arch/x86/kernel/kprobes/core.c, until 5.10: incident I1's own.
    ("trampoline_handler", Kretprobe),
    ("uprobe_dispatcher", Uprobe),
    ("uprobe_multi_link_handler", Uprobe),
    ("uprobe_multi_link_prog_run", Uprobe),
    ("uprobe_notify_resume", Uprobe),
    ("uprobe_perf_func", Uprobe),
    ("uprobe_trace_func", Uprobe),
    ("uretprobe_dispatcher", Uprobe),
    ("uretprobe_perf_func", Uprobe),
    ("uretprobe_trace_func", Uprobe),
];

/// The same by how names begin: one function per tracepoint, or per number of its arguments.
const FAMILIES: &[(&str, Machinery)] = &[
    ("__bpf_prog_enter", Bpf),
    ("__bpf_prog_exit", Bpf),
    ("__bpf_prog_run", Bpf),
    ("___bpf_prog_run", Bpf),
    ("__bpf_trace_", Bpf),
    ("bpf_dispatcher_", Bpf),
    ("bpf_trace_run", Bpf),
    ("perf_trace_", Perf),
    ("trace_event_raw_event_", TraceEvent),
];

/// What begins like one of a family, but sets probes up instead of running them
/// (kernel/trace/trace_event_perf.c, kernel/bpf/dispatcher.c).
const SET_UP: &[&str] = &[
    "bpf_dispatcher_change_prog",
    "bpf_dispatcher_prepare",
    "perf_trace_add",
    "perf_trace_del",
    "perf_trace_destroy",
    "perf_trace_event_close",
    "perf_trace_event_init",
    "perf_trace_event_open",
    "perf_trace_event_perm",
    "perf_trace_event_reg",
    "perf_trace_event_unreg",
    "perf_trace_init",
];

/// Functions that wait for a lock (kernel/locking/, kernel/bpf/rqspinlock.c), by how they begin.
const LOCKS: &[&str] = &[
    "__bpf_spin_lock",
    "__down_read",
    "__down_write",
    "__mutex_lock",
    "__percpu_down_read",
    "__pv_queued_spin_lock_slowpath",
    "__raw_spin_lock",
    "__rt_mutex_slowlock",
    "_raw_read_lock",
    "_raw_spin_lock",
    "_raw_spin_unlock",
    "_raw_read_unlock",
    "_raw_write_lock",
    "_raw_write_unlock",
    "bit_spin_lock",
    "bpf_res_spin_lock",
    "do_raw_spin_lock",
    "down_read",
    "down_write",
    "mutex_lock",
    "mutex_optimistic_spin",
    "mutex_spin_on_owner",
    "native_queued_spin_lock_slowpath",
    "osq_lock",
    "percpu_down_",
    "pv_wait",
    "queued_read_lock_slowpath",
    "queued_spin_lock_slowpath",
    "queued_write_lock_slowpath",
    "raw_spin_rq_lock",
    "resilient_",
    "rt_mutex_slowlock",
    "rt_spin_lock",
    "rtlock_slowlock",
    "rwsem_down_",
    "rwsem_optimistic_spin",
    "rwsem_spin_on_owner",
    "schedule",
    "__schedule",
    "virt_spin_lock",
    "ww_mutex_lock",
];

/// A name without its module, its offset and what the compiler added to it.
fn bare(name: &str) -> &str {
    let end = name.find(['.', ' ', '\t', '+']).filter(|at| *at > 0);
    end.map_or(name, |end| &name[..end])
}

/// Whether a function is the machine code of a BPF program, or of the trampoline of one, and not
/// one of the kernel's own that begin the same (`bpf_prog_load`).
fn is_program(bare: &str) -> bool {
    let digits = |rest: Option<&str>, least: usize, digit: fn(&u8) -> bool| {
        rest.is_some_and(|rest| rest.bytes().take_while(digit).count() >= least)
    };
    digits(bare.strip_prefix("bpf_prog_"), 16, u8::is_ascii_hexdigit)
        || digits(bare.strip_prefix("bpf_trampoline_"), 1, u8::is_ascii_digit)
}

/// The probe machinery that a function belongs to.
fn machinery(name: &str) -> Option<Machinery> {
    let bare = bare(name);
    if is_program(bare) {
        return Some(Bpf);
    }
    if let Some((_, machinery)) = FRAMES.iter().find(|(frame, _)| *frame == bare) {
        return Some(*machinery);
    }
    let (_, machinery) = FAMILIES.iter().find(|(start, _)| bare.starts_with(start))?;
    (!SET_UP.contains(&bare)).then_some(*machinery)
}

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
pub(super) fn through(frames: &[Name]) -> Option<Machinery> {
    let frames = from_the_lock(frames).iter();
    frames.filter_map(|frame| machinery(frame)).min()
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
    let is_lock = |name: &Name| {
        let bare = bare(name);
        LOCKS.iter().any(|start| bare.starts_with(start))
    };
    let frames = from_the_lock(frames);
    frames.iter().find(|f| !is_lock(f)).or(frames.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::names;

    #[test]
    fn each_function_stands_once() {
        for (i, (name, _)) in FRAMES.iter().enumerate() {
            assert!(FRAMES[..i].iter().all(|(other, _)| other != name), "{name}");
            assert_eq!(bare(name), *name);
        }
    }

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
