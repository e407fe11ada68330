//! Makes verdicts of what the model keeps.

use super::compare::{self, Points, Went, can_tell};
use super::history::Point;
use super::sides::{Sides, span, took_effect};
use super::{LEAST_NS, Metric, NEWS_NS, Row, SIDE_NS, Told, Verdict};
use crate::Reading;
use crate::change::Entry;
use crate::model::{Model, locks};
use crate::sample::CostMethod;

/// So many times less or more, in every window, tells of costs where there are few windows.
const FAR: f64 = 10.0;
/// So few windows of costs on both sides.
const FEW: usize = 2;

impl Model {
    /// What a change did, by its number in the journal; `None` where it had no effect that
    /// stalltop could have watched: it was never carried out, or long before the start.
    pub fn verdict(&self, entry: u64) -> Option<&Verdict> {
        self.verdicts.known.iter().find(|v| v.entry == entry)
    }

    /// The newest change that did anything, with its verdict, for as long as that is news.
    pub fn newest_verdict(&self) -> Option<(&Entry, &Verdict)> {
        let entry = self.changes().iter().rev().find(|e| took_effect(e))?;
        let verdict = self.verdict(entry.id)?;
        let age = self.now().wall_ns.checked_sub(verdict.wall_ns)?;
        (age <= NEWS_NS).then_some((entry, verdict))
    }

    /// Judges the changes that are fresh.
    pub(in super::super) fn judge(&mut self) {
        let now = self.now().wall_ns;
        let fresh = |entry: &Entry| {
            let (begin, end) = span(entry);
            // A little longer, so that what comes late is in it.
            took_effect(entry) && begin <= now && now <= end.saturating_add(SIDE_NS + LEAST_NS)
        };
        if !self.changes().iter().any(fresh) {
            return;
        }
        let mut known = std::mem::take(&mut self.verdicts.known);
        for entry in self.changes().iter().filter(|e| fresh(e)) {
            let verdict = self.judged(entry);
            match known.iter_mut().find(|v| v.entry == verdict.entry) {
                Some(old) => *old = verdict,
                None => known.push(verdict),
            }
        }
        let changes = self.changes();
        known.retain(|v| changes.iter().any(|e| e.id == v.entry));
        self.verdicts.known = known;
    }

    fn judged(&self, entry: &Entry) -> Verdict {
        let sides = Sides::of(entry, self.changes());
        let now = self.now().wall_ns;
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
        let rows = Metric::ALL.map(|metric| {
            let (before, after) = self.both(metric, &sides);
            row(metric, &before, &after, (before_ns, after_ns), open)
        });
        Verdict {
            entry: entry.id,
            wall_ns: sides.end_ns,
            others: sides.others,
            before_ns,
            after_ns,
            open,
            rows,
            stalls: self.stall_effect(entry),
        }
    }

    /// The points of a figure on both sides.
    fn both(&self, metric: Metric, sides: &Sides) -> (Points, Points) {
        let ticks = |value: fn(&Point) -> Option<f64>| {
            let points = self.verdicts.history.points();
            sides.fill(points.map(move |p| (p.from_ns, p.to_ns, value(p))))
        };
        let windows = |value: fn(&locks::Point) -> Option<f64>| {
            let points = self.locks.history();
            sides.fill(
                points.map(move |p| (p.wall_ns.saturating_sub(p.span_ns), p.wall_ns, value(p))),
            )
        };
        match metric {
            Metric::LockWait => windows(locks::Point::wait_per_s),
            Metric::Contentions => windows(|p| {
                (p.measured_ns > 0).then(|| p.waits().count as f64 * 1e9 / p.measured_ns as f64)
            }),
            Metric::LockSamples => windows(|p| share_of(p, |s| s.in_lock)),
            Metric::LockSuspected => windows(|p| share_of(p, |s| s.suspected)),
            Metric::ProbeCost => self.costs_on_both(sides),
            Metric::System => ticks(|p| p.system),
            Metric::WorstDelay => ticks(|p| p.delay_ns),
            Metric::Packets => ticks(|p| p.packets),
            Metric::Switches => ticks(|p| p.switches),
            Metric::Softirqs => ticks(|p| p.softirqs),
        }
    }

