//! Which stretches of time a change is judged by.

use super::budget::SIDE_NS;
use super::compare::Points;
use crate::Name;
use crate::change::Entry;
use crate::sample::Sample;

/// Changes that follow each other within this are judged together, ns: what each alone did
/// cannot be told.
const TOGETHER_NS: u64 = 3_000_000_000;

/// The stretches of time that are compared, by `CLOCK_BOOTTIME`.
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
    /// `CLOCK_REALTIME` of its end, ns since 1970: for people.
    pub(super) wall_ns: u64,
}

/// A change that did anything, and when.
#[derive(Clone, Debug)]
pub(super) struct Dated {
    entry: u64,
    boot: Name,
    /// `CLOCK_BOOTTIME` of its beginning and of its end, ns.
    pub(super) span: (u64, u64),
    pub(super) sides: Sides,
}

impl Dated {
    /// Whether it is that entry of the journal.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        self.entry == entry.id && self.boot == entry.boot
    }
}

/// Dates all changes that did anything, `known` ones as before.
///
/// The journal has the time of day alone, as it outlives boots. It is converted once, by the first
/// sample after the change: a clock that is set later moves what is compared no more. Set in
/// the second between the change and that sample, it moves the sides by as much. What was before
/// the boot has no date.
pub(super) fn date(known: &[Dated], changes: &[Entry], now: &Sample) -> Vec<Dated> {
    let done = changes.iter().filter(|entry| entry.took_effect());
    let mut spans: Vec<(&Entry, (u64, u64))> = Vec::new();
    for entry in done {
        let dated = known.iter().find(|d| d.is(entry)).map(|d| d.span.0);
        if let Some(begin_ns) = dated.or_else(|| boot_time(now, entry.wall_ns)) {
            spans.push((entry, (begin_ns, begin_ns.saturating_add(took_ns(entry)))));
        }
    }
    let dated = spans.iter().enumerate().map(|(at, (entry, span))| {
        let others = spans.iter().enumerate().filter(move |(i, _)| *i != at);
        Dated {
            entry: entry.id,
            boot: entry.boot.clone(),
            span: *span,
            sides: Sides::of(
                *span,
                end_wall_ns(entry),
                &others.map(|(_, (_, span))| *span),
            ),
        }
    });
    dated.collect()
}

/// `CLOCK_BOOTTIME` at a time of day, ns; `None` before the boot.
fn boot_time(now: &Sample, wall_ns: u64) -> Option<u64> {
    match now.wall_ns.checked_sub(wall_ns) {
        Some(ago) => now.at_ns.checked_sub(ago),
        None => now.at_ns.checked_add(wall_ns - now.wall_ns),
    }
}

fn took_ns(entry: &Entry) -> u64 {
    entry.effect.as_ref().map_or(0, |effect| effect.took_ns)
}

fn end_wall_ns(entry: &Entry) -> u64 {
    entry.wall_ns.saturating_add(took_ns(entry))
}

impl Sides {
    /// A minute on each side, up to the changes before and after.
    fn of(
        span: (u64, u64),
        wall_ns: u64,
        others: &(impl Iterator<Item = (u64, u64)> + Clone),
    ) -> Self {
        let (mut begin_ns, mut end_ns) = span;
        let spans = || others.clone();
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
            wall_ns: wall_ns.saturating_add(end_ns - span.1),
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
