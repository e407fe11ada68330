//! Contention of the kernel's locks over time: windows of the last two minutes whole, their
//! totals for as long as the CPUs' history goes, and the sum of any stretch of them.
//!
//! A window comes whole and is never changed; samples share it until the next one is there, so
//! each is taken once, by its number. What rules ask each tick ([`LocksModel::rate`],
//! [`LocksModel::history`]) allocates nothing; [`LocksModel::over`] adds up every lock, stack,
//! waiter and CPU, and is for what a person looks at, or for what was found already.

pub mod frames;
mod over;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use over::{LockSum, Over, ShareStackSum, ShareSum, StackSum, WaiterSum};

use crate::Name;
use crate::sample::{Lock, LockKind, LockShare, LockStack, Locks, Sample, ShareStack, Waits};

/// How many windows are kept whole.
const KEPT: usize = 120;
/// Bytes that they may take; a window of 200 stacks takes about 100 KB.
const BYTES: usize = 16 << 20;
/// Of how many windows the totals are kept.
const POINTS: usize = 900;
/// What is shown where nobody asked for another stretch of time, ns.
pub const STRETCH_NS: u64 = 10_000_000_000;

/// A window and when it ended.
#[derive(Clone, Debug)]
pub struct Window {
    /// What waited in it.
    pub locks: Arc<Locks>,
    /// `CLOCK_REALTIME` of its end, ns since 1970.
    pub wall_ns: u64,
    /// What it takes, bytes.
    bytes: usize,
}

impl Window {
    /// `CLOCK_BOOTTIME` of its beginning, ns.
    pub fn from_ns(&self) -> u64 {
        self.locks.at_ns.saturating_sub(self.locks.span_ns)
    }

    /// The middle: a window counts to the stretch of time that its middle lies in.
    fn middle_ns(&self) -> u64 {
        self.locks.at_ns.saturating_sub(self.locks.span_ns / 2)
    }
}

/// Totals of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The window's number.
    pub window: u64,
    /// `CLOCK_BOOTTIME` of its end, ns.
    pub at_ns: u64,
    /// `CLOCK_REALTIME` of its end, ns since 1970.
    pub wall_ns: u64,
    /// Its length, ns.
    pub span_ns: u64,
    /// For how much of it contention was watched, ns: 0 where it was not.
    pub measured_ns: u64,
    /// Waits by kind, in the order of [`LockKind::ALL`].
    pub kinds: [Waits; LockKind::COUNT],
    /// The share of samples, where there were any.
    pub share: Option<SharePoint>,
}

/// Samples of one window, in lock slow paths and otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharePoint {
    /// Samples of CPUs that were not idle.
    pub samples: u64,
    /// Of these, in a lock's slow path.
    pub in_lock: u64,
    /// Taken as interrupts came back on: a lock is suspected.
    pub suspected: u64,
}

impl Point {
    /// All waits.
    pub fn waits(&self) -> Waits {
        let mut all = Waits::default();
        self.kinds.iter().for_each(|waits| all.add(waits));
        all
    }

    /// Seconds of waiting per second; `None` where contention was not watched.
    pub fn wait_per_s(&self) -> Option<f64> {
        per_s(self.waits().wait_ns, self.measured_ns)
    }
}

/// Contention during a stretch of time, all locks together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// How many windows it is of.
    pub windows: u32,
    /// For how much of the time contention was watched, ns.
    pub measured_ns: u64,
    /// All waits.
    pub waits: Waits,
    /// Seconds of waiting per second.
    pub wait_per_s: f64,
    /// Waits a second.
    pub per_s: f64,
    /// Standard deviation over the windows of the seconds of waiting per second.
    pub deviation: f64,
    /// Samples in lock slow paths, where there were any samples.
    pub share: Option<SharePoint>,
}

/// The windows, oldest first.
#[derive(Clone, Debug, Default)]
pub struct LocksModel {
    windows: VecDeque<Window>,
    bytes: usize,
    points: VecDeque<Point>,
}