    /// What probes cost, window by window. Windows follow at some distance: each stands for
    /// itself alone.
    fn costs_on_both(&self, sides: &Sides) -> (Points, Points) {
        let now = self.now();
        let wall = |at_ns: u64| now.wall_ns.saturating_sub(now.at_ns.saturating_sub(at_ns));
        let length = match now.costs.value().map(|costs| &costs.method) {
            Some(Reading::Value(CostMethod::Windows { window_ns, .. })) => *window_ns,
            _ => now.at_ns.saturating_sub(self.before_ns()),
        };
        let mut last = 0;
        let mut windows = [(0, 0, None); 2 * compare::MOST];
        let mut len = 0;
        for point in self.costs.points() {
            if point.window_ns == last || point.window_ns == 0 {
                continue;
            }
            last = point.window_ns;
            let to = wall(point.window_ns);
            if to <= sides.from_ns || to > sides.until_ns {
                continue;
            }
            let cost = point.foreign.map(|c| c + point.estimated.unwrap_or(0.0));
            if let Some(slot) = windows.get_mut(len) {
                *slot = (to.saturating_sub(length), to, cost.or(point.estimated));
                len += 1;
            }
        }
        sides.fill(windows[..len].iter().copied())
    }

    fn before_ns(&self) -> u64 {
        self.before().map_or(0, |sample| sample.at_ns)
    }
}

fn share_of(point: &locks::Point, part: fn(&locks::SharePoint) -> u64) -> Option<f64> {
    let share = point.share.filter(|share| share.samples > 0)?;
    Some(part(&share) as f64 / share.samples as f64)
}

/// Compares one figure.
fn row(metric: Metric, before: &Points, after: &Points, watched: (u64, u64), open: bool) -> Row {
    let (was, is) = match metric {
        // The longer one looks, the longer the worst: as many points of both.
        Metric::WorstDelay => {
            let n = before.values().len().min(after.values().len()).max(1);
            let late = before.values().len().saturating_sub(n);
            let most = |values: &[f64]| values.iter().copied().reduce(f64::max);
            (
                most(&before.values()[late..]),
                most(after.values().get(..n).unwrap_or_default()),
            )
        }
        _ => (before.mean(), after.mean()),
    };
    let told = match (was, is) {
        (None, _) => Told::NotMeasured,
        (Some(_), None) if open => Told::TooEarly,
        (Some(_), None) => Told::NotMeasured,
        (Some(was), Some(is)) => {
            let few = metric == Metric::ProbeCost
                && let_few_tell(before, after)
                && metric.limits().matters(was, is);
            let long = watched.0 >= LEAST_NS && watched.1 >= LEAST_NS;
            match compare::moved(before, after, (was, is), metric.limits()) {
                Some(went) if long => Told::Moved(went),
                _ if few && long => Told::Moved(if is < was { Went::Down } else { Went::Up }),
                _ if long && can_tell(before.values().len(), after.values().len()) => {
                    Told::NoEffect
                }
                _ if open => Told::TooEarly,
                _ => Told::TooLittle,
            }
        }
    };
    Row {
        metric,
        before: was,
        after: is,
        told,
    }
}

/// Whether a few windows tell by themselves: every one on the one side is [`FAR`] times every
/// one on the other.
fn let_few_tell(before: &Points, after: &Points) -> bool {
    let ends = |points: &Points| {
        let values = points.values();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        (values.len() >= FEW).then_some((least, most))
    };
    match (ends(before), ends(after)) {
        (Some(b), Some(a)) => b.0 > FAR * a.1 || a.0 > FAR * b.1,
        _ => false,
    }
}
