//! Which stalls can be seen on this host, and how closely.

use std::time::Duration;

use stalltop_model::sample::StallKind;
use stalltop_model::{Reading, Reason};
use stalltop_probes::{Probes, SAMPLES_PER_SECOND, Stalls};

use super::{Check, row};
use crate::cpu_list;
use crate::env::{Capabilities, Env};
use crate::file;
use crate::stalls::{Watch, kallsyms, kinds, user_stack};

/// Each kind, the sampler, and the names of functions.
pub(super) fn checks(env: &Env, watch: &Watch<'_>, probes: &mut Probes) -> Vec<Check> {
    let mut checks: Vec<Check> = StallKind::ALL
        .into_iter()
        .zip(watch.kinds(probes))
        .map(|(kind, from)| {
            let works = from.map(|ns| {
                let time = Duration::from_nanos(ns);
                let chosen = watch.chosen();
                format!("{} for {time:?} or longer ({chosen})", kinds::means(kind))
            });
            kind_row(kind, works)
        })
        .collect();
    checks.push(sampler_row(match probes.take_stalls() {
        Some(mut stalls) => sampler(env, &mut stalls).into(),
        None => why_none(&checks),
    }));
    checks.push(symbols_row(symbols(env).into()));
    checks.push(user_stacks_row(user_stacks(env).into()));
    checks
}

/// The same rows of a host that is not this one.
pub(super) fn not_recorded() -> Vec<Check> {
    let off = || Reading::Off(Reason::NotRecorded);
    let kinds = StallKind::ALL.into_iter();
    let mut checks: Vec<Check> = kinds.map(|kind| kind_row(kind, off())).collect();
    checks.extend([
        sampler_row(off()),
        symbols_row(off()),
        user_stacks_row(off()),
    ]);
    checks
}

fn kind_row(kind: StallKind, works: Reading<String>) -> Check {
    let instead = match kind {
        StallKind::SoftirqPending | StallKind::SoftirqHandler => "counts from /proc/softirqs",
        StallKind::KsoftirqdWaiting => "ksoftirqd's /proc/PID/schedstat",
        StallKind::InterruptsOff | StallKind::NoReschedule | StallKind::RealTime => {
            "pressure (PSI) and run queues"
        }
    };
    row("stalls", kind.as_str(), works, instead)
}

fn sampler_row(works: Reading<String>) -> Check {
    let instead = "the scheduler's tick alone looks at who holds a CPU";
    row("stalls", "sampler", works, instead)
}

fn symbols_row(works: Reading<String>) -> Check {
    let instead = "stacks of bare addresses";
    row("stalls", "names of kernel functions", works, instead)
}

fn user_stacks_row(works: Reading<String>) -> Check {
    let instead = "a culprit's user stack is of bare addresses";
    row("stalls", "names of user functions", works, instead)
}

/// Nothing is watched: for the reason that its first kind has.
fn why_none(kinds: &[Check]) -> Reading<String> {
    let reason = kinds.iter().find_map(|kind| kind.works.reason());
    Reading::Off(reason.cloned().unwrap_or(Reason::NotAsked))
}

/// Starts the sampler on the first online CPU, and stops it again.
fn sampler(env: &Env, stalls: &mut Stalls) -> Result<String, Reason> {
    let online = file::read(&env.path("/sys/devices/system/cpu/online")).unwrap_or_default();
    let cpu = cpu_list::cpus(&online).into_iter().next().unwrap_or(0);
    let sampler = stalls.sampler();
    sampler.start(cpu).map_err(|e| Reason::Refused {
        what: "the sampler's perf event".into(),
        why: e.to_string().into(),
    })?;
    sampler.stop(cpu);
    let how = if sampler.nmi() {
        "from non-maskable interrupts of the cycle counter: it sees what runs while interrupts \
         are off (not yet tried on a machine that has one)"
    } else if cfg!(target_arch = "x86_64") {
        "from a timer, as there is no cycle counter here (many virtual machines have none): while \
         interrupts are off, only where they are let in again"
    } else {
        "from a timer: while interrupts are off, only where they are let in again"
    };
    Ok(format!("{SAMPLES_PER_SECOND} a second, {how}"))
}

/// Whether addresses of other processes can be named: by their maps, which take the right to trace
/// them (`PTRACE_MODE_READ`; Yama's ptrace_scope is about attaching and has no say), and by the files
/// in them. Tried on the first process, and on ourselves.
fn user_stacks(env: &Env) -> Result<String, Reason> {
    if !env.capabilities.has(Capabilities::SYS_PTRACE) {
        return Err(Reason::NoCapability {
            need: "CAP_SYS_PTRACE".into(),
        });
    }
    file::read(&env.path("/proc/1/maps"))?;
    let own = user_stacks as fn(&Env) -> Result<String, Reason>;
    user_stack::symbolize(std::process::id(), &[own as usize as u64]).map_err(|why| {
        Reason::Refused {
            what: "naming of user stacks".into(),
            why: why.into(),
        }
    })?;
    Ok(
        "by the ELF symbols of what a process maps, as far as it keeps frame pointers; code made \
         at run time (a JIT's) stays addresses: /tmp/perf-PID.map may be anybody's"
            .to_owned(),
    )
}

fn symbols(env: &Env) -> Result<String, Reason> {
    let table = kallsyms::read(
        &env.path("/proc/kallsyms"),
        &env.path("/proc/sys/kernel/kptr_restrict"),
        env.capabilities.has(Capabilities::SYSLOG),
    )?;
    Ok(format!("{} in /proc/kallsyms", table.len()))
}
