//! The threads between the kernel's events and the tick.
//!
//! `stalltop-stalls` sleeps in poll(2) on the ring buffer: a quiet host never wakes it. It takes
//! events and windows before they are overwritten, and understands them. `stalltop-facts` then
//! looks the culprits up in `/proc`, by a thread of its own that it waits for only so long, as a
//! read may block for as long as it likes. The tick takes whole stalls out of a bounded queue and never waits for either.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::ClockId;
use stalltop_model::sample::{Pause, Sample, Stall, StallWatch};
use stalltop_model::{Frame, Reading, Reason};
use stalltop_probes::{StackSample, StallEvent, Stalls};

use super::process::Processes;
use super::sampling::{CloserLook, Policy, Switch, Switched};
use super::switch::Switcher;
use super::watch::{Source, Understand, Watcher};
use crate::alive::Alive;
use crate::own::nanoseconds;

/// Stalls on their way to the facts, and from there to the tick, at most.
const QUEUE: usize = 512;
/// How much the thread that empties the ring buffer is preferred: fifteen steps, a factor of
/// 28 in its share of a CPU (kernel/sched/core.c, `sched_prio_to_weight`). Its own budget is a
/// twentieth of a CPU.
pub(super) const NICE: i32 = -15;

#[derive(Default)]
struct State {
    /// The oldest first.
    told: VecDeque<Box<Stall>>,
    watch: StallWatch,
    /// The part of `watch.lost` that found no room in `told`.
    full: u64,
    /// Which CPU a person looks at.
    look_at: Option<u32>,
    /// Where locks are to be looked at closer.
    closer: CloserLook,
    /// CPUs came or went.
    hotplug: bool,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Written to when `look_at`, `closer` or `stop` changed; `None` where there is no thread.
    wake: Option<OwnedFd>,
    /// CPU time of the threads that look facts up, ns.
    facts_ns: AtomicU64,
}

impl Shared {
    /// The lock is only ever held to move pointers; a panic cannot leave it half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full only if it is awake already.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    /// Hands a whole stall to the tick; the shortest goes where there is no room.
    fn tell(&self, mut stall: Box<Stall>) {
        let mut state = self.lock();
        state.watch.told += 1;
        state.watch.paused += u64::from(stall.pause == Pause::Paused);
        state.watch.ours += u64::from(stall.ours);
        stall.id = state.watch.told;
        if state.told.len() == QUEUE {
            state.full += 1;
            let shortest = (0..QUEUE).min_by_key(|i| state.told[*i].delay_ns);
            match shortest {
                Some(i) if state.told[i].delay_ns < stall.delay_ns => drop(state.told.remove(i)),
                _ => return,
            }
        }
        state.told.push_back(stall);
    }
}

/// The end that the ticking thread holds. Dropping it ends the threads, and with them the
/// sampler.
pub(crate) struct StallHandle {
    shared: Arc<Shared>,
    /// What was last seen of it.
    watch: StallWatch,
    /// How many CPUs are online, and the sum of their numbers.
    online: Option<(u32, u64)>,
    wish: Wish,
    /// Whether `wish` is to be sent: the tick never waits for who has the lock.
    unsent: bool,
}

/// What the ticking thread wants of the one that empties the ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    look_at: Option<u32>,
    closer: CloserLook,
    hotplug: bool,
}

/// Says so of every kind where a thread ends that should not.
fn alive(shared: &Shared) -> Alive<impl FnMut()> {
    Alive::new(|| {
        for kind in &mut shared.lock().watch.kinds {
            *kind = Reading::Off(Reason::Refused {
                what: "stalls".into(),
                why: "stalltop failed to understand one (a bug): start it again".into(),
            });
        }
    })
}

/// What is watched, and how.
pub(crate) struct Setup {
    /// Thresholds, and where they come from; the rest is filled as it goes.
    pub(crate) watch: StallWatch,
    /// When to sample.
    pub(crate) policy: Policy,
    /// Looks culprits up.
    pub(crate) processes: Processes,
}

