//! stalltop's own cost as shares of one CPU.

use std::collections::VecDeque;

use crate::sample::Sample;

/// Over how many ticks the shares are averaged: one tick of a cheap tool is below the
/// resolution of its clock.
const WINDOW: usize = 10;

/// Own cost over the last ten ticks.
#[derive(Clone, Debug)]
pub struct OwnModel {
    points: VecDeque<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: u64,
    cpu_ns: u64,
    probe_ns: Option<u64>,
}

impl Default for OwnModel {
    fn default() -> Self {
        Self {
            points: VecDeque::with_capacity(WINDOW + 1),
        }
    }
}

impl OwnModel {
    pub(super) fn advance(&mut self, before: Option<&Sample>, now: &Sample) {
        if before.is_none() {
            self.points.clear();
        }
        if self.points.len() > WINDOW {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at_ns: now.at_ns,
            cpu_ns: now.own.cpu_ns,
            probe_ns: now.own.probe_ns.get(),
        });
    }

    /// The part of the time that `spent` grew by, percent: from the first tick at which it was
    /// measured, as the first ticks of all are too early for some.
    fn percent(&self, spent: impl Fn(&Point) -> Option<u64>) -> Option<f64> {
        let mut points = self.points.iter();
        let (from, before) = points.find_map(|point| Some((point.at_ns, spent(point)?)))?;
        let last = points.next_back()?;
        let span = last.at_ns.checked_sub(from).filter(|ns| *ns > 0)?;
        let ns = spent(last)?.checked_sub(before)?;
        Some(ns as f64 * 100.0 / span as f64)
    }

    /// User-space share of one CPU, percent.
    pub fn cpu_percent(&self) -> Option<f64> {
        self.percent(|point| Some(point.cpu_ns))
    }

    /// Our eBPF programs' share of one CPU, percent; `None` while not measured.
    pub fn probe_percent(&self) -> Option<f64> {
        self.percent(|point| point.probe_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reading, Reason};

    #[test]
    fn probes_show_from_their_second_measurement_on() {
        let mut own = OwnModel::default();
        let mut before: Option<Sample> = None;
        let mut shown = Vec::new();
        for (tick, probe_ns) in (1..).zip([None, None, Some(50), Some(60), None, Some(90)]) {
            let mut now = Sample {
                at_ns: tick * 1_000,
                ..Sample::default()
            };
            now.own.cpu_ns = tick * 20;
            now.own.probe_ns = probe_ns.map_or(Reading::Off(Reason::Starting), Reading::Value);
            own.advance(before.as_ref(), &now);
            shown.push((own.cpu_percent(), own.probe_percent()));
            before = Some(now);
        }
        let cpu = Some(2.0);
        assert_eq!(
            shown,
            [
                (None, None),
                (cpu, None),
                (cpu, None),
                (cpu, Some(1.0)),
                (cpu, None),
                (cpu, Some(40.0 * 100.0 / 3_000.0)),
            ]
        );
    }
}
