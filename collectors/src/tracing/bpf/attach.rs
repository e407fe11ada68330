//! What a BPF program is attached to, in words.

use std::path::Path;

use stalltop_model::Name;
use stalltop_model::sample::Attachment;
use stalltop_probes::sys::info::{LinkDetail, LinkInfo, PerfEvent};
use stalltop_probes::sys::names;
use stalltop_probes::sys::query::{FdType, TaskFd};

use super::places::Places;
use crate::tracing::perf::{Event, Pmus};
use crate::tracing::{holders, perf};

/// What a link attaches its program to. `program_kind` is the program's type as bpftool names it.
pub(super) fn of_link(link: &LinkInfo, program_kind: &str, places: &Places) -> Attachment {
    let (kind, target) = describe(link, program_kind, places);
    Attachment {
        kind,
        target: target.into(),
        link: Some(link.id),
    }
}

fn describe(link: &LinkInfo, program_kind: &str, places: &Places) -> (Name, String) {
    let attach = |kind: u32| -> Name {
        match names::attach_type(kind) {
            Some(known) => short(known).into(),
            None => format!("attach type {kind}").into(),
        }
    };
    match &link.detail {
        LinkDetail::RawTracepoint { name } => {
            let kind = match program_kind {
                "tracing" => "tp_btf",
                _ => "raw_tracepoint",
            };
            (kind.into(), name.clone())
        }
        LinkDetail::Tracing {
            attach_type,
            target_obj_id,
            target_btf_id,
        } => {
            let kind = match program_kind {
                "ext" => "freplace".into(),
                _ => attach(*attach_type),
            };
            let target = places.function(link.prog_id, *target_obj_id, *target_btf_id);
            (kind, target)
        }
        LinkDetail::Cgroup {
            cgroup_id,
            attach_type,
        } => (attach(*attach_type), places.cgroup(*cgroup_id)),
        LinkDetail::Iter { target } => ("iter".into(), target.clone()),
        LinkDetail::Netns { ino, attach_type } => (attach(*attach_type), places.netns(*ino)),
        LinkDetail::Xdp { ifindex } => ("xdp".into(), places.device(*ifindex, link.prog_id)),
        LinkDetail::PerfEvent(event) => of_perf_link(event, places),
        LinkDetail::KprobeMulti { count, ret, .. } => {
            let kind = if *ret {
                "kretprobe_multi"
            } else {
                "kprobe_multi"
            };
            (kind.into(), places.functions(link.id, *count))
        }
        LinkDetail::StructOps { map_id } | LinkDetail::Sockmap { map_id, .. } => {
            let kind = match &link.detail {
                LinkDetail::Sockmap { attach_type, .. } => attach(*attach_type),
                _ => "struct_ops".into(),
            };
            (kind, places.map(*map_id))
        }
        LinkDetail::Netfilter { pf, hook, priority } => (
            "netfilter".into(),
            format!("{} {} priority {priority}", family(*pf), hook_name(*hook)),
        ),
        LinkDetail::Tcx {
            ifindex,
            attach_type,
        }
        | LinkDetail::Netkit {
            ifindex,
            attach_type,
        } => (attach(*attach_type), places.device(*ifindex, link.prog_id)),
        LinkDetail::UprobeMulti {
            file, count, ret, ..
        } => {
            let kind = if *ret {
                "uretprobe_multi"
            } else {
                "uprobe_multi"
            };
            let places = match count {
                1 => "1 place".to_owned(),
                n => format!("{n} places"),
            };
            (kind.into(), format!("{}, {places}", file.display()))
        }
        LinkDetail::Other => {
            let kind = match names::link_type(link.kind) {
                Some(known) => known.into(),
                None => format!("link type {}", link.kind).into(),
            };
            (kind, String::new())
        }
    }
}

