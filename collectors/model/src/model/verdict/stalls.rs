//! What a change did to stalls.
//!
//! Stalls are counted, and few: what is compared is how many there were in how long a time, and
//! how long they took. They come in bursts: whether there are fewer or more is decided by the
//! seconds that had any (Fisher's exact test, Fisher 1922), as one burst is one event; whether
//! they are shorter, by the delays of single ones (`compare`). A drop of caches has a report of its own
//! ([`Effect`](crate::change::Effect)), made within two seconds of the write; whether stalls
//! become fewer takes longer to see, and is worked out here.

use std::fmt;

use super::budget::{LEAST_STALLS, MOST, SIDE_NS, STALLS_CHANCE, STALLS_LEAST_NS};
use super::compare::{self, Limits, Points, Went};
use crate::change::{Entry, Request};
use crate::model::Model;
use crate::model::stalls::{counts, held};
use crate::rules::Statistic;
use crate::units::Duration;

/// By how much stalls must be shorter: by half.
const SHORTER: Limits = Limits {
    least: 0.0,
    part: 0.5,
};
/// Seconds of one side at most: it is a minute long.
const MOST_SECONDS: u32 = 120;

/// Stalls in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its length, ns.
    pub span_ns: u64,
    /// Stalls in it, without paused virtual CPUs and our own.
    pub count: u32,
    /// Seconds in which one ended at least.
    pub seconds: u32,
    /// The 99th percentile of their delays, ns; 0 where there are none.
    pub p99_ns: u64,
    /// The longest, ns.
    pub worst_ns: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallVerdict {
    /// Too little time has passed, or was watched before.
    TooEarly,
    /// There were too few stalls before to tell.
    TooFew,
    /// Fewer were told, but some were lost: whether there were fewer is not known.
    Lost,
    /// Not one since.
    Ended,
    /// Fewer or shorter by half at least.
    Better,
    /// Neither much fewer nor much shorter.
    NoEffect,
    /// Twice as many, and more than chance would have it.
    Worse,
}

/// Stalls before and after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallEffect {
    /// The journal's number of the change.
    pub entry: u64,
    /// `CLOCK_BOOTTIME` of its end, ns.
    pub at_ns: u64,
    /// Up to a minute before it began.
    pub before: Side,
    /// Up to a minute after it ended.
    pub after: Side,
    /// Whether only stalls in reads of memory cgroups' statistics were counted, as there were
    /// some before: a drop of caches is for those, and others go on whatever is dropped.
    pub reads: bool,
    /// Whether those after it are shorter than those before, and that is no chance.
    pub shorter: bool,
    /// Stalls that were lost since it began: they happened, and nothing more is known.
    pub lost: u64,
}

impl Side {
    /// How many a minute.
    pub fn per_minute(&self) -> f64 {
        f64::from(self.count) * 60e9 / self.span_ns.max(1) as f64
    }
}

impl StallEffect {
    /// What came of it.
    pub fn verdict(&self) -> StallVerdict {
        let (before, after) = (&self.before, &self.after);
        if before.span_ns < STALLS_LEAST_NS || after.span_ns < STALLS_LEAST_NS {
            return StallVerdict::TooEarly;
        }
        let expected = before.per_minute() * after.span_ns as f64 / 60e9;
        if f64::from(after.count) > 2.0 * expected && by_chance(after, before) <= STALLS_CHANCE {
            return StallVerdict::Worse;
        }
        if before.count < LEAST_STALLS {
            return StallVerdict::TooFew;
        }
        let half = |is: f64| is * 2.0 <= expected;
        let fewer = half(f64::from(after.count)) && by_chance(before, after) <= STALLS_CHANCE;
        if fewer && !half(f64::from(after.count) + self.lost as f64) {
            return StallVerdict::Lost;
        }
        match (fewer, after.count) {
            (true, 0) => StallVerdict::Ended,
            // Too few before to tell so soon, or at all.
            (false, 0) if after.span_ns < SIDE_NS => StallVerdict::TooEarly,
            (false, 0) => StallVerdict::TooFew,
            (true, _) => StallVerdict::Better,
            (false, _) if self.shorter => StallVerdict::Better,
            (false, _) => StallVerdict::NoEffect,
        }
    }
}

