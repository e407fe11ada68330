//! Which stalls can be seen on this host, and how closely.

use std::time::Duration;

use stalltop_model::sample::StallKind;
use stalltop_model::{Reading, Reason};
use stalltop_probes::{Probes, SAMPLES_PER_SECOND, Stalls};

use super::{Check, row};
use crate::env::{Capabilities, Env};
use crate::stalls::{Watch, kallsyms, kinds};

/// Each kind, the sampler, and the names of kernel functions.
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
        Some(mut stalls) => sampler(&mut stalls).into(),
        None => why_none(&checks),
    }));
    checks.push(symbols_row(symbols(env).into()));
    checks
}

/// The same rows of a host that is not this one.
pub(super) fn not_recorded() -> Vec<Check> {
    let off = || Reading::Off(Reason::NotRecorded);
    let kinds = StallKind::ALL.into_iter();
    let mut checks: Vec<Check> = kinds.map(|kind| kind_row(kind, off())).collect();
    checks.extend([sampler_row(off()), symbols_row(off())]);
    checks
}

fn kind_row(kind: StallKind, works: Reading<String>) -> Check {
    let instead = match kind {
        StallKind::SoftirqPending | StallKind::SoftirqHandler => "counts from /proc/softirqs",
        StallKind::KsoftirqdWaiting => "ksoftirqd's /proc/PID/schedstat",
        StallKind::InterruptsOff | StallKind::NoReschedule => "pressure (PSI) and run queues",
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

/// Nothing is watched: for the reason that its first kind has.
fn why_none(kinds: &[Check]) -> Reading<String> {
    let reason = kinds.iter().find_map(|kind| kind.works.reason());
    Reading::Off(reason.cloned().unwrap_or(Reason::NotAsked))
}

/// Starts the sampler on the first CPU where it can be, and stops it again.
fn sampler(stalls: &mut Stalls) -> Result<String, Reason> {
    let sampler = stalls.sampler();
    sampler.start(0).map_err(|e| Reason::Refused {
        what: "the sampler's perf event".into(),
        why: e.to_string().into(),
    })?;
    sampler.stop(0);
    let how = if sampler.nmi() {
        "from non-maskable interrupts: it sees what runs while interrupts are off"
    } else {
        "from a timer: while interrupts are off, only where they are let in again"
    };
    Ok(format!("{SAMPLES_PER_SECOND} a second, {how}"))
}

fn symbols(env: &Env) -> Result<String, Reason> {
    let table = kallsyms::read(
        &env.path("/proc/kallsyms"),
        &env.path("/proc/sys/kernel/kptr_restrict"),
        env.capabilities.has(Capabilities::SYSLOG),
    )?;
    Ok(format!("{} in /proc/kallsyms", table.len()))
}