/// bpftool's name of an attach type, without the prefix that says nothing to a person; the names
/// of program sections (libbpf's SEC()) where those are better known.
fn short(attach_type: &'static str) -> &'static str {
    match attach_type {
        "trace_raw_tp" => "tp_btf",
        "trace_fentry" => "fentry",
        "trace_fexit" => "fexit",
        "trace_iter" => "iter",
        "modify_return" => "fmod_ret",
        "lsm_mac" => "lsm",
        other => other,
    }
}

fn of_perf_link(event: &PerfEvent, places: &Places) -> (Name, String) {
    match event {
        PerfEvent::Unknown => ("perf_event".into(), String::new()),
        PerfEvent::Uprobe { ret, file, offset } => {
            let kind = if *ret { "uretprobe" } else { "uprobe" };
            (kind.into(), in_file(file, u64::from(*offset)))
        }
        PerfEvent::Kprobe {
            ret,
            function,
            offset,
            addr,
            ..
        } => {
            let kind = if *ret { "kretprobe" } else { "kprobe" };
            let target = in_kernel(function, u64::from(*offset), *addr, places);
            (kind.into(), target)
        }
        PerfEvent::Tracepoint { name } => ("tracepoint".into(), places.tracepoint(name)),
        PerfEvent::Event { kind, config } => (
            "perf_event".into(),
            perf::counter(*kind, *config).to_string(),
        ),
    }
}

/// What a perf event's descriptor attaches a program to.
pub(super) fn of_fd(fd: &TaskFd, places: &Places) -> Attachment {
    let text = String::from_utf8_lossy(&fd.name);
    let in_kernel = || in_kernel(&text, fd.offset, fd.addr, places);
    let in_file = || in_file(&holders::path(&fd.name), fd.offset);
    let (kind, target) = match fd.fd_type {
        FdType::RawTracepoint => ("raw_tracepoint", text.clone().into_owned()),
        FdType::Tracepoint => ("tracepoint", places.tracepoint(&text)),
        FdType::Kprobe => ("kprobe", in_kernel()),
        FdType::Kretprobe => ("kretprobe", in_kernel()),
        FdType::Uprobe => ("uprobe", in_file()),
        FdType::Uretprobe => ("uretprobe", in_file()),
    };
    Attachment {
        kind: kind.into(),
        target: target.into(),
        link: None,
    }
}

/// What a perf event is that the iterator told of: of a link on a kernel that does not say, and of
/// a sampling event's descriptor.
pub(super) fn of_event(
    event: &Event,
    link: Option<u32>,
    pmus: &Pmus,
    places: &Places,
) -> Attachment {
    let (kind, target) = match perf::in_words(event, pmus) {
        (kind, target) if PROBES.contains(&&*kind) => match &*target {
            "" => (kind, places.symbol(event.offset).into()),
            _ => (kind, target),
        },
        (_, target) => ("perf_event".into(), target),
    };
    Attachment { kind, target, link }
}

/// What perf events can be that have names of their own as attachments.
const PROBES: [&str; 5] = ["tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe"];

fn in_file(file: &Path, offset: u64) -> String {
    format!("{}+{offset:#x}", file.display())
}

fn in_kernel(function: &str, offset: u64, addr: u64, places: &Places) -> String {
    match (function, offset) {
        ("", _) => places.symbol(addr),
        (_, 0) => function.to_owned(),
        _ => format!("{function}+{offset:#x}"),
    }
}

/// include/uapi/linux/netfilter.h, `NFPROTO_*`.
fn family(pf: u32) -> String {
    match pf {
        2 => "ipv4".to_owned(),
        10 => "ipv6".to_owned(),
        other => format!("protocol family {other}"),
    }
}

/// include/uapi/linux/netfilter.h, `nf_inet_hooks`.
fn hook_name(hook: u32) -> String {
    ["prerouting", "input", "forward", "output", "postrouting"]
        .get(hook as usize)
        .map_or_else(|| format!("hook {hook}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(detail: LinkDetail) -> LinkInfo {
        LinkInfo {
            id: 5,
            kind: 0,
            prog_id: 7,
            detail,
        }
    }

    #[test]
    fn links_in_words() {
        let places = Places::default();
        let words = |detail, program| {
            let a = of_link(&link(detail), program, &places);
            assert_eq!(a.link, Some(5));
            format!("{} {}", a.kind, a.target)
        };
        let raw = || LinkDetail::RawTracepoint {
            name: "sched_switch".into(),
        };
        assert_eq!(
            words(raw(), "raw_tracepoint"),
            "raw_tracepoint sched_switch"
        );
        assert_eq!(words(raw(), "tracing"), "tp_btf sched_switch");
        let kprobe = LinkDetail::PerfEvent(PerfEvent::Kprobe {
            ret: true,
            function: "tcp_sendmsg".into(),
            offset: 4,
            addr: 0,
            missed: 0,
        });
        assert_eq!(words(kprobe, "kprobe"), "kretprobe tcp_sendmsg+0x4");
        let clock = LinkDetail::PerfEvent(PerfEvent::Event { kind: 1, config: 0 });
        assert_eq!(words(clock, "perf_event"), "perf_event cpu-clock");
        let nf = LinkDetail::Netfilter {
            pf: 2,
            hook: 1,
            priority: -5,
        };
        assert_eq!(words(nf, "netfilter"), "netfilter ipv4 input priority -5");
        // What is not known is not guessed.
        assert_eq!(
            words(LinkDetail::Xdp { ifindex: 3 }, "xdp"),
            "xdp device 3 of a network namespace"
        );
        assert_eq!(
            words(LinkDetail::Xdp { ifindex: 0 }, "xdp"),
            "xdp device removed"
        );
        assert_eq!(
            words(
                LinkDetail::Cgroup {
                    cgroup_id: 99,
                    attach_type: 1
                },
                "cgroup_skb"
            ),
            "cgroup_inet_egress cgroup 99"
        );
    }

    #[test]
    fn descriptors_in_words() {
        let fd = |fd_type, name: &[u8], offset| {
            let fd = TaskFd {
                prog_id: 1,
                fd_type,
                name: name.to_vec(),
                offset,
                addr: 0x1234,
            };
            of_fd(&fd, &Places::default()).target.to_string()
        };
        assert_eq!(
            fd(FdType::Uprobe, b"/bin/a\xffb", 16),
            "/bin/a\u{fffd}b+0x10"
        );
        assert_eq!(fd(FdType::Kprobe, b"", 0), "0x1234");
        assert_eq!(fd(FdType::Tracepoint, b"x", 0), "x");
    }
}
