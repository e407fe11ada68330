//! Per-CPU rates and their history, in rings of fixed size.

use crate::sample::{CoresSource, CpuSample, CpuTimes, CpuTopology, SOFTIRQS, Sample, Vector};

/// Bytes that each of the two rings may take.
const RING_BYTES: usize = 3 << 20;
/// Bytes that a ring never exceeds, even where that keeps fewer ticks than the least.
const MOST_BYTES: usize = 64 << 20;
/// Ticks kept at most: 15 minutes at the default tick.
pub(super) const MAX_TICKS: usize = 900;
/// Ticks kept at least, whatever the number of CPUs.
const MIN_TICKS: usize = 120;
/// Ticks of per-vector detail kept at least.
const MIN_DETAIL: usize = 16;

/// When a tick was, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TickTime {
    /// `CLOCK_BOOTTIME` at its end, ns.
    pub at_ns: u64,
    /// `CLOCK_REALTIME` at its end, ns since 1970.
    pub wall_ns: u64,
    /// Its length, ns.
    pub span_ns: u64,
}

/// One CPU during one tick. `None` is "not measured".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTick {
    /// Whether the CPU was online at the end of the tick.
    pub online: bool,
    /// Share of the tick in softirq handlers, 0 to 1.
    pub softirq: Option<f32>,
    /// Share in hard interrupt handlers, 0 to 1.
    pub hardirq: Option<f32>,
    /// Share in which `ksoftirqd` ran, 0 to 1.
    pub ksoftirqd: Option<f32>,
    /// Share in which `ksoftirqd` was runnable but waited, 0 to 1.
    pub ksoftirqd_wait: Option<f32>,
    /// Share not idle, 0 to 1 (`/proc/stat`).
    pub busy: Option<f32>,
    /// Share taken by the hypervisor, 0 to 1 (`/proc/stat`).
    pub steal: Option<f32>,
    /// Longest raise-to-entry delay that ended in the tick, ns, and its vector.
    pub delay_max: Option<(u64, Vector)>,
    /// Longest handler run that ended in the tick, ns, and its vector.
    pub service_max: Option<(u64, Vector)>,
    /// Softirqs a second, all vectors.
    pub per_s: f32,
    /// The vector with the most time, or without timing the most runs, and its part of
    /// the CPU's softirqs, 0 to 1. `None` when none ran.
    pub top: Option<(Vector, f32)>,
    /// Packets dropped because the backlog was full (`/proc/net/softnet_stat`).
    pub dropped: Option<u32>,
    /// Times NET_RX stopped with work left (`/proc/net/softnet_stat`).
    pub time_squeeze: Option<u32>,
    /// How long tasks waited for this CPU before they ran.
    pub run_delay: Option<RunDelayTick>,
}

/// Run-queue delay of one CPU during one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunDelayTick {
    /// Tasks that got the CPU after a wait.
    pub count: u32,
    /// Their mean wait, ns; 0 where `count` is.
    pub mean_ns: f32,
    /// The longest wait that ended in the tick, ns.
    pub max_ns: u64,
}

/// One vector on one CPU during one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VectorTick {
    /// Runs a second.
    pub per_s: f32,
    /// Share of the tick in the handler, 0 to 1.
    pub share: Option<f32>,
    /// Mean run, ns; `None` also when it did not run.
    pub mean_ns: Option<f32>,
    /// Longest run that ended in the tick, ns.
    pub max_ns: Option<u64>,
    /// Mean raise-to-entry delay, ns; `None` also when none was seen.
    pub delay_mean_ns: Option<f32>,
    /// Longest raise-to-entry delay that ended in the tick, ns.
    pub delay_max_ns: Option<u64>,
}

/// Packets of one CPU during one tick (`/proc/net/softnet_stat`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftnetRate {
    /// Packets processed a second.
    pub processed_per_s: f64,
    /// Packets dropped in the tick.
    pub dropped: u32,
    /// Times NET_RX stopped with work left, in the tick.
    pub time_squeeze: u32,
}

