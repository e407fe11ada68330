//! What a change did: every change in the journal is judged by what was measured before and
//! after it, up to a minute on each side.
//!
//! A verdict says what moved and by how much, or that no effect was seen, or that it is too early
//! to tell, or what was not measured; noise is taken into account (`compare`). It is made anew
//! with every sample while the change is fresh, and then kept as it was. It follows from samples
//! and journal entries alone, so that a replay comes to the same one.

mod budget;
mod compare;
mod history;
mod judge;
mod show;
mod sides;
mod stalls;
#[cfg(test)]
mod tests;

use crate::change::Entry;
use crate::sample::Sample;

use super::costs::HeldBy;
use compare::Limits;
pub use compare::Went;
use history::History;
pub use show::short;
use sides::Dated;
pub use stalls::{Side, StallEffect, StallVerdict};

/// For how long a verdict is news, ns.
const NEWS_NS: u64 = 120_000_000_000;

/// A figure that a change may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Seconds of waiting for the kernel's locks, a second.
    LockWait,
    /// Waits for the kernel's locks, a second.
    Contentions,
    /// Share of samples of busy CPUs in lock slow paths, 0 to 1.
    LockSamples,
    /// Share of samples of busy CPUs taken as interrupts reopened: a lock is suspected, 0 to 1.
    LockSuspected,
    /// What others' probes cost, as a share of one CPU; those without BPF by estimate.
    ProbeCost,
    /// Runs of others' BPF programs, a second: how often what they probe happened.
    ProbeRuns,
    /// Share of all CPUs in the kernel, 0 to 1.
    System,
    /// The longest delay of each second from a softirq's raise to its entry, ns: what nine
    /// seconds of ten stay under. That does not grow with the time that one looks.
    WorstDelay,
    /// Packets that were taken, a second: a measure of work.
    Packets,
    /// Context switches, a second: a measure of work.
    Switches,
    /// Softirqs, a second: a measure of work.
    Softirqs,
    /// Share of all CPUs in user space, 0 to 1: a measure of work.
    User,
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = 12;
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; Self::COUNT] = [
        Self::LockWait,
        Self::LockSamples,
        Self::LockSuspected,
        Self::WorstDelay,
        Self::ProbeCost,
        Self::System,
        Self::Contentions,
        Self::ProbeRuns,
        Self::Packets,
        Self::Switches,
        Self::Softirqs,
        Self::User,
    ];

    /// What a person calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LockWait => "lock wait",
            Self::Contentions => "lock contentions",
            Self::LockSamples => "samples in locks",
            Self::LockSuspected => "interrupts off, lock suspected",
            Self::ProbeCost => "probe cost",
            Self::ProbeRuns => "probe runs",
            Self::System => "system time",
            Self::WorstDelay => "worst delay a second",
            Self::Packets => "packets",
            Self::Switches => "context switches",
            Self::Softirqs => "softirqs",
            Self::User => "user time",
        }
    }

    /// Whether it tells how much work is done, rather than what is wrong.
    pub const fn is_work(self) -> bool {
        matches!(
            self,
            Self::Packets | Self::Switches | Self::Softirqs | Self::User
        )
    }

    /// What of it matters. A fortieth of a CPU of waiting or of cost, two CPUs of a hundred in
    /// the kernel: less than what a person would change anything for. By a quarter at least:
    /// loads waver by less from one minute to the next; delays, the worst of which is one event of
    /// many, by half.
    const fn limits(self) -> Limits {
        let (least, part) = match self {
            Self::LockWait | Self::ProbeCost => (0.025, 0.25),
            Self::LockSamples | Self::LockSuspected | Self::System | Self::User => (0.02, 0.25),
            Self::WorstDelay => (200_000.0, 0.5),
            Self::Contentions
            | Self::ProbeRuns
            | Self::Packets
            | Self::Switches
            | Self::Softirqs => (100.0, 0.25),
        };
        Limits { least, part }
    }
}

/// What came of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was not measured on one side at least.
    NotMeasured,
    /// There will be more to compare.
    TooEarly,
    /// There was too little on one side, and there will be no more.
    TooLittle,
    /// It did not move, or no more than it wavers by itself.
    NoEffect,
    /// It moved.
    Moved(Went),
}

/// One figure before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// Its mean before; of [`Metric::WorstDelay`] what nine seconds of ten stay under. `None`
    /// while not measured.
    pub before: Option<f64>,
    /// The same after.
    pub after: Option<f64>,
    /// What came of it.
    pub told: Told,
}

