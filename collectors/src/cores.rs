//! Per-CPU figures: softirqs, hard interrupts, ksoftirqd, packets, time.
//!
//! Two sources fill the same fields: our eBPF programs, and without them `/proc`, which
//! knows counts since boot but neither times nor delays of softirqs. Time per CPU and
//! packets come from `/proc` in both.

mod bpf_source;
mod cpus;
pub mod interrupts;
mod ksoftirqd;
mod proc_source;
pub mod softirqs;
pub mod softnet;
pub mod stat;
pub(crate) mod why;
mod wide;

pub use ksoftirqd::{parse_schedstat, parse_stat as parse_ksoftirqd_stat};

use std::time::Duration;

use stalltop_model::sample::{CoresSource, CpuTimes, ProgramHealth, Sample, Softnet};
use stalltop_model::{Reading, Reason};
use stalltop_probes::Probes;

use crate::Collector;
use crate::env::Env;
use crate::file::KeptFile;
use bpf_source::BpfSource;
use cpus::Cpus;
use ksoftirqd::Threads;
use proc_source::ProcSource;
use wide::Wide;

/// Fills [`Sample::cores`] and [`Sample::cpus`].
pub struct CoresCollector {
    cpus: Cpus,
    stat: KeptFile,
    /// Why there are no context switches in it; made once, as it may be told at every tick.
    no_switches: Reason,
    clock_tick_ns: u64,
    softnet: KeptFile,
    /// What was last seen of each CPU, by number: an offline CPU keeps its counters.
    seen: Vec<Seen>,
    proc: ProcSource,
    threads: Threads,
    bpf: Result<BpfSource, NoBpf>,
}

/// eBPF does not measure softirqs.
struct NoBpf {
    why: Reason,
    programs: Vec<ProgramHealth>,
    /// What is attached all the same, for stalls and samples: for as long as this lives.
    _probes: Option<Box<Probes>>,
}

/// What `/proc/stat` and softnet_stat said last of one CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    times: Option<CpuTimes>,
    in_this_tick: bool,
    processed: Wide,
    dropped: Wide,
    time_squeeze: Wide,
    backlog: Option<u32>,
}

impl CoresCollector {
    /// Names the files below the root of `env`; they are opened at the first tick. `tick`
    /// is how often this will be called.
    pub fn new(env: &Env, tick: Duration) -> Self {
        Self {
            cpus: Cpus::new(env),
            stat: KeptFile::new(env.path("/proc/stat")),
            no_switches: Reason::parse("/proc/stat", b"no ctxt"),
            clock_tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            softnet: KeptFile::new(env.path("/proc/net/softnet_stat")),
            seen: Vec::new(),
            proc: ProcSource::new(env, tick),
            threads: Threads::new(env),
            bpf: Err(NoBpf {
                why: Reason::Starting,
                programs: Vec::new(),
                _probes: None,
            }),
        }
    }

    /// Says why eBPF does not measure.
    pub fn without_bpf(&mut self, why: &Reason) {
        self.bpf = Err(NoBpf {
            why: why.clone(),
            programs: bpf_source::no_programs(why),
            _probes: None,
        });
    }

    /// Measures with `probes` from the next tick on, as far as they are attached, and keeps them
    /// attached.
    pub fn use_bpf(&mut self, env: &Env, probes: Probes) {
        let programs = bpf_source::program_health(env, &probes);
        self.bpf = BpfSource::new(env, probes).map_err(|(why, probes)| NoBpf {
            why,
            programs,
            _probes: Some(probes),
        });
    }

