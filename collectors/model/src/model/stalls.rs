//! The newest stalls, and what they have in common.
//!
//! A stall comes whole and is never changed: the model keeps, counts and groups them. What
//! panes ask goes through a [`Filter`]: paused virtual CPUs and stalls of our own making are
//! folded away unless asked for, and counted ([`StallsModel::tally`]).

mod filter;
mod group;
mod heat;
mod holds;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use filter::{Filter, Named};
pub use group::{Group, GroupBy, Key, Top, groups};
pub use heat::{HeatCell, HeatMap};
pub use holds::{Held, held, told_before};

use crate::Name;
use crate::rules::{Statistic, statistic_of};
use crate::sample::{Pause, Sample, Stall, StallKind};

/// How many stalls are kept: an hour at one a second.
const KEPT: usize = 4096;
/// Bytes that the timelines and stacks of all stalls may take: a stall of 600 samples takes
/// about 45 KB, most take a few KB.
const TIMELINES: usize = 16 << 20;

/// Samples of which it is kept how many stalls were lost.
const LOST_KEPT: usize = 180;

/// The newest stalls, ordered by when they ended.
#[derive(Clone, Debug, Default)]
pub struct StallsModel {
    stalls: VecDeque<Kept>,
    /// What the timelines and stacks of `stalls` take, bytes.
    timelines: usize,
    dropped: u64,
    /// `CLOCK_BOOTTIME` of samples, ns, and the stalls that were lost until then; oldest first.
    lost: VecDeque<(u64, u64)>,
}

/// A stall, and what is left of it.
#[derive(Clone, Debug)]
struct Kept {
    stall: Arc<Stall>,
    /// The statistic of the kernel that its culprit read, told by its function: looked up once,
    /// as rules ask every tick.
    statistic: Option<Statistic>,
    /// What its timeline and stacks take, bytes.
    bytes: usize,
    trimmed: bool,
}

/// How many stalls there are, those folded away apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// That the filter shows.
    pub shown: u64,
    /// Folded away: the virtual CPU was paused.
    pub paused: u64,
    /// Folded away: stalltop itself held the CPU.
    pub ours: u64,
    /// The longest of those shown, ns.
    pub worst_ns: u64,
}

/// What happened on one CPU in a stretch of time, for a mark on its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Stalls that ended there.
    pub count: u32,
    /// The longest of them, ns.
    pub worst_ns: u64,
    /// The kind of that one.
    pub kind: StallKind,
}

impl StallsModel {
    /// Takes a stall; the oldest goes when there is no room, and old ones lose their timelines.
    pub(super) fn push(&mut self, mut stall: Stall) {
        // A share is a part of the window, whatever a recording says.
        if let Some(culprit) = stall.culprit.value_mut() {
            culprit.share = culprit.share.clamp(0.0, 1.0);
        }
        if self.stalls.len() == KEPT
            && let Some(oldest) = self.stalls.pop_front()
        {
            self.timelines -= oldest.bytes;
            self.dropped += 1;
        }
        let bytes = weigh(&stall);
        let statistic = statistic_of(&stall);
        // Those of several CPUs are told out of order, by a little.
        let after = |kept: &Kept| (kept.stall.at_ns, kept.stall.id) > (stall.at_ns, stall.id);
        let late = self.stalls.iter().rev().take_while(|k| after(k)).count();
        let at = self.stalls.len() - late;
        self.timelines += bytes;
        self.stalls.insert(
            at,
            Kept {
                stall: Arc::new(stall),
                statistic,
                bytes,
                trimmed: false,
            },
        );
        self.trim();
    }

    /// Notes how many were lost by the time of a sample.
    pub(super) fn advance(&mut self, now: &Sample) {
        let Some(watch) = now.stalls.value() else {
            return;
        };
        if self.lost.capacity() == 0 {
            self.lost.reserve_exact(LOST_KEPT);
        }
        if self.lost.len() == LOST_KEPT {
            self.lost.pop_front();
        }
        self.lost.push_back((now.at_ns, watch.lost));
    }

