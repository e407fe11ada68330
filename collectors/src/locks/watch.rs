//! What is done in a window: watch, read, name. No thread: [`Watcher`] is told when.

use std::time::{Duration, Instant};

use rustix::thread::sched_getaffinity;
use rustix::time::ClockId;
use stalltop_model::sample::{Hidden, Lasting, LockKind, LockWatch, Locks, ProgramHealth};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::wire::lock::EVERY;
use stalltop_probes::{
    Failure, LOCK_CONTENTION, LockCounts, LockOptions, LockTracer, LockWait, Samples, Step,
};

use super::contend::contend;
use super::governor::LocksMode;
use super::hidden::{Machine, hidden};
use super::lasting;
use super::meter::Meter;
use super::names::Code;
use super::owners::Owners;
use super::sampled::Sampled;
use super::statics::Statics;
use super::window::Naming;
use crate::cores::why;
use crate::env::{Env, KernelVersion};
use crate::host;
use crate::own::nanoseconds;
use crate::stalls::CloserLook;
use crate::stalls::kallsyms::Symbols;

/// What a wait costs as long as that is not measured, ns.
const ASSUMED_NS: u64 = 200;
/// Owners looked up in a window while a person looks, and else.
const OWNERS: (usize, usize) = (16, 4);
/// Windows in a row in which the program is tried to be attached.
const ATTEMPTS: u32 = 5;
/// The first kernel with the tracepoints.
const TRACEPOINTS: KernelVersion = KernelVersion(5, 19);
/// The tracepoint as people write it.
const HOOK: &str = "lock:contention_begin";

/// What our program has cost.
pub(super) struct OwnProgram {
    pub(super) health: ProgramHealth,
    /// Time spent in it since the start, ns.
    pub(super) spent_ns: u64,
}

/// Everything that a window needs.
pub(super) struct Watcher {
    env: Env,
    tracer: Result<Box<LockTracer>, Reason>,
    /// How often in a row it could not be attached.
    failed: Failures,
    sampled: Sampled,
    symbols: Symbols,
    statics: Statics,
    owners: Owners,
    naming: Naming,
    /// Waits that lasted at the end of the last window.
    lasting: Vec<Lasting>,
    counts: LockCounts,
    waits: Vec<LockWait>,
    /// Whether stacks come faster than the ring holds in a second.
    many: bool,
    hidden: Reading<Vec<Hidden>>,
    window: u64,
    /// End of the last window.
    last_ns: u64,
    overflowed: u64,
    meter: Meter,
    program: OwnProgram,
}

impl Watcher {
    pub(super) fn new(
        env: &Env,
        mode: LocksMode,
        samples: Result<Samples, Reason>,
        mut own: Vec<(u64, u32)>,
        mut symbols: Symbols,
    ) -> Self {
        let tracer = match mode {
            LocksMode::Off => Err(Reason::SwitchedOff {
                option: "--locks off".into(),
            }),
            LocksMode::Auto | LocksMode::Always => load_tracer(env).map(Box::new),
        };
        let long_ns = tracer.as_ref().map_or(0, |tracer| tracer.long_ns());
        let attached = match &tracer {
            Ok(tracer) => Reading::Value(tracer.program_id()),
            Err(why) => Reading::Off(why.clone()),
        };
        let hidden = match &tracer {
            Ok(_) => Reading::Off(Reason::NotAsked),
            Err(why) => Reading::Off(why.clone()),
        };
        let mut naming = Naming::default();
        if let Ok(tracer) = &tracer {
            // Where it is hidden, the tracepoint's own frames tell.
            let code = tracer.code().unwrap_or_default();
            own.extend_from_slice(&code);
            naming.recorded_by(Code::of(code));
            symbols.program_came();
        }
        Self {
            program: OwnProgram {
                health: program(attached),
                spent_ns: 0,
            },
            tracer,
            failed: Failures::default(),
            sampled: Sampled::new(samples, Code::of(own)),
            symbols,
            statics: Statics::new(env),
            owners: Owners::new(env.path("/proc")),
            naming,
            lasting: Vec::new(),
            counts: LockCounts::default(),
            waits: Vec::new(),
            many: false,
            hidden,
            window: 0,
            last_ns: nanoseconds(ClockId::Boottime),
            overflowed: 0,
            meter: Meter::new(long_ns),
            env: env.clone(),
        }
    }

    /// Why there is nothing to see at all, if there is not.
    pub(super) fn nothing(&self) -> Option<&Reason> {
        let why = self.tracer.as_ref().err();
        why.filter(|_| !self.sampled.is_on())
    }

    /// Our program.
    pub(super) fn program(&self) -> &OwnProgram {
        &self.program
    }

    /// Where the sampler is to look closer, and until when.
    pub(super) fn closer(&self) -> CloserLook {
        self.sampled.closer()
    }

    /// How long one may sleep until [`Watcher::drain`]: the rings are overwritten.
    pub(super) fn step(&self, looked_at: bool) -> Duration {
        if let Some(step) = self.meter.step() {
            step
        } else if looked_at || self.many {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(1)
        }
    }

