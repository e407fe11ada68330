//! What works on this host, what does not, why, and what would mend it.
//!
//! Each check asks the code that stalltop itself uses, so `doctor`, the panes and the
//! recordings give the same reasons.

mod bpf;
mod facts;
mod locks;
mod stalls;

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde::Serialize;
use stalltop_model::sample::{Host, MemoryVersion, Sample, Tracing};
use stalltop_model::{Reading, Reason};

use crate::Collector;
use crate::cgroups::Place;
use crate::change::Journal;
use crate::cores::CoresCollector;
use crate::env::{Capabilities, Env};
use crate::file;
use crate::host;
use crate::system::SystemCollector;
use crate::tracing::TracingCollector;

/// One capability of stalltop on this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Which part of stalltop it belongs to.
    pub area: &'static str,
    /// What is checked.
    pub capability: String,
    /// A detail when it works, else the reason, which has the fix.
    pub works: Reading<String>,
    /// What stalltop does without it; empty for mere facts.
    pub instead: String,
}

/// What the checks look at.
struct Seen<'a> {
    env: &'a Env,
    facts: Host,
    sample: Sample,
    tracing: Arc<Tracing>,
}

/// Checks everything. Loads our eBPF programs and detaches them again; changes nothing else.
pub fn doctor(env: &Env) -> Vec<Check> {
    let mut sample = Sample::default();
    // A day between ticks: nothing is left out for being slow.
    let mut cores = CoresCollector::new(env, Duration::from_secs(86_400));
    // What they cannot read is in the sample, with its reason.
    let _ = cores.collect(&mut sample);
    let _ = SystemCollector::new(env).collect(&mut sample);
    let seen = Seen {
        env,
        facts: host::gather(env),
        sample,
        tracing: TracingCollector::new(env).scan_all(),
    };
    let mut checks = vec![row(
        "host",
        "privileges",
        privileges(env),
        "what any user may read: /proc and sysfs",
    )];
    checks.extend(bpf::checks(env));
    checks.extend(CHECKS.iter().map(|check| {
        let works = (check.works)(&seen);
        row(check.area, check.capability, works.into(), check.instead)
    }));
    checks.extend(facts::facts(env, &seen.facts));
    checks
}

fn row(
    area: &'static str,
    capability: impl Into<String>,
    works: Reading<String>,
    instead: impl Into<String>,
) -> Check {
    Check {
        area,
        capability: capability.into(),
        works,
        instead: instead.into(),
    }
}

