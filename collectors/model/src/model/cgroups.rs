//! Zombie memory cgroups over time.

use std::collections::VecDeque;

use crate::sample::Sample;
use crate::units::Trend;

/// Points kept: 15 minutes at the default tick.
const KEPT: usize = 900;
/// The window over which the trend is taken, ns.
const TREND_NS: u64 = 120_000_000_000;
/// A trend needs at least this much time, ns.
const LEAST_NS: u64 = 10_000_000_000;

/// The number of zombies at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZombiePoint {
    /// `CLOCK_BOOTTIME`, ns.
    pub at_ns: u64,
    /// Dying memory cgroups; `None` while not measured.
    pub zombies: Option<u64>,
}

/// Zombies over time.
#[derive(Clone, Debug)]
pub struct CgroupsModel {
    points: VecDeque<ZombiePoint>,
}

impl Default for CgroupsModel {
    fn default() -> Self {
        Self {
            points: VecDeque::with_capacity(KEPT),
        }
    }
}

impl CgroupsModel {
    pub(super) fn advance(&mut self, now: &Sample) {
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        let zombies = now.cgroups.value().and_then(|c| c.zombies.get());
        self.points.push_back(ZombiePoint {
            at_ns: now.at_ns,
            zombies,
        });
    }

    /// One point a tick, oldest first.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &ZombiePoint> + DoubleEndedIterator {
        self.points.iter()
    }

    /// Zombies gained (or lost) a minute over the last two minutes; `None` until ten seconds
    /// are known.
    pub fn zombies_per_minute(&self) -> Option<Trend> {
        let last = self.points.iter().rev().find(|p| p.zombies.is_some())?;
        let first = self.points.iter().find(|p| {
            p.zombies.is_some() && p.at_ns <= last.at_ns && last.at_ns - p.at_ns <= TREND_NS
        })?;
        let span_ns = last.at_ns - first.at_ns;
        if span_ns < LEAST_NS {
            return None;
        }
        let gained = last.zombies? as f64 - first.zombies? as f64;
        Some(Trend {
            per_minute: gained * 60e9 / span_ns as f64,
            span_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_is_per_minute_and_waits_for_data() {
        let mut model = CgroupsModel::default();
        for s in 0..=30u64 {
            assert_eq!(model.zombies_per_minute().is_some(), s > 10, "{s}");
            let zombies = Some(100 + s * 2);
            model.points.push_back(ZombiePoint {
                at_ns: s * 1_000_000_000,
                zombies,
            });
        }
        let trend = model.zombies_per_minute().map(|trend| trend.to_string());
        assert_eq!(trend.as_deref(), Some("+120/min over 30 s"));
    }
}
