//! Softirqs, hard interrupts and ksoftirqd from our eBPF programs, since they were attached.

use rustix::time::ClockId;
use stalltop_model::sample::{
    CpuSample, Hardirq, Ksoftirqd, OwnCost, ProgramHealth, RunDelay, SoftirqTiming,
};
use stalltop_model::{Hist, Reading, Reason};
use stalltop_probes::{CpuStats, Events, Probes, Spec, VectorStats};

use super::cpus::Cpus;
use super::ksoftirqd::Threads;
use super::why;
use crate::env::Env;
use crate::own::nanoseconds;

/// Attached programs and what was last read of them.
pub(super) struct BpfSource {
    probes: Probes,
    stats: Box<CpuStats>,
    /// Which CPUs were online at the last tick, by number.
    was_online: Vec<bool>,
    since_ns: u64,
    hardirqs: Result<(), Reason>,
    ksoftirqd: Result<(), Reason>,
    events: Events,
    health: Vec<ProgramHealth>,
}

impl BpfSource {
    /// Takes over attached programs.
    ///
    /// # Errors
    /// The reason when softirqs are not measured in full, and the programs. A source that measured only part
    /// of entry, exit and raise would show the rest as 0; `/proc` is used instead.
    pub(super) fn new(env: &Env, probes: Probes) -> Result<Self, (Reason, Box<Probes>)> {
        let health = program_health(env, &probes);
        let attached = |name: &str| match health.iter().find(|h| &*h.name == name) {
            Some(program) => program.attached.as_ref().map(|_| ()).map_err(Clone::clone),
            None => Err(Reason::Starting),
        };
        for name in ["softirq_exit", "softirq_entry", "softirq_raise"] {
            if let Err(why) = attached(name) {
                return Err((why, Box::new(probes)));
            }
        }
        // Without the run queue's clock the program counts runs but not waits.
        let partial = probes
            .health()
            .iter()
            .find(|h| h.spec.name == "sched_switch")
            .and_then(|h| h.partial.as_ref().map(|p| why::refused(env, h.spec, p)));
        Ok(Self {
            stats: Box::default(),
            was_online: Vec::new(),
            since_ns: nanoseconds(ClockId::Boottime),
            hardirqs: attached("irq_handler_exit"),
            ksoftirqd: attached("sched_switch").and_then(|()| partial.map_or(Ok(()), Err)),
            events: Events::default(),
            health,
            probes,
        })
    }

    /// When counting began (`CLOCK_BOOTTIME`).
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Whether hard interrupts are measured.
    pub(super) fn hardirqs(&self) -> &Result<(), Reason> {
        &self.hardirqs
    }

    /// Whether ksoftirqd is measured.
    pub(super) fn ksoftirqd(&self) -> &Result<(), Reason> {
        &self.ksoftirqd
    }

    /// Ends a tick and fills what is measured. `threads` knows the process ids.
    pub(super) fn fill(
        &mut self,
        cpus: &Cpus,
        threads: &Threads,
        out: &mut [CpuSample],
    ) -> Result<(), Reason> {
        let Some(counters) = self.probes.cpus_mut() else {
            return Err(Reason::Starting);
        };
        self.was_online.resize(cpus.limit(), false);
        counters.flip_epoch();
        let now_ns = nanoseconds(ClockId::Monotonic);
        self.events = Events::default();
        for sample in out {
            let cpu = sample.cpu;
            let was_online = &mut self.was_online[cpu as usize];
            if *was_online && !sample.online {
                counters.forget_pending(cpu);
            }
            *was_online = sample.online;
            if let Some(pid) = threads.pid(cpu) {
                counters.set_ksoftirqd(cpu, pid);
            }
            // A CPU beyond the possible ones that were mapped at start measures nothing.
            if !counters.read(cpu, now_ns, &mut self.stats) {
                *self.stats = CpuStats::default();
            }
            let stats = &*self.stats;
            for (softirq, vector) in sample.softirqs.iter_mut().zip(&stats.vectors) {
                softirq.count = vector.count;
                set(&mut softirq.timing, timing(vector));
            }
            if self.hardirqs.is_ok() {
                sample.hardirq = Hardirq {
                    count: Reading::Value(stats.hardirq.count),
                    time_ns: Reading::Value(stats.hardirq.time_ns),
                };
            }
            if self.ksoftirqd.is_ok() {
                let thread = &stats.ksoftirqd;
                sample.ksoftirqd = if thread.pid == 0 {
                    Reading::Off(threads.missing())
                } else {
                    Reading::Value(Ksoftirqd {
                        pid: thread.pid,
                        run_ns: thread.time_ns,
                        runs: thread.runs,
                        wait_ns: thread.wait_ns,
                    })
                };
            }
            sample.run_delay = match &self.ksoftirqd {
                Ok(()) => Reading::Value(RunDelay {
                    count: stats.run_delay.count,
                    delay_ns: stats.run_delay.delay_ns,
                    tick_max_ns: stats.run_delay.tick_max_ns,
                }),
                Err(why) => Reading::Off(why.clone()),
            };
            let (sum, more) = (&mut self.events, &stats.events);
            sum.raise += more.raise;
            sum.entry += more.entry;
            sum.exit += more.exit;
            sum.irq_entry += more.irq_entry;
            sum.irq_exit += more.irq_exit;
            sum.switch += more.switch;
            sum.hrtimer += more.hrtimer;
            sum.sample += more.sample;
        }
        Ok(())
    }