impl LocksModel {
    /// Takes a sample's window, if it is a new one.
    pub(super) fn advance(&mut self, now: &Sample) {
        // The first window comes when it is full: until then there is none.
        let Some(locks) = now.locks.value().filter(|locks| locks.window > 0) else {
            return;
        };
        match self.points.back() {
            Some(last) if last.window == locks.window => return,
            // Another start of stalltop, or an earlier point of a recording.
            Some(last) if last.window > locks.window || last.at_ns >= locks.at_ns => self.restart(),
            _ => {}
        }
        // Room for all at once: a warm tick allocates nothing.
        if self.points.capacity() == 0 {
            self.points.reserve_exact(POINTS);
            self.windows.reserve_exact(KEPT + 1);
        }
        let wall_ns = now
            .wall_ns
            .saturating_sub(now.at_ns.saturating_sub(locks.at_ns));
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point(locks, wall_ns));
        let bytes = weigh(locks);
        self.bytes += bytes;
        self.windows.push_back(Window {
            locks: Arc::clone(locks),
            wall_ns,
            bytes,
        });
        while self.windows.len() > KEPT || (self.bytes > BYTES && self.windows.len() > 1) {
            if let Some(oldest) = self.windows.pop_front() {
                self.bytes -= oldest.bytes;
            }
        }
    }

    /// What was is not the past of what comes.
    fn restart(&mut self) {
        self.windows.clear();
        self.points.clear();
        self.bytes = 0;
    }

    /// The newest window.
    pub fn newest(&self) -> Option<&Window> {
        self.windows.back()
    }

    /// The windows that are kept whole, oldest first.
    pub fn windows(&self) -> impl DoubleEndedIterator<Item = &Window> + ExactSizeIterator + Clone {
        self.windows.iter()
    }

    /// The windows whose middle lies in `(from_ns, to_ns]` of `CLOCK_BOOTTIME`: stretches that
    /// follow each other share none and leave none out. Where the stretch is shorter than a
    /// window, the one that holds its middle.
    pub fn between(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &Window> + ExactSizeIterator + Clone {
        let mut from = self.windows.partition_point(|w| w.middle_ns() <= from_ns);
        let mut to = self.windows.partition_point(|w| w.middle_ns() <= to_ns);
        if from >= to {
            let middle = from_ns + to_ns.saturating_sub(from_ns) / 2;
            from = self.windows.partition_point(|w| w.locks.at_ns < middle);
            let holds = |w: &Window| w.from_ns() < middle && from_ns < to_ns;
            to = from + usize::from(self.windows.get(from).is_some_and(holds));
        }
        self.windows.range(from..to.max(from))
    }

    /// The stretch of time that is shown up to a moment where nobody marked one: the last
    /// [`STRETCH_NS`], `(from, to]` of `CLOCK_BOOTTIME` in ns. `u64::MAX` stands for now.
    pub fn stretch(&self, to_ns: u64) -> (u64, u64) {
        let end = self.windows.back().map_or(0, |w| w.locks.at_ns);
        let to = to_ns.min(end);
        (to.saturating_sub(STRETCH_NS), to)
    }

    /// Everything that waited in a stretch of time, added up (see [`Self::between`]).
    pub fn over(&self, from_ns: u64, to_ns: u64) -> Over<'_> {
        Over::new(&self.between(from_ns, to_ns))
    }

    /// Contention in those windows that lie wholly in `(from_ns, to_ns]`, all locks together:
    /// what a change did must not be mixed with what was before it. `None` where there is none,
    /// or it was not watched. Goes back as far as [`Self::history`] does.
    pub fn rate(&self, from_ns: u64, to_ns: u64) -> Option<Rate> {
        let inside = |p: &&Point| {
            p.at_ns <= to_ns && p.at_ns.saturating_sub(p.span_ns) >= from_ns && p.measured_ns > 0
        };
        let mut rate = Rate::default();
        // Welford's way: the mean so far, and the sum of squares around it.
        let (mut mean, mut squares) = (0.0, 0.0);
        for point in self.history().filter(inside) {
            rate.windows += 1;
            rate.measured_ns = rate.measured_ns.saturating_add(point.measured_ns);
            rate.waits.add(&point.waits());
            let x = point.wait_per_s().unwrap_or(0.0);
            let off = x - mean;
            mean += off / f64::from(rate.windows);
            squares += off * (x - mean);
            if let Some(share) = point.share {
                rate.share.get_or_insert_default().add(&share);
            }
        }
        rate.wait_per_s = per_s(rate.waits.wait_ns, rate.measured_ns)?;
        rate.per_s = per_s(rate.waits.count, rate.measured_ns)? * 1e9;
        if rate.windows > 1 {
            rate.deviation = (squares / f64::from(rate.windows - 1)).sqrt();
        }
        Some(rate)
    }

    /// Totals of the windows, oldest first: of more of them than are kept whole.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator + Clone {
        self.points.iter()
    }

    /// What the windows take, bytes; names are shared and not counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl SharePoint {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.in_lock = self.in_lock.saturating_add(other.in_lock);
        self.suspected = self.suspected.saturating_add(other.suspected);
    }
}

impl From<&LockShare> for SharePoint {
    fn from(share: &LockShare) -> Self {
        Self {
            samples: share.samples,
            in_lock: share.in_lock,
            suspected: share.suspected,
        }
    }
}

/// `n` per ns of time that was watched; `None` where none was.
fn per_s(n: u64, measured_ns: u64) -> Option<f64> {
    (measured_ns > 0).then(|| n as f64 / measured_ns as f64)
}

fn point(locks: &Locks, wall_ns: u64) -> Point {
    let mut out = Point {
        window: locks.window,
        at_ns: locks.at_ns,
        wall_ns,
        span_ns: locks.span_ns,
        measured_ns: locks.measured_ns,
        share: locks.share.value().map(SharePoint::from),
        ..Point::default()
    };
    for of in &locks.kinds {
        out.kinds[of.kind as usize].add(&of.waits);
    }
    out
}

/// What a window takes, bytes.
fn weigh(locks: &Locks) -> usize {
    let frames = |frames: &[Name]| size_of_val(frames);
    let stack = |s: &LockStack| {
        let owners = s.owners.iter().map(|o| size_of_val(o) + frames(&o.frames));
        size_of::<LockStack>() + frames(&s.frames) + owners.sum::<usize>()
    };
    let sampled = |s: &ShareStack| size_of::<ShareStack>() + frames(&s.frames);
    let share = locks.share.value().map_or(0, |share| {
        size_of_val(&share.cpus[..]) + share.stacks.iter().map(sampled).sum::<usize>()
    });
    let hists = locks.kinds.iter().map(|k| size_of_val(&k.hist[..]));
    size_of::<Locks>()
        + locks.locks.len() * size_of::<Lock>()
        + size_of_val(&locks.cpus[..])
        + locks.stacks.iter().map(stack).sum::<usize>()
        + hists.sum::<usize>()
        + share
}