impl StallHandle {
    /// Nothing is watched; `watch` says why of each kind.
    pub(crate) fn off(mut watch: StallWatch) -> Self {
        let why = watch.kinds.iter().find_map(Reading::reason).cloned();
        // Nobody asks for names.
        watch.symbols = Reading::Off(why.unwrap_or(Reason::NotAsked));
        let state = State {
            watch: watch.clone(),
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                wake: None,
                facts_ns: AtomicU64::new(0),
            }),
            watch,
            online: None,
            wish: Wish::default(),
            unsent: false,
        }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// Where there can be no more threads or descriptors.
    pub(crate) fn start(
        mut stalls: Stalls,
        understand: impl Understand + Send + 'static,
        setup: Setup,
    ) -> Result<Self, Reason> {
        let failed = |e: &std::io::Error| Reason::Refused {
            what: "a thread that waits for stalls".into(),
            why: e.to_string().into(),
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| failed(&e.into()))?;
        let Setup {
            mut watch,
            policy,
            mut processes,
        } = setup;
        let sampler = stalls.sampler();
        watch.nmi = sampler.nmi();
        let sampler = sampler.another().map_err(|e| failed(&e))?;
        let state = State {
            watch: watch.clone(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Some(wake),
            facts_ns: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let source = Kernel {
            stalls,
            switcher: Switcher::start(sampler, move || theirs.wake()).map_err(|e| failed(&e))?,
        };
        let (to_facts, from_watch) = sync_channel(QUEUE);
        let theirs = Arc::clone(&shared);
        // The names show in stalls that are ours.
        thread::Builder::new()
            .name("stalltop-facts".into())
            .spawn(move || look_up(&theirs, &mut processes, &from_watch))
            .map_err(|e| failed(&e))?;
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("stalltop-stalls".into())
            .spawn(move || {
                let now_ns = nanoseconds(ClockId::Monotonic);
                let watcher = Watcher::new(source, understand, policy, watch.tick_ns, now_ns);
                run(&theirs, watcher, &to_facts);
            })
            .map_err(|e| failed(&e))?;
        Ok(Self {
            shared,
            watch: StallWatch::default(),
            online: None,
            wish: Wish::default(),
            unsent: false,
        })
    }

    /// Says which CPU a person looks at: it is sampled as long. Never waits.
    pub(crate) fn look_at(&mut self, cpu: Option<u32>) {
        self.wish(|wish| wish.look_at = cpu);
    }

    /// Says where locks are to be looked at closer. Never waits; allocates nothing.
    pub(crate) fn look_closer(&mut self, look: CloserLook) {
        self.wish(|wish| wish.closer = look);
    }

    fn wish(&mut self, change: impl FnOnce(&mut Wish)) {
        let before = self.wish;
        change(&mut self.wish);
        self.unsent |= self.wish != before;
        self.send();
    }

    /// Sends what is wanted, unless somebody has the lock just now: then at the next tick.
    fn send(&mut self) {
        if !self.unsent {
            return;
        }
        if let Ok(mut state) = self.shared.state.try_lock() {
            state.look_at = self.wish.look_at;
            state.closer = self.wish.closer;
            state.hotplug |= std::mem::take(&mut self.wish.hotplug);
            drop(state);
            self.unsent = false;
            self.shared.wake();
        }
    }

    /// Fills how stalls are watched. Never waits; allocates nothing once warm.
    pub(crate) fn fill(&mut self, out: &mut Sample) {
        let online = out.cpus.iter().filter(|cpu| cpu.online);
        let online = online.fold((0, 0), |(n, sum), cpu| (n + 1, sum + u64::from(cpu.cpu)));
        if self.online.replace(online).is_some_and(|was| was != online) {
            self.wish(|wish| wish.hotplug = true);
        }
        self.send();
        if let Ok(state) = self.shared.state.try_lock() {
            copy(&state.watch, &mut self.watch);
            self.watch.lost = state.watch.lost + state.full;
        }
        match &mut out.stalls {
            Reading::Value(watch) => copy(&self.watch, watch),
            Reading::Off(_) => out.stalls = Reading::Value(self.watch.clone()),
        }
    }

    /// Moves the stalls that were told since the last time to `out`, the oldest first.
    pub(crate) fn take(&self, out: &mut Vec<Frame>) {
        if let Ok(mut state) = self.shared.state.try_lock() {
            out.extend(state.told.drain(..).map(Frame::Stall));
        }
    }
}

impl Drop for StallHandle {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake();
    }
}

/// As `clone_from`, which is derived as a fresh clone: here buffers are reused.
fn copy(from: &StallWatch, to: &mut StallWatch) {
    to.kinds.clone_from(&from.kinds);
    to.chosen.clone_from(&from.chosen);
    to.sampling.clone_from(&from.sampling);
    to.symbols.clone_from(&from.symbols);
    (to.tick_ns, to.nmi) = (from.tick_ns, from.nmi);
    (to.told, to.paused) = (from.told, from.paused);
    (to.ours, to.lost) = (from.ours, from.lost);
}

