//! What one hit of a probe without BPF was measured to take. The kernel times BPF programs only,
//! so these figures come from elsewhere and whatever is made of them is an estimate.
//!
//! Measured with a loop over prctl(PR_SET_NAME), whose way leads through the event
//! `task:task_rename` and the function `__set_task_comm`, and over a function of its own for user
//! probes: CPU time of the loop with the event on less that with it off, the median of 9 to 15
//! turns, recording into a buffer included. On 6.18, in a virtual machine on x86-64: 236 to 259 ns
//! for the event of the kernel's own, 740 to 850 for a uprobe (a breakpoint, its instruction
//! emulated), 1,040 to 1,140 for a uretprobe. That kernel has no kprobes: on 6.1 and 6.12 under
//! software emulation a kprobe (on a function's entry, through ftrace) took 1.00 to 1.11 times as
//! long as the same kernel's event, a kretprobe 1.8 to 1.95 times; uprobes 3.3 to 3.8 times
//! there, 3.2 here, so the ratios carry over. A kprobe within a function costs a breakpoint and more.

use stalltop_model::sample::{DynamicKind, PerHit};

/// An event of the kernel's own that is recorded in a trace buffer.
pub(super) const FTRACE_EVENT: &str = "ftrace event";

/// Kind, nanoseconds, provenance.
const TABLE: &[(&str, f64, &str)] = &[
    (FTRACE_EVENT, 240.0, REAL),
    ("kprobe", 255.0, EMULATED),
    ("kretprobe", 455.0, EMULATED),
    ("uprobe", 750.0, REAL),
    ("uretprobe", 1_080.0, REAL),
];

const REAL: &str = "measured on 6.18, x86-64";
const EMULATED: &str = "as a multiple of an ftrace event, measured on 6.1 and 6.12, emulated";

/// The figure of one kind, ns.
pub(super) fn ns(kind: &str) -> f64 {
    let row = TABLE.iter().find(|(name, ..)| *name == kind);
    row.map_or(0.0, |(_, ns, _)| *ns)
}

/// The figure of a dynamic event, for the kinds whose hits the kernel counts.
pub(super) fn of_kind(kind: DynamicKind) -> Option<f64> {
    let name = match kind {
        DynamicKind::Kprobe => "kprobe",
        DynamicKind::Kretprobe => "kretprobe",
        DynamicKind::Uprobe => "uprobe",
        DynamicKind::Uretprobe => "uretprobe",
        DynamicKind::Eprobe
        | DynamicKind::Fprobe
        | DynamicKind::Tprobe
        | DynamicKind::Synthetic
        | DynamicKind::Other => return None,
    };
    Some(ns(name))
}

/// All figures, as a sample shows them.
pub(super) fn list() -> Vec<PerHit> {
    let row = |(kind, ns, from): &(&str, f64, &str)| PerHit {
        kind: (*kind).into(),
        ns: *ns,
        from: (*from).into(),
    };
    TABLE.iter().map(row).collect()
}