    /// Attaches the program where there is one; gives whether it is. Where it cannot be attached it
    /// is tried again in the next windows: the kernel may still be busy with the last one.
    pub(super) fn attach(&mut self) -> bool {
        let Ok(tracer) = &mut self.tracer else {
            return false;
        };
        if let Err(failure) = tracer.attach() {
            let why = refused(&self.env, &failure);
            self.program.health.attached = Reading::Off(why.clone());
            if self.failed.are_final() {
                self.hidden = Reading::Off(why.clone());
                self.tracer = Err(why);
            }
            return false;
        }
        self.failed = Failures::default();
        self.program.health.attached = Reading::Value(tracer.program_id());
        self.meter.begin(tracer, self.counts.total().count);
        true
    }

    /// Detaches it.
    pub(super) fn detach(&mut self) {
        self.meter.end(self.tracer.as_deref());
        if let Ok(tracer) = &mut self.tracer {
            tracer.detach();
        }
    }

    /// Contends locks of our own, once, to see what shows. What it adds to the counters is left
    /// out of all windows.
    pub(super) fn try_own_locks(&mut self) {
        let Ok(tracer) = &mut self.tracer else { return };
        if self.hidden.reason() != Some(&Reason::NotAsked) {
            return;
        }
        self.hidden = Reading::Value(try_locks(&self.env, tracer, &mut self.counts));
        self.waits.clear();
        tracer.stacks(&mut self.waits);
    }

    /// Reads what is in the rings, before it is overwritten.
    pub(super) fn drain(&mut self, looked_at: bool) {
        self.drain_until(looked_at, u64::MAX);
        self.meter.end(self.tracer.as_deref());
    }

    fn drain_until(&mut self, looked_at: bool, until_ns: u64) {
        let starting = self.symbols.poll(Instant::now()) && self.symbols.generation() == 0;
        if starting {
            // Bare addresses say nothing; the rings hold a second.
            return;
        }
        if let Ok(tracer) = &mut self.tracer {
            self.waits.clear();
            // Lost short ones take nothing from the sums: what is left is shared out.
            tracer.stacks(&mut self.waits);
            self.many = self.waits.len() as u64 > tracer.ring() / 4;
            let long_ns = tracer.long_ns();
            self.naming
                .add(&self.waits, long_ns, until_ns, &mut self.symbols);
        }
        self.sampled.drain(looked_at, &mut self.symbols);
    }

    /// Ends a window. Gives it, and what watching cost meanwhile, as a part of one CPU; none
    /// where it was not watched.
    pub(super) fn window(&mut self, looked_at: bool, watch: LockWatch) -> (Locks, Option<f64>) {
        let until_ns = nanoseconds(ClockId::Monotonic);
        if let Ok(tracer) = &mut self.tracer {
            tracer.read(&mut self.counts);
        }
        self.drain_until(looked_at, until_ns);
        let at_ns = nanoseconds(ClockId::Boottime);
        self.window += 1;
        let mut out = Locks {
            watch,
            window: self.window,
            at_ns,
            span_ns: at_ns.saturating_sub(std::mem::replace(&mut self.last_ns, at_ns)),
            ..Locks::default()
        };
        out.watch.hidden.clone_from(&self.hidden);
        out.share = self.sampled.finish(until_ns, looked_at);
        out.watch.owners = Reading::Value(());
        let cost = match &mut self.tracer {
            Ok(tracer) => {
                let long_ns = tracer.long_ns();
                let counts = &self.counts;
                let statics = &mut self.statics;
                let mut name = |lock| statics.name(lock);
                self.naming
                    .finish(counts, long_ns, &mut self.symbols, &mut name, &mut out);
                self.waits.clear();
                tracer.lasting(lasting::LEAST, &mut self.waits);
                out.lasting = lasting::group(&self.waits, at_ns.saturating_sub(until_ns));
                let mut name = |lock| statics.name(lock);
                let asked =
                    lasting::look_up(&mut out.lasting, &self.lasting, &mut self.owners, &mut name);
                if let Err(why) = asked {
                    out.watch.owners = Reading::Off(why);
                }
                self.lasting.clone_from(&out.lasting);
                statics.poll(Instant::now());
                out.measured_ns = counts.measured_ns;
                let runs = &counts.runs;
                let overflow = counts.kinds.iter().map(|kind| kind.overflow).sum::<u64>();
                self.overflowed += overflow;
                out.watch.unpaired = runs.begins_unpaired + runs.ends_unpaired;
                out.watch.overflowed = self.overflowed + runs.full + tracer.lost_long();
                out.watch.long_ns = long_ns;
                out.watch.every = EVERY as u32;
                out.watch.missed = missed(tracer, runs.nested);
                let total = counts.total().count;
                let measured_ns = self.meter.ns_per_run();
                let ns = measured_ns.map_or(ASSUMED_NS, |ns| 2 * ns);
                out.watch.ns_per_wait = match measured_ns {
                    Some(ns) => Reading::Value(2 * ns),
                    None => Reading::Off(Reason::NotSampled {
                        what: "what a wait costs".into(),
                    }),
                };
                self.program.spent(runs, ns / 2, measured_ns);
                // From the next window on: in this one all were told apart as they were.
                if self.meter.long_ns() != long_ns {
                    tracer.set_long_ns(self.meter.long_ns());
                }
                let measured = counts.measured_ns;
                (measured > 0).then(|| (total * ns) as f64 / measured as f64)
            }
            Err(why) => {
                out.watch.tracer = Reading::Off(why.clone());
                None
            }
        };
        let most = if looked_at { OWNERS.0 } else { OWNERS.1 };
        if let Err(why) = self.owners.fill(&mut out.stacks, most, at_ns) {
            out.watch.owners = Reading::Off(why);
        }
        (out, cost)
    }
}

