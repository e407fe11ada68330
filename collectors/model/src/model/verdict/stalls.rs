//! What a change did to stalls.
//!
//! Stalls are counted, and few: what is compared is how many there were in how long a time, and
//! how long they took. A drop of caches has a report of its own
//! ([`Effect`](crate::change::Effect)), made within two seconds of the write; whether stalls
//! become fewer takes longer to see, and is worked out here.

use std::fmt;

use super::sides::{Sides, took_effect};
use crate::change::{Entry, Request};
use crate::model::Model;
use crate::model::stalls::{counts, held};
use crate::rules;
use crate::units::Duration;

/// Time that must have passed on both sides before anything is concluded, ns.
const LEAST_NS: u64 = 10_000_000_000;
/// Stalls before the change from which on a difference means anything.
const LEAST_STALLS: u32 = 3;
/// Stalls after it from which on more than before mean anything.
const LEAST_MORE: u32 = 6;

/// Stalls in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its length, ns.
    pub span_ns: u64,
    /// Stalls in it, without paused virtual CPUs and our own.
    pub count: u32,
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
    /// `CLOCK_REALTIME` of its end, ns since 1970.
    pub wall_ns: u64,
    /// Up to a minute before it began.
    pub before: Side,
    /// Up to a minute after it ended.
    pub after: Side,
    /// Whether only stalls in reads of memory cgroups' statistics were counted, as there were
    /// some before: a drop of caches is for those, and others go on whatever is dropped.
    pub reads: bool,
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
        if before.span_ns < LEAST_NS || after.span_ns < LEAST_NS {
            return StallVerdict::TooEarly;
        }
        let expected = before.per_minute() * after.span_ns as f64 / 60e9;
        // Counts waver by their square root: three times that is no chance.
        let many = (2.0 * expected).max(expected + 3.0 * expected.max(1.0).sqrt());
        if after.count >= LEAST_MORE && f64::from(after.count) > many {
            return StallVerdict::Worse;
        }
        if before.count < LEAST_STALLS {
            return StallVerdict::TooFew;
        }
        let half = |is: f64, was: f64| is * 2.0 <= was;
        let fewer = half(f64::from(after.count), expected);
        if fewer && !half(f64::from(after.count) + self.lost as f64, expected) {
            return StallVerdict::Lost;
        }
        // None in the time in which there were two or more before is no chance.
        if after.count == 0 {
            return if expected >= 2.0 {
                StallVerdict::Ended
            } else {
                StallVerdict::TooEarly
            };
        }
        if fewer || half(after.p99_ns as f64, before.p99_ns as f64) {
            StallVerdict::Better
        } else {
            StallVerdict::NoEffect
        }
    }
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
            |e: &&Entry| matches!(e.plan.request, Request::DropCaches { .. }) && took_effect(e);
        let entry = self.changes().iter().rev().find(dropped)?;
        self.stall_effect(entry)
    }

    /// Stalls before and after a change; `None` where stalls are not watched, or were not then.
    pub(super) fn stall_effect(&self, entry: &Entry) -> Option<StallEffect> {
        self.now().stalls.value()?;
        let ticks = self.cores.ticks();
        let first = self.cores.time(ticks.start)?;
        let first = first.wall_ns.saturating_sub(first.span_ns);
        let sides = Sides::of(entry, self.changes());
        let from = sides.from_ns.max(first.min(sides.begin_ns));
        let until = self.now().wall_ns.min(sides.until_ns).max(sides.end_ns);
        // A drop of caches is for the reads that zombies slow down.
        let drops = matches!(entry.plan.request, Request::DropCaches { .. });
        let reads = drops && self.stall_side(from, sides.begin_ns, true).count >= LEAST_STALLS;
        Some(StallEffect {
            entry: entry.id,
            wall_ns: sides.end_ns,
            before: self.stall_side(from, sides.begin_ns, reads),
            after: self.stall_side(sides.end_ns, until, reads),
            reads,
            lost: self.stalls.lost_since(sides.begin_ns),
        })
    }

    /// The stalls that ended in `(from, to]`, by the time of day: the journal knows no other.
    fn stall_side(&self, from: u64, to: u64, reads: bool) -> Side {
        let mut side = Side {
            span_ns: to.saturating_sub(from),
            ..Side::default()
        };
        let stalls = self
            .stalls
            .iter()
            .filter(|s| counts(s) && s.wall_ns > from && s.wall_ns <= to)
            .filter(|s| !reads || rules::reads_memory_cgroups(s));
        side.count = held(stalls.clone().map(|s| &**s)).count;
        let mut delays: Vec<u64> = stalls.map(|s| s.delay_ns).collect();
        delays.sort_unstable();
        side.worst_ns = delays.last().copied().unwrap_or(0);
        let rank = (delays.len() * 99).div_ceil(100).saturating_sub(1);
        side.p99_ns = delays.get(rank).copied().unwrap_or(0);
        side
    }
}
