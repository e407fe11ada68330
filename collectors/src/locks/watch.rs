//! What is done in a window: watch, read, name. No thread: [`Watcher`] is told when.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::thread::sched_getaffinity;
use rustix::time::ClockId;
use stalltop_model::sample::{Hidden, Lasting, LockKind, LockWatch, Locks, ProgramHealth};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::sys::load;
use stalltop_probes::wire::lock::EVERY;
use stalltop_probes::{
    Failure, LOCK_CONTENTION, LockCounts, LockOptions, LockTracer, LockWait, Samples, StackSample,
    Step,
};

use super::closer::Closer;
use super::contend::contend;
use super::governor::LocksMode;
use super::hidden::{Machine, hidden};
use super::lasting;
use super::long::Long;
use super::names::Code;
use super::owners::Owners;
use super::share::{Counting, Known};
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
/// For how long run time is measured, and how often.
const METER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How soon again where it was dear.
const AGAIN: Duration = Duration::from_millis(500);
/// From one to the next at least where the rate of waits has become another.
const METER_SOON: Duration = Duration::from_secs(5);
/// Waits in a window from which on it is worth to measure what they cost.
const METERED: u64 = 100;
/// Samples of a window that are looked at while nobody looks, of all CPUs together: 2 % is then
/// told from 4 %.
const UNWATCHED: u64 = 600;
/// Owners looked up in a window while a person looks, and else.
const OWNERS: (usize, usize) = (16, 4);
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
    samples: Result<Samples, Reason>,
    symbols: Symbols,
    statics: Statics,
    owners: Owners,
    naming: Naming,
    known: Known,
    /// Waits that lasted at the end of the last window.
    lasting: Vec<Lasting>,
    counting: Counting,
    closer: Closer,
    look: CloserLook,
    counts: LockCounts,
    /// Number of the newest sample of each CPU that was read.
    seen: Vec<u64>,
    waits: Vec<LockWait>,
    buf: Vec<StackSample>,
    /// Whether stacks come faster than the ring holds in a second.
    many: bool,
    hidden: Reading<Vec<Hidden>>,
    tick_hz: Option<u32>,
    window: u64,
    /// End of the last window.
    last_ns: u64,
    overflowed: u64,
    meter: Meter,
    program: OwnProgram,
}