/// What one holder's probes cost before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct HolderRow {
    /// Who.
    pub by: HeldBy,
    /// The mean share of one CPU before; `None` while not measured.
    pub before: Option<f64>,
    /// The same after.
    pub after: Option<f64>,
    /// What came of it.
    pub told: Told,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// stalltop did not watch before it.
    NotWatched,
    /// Too little time has passed.
    TooEarly,
    /// Too little was watched on one side, and there will be no more.
    TooLittle,
    /// Nothing that is measured moved.
    NoEffect,
    /// Something moved.
    Moved,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The journal's number of the change.
    pub entry: u64,
    /// `CLOCK_BOOTTIME` of its end, ns: what its age is told by.
    pub at_ns: u64,
    /// `CLOCK_REALTIME` of its end, ns since 1970.
    pub wall_ns: u64,
    /// Other changes that were made at the same time: this is the verdict on all of them.
    pub others: u32,
    /// How long was watched before, ns.
    pub before_ns: u64,
    /// How long was watched after, ns.
    pub after_ns: u64,
    /// Whether more will be taken in.
    pub open: bool,
    /// Every figure, in the order of [`Metric::ALL`].
    pub rows: [Row; Metric::COUNT],
    /// Those whose probes cost most, before or after, the most costly first.
    pub holders: Vec<HolderRow>,
    /// Stalls; `None` where they are not watched.
    pub stalls: Option<StallEffect>,
}

impl Verdict {
    /// What came of it.
    pub fn came(&self) -> Came {
        let has = |told: Told| self.rows.iter().any(|row| row.told == told);
        let moved = self.moved().next().is_some() || self.holders_moved().next().is_some();
        if moved || self.stalls_moved().is_some() {
            Came::Moved
        } else if self.before_ns == 0 {
            Came::NotWatched
        } else if has(Told::TooEarly) && !has(Told::NoEffect) {
            Came::TooEarly
        } else if has(Told::NoEffect) {
            Came::NoEffect
        } else {
            Came::TooLittle
        }
    }

    /// The figures that moved.
    pub fn moved(&self) -> impl Iterator<Item = &Row> {
        let moved = |row: &&Row| matches!(row.told, Told::Moved(_));
        self.rows.iter().filter(moved)
    }

    /// The holders whose probes cost more or less since.
    pub fn holders_moved(&self) -> impl Iterator<Item = &HolderRow> {
        let moved = |row: &&HolderRow| matches!(row.told, Told::Moved(_));
        self.holders.iter().filter(moved)
    }

    /// A figure's row.
    pub fn row(&self, metric: Metric) -> Option<&Row> {
        self.rows.iter().find(|row| row.metric == metric)
    }

    /// What stalls did, where they moved.
    pub fn stalls_moved(&self) -> Option<&StallEffect> {
        use StallVerdict::{Better, Ended, Worse};
        let moved = |s: &&StallEffect| matches!(s.verdict(), Ended | Better | Worse);
        self.stalls.as_ref().filter(moved)
    }

    /// Whether less work was done since, while all else fell: the load may have ended by itself.
    pub fn less_work(&self) -> Option<&Row> {
        let fell = |row: &&Row| row.told == Told::Moved(Went::Down);
        let fewer = self
            .stalls_moved()
            .is_some_and(|s| s.verdict() != StallVerdict::Worse);
        let better = fewer || self.moved().any(|row| !row.metric.is_work() && fell(&row));
        let work = |row: &&Row| row.metric.is_work() && row.metric != Metric::Softirqs;
        self.rows.iter().find(|r| better && work(r) && fell(r))
    }
}

/// Verdicts on changes, and what they are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    history: History,
    known: Vec<Verdict>,
    /// The changes by their time, with what each is compared by.
    dated: Vec<Dated>,
    /// Whether the journal has something that is not in `dated`.
    stale: bool,
    /// Points of the history when changes were judged last.
    judged: u64,
}

impl Verdicts {
    pub(super) fn advance(&mut self, before: Option<&Sample>, now: &Sample, changes: &[Entry]) {
        self.history.advance(before, now);
        if std::mem::take(&mut self.stale) {
            self.dated = sides::date(&self.dated, changes, now);
        }
    }

    /// The journal has something new.
    pub(super) fn journaled(&mut self) {
        self.stale = true;
    }

    fn dated(&self, entry: &Entry) -> Option<&Dated> {
        self.dated.iter().find(|dated| dated.is(entry))
    }
}