/// The kernel side.
struct Kernel {
    stalls: Stalls,
    switcher: Switcher,
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stalls.fd()
    }
}

impl Source for Kernel {
    fn next(&mut self) -> Option<StallEvent> {
        self.stalls.next()
    }

    fn lost(&self) -> u64 {
        self.stalls.lost()
    }

    fn window(&mut self, cpu: u32, from_ns: u64, to_ns: u64, out: &mut Vec<StackSample>) -> u32 {
        self.stalls.window(cpu, from_ns, to_ns, out)
    }
}

impl Switch for Kernel {
    fn start(&mut self, cpu: u32) {
        self.switcher.start(cpu);
    }

    fn stop(&mut self, cpu: u32) {
        self.switcher.stop(cpu);
    }

    fn state(&mut self, cpu: u32) -> Switched {
        self.switcher.state(cpu)
    }
}

/// The thread that empties the ring buffer.
fn run<U: Understand>(
    shared: &Shared,
    mut watcher: Watcher<Kernel, U>,
    to_facts: &SyncSender<Box<Stall>>,
) {
    // Refused without CAP_SYS_NICE: then it waits its turn like any other.
    let _ = setpriority_process(None, NICE);
    let mut place = Place::new();
    let mut out = Vec::new();
    let mut unsent = 0;
    let _alive = alive(shared);
    loop {
        {
            let mut state = shared.lock();
            if state.stop {
                return;
            }
            watcher.look_at(state.look_at);
            watcher.look_closer(state.closer);
            if std::mem::take(&mut state.hotplug) {
                watcher.restart_sampling();
            }
        }
        let now_ns = nanoseconds(ClockId::Monotonic);
        let cpu_ns = nanoseconds(ClockId::ThreadCPUTime) + shared.facts_ns.load(Ordering::Relaxed);
        let next_ns = watcher.round(now_ns, cpu_ns, &mut out);
        let clocks = Clocks::read();
        for mut stall in out.drain(..) {
            clocks.convert(&mut stall);
            match to_facts.try_send(Box::new(stall)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => unsent += 1,
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        place.avoid(watcher.policy().stalling(now_ns));
        {
            let mut state = shared.lock();
            let watch = &mut state.watch;
            watch.sampling.clear();
            watch.sampling.extend_from_slice(watcher.policy().on());
            watch.symbols.clone_from(watcher.symbols());
            watch.lost = watcher.lost() + unsent;
        }
        wait(shared, watcher.source(), next_ns);
    }
}

/// Waits for an event, for somebody who wants something, or until `until_ns`.
fn wait(shared: &Shared, events: &Kernel, until_ns: Option<u64>) {
    let Some(wake) = &shared.wake else { return };
    let mut fds = [
        PollFd::new(events, PollFlags::IN),
        PollFd::new(wake, PollFlags::IN),
    ];
    let time = until_ns.map(|until| {
        let left = until.saturating_sub(nanoseconds(ClockId::Monotonic));
        let left = Duration::from_nanos(left);
        Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    // Interrupted by a signal is as good as woken.
    if poll(&mut fds, time.as_ref()).is_ok() && !fds[1].revents().is_empty() {
        let _ = rustix::io::read(wake, &mut [0u8; 8]);
    }
}

/// From the clock of the events to those of a stall.
struct Clocks {
    boottime: u64,
    realtime: u64,
}

impl Clocks {
    /// Reads how far they are apart now.
    fn read() -> Self {
        let monotonic = nanoseconds(ClockId::Monotonic);
        Self {
            boottime: nanoseconds(ClockId::Boottime).wrapping_sub(monotonic),
            realtime: nanoseconds(ClockId::Realtime).wrapping_sub(monotonic),
        }
    }

    fn convert(&self, stall: &mut Stall) {
        let monotonic = stall.at_ns;
        stall.at_ns = monotonic.wrapping_add(self.boottime);
        stall.wall_ns = monotonic.wrapping_add(self.realtime);
    }
}

/// Keeps this thread away from CPUs that stall.
struct Place {
    /// Where it may run, as it was started.
    all: Option<CpuSet>,
    avoided: Vec<u32>,
}

impl Place {
    fn new() -> Self {
        Self {
            all: sched_getaffinity(None).ok(),
            avoided: Vec::new(),
        }
    }

    fn avoid(&mut self, cpus: impl Iterator<Item = u32>) {
        let mut cpus: Vec<u32> = cpus.collect();
        cpus.sort_unstable();
        if cpus == self.avoided {
            return;
        }
        let Some(all) = &self.all else { return };
        let mut set = *all;
        for cpu in cpus.iter().filter(|cpu| (**cpu as usize) < CpuSet::MAX_CPU) {
            set.unset(*cpu as usize);
        }
        // Where all CPUs stall, none is better than another.
        let set = if set.count() == 0 { *all } else { set };
        // Only a preference: a cpuset may forbid it.
        let _ = sched_setaffinity(None, &set);
        self.avoided = cpus;
    }
}

/// The thread that looks culprits up.
fn look_up(shared: &Shared, processes: &mut Processes, stalls: &Receiver<Box<Stall>>) {
    let _alive = alive(shared);
    while let Ok(mut stall) = stalls.recv() {
        processes.look(&mut stall);
        shared.tell(stall);
        let spent = nanoseconds(ClockId::ThreadCPUTime) + processes.spent_ns();
        shared.facts_ns.store(spent, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use stalltop_model::sample::CpuSample;

    use super::*;

    fn stall(delay_ns: u64, pause: Pause) -> Box<Stall> {
        Box::new(Stall {
            delay_ns,
            pause,
            ..Stall::default()
        })
    }

    #[test]
    fn a_full_queue_keeps_the_longest_and_counts() {
        let mut handle = StallHandle::off(StallWatch::default());
        for i in 0..QUEUE as u64 + 3 {
            handle.shared.tell(stall(i, Pause::Held));
        }
        handle.shared.tell(stall(0, Pause::Paused));
        let mut sample = Sample::default();
        handle.fill(&mut sample);
        let watch = sample.stalls.value().unwrap();
        assert_eq!((watch.told, watch.paused, watch.lost), (516, 1, 4));
        let mut out = Vec::new();
        handle.take(&mut out);
        let Frame::Stall(first) = &out[0] else {
            panic!("{out:?}");
        };
        assert_eq!((out.len(), first.delay_ns, first.id), (QUEUE, 3, 4));
        handle.take(&mut out);
        assert_eq!(out.len(), QUEUE);
    }

    #[test]
    fn the_tick_waits_for_nobody_and_forgets_nothing() {
        let mut handle = StallHandle::off(StallWatch::default());
        let look = CloserLook {
            until_ns: 7,
            ..CloserLook::default()
        };
        let cpus = |online: u32| Sample {
            cpus: (0..online)
                .map(|cpu| CpuSample {
                    cpu,
                    online: true,
                    ..CpuSample::default()
                })
                .collect(),
            ..Sample::default()
        };
        handle.fill(&mut cpus(2));
        let shared = Arc::clone(&handle.shared);
        let held = shared.lock();
        handle.look_at(Some(3));
        handle.look_closer(look);
        handle.fill(&mut cpus(1));
        drop(held);
        assert!(!shared.lock().hotplug);
        handle.fill(&mut cpus(1));
        let state = shared.lock();
        assert_eq!(
            (state.look_at, state.closer, state.hotplug),
            (Some(3), look, true)
        );
    }

    #[test]
    fn a_thread_that_fails_is_told() {
        let kinds = std::array::from_fn(|_| Reading::Value(5));
        let mut handle = StallHandle::off(StallWatch {
            kinds,
            ..StallWatch::default()
        });
        let shared = Arc::clone(&handle.shared);
        let failed = thread::spawn(move || {
            let _alive = alive(&shared);
            std::panic::resume_unwind(Box::new("no word of it on standard error"));
        });
        assert!(failed.join().is_err());
        let mut sample = Sample::default();
        handle.fill(&mut sample);
        let watch = sample.stalls.value().unwrap();
        assert!(watch.kinds.iter().all(|kind| kind.reason().is_some()));
    }

    #[test]
    fn times_are_of_the_samples_clocks() {
        let clocks = Clocks::read();
        let mut told = stall(0, Pause::Held);
        told.at_ns = nanoseconds(ClockId::Monotonic);
        clocks.convert(&mut told);
        let near = |a: u64, b: u64| a.abs_diff(b) < 5_000_000_000;
        assert!(near(told.at_ns, nanoseconds(ClockId::Boottime)));
        assert!(near(told.wall_ns, nanoseconds(ClockId::Realtime)));
    }
}