/// Failures to attach, in a row.
#[derive(Debug, Default)]
struct Failures(u32);

impl Failures {
    /// Counts one more; gives whether it is no use to try again.
    fn are_final(&mut self) -> bool {
        self.0 += 1;
        self.0 >= ATTEMPTS
    }
}

/// Loads the program.
///
/// # Errors
/// In a person's terms why there is none.
pub(crate) fn load_tracer(env: &Env) -> Result<LockTracer, Reason> {
    let options = LockOptions {
        root: env.root().to_owned(),
        ..LockOptions::default()
    };
    LockTracer::load(&options).map_err(|failure| refused(env, &failure))
}

/// Contends locks of our own while `tracer` is attached, and says what does not show. `counts` is
/// overwritten.
pub(crate) fn try_locks(
    env: &Env,
    tracer: &mut LockTracer,
    counts: &mut LockCounts,
) -> Vec<Hidden> {
    let cpus = sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    let mut shown = [0; LockKind::COUNT];
    let tried = contend(cpus, |kind| {
        tracer.read(counts);
        for (shown, kind) in shown.iter_mut().zip(&counts.kinds) {
            *shown += kind.waits.count;
        }
        shown[kind as usize]
    });
    tracer.read(counts);
    let machine = Machine {
        kernel: env.kernel,
        virtual_machine: host::virtual_machine(env).get().unwrap_or(false),
        cpus,
    };
    hidden(&machine, &tried)
}

/// The reason behind a failure to load or attach.
pub(crate) fn refused(env: &Env, failure: &Failure) -> Reason {
    const ENOENT: i32 = 2;
    let missing = failure.step == Step::Attach && failure.errno == Some(ENOENT);
    let known = env.kernel != KernelVersion::default();
    if missing && known && env.kernel < TRACEPOINTS {
        return Reason::KernelTooOld {
            need: TRACEPOINTS.to_string().into(),
            have: env.kernel.to_string().into(),
        };
    }
    why::refused_at(env, HOOK, failure)
}

/// The row of our program among those of stalltop.
pub(super) fn program(attached: Reading<u32>) -> ProgramHealth {
    let off = match &attached {
        Reading::Value(_) => Reason::Starting,
        Reading::Off(why) => why.clone(),
    };
    ProgramHealth {
        name: LOCK_CONTENTION.into(),
        hook: HOOK.into(),
        attached,
        instead: "the share of samples in lock slow paths".into(),
        runs: Reading::Off(off.clone()),
        ns_per_run: Reading::Off(off),
    }
}

/// Runs that the kernel left out, and those of `nested` that the program did.
fn missed(tracer: &LockTracer, nested: u64) -> Reading<u64> {
    match tracer.counters().map(|counters| counters.recursion_misses) {
        Ok(Some(missed)) => Reading::Value(missed + nested),
        Ok(None) => Reading::Off(Reason::KernelDoesNotSay {
            what: "how often a program was left out".into(),
        }),
        Err(error) => Reading::Off(Reason::Refused {
            what: "BPF_OBJ_GET_INFO_BY_FD".into(),
            why: error.to_string().into(),
        }),
    }
}

impl OwnProgram {
    /// Takes in how often it ran since it was loaded, and what a run takes.
    fn spent(&mut self, runs: &stalltop_probes::LockRuns, assumed_ns: u64, measured: Option<u64>) {
        let runs = runs.begins + runs.ends + runs.ends_unpaired;
        let more = runs.saturating_sub(self.health.runs.get().unwrap_or(0));
        self.spent_ns += more.saturating_mul(assumed_ns);
        self.health.runs = Reading::Value(runs);
        if let Some(ns) = measured {
            self.health.ns_per_run = Reading::Value(ns);
        }
    }
}

/// A name that needs no table: why a lock has none.
pub(super) fn unnamed(what: &str) -> Reading<Name> {
    Reading::Off(Reason::KernelDoesNotSay { what: what.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_or_two_are_not_the_end() {
        let mut failures = Failures::default();
        let mut fail = |times: u32| (0..times).filter(|_| failures.are_final()).count();
        assert_eq!(fail(ATTEMPTS - 1), 0);
        assert_eq!(fail(1), 1);
    }
}
