//! What sits on cgroups, network devices, network namespaces, sockets and maps of them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketType};
use stalltop_tests::bpf::{self, ProgramType, attach, net};

/// As [`super::hold`]; [`None`] for a kind that is not of these.
pub(crate) fn hold(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> Option<io::Result<()>> {
    const KINDS: [&str; 19] = [
        "cgroup",
        "cgroup_legacy",
        "cgroup_device",
        "cgroup_sysctl",
        "cgroup_sockopt",
        "cgroup_sysctl_legacy",
        "xdp",
        "tcx",
        "netkit",
        "lwt_xmit",
        "netfilter",
        "sk_lookup",
        "flow_dissector",
        "socket_filter",
        "loose_filter",
        "sk_reuseport",
        "sk_msg",
        "sk_skb",
        "sk_msg_link",
    ];
    KINDS.contains(&kind).then(|| put_on(kind, target, held))
}

fn put_on(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> io::Result<()> {
    match kind {
        "cgroup" => {
            let program = bpf::load(ProgramType::CgroupSkb, kind, 1, 0, 0)?;
            let folder: OwnedFd = fs::File::open(target)?.into();
            let link = bpf::link(&program, Some(&folder), 0, attach::CGROUP_INET_INGRESS)?;
            held.extend([program, link]);
            Ok(())
        }
        // Without a link: it stays attached until the cgroup is gone.
        "cgroup_legacy" => {
            let program = bpf::load(ProgramType::CgroupSkb, kind, 1, 0, 0)?;
            let folder: OwnedFd = fs::File::open(target)?.into();
            bpf::attach(&program, &folder, attach::CGROUP_INET_INGRESS)?;
            held.push(program);
            Ok(())
        }
        // CGROUP; by a link, and (`_legacy`) without.
        "cgroup_device" | "cgroup_sysctl" | "cgroup_sockopt" | "cgroup_sysctl_legacy" => {
            let (program, attach_type) = match kind {
                "cgroup_device" => (ProgramType::CgroupDevice, attach::CGROUP_DEVICE),
                "cgroup_sockopt" => (ProgramType::CgroupSockopt, attach::CGROUP_GETSOCKOPT),
                _ => (ProgramType::CgroupSysctl, attach::CGROUP_SYSCTL),
            };
            let program = bpf::load(program, kind, 1, attach_type, 0)?;
            let folder: OwnedFd = fs::File::open(target)?.into();
            if kind.ends_with("legacy") {
                bpf::attach(&program, &folder, attach_type)?;
            } else {
                held.push(bpf::link(&program, Some(&folder), 0, attach_type)?);
            }
            held.push(program);
            Ok(())
        }
        // XDP_PASS is 2, TCX_PASS is 0; a netkit device is made.
        "xdp" | "tcx" | "netkit" => {
            if kind == "netkit" {
                net::make_netkit(target)?;
            }
            let (program, returns, attach_type) = match kind {
                "xdp" => (ProgramType::Xdp, 2, attach::XDP),
                "tcx" => (ProgramType::SchedCls, 0, attach::TCX_INGRESS),
                _ => (ProgramType::SchedCls, 0, attach::NETKIT_PRIMARY),
            };
            let program = bpf::load(program, kind, returns, 0, 0)?;
            let link = bpf::link(&program, None, index(target)?, attach_type)?;
            held.extend([program, link]);
            Ok(())
        }
        // Of the route that it makes, the kernel tells its name only.
        "lwt_xmit" => {
            let program = bpf::load(ProgramType::LwtXmit, kind, 0, 0, 0)?;
            net::route_through(&program, index(target)?)?;
            held.push(program);
            Ok(())
        }
        // Local input of IPv4; NF_ACCEPT is 1.
        "netfilter" => {
            let program = bpf::load(ProgramType::Netfilter, kind, 1, attach::NETFILTER, 0)?;
            let link = bpf::link_netfilter(&program, 2, 1, -128)?;
            held.extend([program, link]);
            Ok(())
        }
        // In the network namespace that it is started in; SK_PASS is 1, BPF_OK is 0.
        "sk_lookup" | "flow_dissector" => {
            let (program, returns, attach_type) = match kind {
                "sk_lookup" => (ProgramType::SkLookup, 1, attach::SK_LOOKUP),
                _ => (ProgramType::FlowDissector, 0, attach::FLOW_DISSECTOR),
            };
            let program = bpf::load(program, kind, returns, attach_type, 0)?;
            let namespace: OwnedFd = fs::File::open("/proc/thread-self/ns/net")?.into();
            let link = bpf::link(&program, Some(&namespace), 0, attach_type)?;
            held.extend([program, link]);
            Ok(())
        }
        // Of the second only the socket is kept: no process holds the program.
        "socket_filter" | "loose_filter" => {
            let program = bpf::load(ProgramType::SocketFilter, kind, 0, 0, 0)?;
            let socket: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0")?.into();
            bpf::attach_to_socket(&program, &socket, libc::SO_ATTACH_BPF)?;
            held.push(socket);
            if kind == "socket_filter" {
                held.push(program);
            }
            Ok(())
        }
        "sk_reuseport" => {
            let select = attach::SK_REUSEPORT_SELECT;
            let program = bpf::load(ProgramType::SkReuseport, kind, 1, select, 0)?;
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            set_socket_reuseport(&socket, true)?;
            bpf::attach_to_socket(&program, &socket, libc::SO_ATTACH_REUSEPORT_EBPF)?;
            held.extend([program, socket]);
            Ok(())
        }
        // A map of sockets runs them: without a link, or (6.10 and later) by one. SK_PASS is 1.
        "sk_msg" | "sk_skb" | "sk_msg_link" => {
            let (program, attach_type) = match kind {
                "sk_skb" => (ProgramType::SkSkb, attach::SK_SKB_STREAM_VERDICT),
                _ => (ProgramType::SkMsg, attach::SK_MSG_VERDICT),
            };
            let program = bpf::load(program, kind, 1, attach_type, 0)?;
            let map = bpf::sockmap(kind)?;
            if kind == "sk_msg_link" {
                held.push(bpf::link(&program, Some(&map), 0, attach_type)?);
            } else {
                bpf::attach(&program, &map, attach_type)?;
            }
            held.extend([program, map]);
            Ok(())
        }
        _ => Err(io::Error::other("no such kind")),
    }
}

/// The number of a network device.
fn index(device: &str) -> io::Result<u32> {
    let index = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?;
    index.trim().parse().map_err(io::Error::other)
}
