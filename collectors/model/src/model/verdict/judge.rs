//! Makes verdicts of what the model keeps.

use super::budget::{FAR_CHANCE, FEW, LEAST_NS, SIDE_NS};
use super::compare::{self, Limits, Points, Went, can_tell};
use super::history::Point;
use super::sides::{Dated, Sides};
use super::{HolderRow, Metric, NEWS_NS, Row, Told, Verdict};
use crate::Reading;
use crate::change::{Entry, Request};
use crate::model::costs::CostPoint;
use crate::model::{Model, locks};
use crate::sample::CostMethod;

/// Windows of costs are no nearer to each other than this, ns.
const WINDOWS_APART_NS: u64 = 900_000_000;
/// Holders that are compared: those that cost most.
const HOLDERS: usize = 4;

impl Model {
    /// What a change did, by its number in the journal; `None` where it had no effect that
    /// stalltop could have watched: it was never carried out, or long before the start.
    pub fn verdict(&self, entry: u64) -> Option<&Verdict> {
        self.verdicts.known.iter().find(|v| v.entry == entry)
    }

    /// The newest change that did anything, with its verdict, for as long as that is news.
    pub fn newest_verdict(&self) -> Option<(&Entry, &Verdict)> {
        let entry = self.changes().iter().rev().find(|e| e.took_effect())?;
        let verdict = self.verdict(entry.id)?;
        let age = self.now().at_ns.checked_sub(verdict.at_ns)?;
        (age <= NEWS_NS).then_some((entry, verdict))
    }

    /// Judges the changes that are fresh, where there is anything new to judge them by.
    pub(in super::super) fn judge(&mut self) {
        let taken = self.verdicts.history.taken();
        if taken == self.verdicts.judged {
            return;
        }
        self.verdicts.judged = taken;
        let now = self.now().at_ns;
        let fresh = |entry: &&Entry| {
            // A little longer, so that what comes late is in it.
            let dated = self.verdicts.dated(entry).filter(|_| entry.took_effect());
            dated.is_some_and(|d| {
                d.span.0 <= now && now <= d.span.1.saturating_add(SIDE_NS + LEAST_NS)
            })
        };
        if !self.changes().iter().any(|entry| fresh(&entry)) {
            return;
        }
        let changes = self.changes();
        let fresh = changes.iter().filter(fresh);
        let new: Vec<Verdict> = fresh.filter_map(|entry| self.judged(entry)).collect();
        let mut known = std::mem::take(&mut self.verdicts.known);
        for verdict in new {
            match known.iter_mut().find(|v| v.entry == verdict.entry) {
                Some(old) => *old = verdict,
                None => known.push(verdict),
            }
        }
        let changes = self.changes();
        known.retain(|v| changes.iter().any(|e| e.id == v.entry));
        self.verdicts.known = known;
    }

    fn judged(&self, entry: &Entry) -> Option<Verdict> {
        let Dated { sides, .. } = self.verdicts.dated(entry)?;
        let now = self.now().at_ns;
        let open = now < sides.until_ns;
        let ticks = self.verdicts.history.points();
        let (mut before_ns, mut after_ns) = (0, 0);
        for point in ticks {
            let length = point.to_ns - point.from_ns;
            if point.to_ns <= sides.begin_ns && point.from_ns >= sides.from_ns {
                before_ns += length;
            } else if point.from_ns >= sides.end_ns && point.to_ns <= sides.until_ns {
                after_ns += length;
            }
        }
        let case = Case {
            watched: before_ns >= LEAST_NS && after_ns >= LEAST_NS,
            open,
            probes: concerns_probes(entry),
        };
        let rows = Metric::ALL.map(|metric| {
            let (before, after) = self.both(metric, sides);
            case.row(metric, &before, &after)
        });
        Some(Verdict {
            entry: entry.id,
            at_ns: sides.end_ns,
            wall_ns: sides.wall_ns,
            others: sides.others,
            before_ns,
            after_ns,
            open,
            rows,
            holders: self.holders_on_both(sides, &case),
            stalls: self.stall_effect(entry),
        })
    }

    /// The points of a figure on both sides.
    fn both(&self, metric: Metric, sides: &Sides) -> (Points, Points) {
        let ticks = |value: fn(&Point) -> Option<f64>| {
            let points = self.verdicts.history.points();
            sides.fill(points.map(move |p| (p.from_ns, p.to_ns, value(p))))
        };
        let windows = |value: fn(&locks::Point) -> Option<f64>| {
            let points = self.locks.history();
            sides.fill(points.map(move |p| (p.at_ns.saturating_sub(p.span_ns), p.at_ns, value(p))))
        };
        match metric {
            Metric::LockWait => windows(locks::Point::wait_per_s),
            Metric::Contentions => windows(|p| {
                (p.measured_ns > 0).then(|| p.waits().count as f64 * 1e9 / p.measured_ns as f64)
            }),
            Metric::LockSamples => windows(|p| share_of(p, |s| s.in_lock)),
            Metric::LockSuspected => windows(|p| share_of(p, |s| s.suspected)),
            Metric::ProbeCost => self.costs_on_both(sides, |_, point| {
                let cost = point.foreign.map(|c| c + point.estimated.unwrap_or(0.0));
                cost.or(point.estimated)
            }),
            Metric::ProbeRuns => self.costs_on_both(sides, |_, point| point.runs),
            Metric::System => ticks(|p| p.system),
            Metric::WorstDelay => ticks(|p| p.delay_ns),
            Metric::Packets => ticks(|p| p.packets),
            Metric::Switches => ticks(|p| p.switches),
            Metric::Softirqs => ticks(|p| p.softirqs),
            Metric::User => ticks(|p| p.user),
        }
    }