    /// Stalls that were lost since a time of `CLOCK_BOOTTIME`, ns, by the samples.
    pub(super) fn lost_since(&self, at_ns: u64) -> u64 {
        let then = self.lost.iter().rev().find(|(at, _)| *at <= at_ns);
        let then = then.or(self.lost.front()).map_or(0, |(_, lost)| *lost);
        let now = self.lost.back().map_or(0, |(_, lost)| *lost);
        now.saturating_sub(then)
    }

    /// Takes the timelines off the oldest stalls until they fit; the newest keeps its own.
    fn trim(&mut self) {
        let newest = self.stalls.len().saturating_sub(1);
        let mut at = 0;
        while self.timelines > TIMELINES && at < newest {
            let kept = &mut self.stalls[at];
            at += 1;
            if kept.trimmed || kept.bytes == 0 {
                continue;
            }
            // A screen that is held shares it: that one keeps its timeline.
            let stall = Arc::make_mut(&mut kept.stall);
            let main = main_stack(stall).and_then(|i| stall.stacks.get_mut(i as usize));
            stall.stacks = main.map(std::mem::take).into_iter().collect();
            stall.timeline = Vec::new();
            let bytes = weigh(stall);
            self.timelines = self.timelines - kept.bytes + bytes;
            kept.bytes = bytes;
            kept.trimmed = true;
        }
    }

