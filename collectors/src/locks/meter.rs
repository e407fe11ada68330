//! What a run of the tracer's program takes, measured in short windows of the kernel's statistics.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use stalltop_model::Reason;
use stalltop_probes::LockTracer;
use stalltop_probes::sys::load;

use super::long::Long;

/// For how long run time is measured, and how often.
const METER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How soon again where it was dear.
const AGAIN: Duration = Duration::from_millis(500);
/// From one to the next at least where the rate of waits has become another.
const METER_SOON: Duration = Duration::from_secs(5);
/// Waits in a window from which on it is worth to measure what they cost.
const METERED: u64 = 100;
/// Measures what a run of the program takes, in short windows of the kernel's statistics.
pub(super) struct Meter {
    ns_per_run: Option<u64>,
    /// From when on waits are to be long, by that.
    long: Long,
    next: Instant,
    /// Waits of the window in which it was measured: at rates far from that a run costs other
    /// than it did (caches are cold, or warm).
    at_waits: u64,
    /// The statistics, run time and runs when they were switched on, and when.
    on: Option<(OwnedFd, (u64, u64), Instant)>,
}

/// How long (ns) and how often the program ran while statistics were on.
fn run_time(tracer: &LockTracer) -> std::io::Result<(u64, u64)> {
    let counters = tracer.counters()?;
    Ok((counters.run_time_ns, counters.run_cnt))
}

impl Meter {
    /// Waits are long from `long_ns` on, as long as stacks are not found to be dear.
    pub(super) fn new(long_ns: u64) -> Self {
        Self {
            ns_per_run: None,
            long: Long::new(long_ns),
            at_waits: 0,
            next: Instant::now() + Duration::from_secs(2),
            on: None,
        }
    }

    /// What a run takes, once that was measured, ns.
    pub(super) fn ns_per_run(&self) -> Option<u64> {
        self.ns_per_run
    }

    /// From when on waits are to be long, ns.
    pub(super) fn long_ns(&self) -> u64 {
        self.long.ns()
    }

    /// How long one may sleep until [`Meter::end`], where it measures.
    pub(super) fn step(&self) -> Option<Duration> {
        self.on.as_ref().map(|_| METER.0)
    }

    /// Switches statistics on where it is time to, and there is something to measure.
    pub(super) fn begin(&mut self, tracer: &LockTracer, waits: u64) {
        let moved = waits / 4 > self.at_waits || waits < self.at_waits / 4;
        let soon = moved && Instant::now() + METER.1 >= self.next + METER_SOON;
        let due = waits >= METERED && (soon || Instant::now() >= self.next);
        if !due || self.on.is_some() || !tracer.is_attached() {
            return;
        }
        self.next = Instant::now() + METER.1;
        if moved {
            self.ns_per_run = None;
        }
        self.at_waits = waits;
        if let Ok(statistics) = load::enable_run_time_stats()
            && let Ok(before) = run_time(tracer)
        {
            self.on = Some((statistics, before, Instant::now()));
        }
    }

    /// Switches them off, and takes in what they say.
    pub(super) fn end(&mut self, tracer: Result<&LockTracer, &Reason>) {
        let Some((statistics, before, since)) = self.on.take() else {
            return;
        };
        drop(statistics);
        if since.elapsed() < METER.0 / 2 {
            return;
        }
        let Some(after) = tracer.ok().and_then(|tracer| run_time(tracer).ok()) else {
            return;
        };
        let (ns, runs) = (
            after.0.saturating_sub(before.0),
            after.1.saturating_sub(before.1),
        );
        if runs >= METERED / 2 {
            let new = ns / runs;
            self.ns_per_run = Some(self.ns_per_run.map_or(new, |old| (old + new) / 2));
            let long_ns = self.long.ns();
            if self.long.measured(2 * new) {
                self.next = Instant::now() + AGAIN;
            }
            if self.long.ns() != long_ns {
                // With fewer stacks it costs less.
                self.ns_per_run = None;
            }
        }
    }
}