    /// Fills what eBPF measures, and from `/proc` what it does not.
    fn fill(&mut self, out: &mut Sample) -> Result<(), Reason> {
        let (cpus, samples) = (&self.cpus, &mut out.cpus);
        let (hardirqs, ksoftirqd) = match &mut self.bpf {
            Ok(bpf) => {
                out.cores.source = CoresSource::Bpf;
                out.cores.since_ns = bpf.since_ns();
                out.cores.bpf = Reading::Value(());
                bpf.fill(cpus, &self.threads, samples)?;
                bpf.own(&mut out.own);
                (bpf.hardirqs().clone(), bpf.ksoftirqd().clone())
            }
            Err(NoBpf { why, programs, .. }) => {
                out.cores.source = CoresSource::Proc;
                out.cores.since_ns = 0;
                out.cores.bpf = Reading::Off(why.clone());
                bpf_source::show_programs(programs, &mut out.own);
                for sample in samples.iter_mut() {
                    sample.run_delay = Reading::Off(why.clone());
                }
                self.proc.softirqs(cpus, why, samples)?;
                (Err(why.clone()), Err(why.clone()))
            }
        };
        if let Err(why) = hardirqs {
            self.proc.hardirqs(cpus, &why, samples);
        }
        if ksoftirqd.is_err() {
            for sample in samples {
                sample.ksoftirqd = self.threads.read(sample.cpu);
            }
        }
        Ok(())
    }

    /// Takes the times of every CPU, and gives the context switches of all.
    fn read_times(&mut self) -> Result<Option<u64>, Reason> {
        let mut switches = None;
        let (seen, clock_tick_ns) = (&mut self.seen, self.clock_tick_ns);
        for cpu in seen.iter_mut() {
            cpu.in_this_tick = false;
        }
        self.stat.parse(|bytes| {
            switches = stat::switches(bytes);
            stat::parse(bytes, clock_tick_ns, |cpu, times| {
                if let Some(seen) = seen.get_mut(cpu as usize) {
                    seen.times = Some(times);
                    seen.in_this_tick = true;
                }
            })
        })?;
        Ok(switches)
    }

    fn read_softnet(&mut self) -> Result<(), Reason> {
        let (seen, online) = (&mut self.seen, self.cpus.online());
        let mut position = 0;
        self.softnet.parse(|bytes| {
            softnet::parse(bytes, |line| {
                let cpu = line.cpu.or_else(|| online.get(position).copied());
                position += 1;
                let Some(seen) = cpu.and_then(|cpu| seen.get_mut(cpu as usize)) else {
                    return;
                };
                seen.processed.update(line.processed);
                seen.dropped.update(line.dropped);
                seen.time_squeeze.update(line.time_squeeze);
                seen.backlog = line.backlog;
            })
        })
    }
}

impl Seen {
    fn softnet(&self) -> Option<Softnet> {
        Some(Softnet {
            processed: self.processed.total()?,
            dropped: self.dropped.total()?,
            time_squeeze: self.time_squeeze.total()?,
            backlog: self.backlog.unwrap_or(0).into(),
            backlog_known: self.backlog.is_some(),
        })
    }
}

impl Collector for CoresCollector {
    fn name(&self) -> &'static str {
        "cores"
    }

    fn collect(&mut self, out: &mut Sample) -> Result<(), Reason> {
        if let Err(reason) = self.cpus.refresh() {
            out.cpus.clear();
            out.cores.bpf = Reading::Off(reason.clone());
            return Err(reason);
        }
        self.seen.resize(self.cpus.limit(), Seen::default());
        let times = self.read_times();
        if !self.cpus.online_known() {
            let seen = &self.seen;
            self.cpus
                .set_online(|cpu| seen.get(cpu as usize).is_some_and(|s| s.in_this_tick));
        }
        out.cores.switches = match &times {
            Ok(Some(count)) => Reading::Value(*count),
            Ok(None) => Reading::Off(self.no_switches.clone()),
            Err(why) => Reading::Off(why.clone()),
        };
        let softnet = self.read_softnet();

        self.cpus.shape(&mut out.cpus);
        for cpu in &mut out.cpus {
            let seen = self.seen.get(cpu.cpu as usize).copied().unwrap_or_default();
            let absent = || Reason::CpuOffline { cpu: cpu.cpu };
            cpu.times = times
                .clone()
                .and_then(|_| seen.times.ok_or_else(absent))
                .into();
            cpu.softnet = softnet
                .clone()
                .and_then(|()| seen.softnet().ok_or_else(absent))
                .into();
        }
        self.threads.search(self.cpus.online());
        let filled = self.fill(out);
        if filled.is_err() {
            // A count that was not read must not be shown as 0.
            out.cpus.clear();
        }
        filled
    }
}

#[cfg(test)]
mod tests;
