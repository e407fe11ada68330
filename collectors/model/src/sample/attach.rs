//! What kinds of attachments there are, as far as it matters what stops them.

/// A kind of attachment of a BPF program, by what switches it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// `kprobe`, `kretprobe`: `kprobes/enabled` stops them (kernel/kprobes.c).
    Kprobe,
    /// What sits on functions and events of the kernel or of programs, and goes on: fprobes
    /// (`kprobe_multi`, kernel/trace/bpf_trace.c), trampolines, uprobes, tracepoints, LSM hooks.
    Deaf,
    /// What belongs to a cgroup, device, socket map or network namespace: without a link it stays
    /// attached when its holder ends (bpf(2), `BPF_PROG_ATTACH`).
    Owned,
    /// Any other.
    Other,
}

impl AttachKind {
    /// The kind of an [`Attachment`](super::Attachment), by its name.
    pub fn of(kind: &str) -> Self {
        match kind {
            "kprobe" | "kretprobe" => Self::Kprobe,
            "fentry" | "fexit" | "fmod_ret" | "uprobe" | "uretprobe" | "raw_tracepoint"
            | "tp_btf" | "tracepoint" | "lsm" | "lsm_cgroup" => Self::Deaf,
            kind if kind.ends_with("probe_multi") => Self::Deaf,
            kind if OWNED.iter().any(|begins| kind.starts_with(begins)) => Self::Owned,
            _ => Self::Other,
        }
    }
}

/// How kinds begin that belong to what they are attached to.
const OWNED: [&str; 5] = ["cgroup_", "xdp", "tc", "sk_", "flow_dissector"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_of_what_stops_it() {
        for (kind, expected) in [
            ("kretprobe", AttachKind::Kprobe),
            ("kretprobe_multi", AttachKind::Deaf),
            ("uprobe_multi", AttachKind::Deaf),
            ("lsm_cgroup", AttachKind::Deaf),
            ("cgroup_inet_ingress", AttachKind::Owned),
            ("tcx_ingress", AttachKind::Owned),
            ("perf_event", AttachKind::Other),
            ("struct_ops", AttachKind::Other),
            ("", AttachKind::Other),
        ] {
            assert_eq!(AttachKind::of(kind), expected, "{kind}");
        }
    }
}
