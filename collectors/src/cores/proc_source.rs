//! Softirqs and hard interrupts from `/proc`: counts since boot.

use std::time::{Duration, Instant};

use stalltop_model::sample::{CpuSample, SOFTIRQS};
use stalltop_model::{Reading, Reason};

use super::cpus::Cpus;
use super::wide::Wide;
use super::{interrupts, softirqs};
use crate::env::Env;
use crate::file::KeptFile;

/// Softirqs and hard interrupts from `/proc`.
#[derive(Debug)]
pub(super) struct ProcSource {
    softirqs: KeptFile,
    columns: Vec<u32>,
    /// By CPU number.
    counts: Vec<[Wide; SOFTIRQS]>,
    interrupts: Interrupts,
}

impl ProcSource {
    pub(super) fn new(env: &Env, tick: Duration) -> Self {
        Self {
            softirqs: KeptFile::new(env.path("/proc/softirqs")),
            columns: Vec::new(),
            counts: Vec::new(),
            interrupts: Interrupts::new(env, tick),
        }
    }

    /// Fills the softirq counts of `out`, which has one entry per present CPU; `bpf` is why
    /// there are no times.
    pub(super) fn softirqs(
        &mut self,
        cpus: &Cpus,
        bpf: &Reason,
        out: &mut [CpuSample],
    ) -> Result<(), Reason> {
        self.counts
            .resize(cpus.limit(), [Wide::default(); SOFTIRQS]);
        let counts = &mut self.counts;
        self.softirqs.parse(|bytes| {
            softirqs::parse(bytes, &mut self.columns, |cpu, vector, count| {
                if let Some(counts) = counts.get_mut(cpu as usize) {
                    counts[vector as usize].update(count);
                }
            })
        })?;
        for sample in out {
            let counts = &self.counts[sample.cpu as usize];
            for (softirq, wide) in sample.softirqs.iter_mut().zip(counts) {
                softirq.count = wide.total().unwrap_or(0);
                off(&mut softirq.timing, bpf);
            }
        }
        Ok(())
    }

    /// Fills the hard interrupt counts of `out`; `bpf` is why there are no times.
    pub(super) fn hardirqs(&mut self, cpus: &Cpus, bpf: &Reason, out: &mut [CpuSample]) {
        let interrupts = self.interrupts.read(cpus.limit());
        for sample in out {
            let absent = Reason::CpuOffline { cpu: sample.cpu };
            sample.hardirq.count = match &interrupts {
                Ok(()) => self
                    .interrupts
                    .total(sample.cpu as usize)
                    .ok_or(absent)
                    .into(),
                Err(reason) => Reading::Off(reason.clone()),
            };
            off(&mut sample.hardirq.time_ns, bpf);
        }
    }
}

/// Sets a reading off; most are already, for the same reason.
fn off<T>(reading: &mut Reading<T>, why: &Reason) {
    if reading.reason() != Some(why) {
        *reading = Reading::Off(why.clone());
    }
}

/// `/proc/interrupts` under a budget: it has a row per interrupt and a column per CPU, and
/// on a machine of many of both the kernel needs milliseconds to print it.
#[derive(Debug)]
struct Interrupts {
    file: KeptFile,
    columns: Vec<u32>,
    sums: Vec<u32>,
    totals: Vec<Wide>,
    budget: Duration,
    strikes: u8,
    rest: u32,
    too_slow: Reason,
}

impl Interrupts {
    /// Reads in a row that may be over budget.
    const STRIKES: u8 = 3;
    /// Ticks until a file that was too slow is tried again.
    const REST: u32 = 600;

    fn new(env: &Env, tick: Duration) -> Self {
        Self {
            file: KeptFile::new(env.path("/proc/interrupts")),
            columns: Vec::new(),
            sums: Vec::new(),
            totals: Vec::new(),
            budget: tick / 500,
            strikes: 0,
            rest: 0,
            too_slow: Reason::OverBudget {
                what: "/proc/interrupts".into(),
            },
        }
    }

    fn read(&mut self, limit: usize) -> Result<(), Reason> {
        if self.rest > 0 {
            self.rest -= 1;
            return Err(self.too_slow.clone());
        }
        let start = Instant::now();
        let (columns, sums) = (&mut self.columns, &mut self.sums);
        self.file
            .parse(|bytes| interrupts::parse(bytes, columns, sums))?;
        if start.elapsed() <= self.budget {
            self.strikes = 0;
        } else if self.strikes + 1 < Self::STRIKES {
            self.strikes += 1;
        } else {
            self.rest = Self::REST;
        }
        self.totals.resize(limit, Wide::default());
        for (cpu, sum) in self.columns.iter().zip(&self.sums) {
            if let Some(total) = self.totals.get_mut(*cpu as usize) {
                total.update(*sum);
            }
        }
        Ok(())
    }

    fn total(&self, cpu: usize) -> Option<u64> {
        self.totals.get(cpu).and_then(|wide| wide.total())
    }
}
