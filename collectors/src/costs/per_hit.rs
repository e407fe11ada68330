//! What one hit of a probe without BPF was measured to take. The kernel times BPF programs only,
//! so these figures come from elsewhere and whatever is made of them is an estimate.

use stalltop_model::sample::{DynamicKind, PerHit};

/// An event of the kernel's own that is recorded in a trace buffer.
pub(super) const FTRACE_EVENT: &str = "ftrace event";

/// Kind, nanoseconds, provenance.
const TABLE: &[(&str, f64, &str)] = &[
    (FTRACE_EVENT, 150.0, HERE),
    ("kprobe", 400.0, EMULATED),
    ("kretprobe", 700.0, EMULATED),
    ("uprobe", 1_500.0, HERE),
    ("uretprobe", 2_500.0, HERE),
];

const HERE: &str = "6.18, x86-64";
const EMULATED: &str = "6.12 emulated, as a multiple of an ftrace event there";

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
