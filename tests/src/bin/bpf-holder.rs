//! Somebody else's monitoring tool: attaches what its arguments name, says for each whether that
//! worked, then holds it all until its standard input ends (or it is killed).
//!
//! Tests and recordings start it, on hosts and in virtual machines, to see that stalltop finds
//! what it holds. Each argument is KIND or KIND:TARGET; `hold` below lists them.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use stalltop_tests::bpf::{self, PerfEvent, ProgramType, attach};

fn main() -> io::Result<()> {
    let mut held = Vec::new();
    for argument in std::env::args().skip(1) {
        let (kind, target) = argument.split_once(':').unwrap_or((&argument, ""));
        match hold(kind, target, &mut held) {
            Ok(()) => println!("held {argument}"),
            Err(error) => println!("not held {argument}: {error}"),
        }
    }
    println!("ready {}", std::process::id());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Every descriptor that must stay open is pushed to `held`, in the order it was made.
fn hold(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> io::Result<()> {
    match kind {
        // A kprobe through a perf event, without and with a link.
        "kprobe" | "kretprobe" | "kprobe_link" => {
            let program = bpf::load(ProgramType::Kprobe, kind, 0, 0, 0)?;
            let event = probe("kprobe", kind == "kretprobe", target, 0)?;
            attach_event(kind == "kprobe_link", program, event, held)
        }
        // Incident I1's agent: all CPUs that call the functions write one hash.
        "kprobe_hash" | "kretprobe_hash" => {
            let hash = bpf::hash("shared_hash")?;
            for function in target.split(',') {
                let program = bpf::load_update(ProgramType::Kprobe, kind, &hash)?;
                let event = probe("kprobe", kind == "kretprobe_hash", function, 0)?;
                attach_event(false, program, event, held)?;
            }
            held.push(hash);
            Ok(())
        }
        // PATH@OFFSET, the offset in hexadecimal.
        "uprobe" | "uretprobe" => {
            let (path, offset) = target
                .split_once('@')
                .ok_or_else(|| io::Error::other("no @OFFSET"))?;
            let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16)
                .map_err(io::Error::other)?;
            let program = bpf::load(ProgramType::Kprobe, kind, 0, 0, 0)?;
            let event = probe("uprobe", kind == "uretprobe", path, offset)?;
            attach_event(false, program, event, held)
        }
        "kprobe_multi" => {
            let program = bpf::load(ProgramType::Kprobe, kind, 0, attach::TRACE_KPROBE_MULTI, 0)?;
            let symbols: Vec<_> = target.split(',').collect();
            let link = bpf::link_kprobe_multi(&program, &symbols)?;
            held.extend([program, link]);
            Ok(())
        }
        "tracepoint" | "tracepoint_link" => {
            let program = bpf::load(ProgramType::Tracepoint, kind, 0, 0, 0)?;
            let event = bpf::perf_event(tracepoint(target)?, -1, 0)?;
            attach_event(kind == "tracepoint_link", program, event, held)
        }
        // As aya does it: the link keeps the event, whose descriptor is closed.
        "closed_event" => {
            let program = bpf::load(ProgramType::Tracepoint, kind, 0, 0, 0)?;
            let event = bpf::perf_event(tracepoint(target)?, -1, 0)?;
            let link = bpf::link(&program, Some(&event), 0, attach::PERF_EVENT)?;
            held.extend([program, link]);
            Ok(())
        }
        // PATH@OFFSET,OFFSET..., in hexadecimal.
        "uprobe_multi" => {
            let (path, offsets) = target
                .split_once('@')
                .ok_or_else(|| io::Error::other("no @OFFSET"))?;
            let offsets = offsets
                .split(',')
                .map(|offset| u64::from_str_radix(offset.trim_start_matches("0x"), 16));
            let offsets: Vec<u64> = offsets
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?;
            let program = bpf::load(ProgramType::Kprobe, kind, 0, attach::TRACE_UPROBE_MULTI, 0)?;
            let link = bpf::link_uprobe_multi(&program, path, &offsets)?;
            held.extend([program, link]);
            Ok(())
        }
        // A counting user of a tracepoint, as `perf stat` is: no BPF at all.
        "perf_tracepoint" => {
            held.push(bpf::perf_event(tracepoint(target)?, -1, 0)?);
            Ok(())
        }
        // cpu-clock at 10 Hz: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, nanoseconds.
        "perf_event" => {
            let program = bpf::load(ProgramType::PerfEvent, kind, 0, 0, 0)?;
            let clock = PerfEvent {
                kind: 1,
                period: 100_000_000,
                ..PerfEvent::default()
            };
            attach_event(false, program, bpf::perf_event(clock, -1, 0)?, held)
        }
        "raw_tracepoint" => {
            let program = bpf::load(ProgramType::RawTracepoint, kind, 0, 0, 0)?;
            let link = bpf::raw_tracepoint(&program, Some(target))?;
            held.extend([program, link]);
            Ok(())
        }
        "tp_btf" | "fentry" => {
            let (name, kind_id, attach_type) = match kind {
                "tp_btf" => (format!("btf_trace_{target}"), 8, attach::TRACE_RAW_TP),
                _ => (target.to_owned(), 12, attach::TRACE_FENTRY),
            };
            let btf = bpf::btf_id(&name, kind_id)?;
            let program = bpf::load(ProgramType::Tracing, kind, 0, attach_type, btf)?;
            let link = bpf::raw_tracepoint(&program, None)?;
            held.extend([program, link]);
            Ok(())
        }
        "iter" => {
            let btf = bpf::btf_id(&format!("bpf_iter_{target}"), 12)?;
            let program = bpf::load(ProgramType::Tracing, kind, 0, attach::TRACE_ITER, btf)?;
            let link = bpf::link(&program, None, 0, attach::TRACE_ITER)?;
            let iterator = bpf::iterator(&link)?;
            held.extend([program, link, iterator]);
            Ok(())
        }
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
        // XDP_PASS is 2, TCX_PASS is 0.
        "xdp" | "tcx" => {
            let index = fs::read_to_string(format!("/sys/class/net/{target}/ifindex"))?;
            let index = index.trim().parse().map_err(io::Error::other)?;
            let (program, returns, attach_type) = match kind {
                "xdp" => (ProgramType::Xdp, 2, attach::XDP),
                _ => (ProgramType::SchedCls, 0, attach::TCX_INGRESS),
            };
            let program = bpf::load(program, kind, returns, 0, 0)?;
            let link = bpf::link(&program, None, index, attach_type)?;
            held.extend([program, link]);
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
        "socket_filter" => {
            let program = bpf::load(ProgramType::SocketFilter, kind, 0, 0, 0)?;
            let socket: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0")?.into();
            bpf::attach_to_socket(&program, &socket)?;
            held.extend([program, socket]);
            Ok(())
        }
        // Only the socket is kept: no process holds the program.
        "loose_filter" => {
            let program = bpf::load(ProgramType::SocketFilter, kind, 0, 0, 0)?;
            let socket: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0")?.into();
            bpf::attach_to_socket(&program, &socket)?;
            held.push(socket);
            Ok(())
        }
        "sk_msg" => {
            let program = bpf::load(ProgramType::SkMsg, kind, 1, attach::SK_MSG_VERDICT, 0)?;
            let map = bpf::sockmap("sockets")?;
            bpf::attach(&program, &map, attach::SK_MSG_VERDICT)?;
            held.extend([program, map]);
            Ok(())
        }
        // Loaded only: tc(8) attaches what is pinned. TC_ACT_OK is 0.
        "sched_cls" => {
            held.push(bpf::load(ProgramType::SchedCls, kind, 0, 0, 0)?);
            Ok(())
        }
        "map" => {
            held.push(bpf::map(if target.is_empty() { kind } else { target })?);
            Ok(())
        }
        // The last object made, pinned.
        "pin" => {
            let last = held
                .last()
                .ok_or_else(|| io::Error::other("nothing to pin"))?;
            bpf::pin(last, target)
        }
        // What somebody else pinned.
        "open" => {
            held.push(bpf::pinned(target)?);
            Ok(())
        }
        // A child that inherits everything made so far, and ends with this process.
        "child" => {
            for fd in held.iter() {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            let child = Command::new(std::env::current_exe()?)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            // Its standard input ends with this process.
            held.extend(child.stdin.map(OwnedFd::from));
            Ok(())
        }
        _ => Err(io::Error::other("no such kind")),
    }
}

/// With a link the program is the link's; without one the perf event holds it.
fn attach_event(
    by_link: bool,
    program: OwnedFd,
    event: OwnedFd,
    held: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    if by_link {
        let link = bpf::link(&program, Some(&event), 0, attach::PERF_EVENT)?;
        held.push(link);
    } else {
        bpf::set_bpf(&event, &program)?;
    }
    held.extend([program, event]);
    Ok(())
}

/// A kernel or user probe through its PMU: Documentation/trace/{kprobes,uprobetracer}.rst and
/// /sys/bus/event_source/devices/{kprobe,uprobe}/format.
fn probe(pmu: &str, on_return: bool, target: &str, offset: u64) -> io::Result<OwnedFd> {
    let dir = Path::new("/sys/bus/event_source/devices").join(pmu);
    let kind = fs::read_to_string(dir.join("type"))?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    let target = CString::new(target)?;
    let event = PerfEvent {
        kind,
        config: u64::from(on_return),
        config1: target.as_ptr() as u64,
        config2: offset,
        period: 0,
    };
    bpf::perf_event(event, -1, 0)
}

/// `system:name`, by the id that tracefs gives it. PERF_TYPE_TRACEPOINT is 2.
fn tracepoint(event: &str) -> io::Result<PerfEvent> {
    let dir = stalltop_tests::need::tracepoint(event).map_err(io::Error::other)?;
    let config = fs::read_to_string(dir.join("id"))?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    Ok(PerfEvent {
        kind: 2,
        config,
        ..PerfEvent::default()
    })
}