/// Measures what a run of the program takes, in short windows of the kernel's statistics.
struct Meter {
    ns_per_run: Option<u64>,
    /// From when on waits are to be long, by that.
    long: Long,
    next: Instant,
    /// Waits of the window in which it was measured: at rates far from that a run costs other
    /// than it did (caches are cold, or warm).
    at_waits: u64,
    /// The statistics, run time and runs when they were switched on, and when.
    on: Option<(OwnedFd, (u64, u64), Instant)>,
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
        let (mut naming, mut known) = (Naming::default(), Known::default());
        if let Ok(tracer) = &tracer {
            // Where it is hidden, the tracepoint's own frames tell.
            let code = tracer.code().unwrap_or_default();
            own.extend_from_slice(&code);
            naming.recorded_by(Code::of(code));
            symbols.program_came();
        }
        known.own(Code::of(own));
        let cpus = samples.as_ref().map_or(0, Samples::possible);
        // What was sampled before is not of our first window.
        let newest = |cpu| samples.as_ref().map_or(0, |samples| samples.newest(cpu));
        Self {
            seen: (0..cpus).map(newest).collect(),
            program: OwnProgram {
                health: program(attached),
                spent_ns: 0,
            },
            tracer,
            samples,
            symbols,
            statics: Statics::new(env),
            owners: Owners::new(env.path("/proc")),
            naming,
            known,
            lasting: Vec::new(),
            counting: Counting::default(),
            closer: Closer::default(),
            look: CloserLook::default(),
            counts: LockCounts::default(),
            waits: Vec::new(),
            buf: Vec::new(),
            many: false,
            hidden,
            tick_hz: host::tick_hz(),
            window: 0,
            last_ns: nanoseconds(ClockId::Boottime),
            overflowed: 0,
            meter: Meter {
                ns_per_run: None,
                long: Long::new(long_ns),
                at_waits: 0,
                next: Instant::now() + Duration::from_secs(2),
                on: None,
            },
            env: env.clone(),
        }
    }

    /// Why there is nothing to see at all, if there is not.
    pub(super) fn nothing(&self) -> Option<&Reason> {
        match (&self.tracer, &self.samples) {
            (Err(why), Err(_)) => Some(why),
            _ => None,
        }
    }

    /// Our program.
    pub(super) fn program(&self) -> &OwnProgram {
        &self.program
    }

    /// Where the sampler is to look closer, and until when.
    pub(super) fn closer(&self) -> CloserLook {
        self.look
    }

    /// How long one may sleep until [`Watcher::drain`]: the rings are overwritten.
    pub(super) fn step(&self, looked_at: bool) -> Duration {
        if self.meter.on.is_some() {
            METER.0
        } else if looked_at || self.many {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(1)
        }
    }

    /// Attaches the program where there is one; gives whether it is.
    pub(super) fn attach(&mut self) -> bool {
        let Ok(tracer) = &mut self.tracer else {
            return false;
        };
        if let Err(failure) = tracer.attach() {
            let why = refused(&self.env, &failure);
            self.program.health.attached = Reading::Off(why.clone());
            self.hidden = Reading::Off(why.clone());
            self.tracer = Err(why);
            return false;
        }
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
        let Ok(samples) = &mut self.samples else {
            return;
        };
        let most = if looked_at {
            samples.slots()
        } else {
            (UNWATCHED / u64::from(samples.possible().max(1))).max(8)
        };
        for (cpu, seen) in (0..).zip(&mut self.seen) {
            let newest = samples.newest(cpu);
            if newest == *seen {
                continue;
            }
            *seen = (*seen).max(newest.saturating_sub(most));
            self.buf.clear();
            samples.newer(cpu, seen, &mut self.buf);
            self.counting
                .count(cpu, &self.buf, &mut self.known, &mut self.symbols);
        }
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
        let busy = self.counting.busy();
        out.share = match &self.samples {
            Ok(_) => Reading::Value(self.counting.finish(self.tick_hz, &self.known)),
            Err(why) => Reading::Off(why.clone()),
        };
        self.look = self
            .closer
            .next(until_ns, looked_at, out.share.value(), &busy);
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
                lasting::look_up(&mut out.lasting, &self.lasting, &mut self.owners, &mut name);
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
                let ns = self.meter.ns_per_run.map_or(ASSUMED_NS, |ns| 2 * ns);
                out.watch.ns_per_wait = match self.meter.ns_per_run {
                    Some(ns) => Reading::Value(2 * ns),
                    None => Reading::Off(Reason::NotSampled {
                        what: "what a wait costs".into(),
                    }),
                };
                self.program.spent(runs, ns / 2, self.meter.ns_per_run);
                // From the next window on: in this one all were told apart as they were.
                if self.meter.long.ns() != long_ns {
                    tracer.set_long_ns(self.meter.long.ns());
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
        self.owners.fill(&mut out.stacks, most);
        (out, cost)
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

/// How long (ns) and how often the program ran while statistics were on.
fn run_time(tracer: &LockTracer) -> std::io::Result<(u64, u64)> {
    let counters = tracer.counters()?;
    Ok((counters.run_time_ns, counters.run_cnt))
}

impl Meter {
    /// Switches statistics on where it is time to, and there is something to measure.
    fn begin(&mut self, tracer: &LockTracer, waits: u64) {
        let moved = waits / 4 > self.at_waits || waits < self.at_waits / 4;
        let soon = moved && Instant::now() + METER.1 >= self.next + METER_SOON;
        let due = waits >= METERED && (soon || Instant::now() >= self.next);
        if !due || self.on.is_some() || !tracer.is_attached() {
            return;
        }
        self.next = Instant::now() + METER.1;
        if moved {
            self.ns_per_run = None;
        }
        self.at_waits = waits;
        if let Ok(statistics) = load::enable_run_time_stats()
            && let Ok(before) = run_time(tracer)
        {
            self.on = Some((statistics, before, Instant::now()));
        }
    }

    /// Switches them off, and takes in what they say.
    fn end(&mut self, tracer: Result<&LockTracer, &Reason>) {
        let Some((statistics, before, since)) = self.on.take() else {
            return;
        };
        drop(statistics);
        if since.elapsed() < METER.0 / 2 {
            return;
        }
        let Some(after) = tracer.ok().and_then(|tracer| run_time(tracer).ok()) else {
            return;
        };
        let (ns, runs) = (
            after.0.saturating_sub(before.0),
            after.1.saturating_sub(before.1),
        );
        if runs >= METERED / 2 {
            let new = ns / runs;
            self.ns_per_run = Some(self.ns_per_run.map_or(new, |old| (old + new) / 2));
            let long_ns = self.long.ns();
            if self.long.measured(2 * new) {
                self.next = Instant::now() + AGAIN;
            }
            if self.long.ns() != long_ns {
                // With fewer stacks it costs less.
                self.ns_per_run = None;
            }
        }
    }
}

/// A name that needs no table: why a lock has none.
pub(super) fn unnamed(what: &str) -> Reading<Name> {
    Reading::Off(Reason::KernelDoesNotSay { what: what.into() })
}