    /// Fills the health of the programs and how often each ran.
    pub(super) fn own(&self, out: &mut OwnCost) {
        show_programs(&self.health, out);
        for program in &mut out.programs {
            if program.attached.value().is_some() {
                program.runs = runs(&self.events, &program.name);
            }
        }
    }
}

/// Overwrites a value in place: a timing is 600 bytes, and most ticks it is a value already.
fn set(reading: &mut Reading<SoftirqTiming>, timing: SoftirqTiming) {
    match reading {
        Reading::Value(value) => *value = timing,
        Reading::Off(_) => *reading = Reading::Value(timing),
    }
}

fn timing(v: &VectorStats) -> SoftirqTiming {
    SoftirqTiming {
        time_ns: v.time_ns,
        max_ns: v.max_ns,
        tick_max_ns: v.tick_max_ns,
        delay_count: v.delays,
        delay_ns: v.delay_ns,
        delay_max_ns: v.delay_max_ns,
        tick_delay_max_ns: v.delay_tick_max_ns,
        service: Hist(v.hist),
        delay: Hist(v.delay_hist),
    }
}

fn runs(events: &Events, program: &str) -> Reading<u64> {
    Reading::Value(match program {
        "softirq_raise" => events.raise,
        "softirq_entry" => events.entry,
        "softirq_exit" => events.exit,
        "irq_handler_entry" => events.irq_entry,
        "irq_handler_exit" => events.irq_exit,
        "sched_switch" => events.switch,
        "hrtimer_expire_entry" => events.hrtimer,
        "sample" => events.sample,
        _ => {
            return Reading::Off(Reason::KernelDoesNotSay {
                what: "how often it ran".into(),
            });
        }
    })
}

/// Puts `health` into `out`, reusing what is there from the last tick.
pub(super) fn show_programs(health: &[ProgramHealth], out: &mut OwnCost) {
    let same = out.programs.len() == health.len()
        && out
            .programs
            .iter()
            .zip(health)
            .all(|(a, b)| a.name == b.name && a.attached == b.attached);
    if !same {
        out.programs.clear();
        out.programs.extend_from_slice(health);
    }
}

/// The health of every program, from what loading them gave.
pub(super) fn program_health(env: &Env, probes: &Probes) -> Vec<ProgramHealth> {
    let attached = |health: &stalltop_probes::Health| match &health.attached {
        Ok(id) => Reading::Value(*id),
        Err(failure) => Reading::Off(why::refused(env, health.spec, failure)),
    };
    let rows = probes.health().iter();
    rows.map(|health| row(health.spec, attached(health)))
        .collect()
}

/// The health of every program when none was loaded.
pub(super) fn no_programs(why: &Reason) -> Vec<ProgramHealth> {
    let rows = stalltop_probes::PROGRAMS.iter();
    rows.map(|spec| row(spec, Reading::Off(why.clone())))
        .collect()
}

fn row(spec: &Spec, attached: Reading<u32>) -> ProgramHealth {
    let not_running = match &attached {
        Reading::Value(_) => Reason::Starting,
        Reading::Off(reason) => reason.clone(),
    };
    ProgramHealth {
        name: spec.name.into(),
        hook: why::hook(spec).into(),
        attached,
        instead: spec.replaced_by.into(),
        runs: Reading::Off(not_running.clone()),
        ns_per_run: Reading::Off(not_running),
    }
}
