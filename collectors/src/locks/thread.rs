//! The thread that watches the kernel's locks, and the end of it that the tick holds.
//!
//! `stalltop-locks` publishes one window after another, about one per tick and one a second at
//! most; between them it sleeps. On a quiet host a window is some words of shared memory. The
//! tick takes the newest window's pointer and never waits.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use stalltop_model::sample::{LockWatch, Locks, ProgramHealth, Sample};
use stalltop_model::{Reading, Reason};
use stalltop_probes::Samples;

use super::governor::{Governor, LocksMode, Plan};
use super::watch::{Watcher, program};
use crate::alive::Alive;
use crate::env::Env;
use crate::shared::Shared;
use crate::stalls::CloserLook;
use crate::stalls::kallsyms::Symbols;

/// Between two windows at least and at most.
const PERIOD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

#[derive(Default)]
struct State {
    newest: Reading<Arc<Locks>>,
    program: Option<ProgramHealth>,
    spent_ns: u64,
    /// Where the sampler is to look closer.
    closer: CloserLook,
    /// A person looks.
    looked_at: bool,
    /// `looked_at` or `stop` changed.
    kick: bool,
    stop: bool,
}

/// What is to be watched.
pub(crate) struct Setup {
    /// The host.
    pub(crate) env: Env,
    /// When the tracepoints are watched.
    pub(crate) mode: LocksMode,
    /// Time between ticks.
    pub(crate) tick: Duration,
    /// Where samples are, or why there are none.
    pub(crate) samples: Result<Samples, Reason>,
    /// Where the programs lie that always run: address and length of each function.
    pub(crate) own: Vec<(u64, u32)>,
    /// Names of functions.
    pub(crate) symbols: Symbols,
}

/// The end that the ticking thread holds. Dropping it ends the thread.
pub(crate) struct LockHandle {
    shared: Arc<Shared<State>>,
    program: ProgramHealth,
    spent_ns: u64,
    closer: CloserLook,
}

/// Says so where the thread ends that should not.
fn alive(shared: &Shared<State>) -> Alive<impl FnMut()> {
    Alive::new(|| {
        shared.lock().newest = Reading::Off(Reason::Refused {
            what: "locks".into(),
            why: "stalltop failed to understand a window (a bug): start it again".into(),
        });
    })
}

impl LockHandle {
    /// Nothing is watched.
    pub(crate) fn off(why: &Reason) -> Self {
        let state = State {
            newest: Reading::Off(why.clone()),
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared::new(state)),
            program: program(Reading::Off(why.clone())),
            spent_ns: 0,
            closer: CloserLook::default(),
        }
    }

    /// Starts the thread, which loads what it needs by itself.
    pub(crate) fn start(setup: Setup) -> Self {
        let this = Self::off(&Reason::Starting);
        let theirs = Arc::clone(&this.shared);
        // The name shows in stalls that are ours.
        let started = thread::Builder::new()
            .name("stalltop-locks".into())
            .spawn(move || run(&theirs, setup));
        match started {
            Ok(_) => this,
            Err(error) => Self::off(&Reason::Refused {
                what: "a thread that watches locks".into(),
                why: error.to_string().into(),
            }),
        }
    }

    /// Says whether a person looks: then it is watched whatever it costs.
    pub(crate) fn look(&self, looked_at: bool) {
        self.shared.change(|state| {
            let changed = std::mem::replace(&mut state.looked_at, looked_at) != looked_at;
            state.kick |= changed;
            changed
        });
    }

    /// Where the sampler is to look closer, as of the newest [`LockHandle::fill`].
    pub(crate) fn closer(&self) -> CloserLook {
        self.closer
    }

    /// Fills what waits for locks, and what our program for that costs. Never waits; allocates
    /// nothing once warm.
    pub(crate) fn fill(&mut self, out: &mut Sample) {
        if let Some(state) = self.shared.try_lock() {
            if !same(&out.locks, &state.newest) {
                out.locks.clone_from(&state.newest);
            }
            if let Some(program) = &state.program {
                self.program.clone_from(program);
                self.spent_ns = state.spent_ns;
            }
            self.closer = state.closer;
        }
        out.own.programs.push(self.program.clone());
        if let Reading::Value(probe_ns) = &mut out.own.probe_ns {
            *probe_ns += self.spent_ns;
        }
    }
}

fn same(a: &Reading<Arc<Locks>>, b: &Reading<Arc<Locks>>) -> bool {
    match (a, b) {
        (Reading::Value(a), Reading::Value(b)) => Arc::ptr_eq(a, b),
        (a, b) => a == b,
    }
}

