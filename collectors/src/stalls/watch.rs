//! What is done with events as they come: hold them, read their windows, understand them,
//! decide where to sample. No thread and no clock: [`Watcher::round`] is told the time.

use std::collections::VecDeque;

use stalltop_model::Reading;
use stalltop_model::sample::{Pause, Stall, StallKind};
use stalltop_probes::wire::stall::{StackSample, StallEvent};

use super::hold::{Budget, Held, Hold};
use super::sampling::{CloserLook, Policy, Switch};

/// How much of what was before and after a stall is read with it, ns.
const AROUND: u64 = 20_000_000;
/// How long stalls wait for the kernel's symbols, ns; then they are told with bare addresses.
const SYMBOLS: u64 = 3_000_000_000;
/// How often it is looked whether the symbols are there, ns.
const SYMBOLS_AGAIN: u64 = 20_000_000;
/// Windows that wait for symbols at once, at most: 32 KB each at 1 kHz.
const WINDOWS: usize = 256;
/// Events taken in one round, at most: more than the ring buffer holds.
const EVENTS: usize = 4096;

/// Where events and samples come from.
pub(super) trait Source {
    /// The oldest event not yet taken.
    fn next(&mut self) -> Option<StallEvent>;
    /// Events that were lost since the start.
    fn lost(&self) -> u64;
    /// Reads the samples of a window; gives how many were lost.
    fn window(&mut self, cpu: u32, from_ns: u64, to_ns: u64, out: &mut Vec<StackSample>) -> u32;
}

/// An event with everything that the kernel side kept about it.
pub(crate) struct Seen {
    /// The event.
    pub(super) event: StallEvent,
    /// The handler that emptied the backlog.
    pub(super) drained: Option<StallEvent>,
    /// Its CPU's samples of the time, oldest first.
    pub(super) window: Vec<StackSample>,
    /// Samples that are missing.
    pub(super) lost: u32,
}

/// What turns events into stalls.
pub(crate) trait Understand {
    /// Whether all that is needed is there.
    fn is_ready(&mut self) -> bool;
    /// Whether kernel addresses can be named.
    fn symbols(&self) -> &Reading<()>;
    /// Turns a group of overlapping events into stalls without process facts, times in
    /// `CLOCK_MONOTONIC`.
    fn understand(&mut self, group: &[Seen], out: &mut Vec<Stall>);
}

/// Events in, stalls out.
pub(super) struct Watcher<S, U> {
    source: S,
    understand: U,
    hold: Hold,
    budget: Budget,
    policy: Policy,
    group: Vec<Held>,
    /// Groups whose windows were read, and when.
    read: VecDeque<(u64, Vec<Seen>)>,
    windows: usize,
    /// Whether what is needed for understanding was there once.
    prepared: bool,
    /// Events of which nothing is told, as there were too many.
    over: u64,
    /// CPU time as it was told last, and how many events were understood since.
    spent: (u64, usize),
}

impl<S: Source + Switch, U: Understand> Watcher<S, U> {
    /// `tick_ns` is the time between two ticks of the scheduler.
    pub(super) fn new(source: S, understand: U, policy: Policy, tick_ns: u64, now_ns: u64) -> Self {
        Self {
            source,
            understand,
            hold: Hold::new(tick_ns),
            budget: Budget::new(now_ns),
            policy,
            group: Vec::new(),
            read: VecDeque::new(),
            windows: 0,
            prepared: false,
            over: 0,
            spent: (0, 0),
        }
    }

    /// Takes what has come, and appends what is understood to `out`. `cpu_ns` is the CPU time
    /// that understanding has taken so far. Gives when to come again even if nothing comes.
    pub(super) fn round(&mut self, now_ns: u64, cpu_ns: u64, out: &mut Vec<Stall>) -> Option<u64> {
        let (before_ns, understood) = std::mem::replace(&mut self.spent, (cpu_ns, 0));
        if understood > 0 {
            self.budget
                .spent(understood, cpu_ns.saturating_sub(before_ns));
        }
        // Before the first stall: who caused it may be gone by the time that it is understood.
        self.prepared = self.prepared || self.understand.is_ready();
        for _ in 0..EVENTS {
            let Some(event) = self.source.next() else {
                break;
            };
            self.hold.take(event, now_ns);
        }
        // All windows before anything slow: they are overwritten after half a second.
        while self.hold.due(now_ns, &mut self.group) {
            self.over += self.budget.choose(now_ns, &mut self.group);
            self.read_windows(now_ns);
        }
        let first = out.len();
        self.understand(now_ns, out);
        for stall in &out[first..] {
            // Of a tenth of a second and more the tick sees enough; and with it alone, the ring of
            // samples holds twice as much.
            if stall.pause != Pause::Paused && stall.kind != StallKind::RealTime {
                self.policy.stalled(stall.cpu, stall.delay_ns, now_ns);
            }
        }
        let waits = !self.prepared || !self.read.is_empty();
        let again = waits.then(|| now_ns.saturating_add(SYMBOLS_AGAIN));
        let switch = self.policy.apply(now_ns, &mut self.source);
        [self.hold.next_ns(), again, switch]
            .into_iter()
            .flatten()
            .min()
    }

