//! When the tracepoints of contention are watched.
//!
//! A wait costs 150 to 200 ns, so what watching costs is for the locks to say: nothing on a quiet
//! host, a tenth of a CPU at half a million waits a second. While a person looks it is paid;
//! else watching goes to windows as soon as it costs more than [`BUDGET`], as long and as often
//! as that allows on the average. Figures of windows are rates of the time watched.

use std::time::Duration;

use stalltop_model::sample::LockTracer;

/// What watching may cost while nobody looks, as a part of one CPU.
pub const BUDGET: f64 = 0.005;
/// A window: long enough for some thousand waits where they are many.
const WINDOW: Duration = Duration::from_millis(200);
/// From one window to the next at least and at most. Attaching changes code on all CPUs.
const CYCLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// Windows in a row that would have cost less than half the budget, until all is watched again.
const CALM: u32 = 3;

/// When to watch the kernel's locks, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocksMode {
    /// All the time while a person looks or it costs little; else in windows.
    #[default]
    Auto,
    /// All the time, whatever it costs.
    Always,
    /// Never: the share of samples alone.
    Off,
}

/// What to do until the next decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Watch, until the window is over.
    Watch {
        /// How long.
        time: Duration,
    },
    /// Do not watch for so long, then for so long.
    RestThenWatch {
        /// Detached.
        rest: Duration,
        /// Attached.
        time: Duration,
    },
}

/// Decides, window by window.
#[derive(Debug)]
pub struct Governor {
    mode: LocksMode,
    period: Duration,
    /// What the newest window cost while it was watched, as a part of one CPU.
    cost: f64,
    windows: bool,
    calm: u32,
}

impl Governor {
    /// `period` is the time from one published window to the next where all is watched.
    pub fn new(mode: LocksMode, period: Duration) -> Self {
        Self {
            mode,
            period,
            cost: 0.0,
            windows: false,
            calm: 0,
        }
    }

    /// How it is watched now.
    pub fn tracer(&self) -> LockTracer {
        if self.windows {
            LockTracer::Windows
        } else {
            LockTracer::Always
        }
    }

    /// Takes in what watching cost in the newest window, as a part of one CPU, and plans the
    /// next one. `looked_at`: a person looks.
    pub fn plan(&mut self, cost: Option<f64>, looked_at: bool) -> Plan {
        if let Some(cost) = cost.filter(|cost| cost.is_finite()) {
            self.cost = cost;
            self.calm = if cost < BUDGET / 2.0 {
                self.calm + 1
            } else {
                0
            };
        }
        let all = looked_at || self.mode == LocksMode::Always;
        self.windows = !all && (self.cost > BUDGET || self.windows && self.calm < CALM);
        if !self.windows {
            return Plan::Watch { time: self.period };
        }
        let cycle = WINDOW.mul_f64((self.cost / BUDGET).clamp(1.0, 1_000.0));
        let cycle = cycle.clamp(CYCLE.0, CYCLE.1);
        // Where the longest cycle is not enough, the window is what gives.
        let part = (BUDGET / self.cost.max(BUDGET)).min(1.0);
        let time = WINDOW.min(cycle.mul_f64(part));
        Plan::RestThenWatch {
            rest: cycle - time,
            time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ALL: Plan = Plan::Watch { time: SECOND };

    fn duty(plan: Plan) -> f64 {
        match plan {
            Plan::Watch { .. } => 1.0,
            Plan::RestThenWatch { rest, time } => time.as_secs_f64() / (rest + time).as_secs_f64(),
        }
    }

    #[test]
    fn what_costs_little_is_watched_all_the_time() {
        let mut governor = Governor::new(LocksMode::Auto, SECOND);
        for cost in [None, Some(0.0), Some(0.004), Some(f64::NAN)] {
            assert_eq!(governor.plan(cost, false), ALL);
            assert_eq!(governor.tracer(), LockTracer::Always);
        }
    }

    #[test]
    fn the_average_keeps_within_the_budget() {
        for cost in [0.006, 0.05, 0.1, 0.24, 0.9, 40.0] {
            let mut governor = Governor::new(LocksMode::Auto, SECOND);
            let plan = governor.plan(Some(cost), false);
            assert_eq!(governor.tracer(), LockTracer::Windows);
            assert!(duty(plan) * cost <= BUDGET * 1.001, "{cost}: {plan:?}");
            let Plan::RestThenWatch { rest, time } = plan else {
                panic!("{plan:?}");
            };
            assert!(rest + time >= CYCLE.0 && rest + time <= CYCLE.1);
        }
    }

    #[test]
    fn it_takes_some_calm_windows_to_watch_all_again() {
        let mut governor = Governor::new(LocksMode::Auto, SECOND);
        governor.plan(Some(0.1), false);
        for cost in [0.001, 0.001, 0.004, 0.001, 0.001] {
            assert_ne!(governor.plan(Some(cost), false), ALL);
        }
        assert_eq!(governor.plan(Some(0.001), false), ALL);
    }

    #[test]
    fn while_a_person_looks_or_asked_for_it_is_paid() {
        let mut governor = Governor::new(LocksMode::Auto, SECOND);
        assert_eq!(governor.plan(Some(0.5), true), ALL);
        assert_ne!(governor.plan(Some(0.5), false), ALL);
        let mut governor = Governor::new(LocksMode::Always, SECOND);
        assert_eq!(governor.plan(Some(0.5), false), ALL);
    }
}