/// Rates and history of all CPUs. Rows are positions in [`Sample::cpus`].
#[derive(Clone, Debug, Default)]
pub struct CoresModel {
    numbers: Vec<u32>,
    topology: Vec<CpuTopology>,
    times: Vec<TickTime>,
    cpus: Vec<CpuTick>,
    vectors: Vec<[VectorTick; SOFTIRQS]>,
    softnet: Vec<Option<SoftnetRate>>,
    capacity: usize,
    detail: usize,
    /// Number of the next tick; tick `seq` is at `seq % capacity`.
    next: u64,
    /// First tick that the rings hold for the present set of CPUs.
    first: u64,
}

impl CoresModel {
    pub(super) fn set_topology(&mut self, topology: &[CpuTopology]) {
        self.topology.clear();
        self.topology.extend_from_slice(topology);
    }

    pub(super) fn advance(&mut self, before: Option<&Sample>, now: &Sample) {
        let cpus = now.cpus.iter().map(|c| c.cpu);
        // A sample may hold no CPU at all (a recording may hold anything): the rings still turn.
        if self.capacity == 0 || !self.numbers.iter().copied().eq(cpus) {
            self.rebuild(now);
        }
        let Some(before) = before else { return };
        let span_ns = now.at_ns - before.at_ns;
        let slot = (self.next % self.capacity as u64) as usize;
        self.times[slot] = TickTime {
            at_ns: now.at_ns,
            wall_ns: now.wall_ns,
            span_ns,
        };
        let same_source =
            before.cores.source == now.cores.source && before.cores.since_ns == now.cores.since_ns;
        let rows = self.numbers.len();
        let detail_slot = (self.next % self.detail as u64) as usize;
        for (row, cpu) in now.cpus.iter().enumerate() {
            let earlier = before.cpus.get(row).filter(|b| b.cpu == cpu.cpu);
            let vectors = &mut self.vectors[detail_slot * rows + row];
            let tick = &mut self.cpus[slot * rows + row];
            *tick = CpuTick {
                online: cpu.online,
                ..CpuTick::default()
            };
            *vectors = [VectorTick::default(); SOFTIRQS];
            self.softnet[row] = None;
            if let Some(earlier) = earlier {
                if same_source {
                    derive_softirqs(earlier, cpu, span_ns, tick, vectors);
                }
                derive_rest(earlier, cpu, span_ns, now.cores.source, same_source, tick);
                let softnet = derive_softnet(earlier, cpu, span_ns);
                tick.dropped = softnet.map(|s| s.dropped);
                tick.time_squeeze = softnet.map(|s| s.time_squeeze);
                self.softnet[row] = softnet;
            }
        }
        self.next += 1;
    }

    /// Makes room for another set of CPUs. Their history begins anew.
    fn rebuild(&mut self, now: &Sample) {
        self.numbers.clear();
        self.numbers.extend(now.cpus.iter().map(|c| c.cpu));
        let rows = self.numbers.len().max(1);
        // However many CPUs a recording may claim, the rings stay within bounds.
        let fit = |bytes: usize, least: usize| {
            let most = (MOST_BYTES / (rows * bytes)).clamp(2, MAX_TICKS);
            (RING_BYTES / (rows * bytes))
                .clamp(least, MAX_TICKS)
                .min(most)
        };
        self.capacity = fit(size_of::<CpuTick>(), MIN_TICKS);
        self.detail = fit(size_of::<[VectorTick; SOFTIRQS]>(), MIN_DETAIL).min(self.capacity);
        self.times = vec![TickTime::default(); self.capacity];
        self.cpus = vec![CpuTick::default(); self.capacity * rows];
        self.vectors = vec![[VectorTick::default(); SOFTIRQS]; self.detail * rows];
        self.softnet = vec![None; rows];
        self.first = self.next;
    }

    /// CPU numbers by row.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Where the CPU of a row sits, if known.
    pub fn topology(&self, row: usize) -> Option<&CpuTopology> {
        let cpu = *self.numbers.get(row)?;
        let i = self.topology.binary_search_by_key(&cpu, |t| t.cpu).ok()?;
        self.topology.get(i)
    }

    /// Ticks that can be asked for: from the oldest kept to one past the newest.
    pub fn ticks(&self) -> std::ops::Range<u64> {
        let kept = self
            .next
            .saturating_sub(self.capacity as u64)
            .max(self.first);
        kept..self.next
    }

    /// The newest tick, if there is one.
    pub fn newest(&self) -> Option<u64> {
        self.ticks().next_back()
    }

