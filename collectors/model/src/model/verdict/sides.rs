//! Which stretches of time a change is judged by.

use super::SIDE_NS;
use super::compare::Points;
use crate::change::Entry;

/// Changes that follow each other within this are judged together, ns: what each alone did
/// cannot be told.
const TOGETHER_NS: u64 = 3_000_000_000;

/// The stretches of time that are compared, by the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sides {
    /// From when on is looked at before.
    pub(super) from_ns: u64,
    /// When the change began.
    pub(super) begin_ns: u64,
    /// When it ended.
    pub(super) end_ns: u64,
    /// Until when is looked at after.
    pub(super) until_ns: u64,
    /// Other changes in between.
    pub(super) others: u32,
}

/// When a change began and ended.
pub(super) fn span(entry: &Entry) -> (u64, u64) {
    let took_ns = entry.effect.as_ref().map_or(0, |effect| effect.took_ns);
    (entry.wall_ns, entry.wall_ns.saturating_add(took_ns))
}

impl Sides {
    /// A minute on each side, up to the changes before and after.
    pub(super) fn of(entry: &Entry, changes: &[Entry]) -> Self {
        let (mut begin_ns, mut end_ns) = span(entry);
        let same = |other: &Entry| other.id == entry.id && other.boot == entry.boot;
        let spans = || {
            let others = changes.iter().filter(|e| e.took_effect() && !same(e));
            others.map(span)
        };
        // One after the other, each close to the one before.
        loop {
            let reach = (
                begin_ns.saturating_sub(TOGETHER_NS),
                end_ns.saturating_add(TOGETHER_NS),
            );
            let near = spans().filter(|(from, to)| *to >= reach.0 && *from <= reach.1);
            let wider = near.fold((begin_ns, end_ns), |(a, b), (from, to)| {
                (a.min(from), b.max(to))
            });
            if wider == (begin_ns, end_ns) {
                break;
            }
            (begin_ns, end_ns) = wider;
        }
        let within = |(from, to): &(u64, u64)| *from >= begin_ns && *to <= end_ns;
        let before = spans().filter(|(_, to)| *to < begin_ns).map(|(_, to)| to);
        let after = spans()
            .filter(|(from, _)| *from > end_ns)
            .map(|(from, _)| from);
        Self {
            from_ns: begin_ns
                .saturating_sub(SIDE_NS)
                .max(before.max().unwrap_or(0)),
            begin_ns,
            end_ns,
            until_ns: end_ns
                .saturating_add(SIDE_NS)
                .min(after.min().unwrap_or(u64::MAX)),
            others: spans().filter(within).count() as u32,
        }
    }

    /// Puts the values of points `(from, to, value)`, in the order of time, on both sides.
    pub(super) fn fill(
        &self,
        points: impl DoubleEndedIterator<Item = (u64, u64, Option<f64>)> + Clone,
    ) -> (Points, Points) {
        let (mut before, mut after) = (Points::default(), Points::default());
        for (from, to, value) in points.clone().rev() {
            if to <= self.begin_ns
                && from >= self.from_ns
                && let Some(value) = value
                && !before.push(value)
            {
                break;
            }
        }
        before.reverse();
        for (from, to, value) in points {
            if from >= self.end_ns
                && to <= self.until_ns
                && let Some(value) = value
                && !after.push(value)
            {
                break;
            }
        }
        (before, after)
    }
}
