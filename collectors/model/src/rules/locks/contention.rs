//! Contention that is nobody's probes.

use super::storm::behind_probes;
use super::suspect::Who;
use super::{Recent, called, cpus, frames};
use crate::Name;
use crate::model::Model;
use crate::model::locks::{Over, StackSum};
use crate::name::printable;
use crate::rules::{Confidence, Finding, Severity};
use crate::sample::Lasting;
use crate::units::{Count, Duration};

/// Seconds of spinning a second, and as a part of the host's CPUs: a fifth of a CPU burnt, or
/// half a percent of a large host.
const SPUN: (f64, f64) = (0.2, 0.005);
/// Seconds of sleeping a second: two tasks that wait all the time, or a twentieth as many as
/// there are CPUs. One task that waits for long is no contention.
const SLEPT: (f64, f64) = (2.0, 0.05);
/// From so many times these on work is held up.
const GRAVE: f64 = 10.0;
/// Share of samples in lock slow paths, where spinning does not show otherwise.
const SAMPLES: f64 = 0.1;
/// So many samples at least.
const LEAST_IN_LOCK: u64 = 100;
/// Share of samples as interrupts came back on with one stack: on hosts without NMI, disk and
/// network drivers alone come to a tenth.
const SUSPECTED: f64 = 0.25;
/// On so many CPUs at least: a lock is waited for by one while another has it.
const LEAST_CPUS: usize = 2;

/// From when on a wait that lasts is told, ns: whoever waits as long does nothing else, and a lock
/// that is held as long has no other holder either.
const LASTS_NS: u64 = 5_000_000_000;
/// From here on it is no wait for work that takes its time.
const HANGS_NS: u64 = 20_000_000_000;
/// How old a window may be that tells of now, ns: one is due each ten seconds at the least.
const FRESH_NS: u64 = 15_000_000_000;

/// What was found to wait.
struct Found {
    severity: Severity,
    confidence: Confidence,
    sentence: String,
    evidence: Vec<String>,
}

/// CPUs or tasks wait for each other, and not in probes.
pub(in super::super) fn contention(model: &Model) -> Option<Finding> {
    let recent = Recent::of(model);
    let cpus = cpus(model);
    let over_limit = |ns: u64, (least, part): (f64, f64)| {
        let times = recent.per_s(ns)? / least.max(part * cpus);
        (times >= 1.0).then_some(times)
    };
    let (spun, slept) = (
        over_limit(recent.spun_ns, SPUN),
        over_limit(recent.slept_ns, SLEPT),
    );
    let samples = &recent.samples;
    let sampled = !recent.spins_show
        && (samples.in_lock >= LEAST_IN_LOCK
            && recent.part(samples.in_lock).is_some_and(|p| p >= SAMPLES)
            || samples.suspected >= LEAST_IN_LOCK
                && recent
                    .part(samples.suspected)
                    .is_some_and(|p| p >= SUSPECTED));
    let lasting = lasting(model);
    if spun.is_none() && slept.is_none() && !sampled && lasting.is_none() {
        return None;
    }
    let over = model.locks.over(recent.from_ns, recent.to_ns);
    let found = waits(model, &recent, &over, cpus)
        .or_else(|| by_samples(&recent, &over))
        .map(|mut found| {
            found.evidence.extend(lasting.map(|of| still(model, of)));
            found
        })
        .or_else(|| Some(hangs(model, lasting?)))?;
    Some(Finding {
        id: "lock-contention",
        incident: "",
        severity: found.severity,
        confidence: found.confidence,
        sentence: found.sentence,
        evidence: found.evidence,
        action: "",
        pane: "locks",
        disproof: "the work that waits is done in time all the same",
    })
}

/// The lock that has been waited for longest by somebody who still waits.
fn lasting(model: &Model) -> Option<&Lasting> {
    let locks = model.now().locks.value()?;
    // A window that is old says nothing of now.
    let age_ns = model.now().at_ns.saturating_sub(locks.at_ns);
    let first = locks.lasting.first()?;
    let since_ns = locks.at_ns.saturating_sub(first.since_ns);
    (since_ns >= LASTS_NS && age_ns < FRESH_NS).then_some(first)
}

/// `a rwsem:W of vm_mmap_pgoff`, or without a name.
fn lock_of(of: &Lasting) -> String {
    match of.name.value() {
        Some(name) => format!("{} {}", of.kind.as_str(), printable(name)),
        None => format!("a {}", of.kind.as_str()),
    }
}