/// How likely it is that as many of the seconds with stalls as there were, or more, fall on the
/// side `more` by chance.
fn by_chance(more: &Side, less: &Side) -> f64 {
    let seconds = |side: &Side| {
        let all = u32::try_from(side.span_ns / 1_000_000_000).unwrap_or(u32::MAX);
        (all.min(MOST_SECONDS).max(side.seconds), side.seconds)
    };
    let ((more_all, more_hit), (less_all, less_hit)) = (seconds(more), seconds(less));
    let (all, hit) = (more_all + less_all, more_hit + less_hit);
    // Ways to choose `k` of `n`, as a logarithm.
    let ways = |n: u32, k: u32| {
        let each = (0..k).map(|i| (f64::from(n - i) / f64::from(i + 1)).ln());
        each.sum::<f64>()
    };
    let total = ways(all, hit);
    (more_hit..=hit.min(more_all))
        .filter(|at| hit - at <= less_all)
        .map(|at| (ways(more_all, at) + ways(less_all, hit - at) - total).exp())
        .sum()
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.span_ns / 1_000_000_000;
        match self.count {
            0 => write!(f, "none in {seconds} s"),
            n => write!(f, "{n} in {seconds} s, p99 {}", Duration(self.p99_ns)),
        }
    }
}

/// `stalls: 36 in 60 s, p99 178.0 ms -> none in 24 s`; of reads alone, `stalls in reads of memory statistics: ...`.
impl fmt::Display for StallEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.reads {
            "stalls in reads of memory statistics"
        } else {
            "stalls"
        };
        write!(f, "{which}: {} -> {}", self.before, self.after)?;
        match self.verdict() {
            StallVerdict::TooEarly => write!(f, " (too early to tell)"),
            StallVerdict::TooFew => write!(f, " (too few before to tell)"),
            StallVerdict::Lost => write!(f, " ({} more were lost: not known)", self.lost),
            StallVerdict::NoEffect => write!(f, ": no effect seen"),
            StallVerdict::Ended | StallVerdict::Better | StallVerdict::Worse => Ok(()),
        }
    }
}

impl Model {
    /// Stalls before and after the last drop of caches that was done; `None` without one, or
    /// where stalls are not watched.
    pub fn drop_effect(&self) -> Option<StallEffect> {
        let dropped =
            |e: &&Entry| matches!(e.plan.request, Request::DropCaches { .. }) && e.took_effect();
        let entry = self.changes().iter().rev().find(dropped)?;
        self.stall_effect(entry)
    }

    /// Stalls before and after a change; `None` where stalls are not watched, or were not then.
    pub(super) fn stall_effect(&self, entry: &Entry) -> Option<StallEffect> {
        self.now().stalls.value()?;
        let ticks = self.cores.ticks();
        let first = self.cores.time(ticks.start)?;
        let first = first.at_ns.saturating_sub(first.span_ns);
        let sides = &self.verdicts.dated(entry)?.sides;
        let from = sides.from_ns.max(first.min(sides.begin_ns));
        let until = self.now().at_ns.min(sides.until_ns).max(sides.end_ns);
        // A drop of caches is for the reads that zombies slow down.
        let drops = matches!(entry.plan.request, Request::DropCaches { .. });
        let reads = drops && self.stall_side(from, sides.begin_ns, true).0.count >= LEAST_STALLS;
        let (before, was) = self.stall_side(from, sides.begin_ns, reads);
        let (after, is) = self.stall_side(sides.end_ns, until, reads);
        let p99 = (before.p99_ns as f64, after.p99_ns as f64);
        let moved = compare::moved(&was, &is, p99, SHORTER);
        Some(StallEffect {
            entry: entry.id,
            at_ns: sides.end_ns,
            before,
            after,
            reads,
            shorter: moved == Some(Went::Down),
            lost: self.stalls.lost_since(sides.begin_ns),
        })
    }

    /// The stalls that ended in `(from, to]` of `CLOCK_BOOTTIME`, ns. And the delays of the newest, ns.
    fn stall_side(&self, from: u64, to: u64, reads: bool) -> (Side, Points) {
        let mut side = Side {
            span_ns: to.saturating_sub(from),
            ..Side::default()
        };
        let of_reads = |s: Option<Statistic>| s.is_some_and(Statistic::is_of_memory_cgroups);
        let stalls = self
            .stalls
            .with_statistics(from, to)
            .filter(|(s, of)| counts(s) && (!reads || of_reads(*of)))
            .map(|(stall, _)| stall);
        side.count = held(stalls.clone().map(|s| &**s)).count;
        let mut delays: Vec<u64> = stalls.clone().map(|s| s.delay_ns).collect();
        let mut newest = Points::default();
        for delay in &delays[delays.len().saturating_sub(MOST)..] {
            newest.push(*delay as f64);
        }
        let mut seconds: Vec<u64> = stalls.map(|s| (s.at_ns - from) / 1_000_000_000).collect();
        seconds.sort_unstable();
        seconds.dedup();
        side.seconds = seconds.len() as u32;
        delays.sort_unstable();
        side.worst_ns = delays.last().copied().unwrap_or(0);
        let rank = (delays.len() * 99).div_ceil(100).saturating_sub(1);
        side.p99_ns = delays.get(rank).copied().unwrap_or(0);
        (side, newest)
    }
}
