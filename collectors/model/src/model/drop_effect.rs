//! What a drop of caches did to stalls.
//!
//! The drop's own report ([`Effect`](crate::change::Effect)) is made within two seconds of the
//! write; whether stalls become fewer takes longer to see, and is worked out here.

use std::fmt;

use super::Model;
use super::stalls::counts;
use crate::change::{Entry, Outcome, Request};
use crate::rules;
use crate::units::Duration;

/// How far stalls are looked at on both sides of a drop, ns.
const SIDE_NS: u64 = 60_000_000_000;
/// Time that must have passed on both sides before anything is concluded, ns.
const LEAST_NS: u64 = 10_000_000_000;
/// Stalls before the drop from which on a difference means anything.
const LEAST_STALLS: u32 = 3;

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
pub enum Verdict {
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
}

/// Stalls before and after a drop of caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEffect {
    /// The journal's number of the drop.
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
    fn per_minute(&self) -> f64 {
        f64::from(self.count) * 60e9 / self.span_ns.max(1) as f64
    }
}

impl DropEffect {
    /// What came of it.
    pub fn verdict(&self) -> Verdict {
        let (before, after) = (&self.before, &self.after);
        if before.span_ns < LEAST_NS || after.span_ns < LEAST_NS {
            return Verdict::TooEarly;
        }
        if before.count < LEAST_STALLS {
            return Verdict::TooFew;
        }
        // None in the time in which there were two or more before is no chance.
        let expected = before.per_minute() * after.span_ns as f64 / 60e9;
        let half = |is: f64, was: f64| is * 2.0 <= was;
        let fewer = half(f64::from(after.count), expected);
        if fewer && !half(f64::from(after.count) + self.lost as f64, expected) {
            return Verdict::Lost;
        }
        if after.count == 0 {
            return if expected >= 2.0 {
                Verdict::Ended
            } else {
                Verdict::TooEarly
            };
        }
        if fewer || half(after.p99_ns as f64, before.p99_ns as f64) {
            Verdict::Better
        } else {
            Verdict::NoEffect
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
impl fmt::Display for DropEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.reads {
            "stalls in reads of memory statistics"
        } else {
            "stalls"
        };
        write!(f, "{which}: {} -> {}", self.before, self.after)?;
        match self.verdict() {
            Verdict::TooEarly => write!(f, " (too early to tell)"),
            Verdict::TooFew => write!(f, " (too few before to tell)"),
            Verdict::Lost => write!(f, " ({} more were lost: not known)", self.lost),
            Verdict::NoEffect => write!(f, ": no effect seen"),
            Verdict::Ended | Verdict::Better => Ok(()),
        }
    }
}

impl Model {
    /// Stalls before and after the last drop of caches that was done; `None` without one, or
    /// where stalls are not watched.
    pub fn drop_effect(&self) -> Option<DropEffect> {
        self.now().stalls.value()?;
        let dropped = |e: &&Entry| {
            matches!(e.plan.request, Request::DropCaches { .. }) && e.outcome == Outcome::Done
        };
        let entry = self.changes().iter().rev().find(dropped)?;
        let took_ns = entry.effect.as_ref().map_or(0, |effect| effect.took_ns);
        let (begin, end) = (entry.wall_ns, entry.wall_ns.saturating_add(took_ns));
        let now = self.now().wall_ns;
        let ticks = self.cores.ticks();
        let first = self.cores.time(ticks.start)?;
        let first = first.wall_ns.saturating_sub(first.span_ns);
        let side = |from: u64, to: u64, reads: bool| {
            let mut side = Side {
                span_ns: to.saturating_sub(from),
                ..Side::default()
            };
            // By the time of day: the journal knows no other.
            let within = |wall_ns: u64| wall_ns > from && wall_ns <= to;
            let mut delays: Vec<u64> = self
                .stalls
                .iter()
                .filter(|s| counts(s) && within(s.wall_ns))
                .filter(|s| !reads || rules::reads_memory_cgroups(s))
                .map(|s| s.delay_ns)
                .collect();
            delays.sort_unstable();
            side.count = delays.len() as u32;
            side.worst_ns = delays.last().copied().unwrap_or(0);
            let rank = (delays.len() * 99).div_ceil(100).saturating_sub(1);
            side.p99_ns = delays.get(rank).copied().unwrap_or(0);
            side
        };
        let from = begin.saturating_sub(SIDE_NS).max(first.min(begin));
        let until = now.min(end.saturating_add(SIDE_NS)).max(end);
        let reads = side(from, begin, true).count >= LEAST_STALLS;
        Some(DropEffect {
            entry: entry.id,
            wall_ns: end,
            before: side(from, begin, reads),
            after: side(end, until, reads),
            reads,
            lost: self.stalls.lost_since(begin),
        })
    }
}
