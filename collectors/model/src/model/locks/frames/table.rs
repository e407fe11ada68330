//! Functions of the kernel that belong to probes, by name: the one table of them.

use super::Probe::{self, Bpf, Fprobe, Ftrace, Kprobe, Kretprobe, Perf, TraceEvent, Uprobe};

/// Functions between a probed function and what its probe does, sorted by name. All kernels from
/// 4.18 to 6.18: a name that another kernel gave to something else is not in it.
pub(super) const FRAMES: &[(&str, Probe)] = &[
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
pub(super) const FAMILIES: &[(&str, Probe)] = &[
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
pub(super) const SET_UP: &[&str] = &[
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
