//! Names of types as bpftool prints them (tools/lib/bpf/libbpf.c: `prog_type_name`,
//! `map_type_name`, `link_type_name`, `attach_type_name`). The numbers are ABI
//! (include/uapi/linux/bpf.h); `None` for one newer than these tables.

/// Name of a program type (`BPF_PROG_TYPE_*`): `kprobe`, `tracing`.
#[must_use]
pub fn program_type(kind: u32) -> Option<&'static str> {
    PROGRAM_TYPES.get(kind as usize).copied()
}

/// Name of a map type (`BPF_MAP_TYPE_*`): `hash`, `ringbuf`.
#[must_use]
pub fn map_type(kind: u32) -> Option<&'static str> {
    MAP_TYPES.get(kind as usize).copied()
}

/// Name of a link type (`BPF_LINK_TYPE_*`): `perf_event`, `tracing`.
#[must_use]
pub fn link_type(kind: u32) -> Option<&'static str> {
    LINK_TYPES.get(kind as usize).copied()
}

/// Name of an attach type: `trace_fentry`, `cgroup_inet_ingress`.
#[must_use]
pub fn attach_type(kind: u32) -> Option<&'static str> {
    ATTACH_TYPES.get(kind as usize).copied()
}

/// Attach types that a cgroup can carry, to be asked for one by one
/// (see [`query`](super::query::attached)).
pub const CGROUP_ATTACH_TYPES: &[u32] = &[
    0, 1, 2, 3, 6, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 21, 22, 29, 30, 31, 32, 34, 43, 49,
    50, 51, 52, 53,
];

/// Attach types that a network namespace can carry.
pub const NETNS_ATTACH_TYPES: &[u32] = &[17, 36];

/// Attach types that a network device can carry through tcx (6.6) and netkit (6.7).
pub const DEVICE_ATTACH_TYPES: &[u32] = &[46, 47, 54, 55];

const PROGRAM_TYPES: &[&str] = &[
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

const MAP_TYPES: &[&str] = &[
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
];

const LINK_TYPES: &[&str] = &[
    "unspec",
    "raw_tracepoint",
    "tracing",
    "cgroup",
    "iter",
    "netns",
    "xdp",
    "perf_event",
    "kprobe_multi",
    "struct_ops",
    "netfilter",
    "tcx",
    "uprobe_multi",
    "netkit",
    "sockmap",
];

const ATTACH_TYPES: &[&str] = &[
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "tcx_ingress",
    "tcx_egress",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "netkit_primary",
    "netkit_peer",
    "trace_kprobe_session",
    "trace_uprobe_session",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::{Btf, VMLINUX};

    /// libbpf's names are the kernel's enumerators in lower case without their prefix; the running
    /// kernel's BTF has those.
    #[test]
    fn names_are_those_of_the_running_kernel() {
        let Ok(bytes) = std::fs::read(std::path::Path::new("/").join(VMLINUX)) else {
            eprintln!("skipped: no /{VMLINUX}");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        for (name, prefix, table) in [
            ("bpf_prog_type", "BPF_PROG_TYPE_", PROGRAM_TYPES),
            ("bpf_map_type", "BPF_MAP_TYPE_", MAP_TYPES),
            ("bpf_link_type", "BPF_LINK_TYPE_", LINK_TYPES),
            ("bpf_attach_type", "BPF_", ATTACH_TYPES),
        ] {
            let enumerators = btf.enumerators(name).unwrap();
            assert!(enumerators.len() > 10, "{name}");
            for (value, ours) in table.iter().enumerate() {
                let theirs: Vec<_> = enumerators
                    .iter()
                    .filter(|(_, v)| *v == value as u32)
                    .filter_map(|(n, _)| n.strip_prefix(prefix))
                    .map(str::to_lowercase)
                    .collect();
                // Values newer than the running kernel, and its own end marker.
                if theirs.is_empty() || theirs.iter().all(|n| n.contains("max_")) {
                    continue;
                }
                // Deprecated aliases share the value (cgroup_storage_deprecated).
                assert!(
                    theirs
                        .iter()
                        .any(|n| n == ours || n.strip_suffix("_deprecated") == Some(ours)),
                    "{name} {value}: we say {ours}, the kernel {theirs:?}"
                );
            }
        }
    }

    #[test]
    fn a_type_newer_than_the_table_has_no_name() {
        assert_eq!(program_type(2), Some("kprobe"));
        assert_eq!(program_type(10_000), None);
        for kind in [CGROUP_ATTACH_TYPES, NETNS_ATTACH_TYPES, DEVICE_ATTACH_TYPES].concat() {
            assert!(attach_type(kind).is_some());
        }
        for &kind in CGROUP_ATTACH_TYPES {
            let name = attach_type(kind).unwrap();
            assert!(name.contains("cgroup"), "{kind} {name}");
        }
    }
}
