//! Figures of the whole host over time, as far as no other part of the model keeps them.

use std::collections::VecDeque;

use crate::sample::{CpuTimes, Sample};

/// Points kept: both sides of a change, and some more.
const KEPT: usize = 192;
/// A point is of no less than this, ns: short ticks are added up.
const LEAST_NS: u64 = 900_000_000;

/// Figures of one stretch of time. `None` is "not measured".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// `CLOCK_BOOTTIME` of its beginning, ns.
    pub(super) from_ns: u64,
    /// `CLOCK_BOOTTIME` of its end, ns.
    pub(super) to_ns: u64,
    /// Share of all CPUs in the kernel, 0 to 1: system calls and interrupts.
    pub(super) system: Option<f64>,
    /// Share of all CPUs in user space, 0 to 1.
    pub(super) user: Option<f64>,
    /// Longest raise-to-entry delay of a softirq, ns.
    pub(super) delay_ns: Option<f64>,
    /// Packets a second that NET_RX took.
    pub(super) packets: Option<f64>,
    /// Context switches a second.
    pub(super) switches: Option<f64>,
    /// Softirqs a second.
    pub(super) softirqs: Option<f64>,
}

/// What a point will be made of.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    span_ns: u64,
    kernel_ns: u64,
    user_ns: u64,
    all_ns: u64,
    delay_ns: Option<u64>,
    packets: Option<u64>,
    switches: Option<u64>,
    softirqs: Option<u64>,
}

/// The points, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    sum: Sum,
    /// Points taken so far.
    taken: u64,
}

impl History {
    pub(super) fn advance(&mut self, before: Option<&Sample>, now: &Sample) {
        let Some(before) = before else {
            self.sum = Sum::default();
            return;
        };
        self.sum.add(before, now);
        if self.sum.span_ns < LEAST_NS {
            return;
        }
        let sum = std::mem::take(&mut self.sum);
        if self.points.capacity() == 0 {
            self.points.reserve_exact(KEPT);
        }
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.taken += 1;
        self.points.push_back(sum.point(now.at_ns));
    }

    /// How many points were taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + Clone {
        self.points.iter()
    }
}

/// Adds what was counted since; a counter that is gone is measured no more.
fn count(sum: &mut Option<u64>, pairs: impl Iterator<Item = Option<(u64, u64)>>) {
    for (then, now) in pairs.flatten() {
        let more = now.saturating_sub(then);
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

impl Sum {
    fn add(&mut self, before: &Sample, now: &Sample) {
        self.span_ns += now.at_ns.saturating_sub(before.at_ns);
        let cpus = || {
            let pairs = before.cpus.iter().zip(&now.cpus);
            pairs.filter(|(b, n)| b.cpu == n.cpu)
        };
        for (b, n) in cpus() {
            if let (Some(b), Some(n)) = (b.times.value(), n.times.value()) {
                let (kernel, all) = (kernel_ns(n), all_ns(n));
                self.kernel_ns += kernel.saturating_sub(kernel_ns(b));
                self.user_ns += user_ns(n).saturating_sub(user_ns(b));
                self.all_ns += all.saturating_sub(all_ns(b));
            }
        }
        let delays = now.cpus.iter().flat_map(|cpu| &cpu.softirqs);
        let longest = delays
            .filter_map(|s| s.timing.value().map(|t| t.tick_delay_max_ns))
            .max();
        self.delay_ns = self.delay_ns.max(longest);
        count(
            &mut self.packets,
            cpus().map(|(b, n)| {
                let (b, n) = (b.softnet.value()?, n.softnet.value()?);
                Some((b.processed, n.processed))
            }),
        );
        let all = |sample: &Sample| sample.cores.switches.value().copied();
        match (all(before), all(now)) {
            (Some(b), Some(n)) => count(&mut self.switches, std::iter::once(Some((b, n)))),
            // An older recording has only the tasks that eBPF saw get a CPU.
            _ => count(
                &mut self.switches,
                cpus().map(|(b, n)| Some((b.run_delay.value()?.count, n.run_delay.value()?.count))),
            ),
        }
        if before.cores.source == now.cores.source && before.cores.since_ns == now.cores.since_ns {
            let vectors = cpus().flat_map(|(b, n)| b.softirqs.iter().zip(&n.softirqs));
            count(
                &mut self.softirqs,
                vectors.map(|(b, n)| Some((b.count, n.count))),
            );
        }
    }

    fn point(&self, to_ns: u64) -> Point {
        let per_s = |n: Option<u64>| Some(n? as f64 * 1e9 / self.span_ns as f64);
        Point {
            from_ns: to_ns.saturating_sub(self.span_ns),
            to_ns,
            system: (self.all_ns > 0).then(|| self.kernel_ns as f64 / self.all_ns as f64),
            user: (self.all_ns > 0).then(|| self.user_ns as f64 / self.all_ns as f64),
            delay_ns: self.delay_ns.map(|ns| ns as f64),
            packets: per_s(self.packets),
            switches: per_s(self.switches),
            softirqs: per_s(self.softirqs),
        }
    }
}

fn kernel_ns(times: &CpuTimes) -> u64 {
    [times.system_ns, times.irq_ns, times.softirq_ns]
        .iter()
        .fold(0, |sum, ns| sum.saturating_add(*ns))
}

fn user_ns(times: &CpuTimes) -> u64 {
    times.user_ns.saturating_add(times.nice_ns)
}

fn all_ns(times: &CpuTimes) -> u64 {
    [
        user_ns(times),
        times.idle_ns,
        times.iowait_ns,
        times.steal_ns,
    ]
    .iter()
    .fold(kernel_ns(times), |sum, ns| sum.saturating_add(*ns))
}