/// One row of [`CHECKS`].
struct Row {
    area: &'static str,
    capability: &'static str,
    works: fn(&Seen<'_>) -> Result<String, Reason>,
    instead: &'static str,
}

const fn check(
    area: &'static str,
    capability: &'static str,
    works: fn(&Seen<'_>) -> Result<String, Reason>,
    instead: &'static str,
) -> Row {
    Row {
        area,
        capability,
        works,
        instead,
    }
}

/// Everything but eBPF, whose rows are its programs, and mere facts.
const CHECKS: &[Row] = &[
    check(
        "cores",
        "/proc/softirqs",
        |h| match h.sample.cpus.iter().filter(|c| c.online).count() {
            0 => Err(unreadable(h.env, "/proc/softirqs")),
            online => Ok(format!(
                "{online} of {} present CPUs online",
                h.sample.cpus.len()
            )),
        },
        "eBPF counts alone",
    ),
    check(
        "cores",
        "ksoftirqd's schedstat",
        |h| {
            per_cpu(h, |cpu| {
                cpu.ksoftirqd
                    .as_ref()
                    .map(|t| format!("ksoftirqd/{} is process {}", cpu.cpu, t.pid))
            })
        },
        "the softirq column of /proc/stat",
    ),
    check(
        "cores",
        "/proc/net/softnet_stat",
        |h| {
            per_cpu(h, |cpu| {
                let backlog = |s: &stalltop_model::sample::Softnet| match s.backlog_known {
                    true => "with the backlog's length".to_owned(),
                    false => "without the backlog's length (5.10 and later print it)".to_owned(),
                };
                cpu.softnet.as_ref().map(backlog)
            })
        },
        "NET_RX counts alone",
    ),
    check(
        "system",
        "pressure (PSI)",
        |h| {
            let psi = &h.sample.system.pressure;
            let avg = psi.cpu.as_ref().map_err(Clone::clone)?.avg10;
            Ok(format!("cpu {avg:.1} % of the last 10 s"))
        },
        "load averages",
    ),
    check(
        "system",
        "interrupt pressure",
        |h| {
            let irq = h
                .sample
                .system
                .pressure
                .irq
                .as_ref()
                .map_err(Clone::clone)?;
            Ok(format!("{:.1} % of the last 10 s", irq.avg10))
        },
        "the irq and softirq columns of /proc/stat",
    ),
    check(
        "tracing",
        "tracefs",
        |h| {
            let tracefs = h.tracing.tracefs.as_ref().map_err(Clone::clone)?;
            let events: usize = tracefs.instances.iter().map(|i| i.events.len()).sum();
            Ok(format!(
                "{}: {} instances, {events} events on, {} dynamic events",
                tracefs.mount,
                tracefs.instances.len(),
                tracefs.dynamic.len()
            ))
        },
        "kernel probes and BPF programs only",
    ),
    check(
        "tracing",
        "debugfs",
        |h| mounted(h.env, "debugfs", "/sys/kernel/debug"),
        "tracefs and BPF programs only",
    ),
    check(
        "tracing",
        "list of kernel probes",
        |h| {
            let kprobes = h.tracing.kprobes.as_ref().map_err(Clone::clone)?;
            Ok(format!("{} kernel probes", kprobes.list.len()))
        },
        "kprobe_events of tracefs, and BPF programs",
    ),
    check(
        "tracing",
        "switch of all kernel probes",
        |h| {
            let kprobes = h.tracing.kprobes.as_ref().map_err(Clone::clone)?;
            let enabled = kprobes.enabled.as_ref().map_err(Clone::clone)?;
            Ok(if *enabled {
                "on"
            } else {
                "off: no kernel probe fires"
            }
            .to_owned())
        },
        "switching off single kprobe events, or stopping who holds the probes",
    ),
    check(
        "tracing",
        "loaded BPF programs",
        |h| {
            let bpf = h.tracing.bpf.as_ref().map_err(Clone::clone)?;
            Ok(format!(
                "{} programs, {} links",
                bpf.programs.len(),
                bpf.links.len()
            ))
        },
        "tracefs and the list of kernel probes",
    ),
    check(
        "tracing",
        "who holds BPF programs",
        |h| {
            let bpf = h.tracing.bpf.as_ref().map_err(Clone::clone)?;
            bpf.holders.as_ref().map_err(Clone::clone)?;
            Ok("descriptors of all processes can be read".to_owned())
        },
        "user id and load time of the program",
    ),
    check(
        "tracing",
        "perf users of events",
        |_| {
            // perf_event descriptors have no fdinfo, and BPF_TASK_FD_QUERY answers ENOENT for
            // one without a program (kernel/trace/bpf_trace.c, bpf_get_perf_event_info).
            Err(Reason::KernelDoesNotSay {
                what: "which event a perf descriptor without BPF is on; these are not looked for"
                    .into(),
            })
        },
        "by hand: find /proc/[0-9]*/fd -lname '*perf_event*' names the processes",
    ),
    check(
        "tracing",
        "bpffs",
        |h| mounted(h.env, "bpf", "/sys/fs/bpf"),
        "programs held by processes only, pinned ones without their path",
    ),
    check(
        "cgroups",
        "memory cgroups",
        |h| {
            let place = Place::find(h.env)?;
            let version = match place.version {
                MemoryVersion::V1 => "v1",
                MemoryVersion::V2 => "v2",
            };
            let part = if place.whole {
                ""
            } else {
                ", only this container's part"
            };
            Ok(format!("{version} at {}{part}", place.mount))
        },
        "no cgroups are shown",
    ),
    check(
        "changes",
        "drop caches",
        |h| writable(h.env, "/proc/sys/vm/drop_caches"),
        "the command to run on the host is shown",
    ),
    check(
        "changes",
        "journal",
        |h| {
            let path = Journal::path_for(h.env, None);
            let exists = path
                .ancestors()
                .skip(1)
                .find(|dir| dir.exists())
                .unwrap_or(&path);
            access(exists, Access::WRITE_OK)
                .map_err(|e| Reason::from_io(&exists.to_string_lossy(), &e.into()))?;
            Ok(path.display().to_string())
        },
        "no change is made without a journal: --journal FILE puts it elsewhere",
    ),
    check(
        "itself",
        "memory locked",
        |h| {
            has(
                h.env,
                Capabilities::IPC_LOCK,
                "CAP_IPC_LOCK",
                "no page faults in the middle of an incident",
            )
        },
        "pages of stalltop may be swapped out",
    ),
    check(
        "itself",
        "raised priority",
        |h| {
            has(
                h.env,
                Capabilities::SYS_NICE,
                "CAP_SYS_NICE",
                "the drawing thread runs at nice -5",
            )
        },
        "the screen may lag on a busy host",
    ),
];

fn privileges(env: &Env) -> Reading<String> {
    let needed = [
        (Capabilities::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (Capabilities::BPF, "CAP_BPF"),
        (Capabilities::PERFMON, "CAP_PERFMON"),
        (Capabilities::SYS_PTRACE, "CAP_SYS_PTRACE"),
    ];
    // Before 5.8 CAP_SYS_ADMIN is all there is.
    let has = |c| {
        env.capabilities.has(c)
            || (env.capabilities.has(Capabilities::SYS_ADMIN) && c != Capabilities::SYS_PTRACE)
    };
    match needed.iter().find(|(capability, _)| !has(*capability)) {
        Some((_, name)) => Reading::Off(Reason::NoCapability {
            need: (*name).into(),
        }),
        None => Reading::Value("all that stalltop uses".to_owned()),
    }
}

fn has(env: &Env, capability: u32, name: &str, detail: &str) -> Result<String, Reason> {
    if env.capabilities.has(capability) {
        Ok(detail.to_owned())
    } else {
        Err(Reason::NoCapability { need: name.into() })
    }
}

/// Why a file that gave nothing did so.
fn unreadable(env: &Env, path: &str) -> Reason {
    match file::read(&env.path(path)) {
        Err(reason) => reason,
        Ok(text) => Reason::parse(path, &text),
    }
}

/// The detail of the first online CPU, or the first reason of any.
fn per_cpu(
    seen: &Seen<'_>,
    detail: impl Fn(&stalltop_model::sample::CpuSample) -> Result<String, &Reason>,
) -> Result<String, Reason> {
    let mut online = seen.sample.cpus.iter().filter(|c| c.online);
    let first = online
        .next()
        .ok_or_else(|| unreadable(seen.env, "/proc/softirqs"))?;
    let shown = detail(first).map_err(Clone::clone)?;
    for cpu in online {
        detail(cpu).map_err(Clone::clone)?;
    }
    Ok(shown)
}

fn mounted(env: &Env, fs: &str, at: &str) -> Result<String, Reason> {
    match env.mount_of(fs) {
        Some(at) => Ok(at.to_owned()),
        None => Err(Reason::NotMounted {
            fs: fs.into(),
            at: at.into(),
        }),
    }
}

fn writable(env: &Env, path: &str) -> Result<String, Reason> {
    let real = env.path(path);
    match access(&real, Access::WRITE_OK) {
        Ok(()) => Ok(format!("{path} can be written")),
        Err(e) => Err(Reason::from_io(path, &e.into())),
    }
}

#[cfg(test)]
mod tests;