    fn read_windows(&mut self, now_ns: u64) {
        let mut group = Vec::with_capacity(self.group.len());
        for held in self.group.drain(..) {
            if self.windows == WINDOWS {
                self.over += 1;
                continue;
            }
            let mut window = Vec::new();
            let event = held.event;
            let cpu = u32::try_from(event.cpu).unwrap_or(u32::MAX);
            let from_ns = event.earliest_ns.saturating_sub(AROUND);
            let to_ns = event.end_ns.saturating_add(AROUND);
            let lost = self.source.window(cpu, from_ns, to_ns, &mut window);
            self.windows += 1;
            group.push(Seen {
                event,
                drained: held.drained,
                window,
                lost,
            });
        }
        self.read.push_back((now_ns, group));
    }

    fn understand(&mut self, now_ns: u64, out: &mut Vec<Stall>) {
        let Some((since_ns, _)) = self.read.front() else {
            return;
        };
        if !self.understand.is_ready() && now_ns < since_ns.saturating_add(SYMBOLS) {
            return;
        }
        for (_, group) in self.read.drain(..) {
            self.spent.1 += group.len();
            self.understand.understand(&group, out);
        }
        self.windows = 0;
    }

    /// A person looks at a CPU, or at none.
    pub(super) fn look_at(&mut self, cpu: Option<u32>) {
        self.policy.watch(cpu);
    }

    /// Where locks are to be looked at closer, and until when.
    pub(super) fn look_closer(&mut self, look: CloserLook) {
        self.policy.look_closer(look);
    }

    /// CPUs came or went: a sampler's event goes with its CPU and does not come back.
    pub(super) fn restart_sampling(&mut self) {
        self.policy.stop_all(&mut self.source);
    }

    /// Where events come from.
    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Whether kernel addresses can be named.
    pub(super) fn symbols(&self) -> &Reading<()> {
        self.understand.symbols()
    }

    /// Where is sampled, and which CPUs stalled of late.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Events of which nothing was told, since the start.
    pub(super) fn lost(&self) -> u64 {
        self.source.lost() + self.hold.dropped() + self.over
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use stalltop_probes::wire::stall::kind;

    use super::super::made::{self, MS};
    use super::super::sampling::{SampleMode, Switched};
    use super::*;

    /// What the fakes share with the test.
    #[derive(Default)]
    struct World {
        events: VecDeque<StallEvent>,
        lost: u64,
        windows: Vec<(u32, u64, u64)>,
        sampled: Vec<(u32, bool)>,
        no_symbols: bool,
        paused: bool,
        groups: Vec<usize>,
    }

    type Shared = Rc<RefCell<World>>;

    struct Fake(Shared);

    impl Source for Fake {
        fn next(&mut self) -> Option<StallEvent> {
            self.0.borrow_mut().events.pop_front()
        }

        fn lost(&self) -> u64 {
            self.0.borrow().lost
        }

        fn window(&mut self, cpu: u32, from: u64, to: u64, out: &mut Vec<StackSample>) -> u32 {
            self.0.borrow_mut().windows.push((cpu, from, to));
            out.push(StackSample {
                at_ns: from,
                ..StackSample::ZERO
            });
            3
        }
    }

    impl Switch for Fake {
        fn start(&mut self, cpu: u32) {
            self.0.borrow_mut().sampled.push((cpu, true));
        }

        fn stop(&mut self, cpu: u32) {
            self.0.borrow_mut().sampled.push((cpu, false));
        }

        fn state(&mut self, cpu: u32) -> Switched {
            let world = self.0.borrow();
            match world.sampled.iter().rfind(|(of, _)| *of == cpu) {
                Some((_, true)) => Switched::On,
                _ => Switched::Off,
            }
        }
    }

    impl Understand for Fake {
        fn symbols(&self) -> &Reading<()> {
            &Reading::Value(())
        }

        fn is_ready(&mut self) -> bool {
            !self.0.borrow().no_symbols
        }

        fn understand(&mut self, group: &[Seen], out: &mut Vec<Stall>) {
            let mut world = self.0.borrow_mut();
            world.groups.push(group.len());
            out.extend(group.iter().map(|seen| Stall {
                cpu: seen.event.cpu as u32,
                kind: StallKind::SoftirqHandler,
                pause: if world.paused {
                    Pause::Paused
                } else {
                    Pause::Held
                },
                delay_ns: seen.event.end_ns - seen.event.start_ns,
                lost: seen.lost,
                ..Stall::default()
            }));
        }
    }

    fn watcher() -> (Shared, Watcher<Fake, Fake>) {
        let world = Shared::default();
        let policy = Policy::new(SampleMode::Auto, 0..4);
        let fake = || Fake(Rc::clone(&world));
        let watcher = Watcher::new(fake(), fake(), policy, 4 * MS, 0);
        (world, watcher)
    }

    fn event(cpu: u64, from_ms: u64, to_ms: u64) -> StallEvent {
        made::event(kind::HANDLER, cpu, from_ms, to_ms)
    }

    fn put(world: &Shared, event: StallEvent) {
        world.borrow_mut().events.push_back(event);
    }

    #[test]
    fn a_quiet_host_wakes_nobody() {
        let (_, mut watcher) = watcher();
        let mut out = Vec::new();
        assert_eq!(watcher.round(0, 0, &mut out), None);
        assert_eq!(watcher.round(1_000 * MS, 0, &mut out), None);
        assert!(out.is_empty());
    }

    #[test]
    fn symbols_are_asked_for_before_the_first_stall() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        world.borrow_mut().no_symbols = true;
        assert_eq!(watcher.round(0, 0, &mut out), Some(20 * MS));
        world.borrow_mut().no_symbols = false;
        assert_eq!(watcher.round(20 * MS, 0, &mut out), None);
    }