    /// Every stall kept, in the order in which they ended.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Stall>> + ExactSizeIterator + Clone {
        self.stalls.iter().map(|kept| &kept.stall)
    }

    /// The stalls that ended in `(from_ns, to_ns]` of `CLOCK_BOOTTIME`, in that order.
    pub fn between(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Stall>> + ExactSizeIterator + Clone {
        self.kept_between(from_ns, to_ns).map(|k| &k.stall)
    }

    /// Those of [`Self::between`], with the statistic of the kernel that each culprit read.
    pub(crate) fn with_statistics(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = (&Arc<Stall>, Option<Statistic>)> + Clone {
        self.kept_between(from_ns, to_ns)
            .map(|k| (&k.stall, k.statistic))
    }

    fn kept_between(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &Kept> + ExactSizeIterator + Clone {
        let from = self.stalls.partition_point(|k| k.stall.at_ns <= from_ns);
        let to = self.stalls.partition_point(|k| k.stall.at_ns <= to_ns);
        self.stalls.range(from..to.max(from))
    }

    /// Those of [`Self::between`] that a filter shows.
    pub fn matching<'a>(
        &'a self,
        filter: &'a Filter,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Stall>> + Clone {
        self.between(from_ns, to_ns).filter(|s| filter.shows(s))
    }

    /// How many of [`Self::between`] a filter shows and how many it folds away.
    pub fn tally(&self, filter: &Filter, from_ns: u64, to_ns: u64) -> Tally {
        let mut tally = Tally::default();
        for stall in self.between(from_ns, to_ns).filter(|s| filter.matches(s)) {
            if filter.shows(stall) {
                tally.shown += 1;
                tally.worst_ns = tally.worst_ns.max(stall.delay_ns);
            } else if stall.pause == Pause::Paused {
                tally.paused += 1;
            } else {
                tally.ours += 1;
            }
        }
        tally
    }

    /// How often and how long CPUs were held, by those that a filter shows.
    pub fn held(&self, filter: &Filter, from_ns: u64, to_ns: u64) -> Held {
        held(self.matching(filter, from_ns, to_ns).map(|s| &**s))
    }

    /// What those that a filter shows have in common, by one property: most first, among
    /// equals the most time first.
    pub fn groups(&self, by: GroupBy, filter: &Filter, from_ns: u64, to_ns: u64) -> Vec<Group> {
        group::groups(by, self.matching(filter, from_ns, to_ns))
    }

    /// What a CPU's timeline marks for a stretch of time: the stalls that ended in
    /// `(from_ns, to_ns]` there, or elsewhere with this CPU among their victims; without
    /// paused virtual CPUs and our own.
    pub fn mark(&self, cpu: u32, from_ns: u64, to_ns: u64) -> Option<Mark> {
        let mut mark: Option<Mark> = None;
        let there = |s: &&Arc<Stall>| s.cpu == cpu || s.victims.contains(&cpu);
        for stall in self.between(from_ns, to_ns).filter(there) {
            if !counts(stall) {
                continue;
            }
            let mark = mark.get_or_insert(Mark {
                count: 0,
                worst_ns: 0,
                kind: stall.kind,
            });
            mark.count += 1;
            if stall.delay_ns > mark.worst_ns {
                (mark.worst_ns, mark.kind) = (stall.delay_ns, stall.kind);
            }
        }
        mark
    }

    /// Where in each second the CPUs stalled, FlameScope's way: `columns` seconds across up to
    /// and with the one that holds `until_ns`, `rows` parts of a second up. `wall_ns` is the
    /// time of day at `until_ns`: columns are whole seconds of the wall clock, so that what
    /// happens on the second stands in one row.
    pub fn heat(
        &self,
        filter: &Filter,
        (until_ns, wall_ns): (u64, u64),
        columns: usize,
        rows: usize,
    ) -> HeatMap {
        let mut map = HeatMap::new((until_ns, wall_ns), columns, rows);
        // A stall that ends after the last column may begin in it.
        for stall in self.matching(filter, map.first_ns, u64::MAX) {
            if stall.at_ns.saturating_sub(stall.delay_ns) <= until_ns {
                map.add(stall);
            }
        }
        map
    }

    /// The stall of that number.
    pub fn get(&self, id: u64) -> Option<&Arc<Stall>> {
        self.iter().rev().find(|stall| stall.id == id)
    }

    /// Whether a stall lost its timeline to newer ones: only its heaviest stack is left.
    pub fn is_trimmed(&self, id: u64) -> bool {
        self.stalls
            .iter()
            .any(|kept| kept.stall.id == id && kept.trimmed)
    }

    /// How many stalls lost their timelines to newer ones.
    pub fn trimmed(&self) -> usize {
        self.stalls.iter().filter(|kept| kept.trimmed).count()
    }

    /// How many were dropped because newer ones came.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What timelines and stacks take, bytes.
    pub fn timeline_bytes(&self) -> usize {
        self.timelines
    }
}

/// Whether a stall counts as one of this host's kernel: neither a paused virtual CPU nor a
/// stall of our own making.
pub fn counts(stall: &Stall) -> bool {
    stall.pause != Pause::Paused && !stall.ours
}

/// The stack that stands for most of a stall's window, as an index into its stacks.
pub fn main_stack(stall: &Stall) -> Option<u32> {
    stacks_by_weight(stall).first().map(|(stack, _)| *stack)
}

/// A stall's stacks, as indices, with how much of the window each stands for, ns; heaviest
/// first. Those seen only outside the window weigh nothing and come last.
pub fn stacks_by_weight(stall: &Stall) -> Vec<(u32, u64)> {
    let mut weights: Vec<(u32, u64)> = (0..stall.stacks.len() as u32).map(|i| (i, 0)).collect();
    for seen in &stall.timeline {
        if let Some(weight) = seen.stack.and_then(|i| weights.get_mut(i as usize)) {
            weight.1 = weight.1.saturating_add(seen.weight_ns);
        }
    }
    weights.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    weights
}

/// What a stall's timeline and stacks take, bytes. Names are shared between stalls and not
/// counted.
fn weigh(stall: &Stall) -> usize {
    let frames = |stack: &Vec<Name>| size_of::<Vec<Name>>() + size_of_val(&stack[..]);
    size_of_val(&stall.timeline[..]) + stall.stacks.iter().map(frames).sum::<usize>()
}