    /// What probes cost, window by window: `value` of each point, which it also gets the place
    /// of, counted from the newest. Windows follow at some distance: each stands for itself alone.
    fn costs_on_both(
        &self,
        sides: &Sides,
        value: impl Fn(usize, &CostPoint) -> Option<f64> + Clone,
    ) -> (Points, Points) {
        let now = self.now();
        let length = match now.costs.value().map(|costs| &costs.method) {
            Some(Reading::Value(CostMethod::Windows { window_ns, .. })) => *window_ns,
            _ => now.at_ns.saturating_sub(self.before_ns()),
        };
        let points = self.costs.points();
        let newest = points.len().saturating_sub(1);
        let mut last = 0;
        let windows = points
            .enumerate()
            .filter(move |(_, point)| {
                let apart = point.window_ns.abs_diff(last) >= WINDOWS_APART_NS;
                if point.window_ns > 0 && apart {
                    last = point.window_ns;
                }
                point.window_ns > 0 && apart
            })
            .map(move |(at, point)| {
                let to = point.window_ns;
                (to.saturating_sub(length), to, value(newest - at, point))
            });
        sides.fill(windows)
    }

    /// What the probes of those holders cost that cost most, before or after.
    fn holders_on_both(&self, sides: &Sides, case: &Case) -> Vec<HolderRow> {
        let limits = Metric::ProbeCost.limits();
        let mut rows = Vec::new();
        // Most holders' probes cost next to nothing, all the time.
        let ever = |share: &f64| *share >= limits.least;
        let costly = self.costs.holders().iter();
        for holder in costly.filter(|h| h.shares.iter().flatten().any(ever)) {
            let (before, after) = self.costs_on_both(sides, |back, point| {
                let at = holder.shares.len().checked_sub(back + 1);
                // Who was not there cost nothing, where costs were measured at all.
                let share = at.and_then(|at| holder.shares.get(at).copied().flatten());
                point.foreign.map(|_| share.unwrap_or(0.0))
            });
            let shown = (before.mean(), after.mean());
            let most = shown.0.unwrap_or(0.0).max(shown.1.unwrap_or(0.0));
            if most < limits.least {
                continue;
            }
            let told = case.told(&before, &after, shown, limits, true);
            let row = HolderRow {
                by: holder.by.clone(),
                before: shown.0,
                after: shown.1,
                told,
            };
            rows.push((most, row));
        }
        rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        rows.into_iter().map(|(_, row)| row).take(HOLDERS).collect()
    }

    fn before_ns(&self) -> u64 {
        self.before().map_or(0, |sample| sample.at_ns)
    }
}

fn share_of(point: &locks::Point, part: fn(&locks::SharePoint) -> u64) -> Option<f64> {
    let share = point.share.filter(|share| share.samples > 0)?;
    Some(part(&share) as f64 / share.samples as f64)
}

/// Whether a change switches probes that have programs, or stops who holds them: that these cost
/// something else since is then no surprise.
fn concerns_probes(entry: &Entry) -> bool {
    let master = |selector: &str| selector.split_whitespace().any(|word| word == "kprobes");
    match &entry.plan.request {
        Request::Stop { .. } => true,
        Request::Off { selector } | Request::On { selector, .. } => master(selector),
        Request::Undo { .. } => {
            let kprobes = |path: &str| path.ends_with("/kprobes/enabled");
            entry.plan.writes.iter().any(|w| kprobes(&w.path))
        }
        Request::Remove { .. } | Request::DropCaches { .. } => false,
    }
}

/// What bears on every figure of one change.
struct Case {
    /// Whether both sides were watched for long enough.
    watched: bool,
    /// Whether more will be taken in.
    open: bool,
    /// Whether the change is one of probes.
    probes: bool,
}

impl Case {
    /// Compares one figure.
    fn row(&self, metric: Metric, before: &Points, after: &Points) -> Row {
        let shown = |points: &Points| match metric {
            Metric::WorstDelay => points.quantile(0.9),
            _ => points.mean(),
        };
        let shown = (shown(before), shown(after));
        let costs = matches!(metric, Metric::ProbeCost | Metric::ProbeRuns);
        Row {
            metric,
            before: shown.0,
            after: shown.1,
            told: self.told(before, after, shown, metric.limits(), costs),
        }
    }

    /// What came of a figure; of `costs` a few windows may tell.
    fn told(
        &self,
        before: &Points,
        after: &Points,
        shown: (Option<f64>, Option<f64>),
        limits: Limits,
        costs: bool,
    ) -> Told {
        let (was, is) = match shown {
            (None, _) => return Told::NotMeasured,
            (Some(_), None) if self.open => return Told::TooEarly,
            (Some(_), None) => return Told::NotMeasured,
            (Some(was), Some(is)) => (was, is),
        };
        let few = || {
            let tell = costs && limits.matters(was, is) && self.let_few_tell(before, after);
            tell.then_some(if is < was { Went::Down } else { Went::Up })
        };
        let moved = || compare::moved(before, after, (was, is), limits).or_else(few);
        if self.watched
            && let Some(went) = moved()
        {
            return Told::Moved(went);
        }
        if self.watched && can_tell(before.values().len(), after.values().len()) {
            Told::NoEffect
        } else if self.open {
            Told::TooEarly
        } else {
            Told::TooLittle
        }
    }

    /// Whether a few windows tell by themselves, as they lie far apart. Of a change that concerns
    /// no probe, that must not be chance either: some probes cost much now and then.
    fn let_few_tell(&self, before: &Points, after: &Points) -> bool {
        let (b, a) = (before.values().len(), after.values().len());
        let likely = self.probes || compare::chance_apart(b, a) <= FAR_CHANCE;
        b >= FEW && a >= FEW && likely && compare::far_apart(before, after)
    }
}