impl Drop for LockHandle {
    /// Does not wait: the program is detached when the thread ends, or with the process.
    fn drop(&mut self) {
        self.shared
            .tell(|state| (state.stop, state.kick) = (true, true));
    }
}

/// What somebody wants.
enum Wish {
    Nothing,
    Look,
    Stop,
}

fn wish(shared: &Shared<State>) -> Wish {
    let mut state = shared.lock();
    state.kick = state.stop;
    match (state.stop, state.looked_at) {
        (true, _) => Wish::Stop,
        (_, true) => Wish::Look,
        _ => Wish::Nothing,
    }
}

fn run(shared: &Shared<State>, setup: Setup) {
    let _alive = alive(shared);
    let period = setup.tick.clamp(PERIOD.0, PERIOD.1);
    let mut governor = Governor::new(setup.mode, period);
    let mut watcher = Watcher::new(
        &setup.env,
        setup.mode,
        setup.samples,
        setup.own,
        setup.symbols,
    );
    publish(shared, &watcher, None);
    if let Some(why) = watcher.nothing() {
        shared.lock().newest = Reading::Off(why.clone());
        return;
    }
    let mut cost = None;
    loop {
        let looked_at = match wish(shared) {
            Wish::Stop => return,
            Wish::Look => true,
            Wish::Nothing => false,
        };
        let plan = governor.plan(cost, looked_at);
        let time = match plan {
            Plan::Watch { time } => time,
            Plan::RestThenWatch { rest, time } => {
                watcher.detach();
                sleep(shared, &mut watcher, rest, looked_at);
                time
            }
        };
        if watcher.attach() && (looked_at || setup.mode == LocksMode::Always) {
            watcher.try_own_locks();
        }
        sleep(shared, &mut watcher, time, looked_at);
        let watch = LockWatch {
            tracer: Reading::Value(governor.tracer()),
            ..LockWatch::default()
        };
        let window;
        (window, cost) = watcher.window(looked_at, watch);
        publish(shared, &watcher, Some(window));
    }
}

/// Sleeps until `time` is over or somebody wants something, and reads meanwhile what would be
/// overwritten.
fn sleep(shared: &Shared<State>, watcher: &mut Watcher, time: Duration, looked_at: bool) {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let step = watcher.step(looked_at).min(left);
        let kicked = shared.wait_while(step, |state| !state.kick).kick;
        if kicked || step == left {
            return;
        }
        watcher.drain(looked_at);
    }
}

fn publish(shared: &Shared<State>, watcher: &Watcher, window: Option<Locks>) {
    let window = window.map(|window| Reading::Value(Arc::new(window)));
    let own = watcher.program();
    let old;
    {
        let mut state = shared.lock();
        state.program = Some(own.health.clone());
        state.spent_ns = own.spent_ns;
        state.closer = watcher.closer();
        old = window.map(|window| std::mem::replace(&mut state.newest, window));
    }
    // What the last window held is freed here rather than under the lock.
    drop(old);
}

#[cfg(test)]
mod tests {
    use stalltop_model::sample::LockTracer;

    use super::*;

    #[test]
    fn a_tick_takes_the_newest_window_and_adds_our_program() {
        let mut handle = LockHandle::off(&Reason::NotAsked);
        let mut sample = Sample::default();
        sample.own.probe_ns = Reading::Value(5);
        handle.fill(&mut sample);
        assert_eq!(sample.locks, Reading::Off(Reason::NotAsked));
        assert_eq!(sample.own.programs.len(), 1);
        let window = Locks {
            window: 7,
            watch: LockWatch {
                tracer: Reading::Value(LockTracer::Windows),
                ..LockWatch::default()
            },
            ..Locks::default()
        };
        {
            let mut state = handle.shared.lock();
            state.newest = Reading::Value(Arc::new(window));
            state.program = Some(program(Reading::Value(42)));
            state.spent_ns = 100;
        }
        handle.fill(&mut sample);
        assert_eq!(sample.locks.value().map(|locks| locks.window), Some(7));
        assert_eq!(sample.own.programs[1].attached, Reading::Value(42));
        assert_eq!(sample.own.probe_ns, Reading::Value(105));
    }

    #[test]
    fn a_thread_that_fails_is_told() {
        let shared = Arc::new(Shared::<State>::default());
        let theirs = Arc::clone(&shared);
        let failed = thread::spawn(move || {
            let _alive = alive(&theirs);
            std::panic::resume_unwind(Box::new("no word of it on standard error"));
        });
        assert!(failed.join().is_err());
        assert!(matches!(
            shared.lock().newest,
            Reading::Off(Reason::Refused { .. })
        ));
    }
}
