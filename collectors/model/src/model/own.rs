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

    fn over<T>(&self, f: impl Fn(&Point, &Point) -> Option<T>) -> Option<(T, u64)> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let span = last.at_ns.checked_sub(first.at_ns).filter(|ns| *ns > 0)?;
        Some((f(first, last)?, span))
    }

    /// User-space share of one CPU, percent.
    pub fn cpu_percent(&self) -> Option<f64> {
        self.over(|a, b| b.cpu_ns.checked_sub(a.cpu_ns))
            .map(|(ns, span)| ns as f64 * 100.0 / span as f64)
    }

    /// Our eBPF programs' share of one CPU, percent; `None` while not measured.
    pub fn probe_percent(&self) -> Option<f64> {
        self.over(|a, b| b.probe_ns?.checked_sub(a.probe_ns?))
            .map(|(ns, span)| ns as f64 * 100.0 / span as f64)
    }
}