    /// When tick `seq` was.
    pub fn time(&self, seq: u64) -> Option<&TickTime> {
        self.ticks()
            .contains(&seq)
            .then(|| &self.times[(seq % self.capacity as u64) as usize])
    }

    /// The CPU of a row during tick `seq`.
    pub fn cpu(&self, row: usize, seq: u64) -> Option<&CpuTick> {
        if row >= self.numbers.len() || !self.ticks().contains(&seq) {
            return None;
        }
        self.cpus
            .get((seq % self.capacity as u64) as usize * self.numbers.len() + row)
    }

    /// The vectors of a row during tick `seq`; kept for fewer ticks than [`Self::cpu`].
    pub fn vectors(&self, row: usize, seq: u64) -> Option<&[VectorTick; SOFTIRQS]> {
        let kept = self.next.saturating_sub(self.detail as u64);
        if row >= self.numbers.len() || seq < kept || !self.ticks().contains(&seq) {
            return None;
        }
        self.vectors
            .get((seq % self.detail as u64) as usize * self.numbers.len() + row)
    }

    /// Packets of a row during the newest tick.
    pub fn softnet(&self, row: usize) -> Option<&SoftnetRate> {
        self.softnet.get(row)?.as_ref()
    }

    /// Ticks that ended within `window_ns` before the newest one ended.
    pub fn recent(&self, window_ns: u64) -> std::ops::Range<u64> {
        let all = self.ticks();
        let Some(newest) = self.newest().and_then(|seq| self.time(seq)) else {
            return all;
        };
        let from = newest.at_ns.saturating_sub(window_ns);
        let mut start = all.end;
        while start > all.start && self.time(start - 1).is_some_and(|t| t.at_ns > from) {
            start -= 1;
        }
        start..all.end
    }

    /// The longest raise-to-entry delay of a row in a range of ticks.
    pub fn worst_delay(&self, row: usize, ticks: std::ops::Range<u64>) -> Option<(u64, Vector)> {
        ticks
            .filter_map(|seq| self.cpu(row, seq)?.delay_max)
            .max_by_key(|(ns, _)| *ns)
    }
}

fn share(part_ns: u64, span_ns: u64) -> f32 {
    (part_ns as f64 / span_ns.max(1) as f64).clamp(0.0, 1.0) as f32
}

fn derive_softirqs(
    before: &CpuSample,
    now: &CpuSample,
    span_ns: u64,
    tick: &mut CpuTick,
    vectors: &mut [VectorTick; SOFTIRQS],
) {
    let seconds = span_ns as f64 / 1e9;
    let mut time = Some(0u64);
    let mut runs = 0u64;
    let mut top: Option<(Vector, u64)> = None;
    for (vector, out) in Vector::ALL.into_iter().zip(vectors.iter_mut()) {
        let (b, n) = (
            &before.softirqs[vector as usize],
            &now.softirqs[vector as usize],
        );
        let count = n.count.saturating_sub(b.count);
        runs = runs.saturating_add(count);
        out.per_s = (count as f64 / seconds) as f32;
        let mut weight = count;
        match (b.timing.value(), n.timing.value()) {
            (Some(bt), Some(nt)) => {
                let spent = nt.time_ns.saturating_sub(bt.time_ns);
                let delays = nt.delay_count.saturating_sub(bt.delay_count);
                let waited = nt.delay_ns.saturating_sub(bt.delay_ns);
                out.share = Some(share(spent, span_ns));
                out.mean_ns = (count > 0).then(|| (spent as f64 / count as f64) as f32);
                out.max_ns = Some(nt.tick_max_ns);
                out.delay_mean_ns = (delays > 0).then(|| (waited as f64 / delays as f64) as f32);
                out.delay_max_ns = Some(nt.tick_delay_max_ns);
                longer(&mut tick.service_max, nt.tick_max_ns, vector);
                longer(&mut tick.delay_max, nt.tick_delay_max_ns, vector);
                time = time.map(|t| t.saturating_add(spent));
                weight = spent;
            }
            _ => time = None,
        }
        if weight > 0 && top.is_none_or(|(_, most)| weight > most) {
            top = Some((vector, weight));
        }
    }
    tick.per_s = (runs as f64 / seconds) as f32;
    tick.softirq = time.map(|t| share(t, span_ns));
    let all = time.unwrap_or(runs).max(1);
    tick.top = top.map(|(vector, weight)| (vector, (weight as f64 / all as f64) as f32));
}

