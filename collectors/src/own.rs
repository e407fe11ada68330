//! What stalltop itself costs.

use rustix::time::{ClockId, clock_gettime};
use stalltop_model::sample::{OwnCost, Sample};
use stalltop_model::{Reading, Reason};

use crate::Collector;
use crate::costs::ProbeCosts;
use crate::env::Env;
use crate::file::{self, KeptFile};

/// Reads this process's CPU time (all threads, those that ended included) and resident set,
/// and works out what our eBPF programs cost from how often they ran.
#[derive(Debug)]
pub struct OwnCollector {
    statm: KeptFile,
    page: u64,
    costs: Option<ProbeCosts>,
    /// Runs of each program that are in `probe_ns`.
    counted: Vec<u64>,
    probe_ns: u64,
}

impl OwnCollector {
    /// Names the files; they are opened at the first tick.
    pub fn new(env: &Env) -> Self {
        Self {
            statm: KeptFile::new(env.path("/proc/self/statm")),
            page: rustix::param::page_size() as u64,
            costs: None,
            counted: Vec::new(),
            probe_ns: 0,
        }
    }

    /// Takes what was measured of one run of each program.
    pub fn set_costs(&mut self, costs: ProbeCosts) {
        self.costs = Some(costs);
    }

    /// Adds the runs of this tick at what a run costs now, so that the sum never goes back.
    fn probes(&mut self, out: &mut OwnCost) {
        let Some(costs) = &self.costs else {
            let attached = |p: &stalltop_model::sample::ProgramHealth| p.attached.value().is_some();
            let why = match out.programs.iter().find(|p| !attached(p)) {
                Some(program) if !out.programs.iter().any(attached) => {
                    program.attached.reason().cloned()
                }
                _ => None,
            };
            let why = why.unwrap_or(Reason::Starting);
            out.probe_ns = Reading::Off(why.clone());
            out.drops = Reading::Off(why);
            return;
        };
        out.drops = costs.drops.clone();
        let per_run = match &costs.ns_per_run {
            Reading::Value(per_run) => per_run,
            Reading::Off(why) => {
                out.probe_ns = Reading::Off(why.clone());
                for program in &mut out.programs {
                    program.ns_per_run = Reading::Off(why.clone());
                }
                return;
            }
        };
        // A program that ran in no window yet is counted at the mean of the others.
        let known = || per_run.iter().filter(|ns| **ns > 0);
        let mean = known().sum::<u64>() / (known().count() as u64).max(1);
        self.counted.resize(out.programs.len(), 0);
        let programs = out.programs.iter_mut().zip(per_run);
        for ((program, ns), counted) in programs.zip(&mut self.counted) {
            let Some(runs) = program.runs.get() else {
                continue;
            };
            if *ns > 0 {
                program.ns_per_run = Reading::Value(*ns);
            }
            let ns = if *ns > 0 { *ns } else { mean };
            self.probe_ns += runs.saturating_sub(*counted).saturating_mul(ns);
            *counted = runs;
        }
        out.probe_ns = Reading::Value(self.probe_ns);
    }
}

impl Collector for OwnCollector {
    fn name(&self) -> &'static str {
        "own cost"
    }

    fn collect(&mut self, out: &mut Sample) -> Result<(), Reason> {
        out.own.cpu_ns = nanoseconds(ClockId::ProcessCPUTime);
        self.probes(&mut out.own);
        let page = self.page;
        let pages = self
            .statm
            .parse(|bytes| parse_statm_resident(bytes).ok_or(bytes))?;
        out.own.rss_bytes = pages.saturating_mul(page);
        Ok(())
    }
}

/// The time of `clock`, ns.
pub(crate) fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The resident pages of `/proc/PID/statm` (proc_pid_statm(5)): its second number.
pub fn parse_statm_resident(bytes: &[u8]) -> Option<u64> {
    let word = file::words(file::lines(bytes).next()?).nth(1)?;
    file::number(word).map(|(n, _)| n)
}

#[cfg(test)]
mod tests;
