//! Findings on stalls, from those of the last minute.
//!
//! Paused virtual CPUs and stalls of our own making never count. Three rules share the stalls:
//! those in which one process read statistics of the kernel are [`statistics`]'s, those in which
//! one process's real-time tasks kept others waiting [`mod@real_time`]'s, and all others
//! [`concentrated`]'s.

mod evidence;
mod real_time;
mod statistic;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Confidence, Finding, Severity, WINDOW_NS};
use crate::model::Model;
use crate::model::stalls::{counts, held};
use crate::name::printable;
use crate::sample::{Pause, Stall, StallKind, Vector};
use crate::units::Duration;
pub(super) use real_time::real_time;
pub(crate) use statistic::{Reader, Statistic, reader, statistic_of};
pub(super) use statistic::{caches_dropped, reads_of_memory_stat, statistics};

/// So many stalls in a minute are no accident.
const SEVERAL: u64 = 3;
/// So many are not, even where the hypervisor may have been it.
const MANY: u64 = 10;
/// A stall of this many times its threshold is told even alone.
const LONG: u64 = 10;
/// From this share on stalls are "concentrated".
const MOST: f64 = 0.6;

/// Whether stalls of a kind are watched on this host.
pub(super) fn watched(model: &Model, kind: StallKind) -> bool {
    limit_ns(model, kind).is_some()
}

/// From when on a kind is a stall here, ns; `None` where it is not watched.
fn limit_ns(model: &Model, kind: StallKind) -> Option<u64> {
    model.now().stalls.value()?.kinds[kind as usize].get()
}

/// The stalls of the last minute that count, with the statistics that their culprits read.
fn recent(
    model: &Model,
) -> impl DoubleEndedIterator<Item = (&Arc<Stall>, Option<Statistic>)> + Clone {
    // They are told a little after the sample in whose tick they ended.
    model
        .stalls
        .with_statistics(model.now().at_ns.saturating_sub(WINDOW_NS), u64::MAX)
        .filter(|(stall, _)| counts(stall))
}

/// What makes stalls an incident, without a word of it yet: allocates nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Harm {
    /// How many stalls; of one hold there may be several.
    rows: u64,
    /// How often a CPU was held.
    count: u64,
    /// Of these, those in which the hypervisor may have paused the virtual CPU.
    either: u64,
    /// For how long CPUs were held, ns.
    total_ns: u64,
    worst_ns: u64,
    /// Whether one was very long.
    long: bool,
}

impl Harm {
    fn of<'a>(model: &Model, stalls: impl Iterator<Item = &'a Arc<Stall>> + Clone) -> Self {
        let all = held(stalls.clone().map(|s| &**s));
        let certain = stalls.clone().filter(|s| s.pause == Pause::Held);
        let certain = held(certain.map(|s| &**s)).count;
        let mut harm = Self {
            count: all.count.into(),
            either: all.count.saturating_sub(certain).into(),
            total_ns: all.total_ns,
            ..Self::default()
        };
        for stall in stalls {
            harm.rows += 1;
            harm.worst_ns = harm.worst_ns.max(stall.delay_ns);
            let limit = limit_ns(model, stall.kind).unwrap_or(u64::MAX);
            harm.long |= stall.pause == Pause::Held && stall.delay_ns >= limit.saturating_mul(LONG);
        }
        harm
    }

    /// One short stall in a minute is no incident, nor are a few that may be the hypervisor's.
    fn is_incident(&self) -> bool {
        self.long || self.count - self.either >= SEVERAL || self.count >= MANY
    }

    fn severity(&self) -> Severity {
        // Held up for a twentieth of the time, or again and again for very long.
        if self.total_ns >= WINDOW_NS / 20 || (self.long && self.count >= SEVERAL) {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }
}