fn thread(comm: &str, pid: u32) -> String {
    format!("{}[{pid}]", printable(comm))
}

/// A wait that lasts, as evidence of more.
fn still(model: &Model, of: &Lasting) -> String {
    let ns = model.now().at_ns.saturating_sub(of.since_ns);
    format!(
        "{} still waits for {}, since {} ago",
        thread(&of.comm, of.pid),
        lock_of(of),
        Duration(ns)
    )
}

/// Nobody waits often, but somebody does not get the lock at all.
fn hangs(model: &Model, of: &Lasting) -> Found {
    let ns = model.now().at_ns.saturating_sub(of.since_ns);
    let (who, lock) = (thread(&of.comm, of.pid), lock_of(of));
    let mut sentence = format!("{who} has waited {} for {lock}", Duration(ns));
    if of.threads > 1 {
        sentence += &format!(", and {} more threads wait for it", of.threads - 1);
    }
    let mut evidence = Vec::new();
    if !of.frames.is_empty() {
        evidence.push(format!("it waits in {}", called(&of.frames)));
    }
    evidence.extend(of.owner.as_ref().map(|owner| {
        let inside = match owner.frames.first() {
            Some(_) => format!(", which is now in {}", called(&owner.frames)),
            None => String::new(),
        };
        let by = thread(&owner.comm, owner.pid);
        format!("held by {by} when that wait began{inside}")
    }));
    Found {
        severity: if ns >= HANGS_NS {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: Confidence::High,
        sentence,
        evidence,
    }
}

/// Waits that were measured.
fn waits(model: &Model, recent: &Recent, over: &Over<'_>, cpus: f64) -> Option<Found> {
    // What is behind probes is told by the other rule.
    let mut told = (0u64, 0u64);
    for sum in over.stacks.iter().filter(|s| in_probe(s)) {
        let of = if sum.stack.kind.spins() {
            &mut told.0
        } else {
            &mut told.1
        };
        *of = of.saturating_add(sum.waits.wait_ns);
    }
    let times = |all: u64, told: u64, (least, part): (f64, f64)| {
        let wait = recent.per_s(all.saturating_sub(told))?;
        let times = wait / least.max(part * cpus);
        (times >= 1.0).then_some((times, wait))
    };
    let spun = times(recent.spun_ns, told.0, SPUN);
    let slept = times(recent.slept_ns, told.1, SLEPT);
    let spins = match (spun, slept) {
        (Some((a, _)), Some((b, _))) => a >= b,
        (spun, _) => spun.is_some(),
    };
    let (times, wait) = if spins { spun? } else { slept? };
    let of_kind = |s: &&StackSum<'_>| s.stack.kind.spins() == spins && !in_probe(s);
    let stacks = || over.stacks.iter().filter(of_kind);
    let worst = stacks().max_by_key(|s| s.waits.wait_ns);
    let mut sentence = format!(
        "lock contention: {wait:.1} s/s of {}",
        if spins { "spinning" } else { "waiting" }
    );
    let mut evidence = Vec::new();
    if let Some(worst) = worst {
        let place = frames::waits_in(&worst.stack.frames);
        let same = || stacks().filter(|s| frames::waits_in(&s.stack.frames) == place);
        let there = same().fold(0u64, |sum, s| sum.saturating_add(s.waits.wait_ns));
        let share = recent.per_s(there).unwrap_or(0.0) / wait;
        let lock = match worst.stack.name.value() {
            Some(name) => format!("{} {}", worst.stack.kind.as_str(), printable(name)),
            None => format!("a {}", worst.stack.kind.as_str()),
        };
        let inside = place.map_or(String::new(), |f| format!(" in {}", printable(f)));
        let most = format!("{:.0} % for {lock}{inside}", share.min(1.0) * 100.0);
        sentence += &format!(", {most} by {}", who(same()));
        let on = over.cpus.iter().filter(|(_, w)| w.count > 0).count();
        if on > 1 {
            sentence += &format!(", {on} CPUs");
        }
        evidence.push(format!("the worst stack: {}", called(&worst.stack.frames)));
        evidence.extend(worst.owners.first().map(|(owner, count)| {
            let inside = match owner.frames.first() {
                Some(_) => format!(", in {}", called(&owner.frames)),
                None => String::new(),
            };
            format!(
                "held by {}[{}] in {} of the waits that showed it{inside}",
                printable(&owner.comm),
                owner.pid,
                Count(*count),
            )
        }));
    }
    for kind in over.kinds.iter().take(4) {
        evidence.push(format!(
            "{}: {} waits, {} together, the longest {}",
            kind.kind.as_str(),
            Count(kind.waits.count),
            Duration(kind.waits.wait_ns),
            Duration(kind.waits.longest_ns),
        ));
    }
    let ours = behind_probes(model, over);
    let ours = ours.all.iter().filter(|s| s.who == Who::Ours);
    let ours = ours.fold(0, |sum, s| sum + s.waits.count);
    if ours > 0 {
        evidence.push(format!("{} of the waits are stalltop's own", Count(ours)));
    }
    Some(Found {
        severity: if times >= GRAVE {
            Severity::Critical
        } else {
            Severity::Warning
        },
        // That they wait is certain; what for is by samples where waits are short.
        confidence: if worst.is_some() {
            Confidence::High
        } else {
            Confidence::Medium
        },
        sentence,
        evidence,
    })
}

fn in_probe(sum: &StackSum<'_>) -> bool {
    !sum.stack.programs.is_empty() || frames::through(&sum.stack.frames).is_some()
}

/// Where spinning does not show: samples in lock slow paths, or behind them.
fn by_samples(recent: &Recent, over: &Over<'_>) -> Option<Found> {
    if recent.spins_show {
        return None;
    }
    let share = over.share.value()?;
    let stacks = || {
        let probes =
            |frames: &[Name], ids: &[u32]| !ids.is_empty() || frames::through(frames).is_some();
        share
            .stacks
            .iter()
            .filter(move |s| !probes(&s.stack.frames, &s.stack.programs))
    };
    for suspected in [false, true] {
        let limit = if suspected { SUSPECTED } else { SAMPLES };
        let of = || stacks().filter(|s| s.stack.suspected == suspected);
        let Some(worst) = of().max_by_key(|s| s.samples) else {
            continue;
        };
        let place = frames::waits_in(&worst.stack.frames);
        let same = || of().filter(|s| frames::waits_in(&s.stack.frames) == place);
        let there = same().fold(0u64, |sum, s| sum.saturating_add(s.samples));
        // Those that reopen interrupts must be of one place: they do so everywhere.
        let counted = if suspected {
            there
        } else {
            of().fold(0u64, |sum, s| sum.saturating_add(s.samples))
        };
        let on = share.cpus.iter().filter(|(_, _, in_lock, reopened)| {
            if suspected {
                *reopened > 0
            } else {
                *in_lock > 0
            }
        });
        let on = on.count();
        let part = recent.part(counted).filter(|part| *part >= limit);
        let Some(part) = part.filter(|_| counted >= LEAST_IN_LOCK && on >= LEAST_CPUS) else {
            continue;
        };
        let inside = place.map_or(String::new(), |f| format!(" in {}", printable(f)));
        let by = printable(&worst.stack.comm);
        let what = if suspected {
            format!(
                "interrupts off, lock suspected: {:.0} % of busy CPUs' time, by samples{inside}",
                part * 100.0
            )
        } else {
            let most = there as f64 * 100.0 / counted.max(1) as f64;
            format!(
                "lock contention: {:.0} % of busy CPUs' time in lock slow paths, by samples; \
                 {most:.0} %{inside}",
                part * 100.0
            )
        };
        let grave = part >= 2.0 * limit && !suspected;
        return Some(Found {
            severity: if grave {
                Severity::Critical
            } else {
                Severity::Warning
            },
            confidence: if suspected {
                Confidence::Low
            } else {
                Confidence::Medium
            },
            sentence: format!("{what} by {by}, {on} CPUs"),
            evidence: vec![
                format!("the worst stack: {}", called(&worst.stack.frames)),
                format!(
                    "{} samples of {}, from {}: spin waits are not visible on this host",
                    Count(counted),
                    Count(share.samples),
                    printable(share.source),
                ),
            ],
        });
    }
    None
}

/// Who waits: one name, or the one that waits most and how many others.
fn who<'a>(stacks: impl Iterator<Item = &'a StackSum<'a>>) -> String {
    let mut names: Vec<(&Name, u64)> = Vec::new();
    for sum in stacks {
        let comm = &sum.stack.comm;
        match names.iter_mut().find(|(name, _)| *name == comm) {
            Some((_, ns)) => *ns = ns.saturating_add(sum.waits.wait_ns),
            None => names.push((comm, sum.waits.wait_ns)),
        }
    }
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    match &names[..] {
        [] => "nobody known".to_owned(),
        [(one, _)] => printable(one).into_owned(),
        [(one, _), rest @ ..] => format!("{} and {} more", printable(one), rest.len()),
    }
}
