//! A process whose real-time tasks keep CPUs from everybody else.

use std::sync::Arc;

use super::super::{Confidence, Finding, WINDOW_NS};
use super::{Harm, SEVERAL, cpus, evidence, recent};
use crate::model::Model;
use crate::name::printable;
use crate::sample::{Culprit, Stall, StallKind};
use crate::units::Duration;

/// Those who waited that are listed.
const WAITERS: usize = 4;

/// The culprit, where a task and no softirq on top of it had the CPU.
fn culprit(stall: &Stall) -> Option<&Culprit> {
    let culprit = stall.culprit.value()?;
    (stall.kind == StallKind::RealTime && culprit.vector.is_none()).then_some(culprit)
}

/// One process that keeps CPUs with real-time tasks.
pub(super) struct Hog {
    tgid: u32,
}

impl Hog {
    /// Whether a stall is one of its.
    pub(super) fn did(&self, stall: &Stall) -> bool {
        culprit(stall).is_some_and(|culprit| culprit.tgid == self.tgid)
    }
}

/// The one that did so longest in all, if that is an incident. Allocates only where there are such
/// stalls.
pub(super) fn hog(model: &Model) -> Option<Hog> {
    let mut totals: Vec<(u32, u64)> = Vec::new();
    for (stall, _) in recent(model) {
        let Some(culprit) = culprit(stall) else {
            continue;
        };
        match totals.iter_mut().find(|(tgid, _)| *tgid == culprit.tgid) {
            Some((_, ns)) => *ns = ns.saturating_add(stall.delay_ns),
            None => totals.push((culprit.tgid, stall.delay_ns)),
        }
    }
    let (tgid, _) = totals.into_iter().max_by_key(|(_, ns)| *ns)?;
    let hog = Hog { tgid };
    let stalls = recent(model).map(|(s, _)| s).filter(|s| hog.did(s));
    Harm::of(model, stalls).is_incident().then_some(hog)
}

/// One process's real-time tasks keep CPUs, and other tasks wait.
pub(in super::super) fn real_time(model: &Model) -> Option<Finding> {
    let hog = hog(model)?;
    let stalls = recent(model).map(|(s, _)| s).filter(|s| hog.did(s));
    let harm = Harm::of(model, stalls.clone());
    let worst = stalls.clone().max_by_key(|s| s.delay_ns)?;
    let culprit = worst.culprit.value()?;

    let begin = stalls.clone().map(|s| s.at_ns.saturating_sub(s.delay_ns));
    let since_ns = model.now().at_ns.saturating_sub(begin.min().unwrap_or(0));
    let how = match &culprit.sched {
        Some(sched) => format!(" ({sched})"),
        None => String::new(),
    };
    let sentence = format!(
        "{}{how} kept {} for up to {} at a time, {} of the last {} s, while other tasks waited",
        evidence::who(culprit),
        cpus(stalls.clone()),
        Duration(harm.worst_ns),
        Duration(harm.total_ns),
        since_ns.min(WINDOW_NS).div_ceil(1_000_000_000).max(1),
    );

    let mut lines = vec![evidence::process(&stalls)];
    lines.extend(threads(culprit));
    lines.extend(waited(stalls.clone()));
    lines.extend(evidence::lines(model, &stalls, &harm));
    lines.extend(evidence::worst(worst));
    let confidence = match (harm.either * 2 > harm.count, harm.count >= SEVERAL) {
        (true, _) => Confidence::Low,
        (false, true) => Confidence::High,
        (false, false) => Confidence::Medium,
    };
    Some(Finding {
        id: "real-time-task",
        incident: "",
        severity: harm.severity(),
        confidence,
        sentence,
        evidence: lines,
        action: "",
        pane: "stalls",
        disproof: "tasks of that CPU wait as long while that thread is stopped, or is an ordinary \
                   one (chrt -o -p 0 THREAD)",
    })
}

/// Which thread it was, where that is not the process's first.
fn threads(culprit: &Culprit) -> Option<String> {
    (culprit.pid != culprit.tgid).then(|| {
        let comm = printable(&culprit.comm);
        format!(
            "thread {} ({comm}) of process {}",
            culprit.pid, culprit.tgid
        )
    })
}

/// `kworker/1:2, bash and 3 more waited`.
fn waited<'a>(stalls: impl Iterator<Item = &'a Arc<Stall>>) -> Option<String> {
    let mut names: Vec<(&str, u64)> = Vec::new();
    for stall in stalls {
        let Some(name) = &stall.waited else { continue };
        match names.iter_mut().find(|(have, _)| **have == **name) {
            Some((_, ns)) => *ns += stall.delay_ns,
            None => names.push((name, stall.delay_ns)),
        }
    }
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let shown = names.iter().take(WAITERS).map(|(name, _)| printable(name));
    let shown: Vec<_> = shown.collect();
    let more = match names.len().saturating_sub(WAITERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| format!("who waited longest each time: {}{more}", shown.join(", ")))
}