/// The value that more than half of `values` have, with how many do (Boyer and Moore's
/// majority vote, 1981): in two passes, without memory.
fn majority<T: PartialEq>(values: impl Iterator<Item = T> + Clone) -> Option<(T, u64)> {
    let mut leads: Option<(T, u64)> = None;
    for value in values.clone() {
        leads = match leads {
            Some((lead, votes)) if lead == value => Some((lead, votes + 1)),
            Some((lead, votes)) if votes > 1 => Some((lead, votes - 1)),
            Some(_) => None,
            None => Some((value, 1)),
        };
    }
    let (lead, _) = leads?;
    let (have, all) = values.fold((0, 0), |(have, all), value| {
        (have + u64::from(value == lead), all + 1)
    });
    (have * 2 > all).then_some((lead, have))
}

/// Stalls that have one CPU, culprit, vector or handler in common, or none at all.
pub(super) fn concentrated(model: &Model) -> Option<Finding> {
    // What the other rules tell is not told twice.
    let (told, hog) = (model.reader(), real_time::hog(model));
    let hog = hog.as_ref();
    let stalls = recent(model)
        .filter(move |s| told.is_none_or(|reader| !reader.did(s)))
        .filter(move |(s, _)| hog.is_none_or(|hog| !hog.did(s)))
        .map(|(stall, _)| stall);
    let harm = Harm::of(model, stalls.clone());
    if !harm.is_incident() {
        return None;
    }
    let worst = stalls.clone().max_by_key(|s| s.delay_ns)?;
    // How many of the stalls have it in common; what is counted is how often CPUs were held.
    let (all, times) = (harm.rows, harm.count);
    let share = |n: u64| n as f64 / all as f64;
    let most = |n: &u64| share(*n) >= MOST;
    let cpu = majority(stalls.clone().map(|s| s.cpu)).filter(|(_, n)| most(n));
    let vector = majority(stalls.clone().map(|s| s.vector)).filter(|(v, n)| v.is_some() && most(n));
    let kind = majority(stalls.clone().map(|s| s.kind)).filter(|(_, n)| most(n));
    let culprit = majority(stalls.clone().map(|s| s.culprit.value().map(|c| &c.comm)))
        .and_then(|(name, n)| Some((name?, n)))
        .filter(|(_, n)| most(n));
    let function = majority(stalls.clone().map(function_of))
        .and_then(|(name, n)| Some((name?, n)))
        .filter(|(_, n)| most(n));

    let mut sentence = match cpu {
        Some((cpu, n)) if n == all => format!("{} on cpu {cpu} in 60 s", many(times)),
        Some((cpu, n)) => format!(
            "{} in 60 s, {:.0} % of them on cpu {cpu}",
            many(times),
            share(n) * 100.0
        ),
        None => format!("{} on {} in 60 s", many(times), cpus(stalls.clone())),
    };
    sentence += &format!(", worst {}", Duration(harm.worst_ns));
    if let Some(what) = what(kind.map(|k| k.0), vector.and_then(|v| v.0)) {
        sentence += &format!(" ({what})");
    }
    // All of one stall need not be said.
    let part = |n: u64| match all {
        1 => String::new(),
        _ => format!("{:.0} % ", share(n) * 100.0),
    };
    sentence += &match (culprit, function) {
        (Some((who, n)), Some((inside, m))) => {
            // Most are its, and most were there: how many are both is another figure.
            let its = |s: &&Arc<Stall>| s.culprit.value().is_some_and(|c| c.comm == *who);
            let there = |s: &&Arc<Stall>| function_of(s) == Some(inside);
            let both = stalls.clone().filter(its).filter(there).count() as u64;
            let (who, inside) = (printable(who), printable(inside));
            match both {
                both if most(&both) => format!("; {}by {who} in {inside}", part(both)),
                _ => format!("; {}by {who}, {}in {inside}", part(n), part(m)),
            }
        }
        (Some((who, n)), None) => format!("; {}by {}", part(n), printable(who)),
        (None, Some((inside, n))) => format!("; {}in {}", part(n), printable(inside)),
        (None, None) => mostly_by(stalls.clone(), all),
    };
    let confidence = match (
        culprit.is_some() || function.is_some(),
        harm.either * 2 > times,
    ) {
        (_, true) => Confidence::Low,
        (true, false) if times >= SEVERAL => Confidence::High,
        (true, false) => Confidence::Medium,
        (false, false) => Confidence::Low,
    };
    // Enough of them to be an incident by themselves: so that the mark stays while others come.
    let waiting = |s: &&Arc<Stall>| s.kind == StallKind::SoftirqPending;
    let pending = stalls.clone().filter(waiting).map(|s| &**s);
    let pending = u64::from(held(pending).count) >= SEVERAL;
    let mut evidence = evidence::lines(model, &stalls, &harm);
    evidence.extend(evidence::worst(worst));
    Some(Finding {
        id: "stalls",
        incident: if pending { "I2" } else { "" },
        severity: harm.severity(),
        confidence,
        sentence,
        evidence,
        action: "",
        pane: "stalls",
        disproof: "the stalls go on while that culprit is stopped, or steal on that CPU explains them",
    })
}

