//! Stalls: from the kernel's events to whole rows.
//!
//! Two threads, so that nothing that blocks holds up what must not wait (`thread`): one empties
//! the ring buffer, holds each event for a moment until what belongs to it has come (`hold`), reads
//! the samples around it (`watch`) and understands them; the other looks culprits up in `/proc`
//! (`process`, and [`user_stack`] for the names of user space, each with a bound of time). Understanding is [`attribute`], which asks [`kallsyms`] for names and [`stack`]
//! for what they mean, and [`merge`], which makes one row of the stalls of several CPUs with one
//! cause: pure functions, but for the reading of `/proc/kallsyms`.
//!
//! What counts as a stall is in `threshold`, which kinds can be seen here in `kinds`, where the
//! 1 kHz sampler runs in `sampling`, which a third thread starts and stops (`switch`).

pub mod attribute;
mod hold;
pub mod kallsyms;
pub(crate) mod kinds;
#[cfg(test)]
mod made;
pub mod merge;
mod names;
pub(crate) mod process;
mod sampling;
pub mod stack;
mod switch;
mod thread;
mod threshold;
pub mod user_stack;
mod watch;

pub use sampling::SampleMode;
pub(crate) use sampling::{AT_ONCE, CloserLook};
pub(crate) use thread::StallHandle;
pub use threshold::{Ask, Asked, LEAST, MOST, Thresholds};

use std::path::PathBuf;

use stalltop_model::sample::{StallKind, StallWatch};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::{Probes, Thresholds as Programs};

use crate::cores;
use crate::cpu_list;
use crate::env::Env;
use crate::file;
use crate::host;
use kallsyms::Symbols;
use names::Names;
use process::Processes;
use sampling::Policy;
use thread::Setup;

/// What is to be watched on a host.
pub(crate) struct Watch<'a> {
    env: &'a Env,
    thresholds: Thresholds,
    mode: SampleMode,
    program: Option<PathBuf>,
}

impl<'a> Watch<'a> {
    /// What was asked for, and for the rest what fits the machine.
    pub(crate) fn new(env: &'a Env, asked: &Asked, mode: SampleMode) -> Self {
        Self {
            thresholds: Thresholds::choose(asked, &host::virtual_machine(env)),
            env,
            mode,
            program: None,
        }
    }

    /// Names user stacks with stalltop's own binary.
    pub(crate) fn naming_with(self, program: Option<PathBuf>) -> Self {
        Self { program, ..self }
    }

    /// As the eBPF programs take them; none where nothing is to be watched.
    pub(crate) fn thresholds(&self) -> Option<Programs> {
        let ns = |kind| self.thresholds.ns(kind);
        let programs = Programs {
            pending_ns: ns(StallKind::SoftirqPending),
            handler_ns: ns(StallKind::SoftirqHandler),
            ksoftirqd_ns: ns(StallKind::KsoftirqdWaiting),
            irqs_off_ns: ns(StallKind::InterruptsOff),
            resched_ns: ns(StallKind::NoReschedule),
            real_time_ns: ns(StallKind::RealTime),
        };
        let any = StallKind::ALL.into_iter().any(|kind| ns(kind) > 0);
        any.then_some(programs)
    }

    /// From when on each kind is a stall, or why it is not watched.
    pub(crate) fn kinds(&self, probes: &Probes) -> [Reading<u64>; StallKind::ALL.len()] {
        let mut kinds = kinds::watched(self.env, probes.health(), &self.thresholds);
        let kept = &mut kinds[StallKind::NoReschedule as usize];
        if let (Some(failure), Reading::Value(_)) = (probes.no_resched(), &kept) {
            *kept = Reading::Off(cores::why::refused_at(
                self.env,
                "sched:sched_switch",
                failure,
            ));
        }
        kinds
    }

    /// Where the thresholds come from.
    pub(crate) fn chosen(&self) -> &Name {
        &self.thresholds.chosen
    }

    /// Watches with `probes`, as far as they are attached, and names addresses by `symbols`.
    pub(crate) fn start(self, probes: &mut Probes, symbols: Symbols) -> StallHandle {
        let stalls = probes.take_stalls();
        let watch = self.watch(self.kinds(probes));
        if watch.kinds.iter().all(|kind| kind.value().is_none()) {
            return StallHandle::off(watch);
        }
        let Some(stalls) = stalls else {
            return self.off(&Reason::Refused {
                what: "the maps of stalls".into(),
                why: "they cannot be mapped into memory".into(),
            });
        };
        let possible = file::read(&self.env.path("/sys/devices/system/cpu/possible"));
        let setup = Setup {
            policy: Policy::new(
                self.mode,
                cpu_list::cpus(&possible.unwrap_or_default()).into_iter(),
            ),
            processes: Processes::new(self.env.path("/proc"), self.program.clone()),
            watch,
        };
        let names = Names::new(symbols, setup.watch.tick_ns, self.thresholds.clone());
        StallHandle::start(stalls, names, setup).unwrap_or_else(|why| self.off(&why))
    }

    /// Watches nothing, for one reason.
    pub(crate) fn off(&self, why: &Reason) -> StallHandle {
        StallHandle::off(self.watch(kinds::none(&self.thresholds, why)))
    }

    fn watch(&self, kinds: [Reading<u64>; StallKind::ALL.len()]) -> StallWatch {
        StallWatch {
            kinds,
            chosen: self.thresholds.chosen.clone(),
            tick_ns: host::tick_hz().map_or(0, |hz| 1_000_000_000 / u64::from(hz)),
            symbols: Reading::Off(Reason::Starting),
            ..StallWatch::default()
        }
    }
}