fn longer(longest: &mut Option<(u64, Vector)>, ns: u64, vector: Vector) {
    if longest.is_none_or(|(most, _)| ns > most) {
        *longest = Some((ns, vector));
    }
}

fn derive_rest(
    before: &CpuSample,
    now: &CpuSample,
    span_ns: u64,
    source: CoresSource,
    same_source: bool,
    tick: &mut CpuTick,
) {
    if let (Some(b), Some(n)) = (before.times.value(), now.times.value()) {
        let total = sum(n).saturating_sub(sum(b));
        // A tickless idle CPU's counters lag; its own total is the better divisor then.
        let part = |now: u64, then: u64| share(now.saturating_sub(then), total.max(span_ns));
        if total > 0 {
            let idle = |t: &CpuTimes| t.idle_ns.saturating_add(t.iowait_ns);
            let idle = idle(n).saturating_sub(idle(b));
            tick.busy = Some(share(total.saturating_sub(idle), total));
        }
        tick.steal = Some(part(n.steal_ns, b.steal_ns));
        if source == CoresSource::Proc {
            tick.softirq = Some(part(n.softirq_ns, b.softirq_ns));
            tick.hardirq = Some(part(n.irq_ns, b.irq_ns));
        }
    }
    if !same_source {
        return;
    }
    if let (Some(b), Some(n)) = (before.hardirq.time_ns.get(), now.hardirq.time_ns.get()) {
        tick.hardirq = Some(share(n.saturating_sub(b), span_ns));
    }
    if let (Some(b), Some(n)) = (before.run_delay.value(), now.run_delay.value()) {
        let count = n.count.saturating_sub(b.count);
        let waited = n.delay_ns.saturating_sub(b.delay_ns);
        tick.run_delay = Some(RunDelayTick {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            mean_ns: (waited as f64 / count.max(1) as f64) as f32,
            max_ns: n.tick_max_ns,
        });
    }
    if let (Some(b), Some(n)) = (before.ksoftirqd.value(), now.ksoftirqd.value())
        && b.pid == n.pid
    {
        tick.ksoftirqd = Some(share(n.run_ns.saturating_sub(b.run_ns), span_ns));
        tick.ksoftirqd_wait = Some(share(n.wait_ns.saturating_sub(b.wait_ns), span_ns));
    }
}