    #[test]
    fn an_event_becomes_a_stall_and_starts_the_sampler() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        put(&world, event(1, 100, 112));
        assert_eq!(watcher.round(113 * MS, 0, &mut out), Some(133 * MS));
        assert!(out.is_empty() && world.borrow().windows.is_empty());
        // It is looked after, and taken off in the end.
        assert_eq!(watcher.round(133 * MS, 0, &mut out), Some(1_133 * MS));
        assert_eq!((out.len(), out[0].delay_ns, out[0].lost), (1, 12 * MS, 3));
        assert_eq!(world.borrow().windows, [(1, 80 * MS, 132 * MS)]);
        assert_eq!(world.borrow().sampled, [(1, true)]);
        assert_eq!(watcher.policy().on(), [1]);
        assert_eq!(watcher.round(10_133 * MS, 0, &mut out), None);
        assert_eq!(world.borrow().sampled, [(1, true), (1, false)]);
    }

    #[test]
    fn a_paused_cpu_is_told_but_not_sampled() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        world.borrow_mut().paused = true;
        put(&world, event(1, 100, 112));
        watcher.round(113 * MS, 0, &mut out);
        assert_eq!(watcher.round(133 * MS, 0, &mut out), None);
        assert_eq!(out.len(), 1);
        assert!(world.borrow().sampled.is_empty());
    }

    #[test]
    fn windows_are_read_before_the_symbols_are_there() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        world.borrow_mut().no_symbols = true;
        put(&world, event(1, 100, 112));
        watcher.round(113 * MS, 0, &mut out);
        assert_eq!(watcher.round(133 * MS, 0, &mut out), Some(153 * MS));
        assert_eq!(world.borrow().windows.len(), 1);
        assert!(out.is_empty());
        put(&world, event(0, 140, 152));
        watcher.round(153 * MS, 0, &mut out);
        watcher.round(173 * MS, 0, &mut out);
        world.borrow_mut().no_symbols = false;
        watcher.round(193 * MS, 0, &mut out);
        assert_eq!(world.borrow().groups, [1, 1]);
        assert_eq!(out.iter().map(|s| s.cpu).collect::<Vec<_>>(), [1, 0]);
        // Never for ever.
        world.borrow_mut().no_symbols = true;
        put(&world, event(1, 200, 212));
        watcher.round(213 * MS, 0, &mut out);
        watcher.round(233 * MS, 0, &mut out);
        watcher.round(3_232 * MS, 0, &mut out);
        assert_eq!(out.len(), 2);
        watcher.round(3_233 * MS, 0, &mut out);
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        world.borrow_mut().lost = 7;
        for i in 0..300 {
            put(&world, event(0, 100, 110 + i));
        }
        watcher.round(411 * MS, 0, &mut out);
        watcher.round(431 * MS, 0, &mut out);
        assert_eq!(out.len(), 200);
        assert!(out.iter().all(|stall| stall.delay_ns >= 110 * MS));
        assert_eq!(watcher.lost(), 107);
        // Each took a millisecond: for the rest of that second, the longest alone is told.
        for i in 0..300 {
            put(&world, event(0, 500, 510 + i));
        }
        out.clear();
        watcher.round(811 * MS, 200 * MS, &mut out);
        watcher.round(831 * MS, 200 * MS, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].delay_ns, 309 * MS);
        assert_eq!(watcher.lost(), 107 + 299);
    }

    #[test]
    fn what_a_person_looks_at_is_sampled() {
        let (world, mut watcher) = watcher();
        let mut out = Vec::new();
        watcher.look_at(Some(3));
        assert_eq!(watcher.round(0, 0, &mut out), Some(1_000 * MS));
        watcher.look_at(None);
        assert_eq!(watcher.round(MS, 0, &mut out), None);
        assert_eq!(world.borrow().sampled, [(3, true), (3, false)]);
    }
}
