//! What sits on functions and events: of the kernel, of files, of other programs.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use stalltop_tests::bpf::btf::{self, Types};
use stalltop_tests::bpf::{self, PerfEvent, ProgramType, attach, ops};
use stalltop_tests::need;

/// As [`super::hold`]; [`None`] for a kind that is not of these.
pub(crate) fn hold(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> Option<io::Result<()>> {
    const KINDS: [&str; 30] = [
        "kprobe",
        "kretprobe",
        "kprobe_link",
        "kprobe_hash",
        "kretprobe_hash",
        "raw_tracepoint_hash",
        "uprobe",
        "uretprobe",
        "kprobe_tracefs",
        "kprobe_multi",
        "kretprobe_multi",
        "kprobe_session",
        "tracepoint",
        "tracepoint_link",
        "closed_event",
        "uprobe_multi",
        "uprobe_session",
        "perf_tracepoint",
        "perf_event",
        "raw_tracepoint",
        "tp_btf",
        "fentry",
        "fexit",
        "fmod_ret",
        "lsm",
        "lsm_cgroup",
        "struct_ops",
        "struct_ops_link",
        "freplace",
        "iter",
    ];
    KINDS.contains(&kind).then(|| probe_on(kind, target, held))
}

fn probe_on(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> io::Result<()> {
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
        // The same without kernel probes.
        "raw_tracepoint_hash" => {
            let hash = bpf::hash("shared_hash")?;
            let program = bpf::load_update(ProgramType::RawTracepoint, kind, &hash)?;
            let link = bpf::raw_tracepoint(&program, Some(target))?;
            held.extend([hash, program, link]);
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
        // A kprobe that tracefs made: its event is as good as any.
        "kprobe_tracefs" => {
            let definition = format!("p:stalltop_held {target}\n");
            let tracing = need::tracefs().map_err(io::Error::other)?;
            fs::OpenOptions::new()
                .append(true)
                .open(tracing.join("kprobe_events"))?
                .write_all(definition.as_bytes())?;
            let program = bpf::load(ProgramType::Kprobe, kind, 0, 0, 0)?;
            let event = bpf::perf_event(tracepoint("kprobes:stalltop_held")?, -1, 0)?;
            attach_event(false, program, event, held)
        }
        "kprobe_multi" | "kretprobe_multi" | "kprobe_session" => {
            let attach_type = match kind {
                "kprobe_session" => attach::TRACE_KPROBE_SESSION,
                _ => attach::TRACE_KPROBE_MULTI,
            };
            let program = bpf::load(ProgramType::Kprobe, kind, 0, attach_type, 0)?;
            let symbols: Vec<_> = target.split(',').collect();
            let on_return = kind == "kretprobe_multi";
            let link = bpf::link_kprobe_multi(&program, &symbols, on_return, attach_type)?;
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
        "uprobe_multi" | "uprobe_session" => {
            let attach_type = match kind {
                "uprobe_session" => attach::TRACE_UPROBE_SESSION,
                _ => attach::TRACE_UPROBE_MULTI,
            };
            let (path, offsets) = target
                .split_once('@')
                .ok_or_else(|| io::Error::other("no @OFFSET"))?;
            let offsets = offsets
                .split(',')
                .map(|offset| u64::from_str_radix(offset.trim_start_matches("0x"), 16));
            let offsets: Vec<u64> = offsets
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?;
            let program = bpf::load(ProgramType::Kprobe, kind, 0, attach_type, 0)?;
            let link = bpf::link_uprobe_multi(&program, path, &offsets, attach_type)?;
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
        "tp_btf" | "fentry" | "fexit" | "fmod_ret" => {
            let types = Types::read()?;
            let (btf, attach_type) = match kind {
                "tp_btf" => {
                    let name = format!("btf_trace_{target}");
                    (types.id(&name, btf::TYPEDEF)?, attach::TRACE_RAW_TP)
                }
                "fentry" => (types.id(target, btf::FUNCTION)?, attach::TRACE_FENTRY),
                "fexit" => (types.id(target, btf::FUNCTION)?, attach::TRACE_FEXIT),
                _ => (types.id(target, btf::FUNCTION)?, attach::MODIFY_RETURN),
            };
            let program = bpf::load(ProgramType::Tracing, kind, 0, attach_type, btf)?;
            let link = bpf::raw_tracepoint(&program, None)?;
            held.extend([program, link]);
            Ok(())
        }
        "lsm" => {
            let btf = hook(target)?;
            let program = bpf::load(ProgramType::Lsm, kind, 0, attach::LSM_MAC, btf)?;
            let link = bpf::raw_tracepoint(&program, None)?;
            held.extend([program, link]);
            Ok(())
        }
        // CGROUP@HOOK; 1 lets it pass.
        "lsm_cgroup" => {
            let (cgroup, hook_of) = target
                .split_once('@')
                .ok_or_else(|| io::Error::other("no @HOOK"))?;
            let btf = hook(hook_of)?;
            let program = bpf::load(ProgramType::Lsm, kind, 1, attach::LSM_CGROUP, btf)?;
            let folder: OwnedFd = fs::File::open(cgroup)?.into();
            let link = bpf::link(&program, Some(&folder), 0, attach::LSM_CGROUP)?;
            held.extend([program, link]);
            Ok(())
        }
        // Without a link it stays in use for good: for machines only.
        "struct_ops" | "struct_ops_link" => {
            let by_link = kind == "struct_ops_link";
            let (map, programs) = ops::congestion_control(kind, by_link)?;
            held.extend(programs);
            if by_link {
                held.push(ops::link(&map)?);
            }
            held.push(map);
            Ok(())
        }
        "freplace" => {
            held.extend(ops::replaced(kind)?);
            Ok(())
        }
        "iter" => {
            let btf = Types::read()?.id(&format!("bpf_iter_{target}"), btf::FUNCTION)?;
            let program = bpf::load(ProgramType::Tracing, kind, 0, attach::TRACE_ITER, btf)?;
            let link = bpf::link(&program, None, 0, attach::TRACE_ITER)?;
            let iterator = bpf::iterator(&link)?;
            held.extend([program, link, iterator]);
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
    let dir = need::tracepoint(event).map_err(io::Error::other)?;
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

/// The function of a hook of security modules, `file_open`.
fn hook(name: &str) -> io::Result<u32> {
    Types::read()?.id(&format!("bpf_lsm_{name}"), btf::FUNCTION)
}