fn sum(t: &CpuTimes) -> u64 {
    [
        t.user_ns,
        t.nice_ns,
        t.system_ns,
        t.idle_ns,
        t.iowait_ns,
        t.irq_ns,
        t.softirq_ns,
        t.steal_ns,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

fn derive_softnet(before: &CpuSample, now: &CpuSample, span_ns: u64) -> Option<SoftnetRate> {
    let (b, n) = (before.softnet.value()?, now.softnet.value()?);
    let seconds = span_ns as f64 / 1e9;
    // The kernel prints 32-bit counters in hexadecimal: they wrap.
    let diff = |now: u64, then: u64| (now as u32).wrapping_sub(then as u32);
    Some(SoftnetRate {
        processed_per_s: f64::from(diff(n.processed, b.processed)) / seconds,
        dropped: diff(n.dropped, b.dropped),
        time_squeeze: diff(n.time_squeeze, b.time_squeeze),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reading;
    use crate::sample::{Cores, RunDelay, SoftirqTiming};

    fn sample(at_s: u64, cpus: u32) -> Sample {
        let mut sample = Sample {
            at_ns: at_s * 1_000_000_000,
            ..Sample::default()
        };
        sample.cores = Cores {
            source: CoresSource::Bpf,
            bpf: Reading::Value(()),
            since_ns: 1,
            ..Cores::default()
        };
        for cpu in 0..cpus {
            let mut c = CpuSample {
                cpu,
                online: true,
                ..CpuSample::default()
            };
            for s in &mut c.softirqs {
                s.timing = Reading::Value(SoftirqTiming::default());
            }
            let net = &mut c.softirqs[Vector::NetRx as usize];
            net.count = at_s * 1000;
            net.timing = Reading::Value(SoftirqTiming {
                time_ns: at_s * 250_000_000,
                tick_delay_max_ns: at_s,
                ..SoftirqTiming::default()
            });
            sample.cpus.push(c);
        }
        sample
    }

    #[test]
    fn rates_come_from_differences() {
        let mut cores = CoresModel::default();
        cores.advance(None, &sample(1, 2));
        assert_eq!(cores.newest(), None);
        cores.advance(Some(&sample(1, 2)), &sample(2, 2));
        let tick = cores.cpu(1, 0).unwrap();
        assert_eq!(tick.softirq, Some(0.25));
        assert_eq!(tick.top, Some((Vector::NetRx, 1.0)));
        assert_eq!(tick.delay_max, Some((2, Vector::NetRx)));
        assert_eq!(tick.hardirq, None);
        assert_eq!(
            cores.vectors(1, 0).unwrap()[Vector::NetRx as usize].per_s,
            1000.0
        );
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_numbering() {
        let mut cores = CoresModel::default();
        for s in 1..2_000 {
            cores.advance(Some(&sample(s, 1)), &sample(s + 1, 1));
        }
        let ticks = cores.ticks();
        assert_eq!(ticks.end, 1_999);
        assert_eq!(ticks.end - ticks.start, MAX_TICKS as u64);
        assert_eq!(cores.time(ticks.end - 1).unwrap().at_ns, 2_000_000_000_000);
        assert!(cores.time(ticks.start - 1).is_none());
        assert_eq!(cores.recent(10_000_000_000).count(), 10);
    }

    #[test]
    fn absurd_counters_and_cpus_are_survived() {
        let mut before = sample(1, 3);
        let mut now = sample(2, 3);
        for (sample, value) in [(&mut before, 0), (&mut now, u64::MAX)] {
            for cpu in &mut sample.cpus {
                for softirq in &mut cpu.softirqs {
                    softirq.count = value;
                    softirq.timing.value_mut().unwrap().time_ns = value;
                }
                cpu.times = Reading::Value(CpuTimes {
                    user_ns: value,
                    idle_ns: value,
                    iowait_ns: value,
                    ..CpuTimes::default()
                });
            }
        }
        let mut cores = CoresModel::default();
        cores.advance(None, &before);
        cores.advance(Some(&before), &now);
        assert_eq!(cores.cpu(0, 0).unwrap().softirq, Some(1.0));
        let crowd = sample(3, 60_000);
        cores.advance(Some(&now), &crowd);
        cores.advance(Some(&crowd), &sample(4, 0));
        assert!(cores.numbers().is_empty());
    }

    #[test]
    fn run_queue_delay_is_of_the_tick_or_not_measured() {
        let with = |at_s: u64, count: u64, delay_ns: u64, tick_max_ns: u64| {
            let mut sample = sample(at_s, 1);
            sample.cpus[0].run_delay = Reading::Value(RunDelay {
                count,
                delay_ns,
                tick_max_ns,
            });
            sample
        };
        let mut cores = CoresModel::default();
        let (a, b) = (with(1, 10, 1_000, 900), with(2, 14, 9_000, 7_000));
        cores.advance(None, &a);
        cores.advance(Some(&a), &b);
        let delay = cores.cpu(0, 0).unwrap().run_delay.unwrap();
        assert_eq!(
            (delay.count, delay.mean_ns, delay.max_ns),
            (4, 2_000.0, 7_000)
        );
        // Nobody waited: measured, and none.
        cores.advance(Some(&b), &with(3, 14, 9_000, 0));
        let delay = cores.cpu(0, 1).unwrap().run_delay.unwrap();
        assert_eq!(delay, RunDelayTick::default());
        cores.advance(Some(&b), &sample(4, 1));
        assert_eq!(cores.cpu(0, 2).unwrap().run_delay, None);
    }

    #[test]
    fn another_source_gives_no_rates_of_counts() {
        let mut cores = CoresModel::default();
        let mut old = sample(1, 1);
        old.cores.since_ns = 0;
        cores.advance(None, &old);
        cores.advance(Some(&old), &sample(2, 1));
        let tick = cores.cpu(0, 0).unwrap();
        assert_eq!((tick.softirq, tick.top), (None, None));
    }
}