/// `; 46 % by a, 41 % by b`: who held CPUs most often, where it was not one alone.
fn mostly_by<'a>(stalls: impl Iterator<Item = &'a Arc<Stall>>, all: u64) -> String {
    let mut each: Vec<&str> = stalls
        .filter_map(|s| Some(&*s.culprit.value()?.comm))
        .collect();
    each.sort_unstable();
    let same = each.chunk_by(|a, b| a == b);
    let mut names: Vec<(&str, u64)> = same.map(|s| (s[0], s.len() as u64)).collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let by = |(name, n): &(&str, u64)| {
        let share = *n as f64 / all as f64 * 100.0;
        format!("{share:.0} % by {}", printable(name))
    };
    match &names[..] {
        [] => "; nobody was seen to hold them".to_owned(),
        [one] => format!("; {}", by(one)),
        [one, two, ..] => format!("; {}, {}", by(one), by(two)),
    }
}

/// `1 stall`, `41 stalls`.
fn many(n: u64) -> String {
    format!("{n} stall{}", if n == 1 { "" } else { "s" })
}

/// `2 cpus`: on how many.
fn cpus<'a>(stalls: impl Iterator<Item = &'a Arc<Stall>>) -> String {
    let mut cpus: Vec<u32> = stalls.map(|s| s.cpu).collect();
    cpus.sort_unstable();
    cpus.dedup();
    match &cpus[..] {
        [one] => format!("cpu {one}"),
        [a, b] => format!("cpus {a} and {b}"),
        [a, b, c] => format!("cpus {a}, {b} and {c}"),
        more => format!("{} cpus", more.len()),
    }
}

/// `NET_RX pending`, `interrupts off`.
fn what(kind: Option<StallKind>, vector: Option<Vector>) -> Option<String> {
    let vector = vector.map(Vector::as_str);
    Some(match (kind?, vector) {
        (StallKind::SoftirqPending, Some(vector)) => format!("{vector} pending"),
        (StallKind::SoftirqPending, None) => "softirqs pending".to_owned(),
        (StallKind::SoftirqHandler, Some(vector)) => format!("{vector} handlers ran long"),
        (StallKind::SoftirqHandler, None) => "softirq handlers ran long".to_owned(),
        (StallKind::KsoftirqdWaiting, _) => "ksoftirqd did not get the CPU".to_owned(),
        (StallKind::InterruptsOff, _) => "interrupts off".to_owned(),
        (StallKind::NoReschedule, _) => "no reschedule".to_owned(),
        (StallKind::RealTime, _) => "real-time tasks kept the CPU".to_owned(),
    })
}

/// The kernel function of a stall's culprit, if known.
fn function_of(stall: &Arc<Stall>) -> Option<&crate::Name> {
    stall.culprit.value()?.function.value()
}
