//! Where the 1 kHz sampler runs, and how long.
//!
//! Its cost is the timer interrupt, about 2 % of a core where it runs (measured in a virtual
//! machine, where interrupts are dear), whatever the eBPF program does. So it runs for a while
//! on a CPU that has just stalled, or where locks are to be looked at closer, or that a person
//! looks at, and nowhere else.

use std::time::Duration;

/// How long the sampler stays on after a stall.
const AFTER: Duration = Duration::from_secs(10);
/// On how many CPUs at once, unless it was asked for on all: 8 % of one CPU together.
pub(crate) const AT_ONCE: usize = 4;
/// How long a CPU is left alone where the sampler could not be started, as when it is offline.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether the sampler still runs where it was started.
const LOOK: Duration = Duration::from_secs(1);

/// When to sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleMode {
    /// For 10 s after a stall, on the CPU that stalled, and where a person looks or waits for
    /// locks are suspected: on 4 CPUs at once at most.
    #[default]
    Auto,
    /// On every CPU, all the time: about 2 % of each.
    Always,
    /// Never: the scheduler's tick alone looks.
    Off,
}

/// Where locks are to be looked at closer, and until when (`CLOCK_MONOTONIC`, ns).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CloserLook {
    pub(crate) cpus: [Option<u32>; AT_ONCE],
    pub(crate) until_ns: u64,
}

/// What became of a CPU that is to be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switched {
    /// It is not to be.
    Off,
    /// It will be.
    Starting,
    /// It is.
    On,
    /// It cannot be.
    Failed,
    /// It was, and is not any more, because the CPU was offline in between.
    Stopped,
}

/// What switches the sampler. Waits for nothing: [`Switch::state`] says what became of it.
pub(super) trait Switch {
    /// Samples a CPU.
    fn start(&mut self, cpu: u32);
    /// Samples it no longer.
    fn stop(&mut self, cpu: u32);
    /// What became of it.
    fn state(&mut self, cpu: u32) -> Switched;
}

/// One CPU that may be sampled.
struct Candidate {
    cpu: u32,
    /// Until then for its stalls.
    until_ns: u64,
    /// Until then to see what it does in locks.
    closer_ns: u64,
    /// Sum of the stalls since it became one.
    delay_ns: u64,
    /// Not before then, as it could not be started.
    not_before_ns: u64,
    /// It was asked for since then.
    asked: bool,
}

/// Decides; [`Policy::apply`] does.
pub(crate) struct Policy {
    mode: SampleMode,
    candidates: Vec<Candidate>,
    watched: Option<u32>,
    /// What the sampler was asked for.
    asked: Vec<u32>,
    /// Of these, those that it samples.
    on: Vec<u32>,
}

impl Policy {
    /// `cpus` are those that are sampled where all are to be.
    pub(crate) fn new(mode: SampleMode, cpus: impl Iterator<Item = u32>) -> Self {
        let candidates = match mode {
            SampleMode::Always => cpus.map(Candidate::new).collect(),
            SampleMode::Auto | SampleMode::Off => Vec::new(),
        };
        Self {
            mode,
            candidates,
            watched: None,
            asked: Vec::new(),
            on: Vec::new(),
        }
    }

    /// A CPU stalled.
    pub(super) fn stalled(&mut self, cpu: u32, delay_ns: u64, now_ns: u64) {
        if self.mode == SampleMode::Off {
            return;
        }
        let until_ns = now_ns.saturating_add(AFTER.as_nanos() as u64);
        let candidate = self.candidate(cpu);
        candidate.until_ns = candidate.until_ns.max(until_ns);
        candidate.delay_ns = candidate.delay_ns.saturating_add(delay_ns);
    }

    /// Which CPU a person looks at.
    pub(super) fn watch(&mut self, cpu: Option<u32>) {
        self.watched = cpu.filter(|_| self.mode != SampleMode::Off);
        if let Some(cpu) = self.watched {
            self.candidate(cpu);
        }
    }

    /// Samples those CPUs where none that stalled are in their way, and no others for the sake of
    /// locks.
    pub(super) fn look_closer(&mut self, look: CloserLook) {
        for candidate in &mut self.candidates {
            candidate.closer_ns = 0;
        }
        if self.mode != SampleMode::Off {
            for cpu in look.cpus.into_iter().flatten() {
                self.candidate(cpu).closer_ns = look.until_ns;
            }
        }
    }

    /// Switches the sampler as decided, and on again where it has stopped by itself. Gives when to
    /// look again, if ever.
    pub(super) fn apply(&mut self, now_ns: u64, sampler: &mut impl Switch) -> Option<u64> {
        let (watched, always) = (self.watched, self.mode == SampleMode::Always);
        for candidate in &mut self.candidates {
            if candidate.until_ns <= now_ns {
                candidate.delay_ns = 0;
            }
        }
        self.candidates
            .retain(|c| always || c.ends_ns() > now_ns || watched == Some(c.cpu));
        // A person's CPU first, then the worst; the sort keeps those that are on where equal.
        self.candidates
            .sort_by_key(|c| (watched != Some(c.cpu), std::cmp::Reverse(c.delay_ns)));
        let most = if always { usize::MAX } else { AT_ONCE };
        let startable = |c: &&mut Candidate| c.not_before_ns <= now_ns;
        let wanted = self.candidates.iter_mut().filter(startable).take(most);
        let mut wanted: Vec<&mut Candidate> = wanted.collect();
        self.asked.retain(|cpu| {
            let going = matches!(sampler.state(*cpu), Switched::Starting | Switched::On);
            let keep = going && wanted.iter().any(|c| c.cpu == *cpu);
            // One that failed is told below.
            if !keep && sampler.state(*cpu) != Switched::Failed {
                sampler.stop(*cpu);
            }
            keep
        });
        self.on.clear();
        for candidate in &mut wanted {
            let cpu = candidate.cpu;
            let failed = sampler.state(cpu) == Switched::Failed && candidate.asked;
            if !failed && !self.asked.contains(&cpu) {
                sampler.start(cpu);
                self.asked.push(cpu);
                candidate.asked = true;
            }
            match sampler.state(cpu) {
                Switched::On => self.on.push(cpu),
                Switched::Failed => {
                    self.asked.retain(|asked| *asked != cpu);
                    candidate.asked = false;
                    candidate.not_before_ns = now_ns.saturating_add(AGAIN.as_nanos() as u64);
                }
                Switched::Starting | Switched::Stopped | Switched::Off => {}
            }
        }
        self.on.sort_unstable();
        let ends = self
            .candidates
            .iter()
            .flat_map(|c| [c.until_ns, c.closer_ns]);
        let agains = self.candidates.iter().map(|c| c.not_before_ns);
        let look = (!self.asked.is_empty()).then(|| now_ns.saturating_add(LOOK.as_nanos() as u64));
        ends.chain(agains)
            .chain(look)
            .filter(|at| *at > now_ns)
            .min()
    }

    /// Stops the sampler everywhere, for [`apply`](Self::apply) to start it anew.
    pub(super) fn stop_all(&mut self, sampler: &mut impl Switch) {
        self.on.clear();
        for cpu in self.asked.drain(..) {
            sampler.stop(cpu);
        }
        for candidate in &mut self.candidates {
            candidate.not_before_ns = 0;
        }
    }

    /// The CPUs that are sampled, ascending.
    pub(super) fn on(&self) -> &[u32] {
        &self.on
    }

    /// The CPUs that stalled of late.
    pub(super) fn stalling(&self, now_ns: u64) -> impl Iterator<Item = u32> {
        let late = move |c: &&Candidate| c.until_ns > now_ns;
        self.candidates.iter().filter(late).map(|c| c.cpu)
    }

    fn candidate(&mut self, cpu: u32) -> &mut Candidate {
        let at = self.candidates.iter().position(|c| c.cpu == cpu);
        let at = at.unwrap_or_else(|| {
            self.candidates.push(Candidate::new(cpu));
            self.candidates.len() - 1
        });
        &mut self.candidates[at]
    }
}

impl Candidate {
    fn ends_ns(&self) -> u64 {
        self.until_ns.max(self.closer_ns)
    }

    fn new(cpu: u32) -> Self {
        Self {
            cpu,
            until_ns: 0,
            closer_ns: 0,
            delay_ns: 0,
            not_before_ns: 0,
            asked: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[derive(Default)]
    struct Fake {
        log: Vec<(u32, bool)>,
        offline: Option<u32>,
        stopped: Option<u32>,
        /// Not there yet.
        slow: Option<u32>,
        on: Vec<u32>,
        failed: Vec<u32>,
    }

    impl Switch for Fake {
        fn start(&mut self, cpu: u32) {
            self.log.push((cpu, true));
            self.stopped = self.stopped.filter(|stopped| *stopped != cpu);
            self.failed.retain(|failed| *failed != cpu);
            if self.offline == Some(cpu) {
                self.failed.push(cpu);
            } else {
                self.on.push(cpu);
            }
        }

        fn stop(&mut self, cpu: u32) {
            self.log.push((cpu, false));
            self.on.retain(|on| *on != cpu);
        }

        fn state(&mut self, cpu: u32) -> Switched {
            if self.failed.contains(&cpu) {
                Switched::Failed
            } else if !self.on.contains(&cpu) {
                Switched::Off
            } else if self.stopped == Some(cpu) {
                Switched::Stopped
            } else if self.slow == Some(cpu) {
                Switched::Starting
            } else {
                Switched::On
            }
        }
    }

    #[test]
    fn what_is_started_later_is_told_later() {
        let mut policy = Policy::new(SampleMode::Auto, 0..4);
        let mut fake = Fake {
            slow: Some(2),
            ..Fake::default()
        };
        policy.stalled(2, 5, 0);
        assert_eq!(policy.apply(0, &mut fake), Some(SECOND));
        assert_eq!(policy.on(), [0; 0]);
        assert_eq!(policy.apply(SECOND, &mut fake), Some(2 * SECOND));
        fake.slow = None;
        policy.apply(2 * SECOND, &mut fake);
        assert_eq!(policy.on(), [2]);
        assert_eq!(fake.log, [(2, true)]);
        // It fails when it comes to it: left alone for a while.
        let mut fake = Fake {
            slow: Some(1),
            ..Fake::default()
        };
        let mut policy = Policy::new(SampleMode::Auto, 0..4);
        policy.watch(Some(1));
        policy.apply(0, &mut fake);
        (fake.slow, fake.failed) = (None, vec![1]);
        assert_eq!(policy.apply(SECOND, &mut fake), Some(11 * SECOND));
        assert_eq!((policy.on(), &fake.log[..]), (&[][..], &[(1, true)][..]));
    }

    #[test]
    fn a_stall_is_followed_by_ten_seconds() {
        let mut policy = Policy::new(SampleMode::Auto, 0..4);
        let mut fake = Fake::default();
        assert_eq!(policy.apply(0, &mut fake), None);
        policy.stalled(2, 5, SECOND);
        assert_eq!(policy.apply(SECOND, &mut fake), Some(2 * SECOND));
        assert_eq!(policy.apply(21 * SECOND / 2, &mut fake), Some(11 * SECOND));
        policy.stalled(2, 5, 4 * SECOND);
        assert_eq!(policy.apply(27 * SECOND / 2, &mut fake), Some(14 * SECOND));
        assert_eq!(policy.on(), [2]);
        assert_eq!(policy.apply(14 * SECOND, &mut fake), None);
        assert_eq!(policy.on(), [0; 0]);
        assert_eq!(fake.log, [(2, true), (2, false)]);
    }

    #[test]
    fn the_worst_few_at_once() {
        let mut policy = Policy::new(SampleMode::Auto, 0..9);
        let mut fake = Fake::default();
        for cpu in 0..6 {
            policy.stalled(cpu, 10 + u64::from(cpu), 0);
        }
        policy.apply(0, &mut fake);
        assert_eq!(policy.on(), [2, 3, 4, 5]);
        policy.stalled(0, 50, SECOND);
        policy.apply(SECOND, &mut fake);
        assert_eq!(policy.on(), [0, 3, 4, 5]);
        // What a person looks at goes before all.
        policy.watch(Some(7));
        policy.apply(SECOND, &mut fake);
        assert_eq!(policy.on(), [0, 4, 5, 7]);
        policy.watch(None);
        policy.apply(20 * SECOND, &mut fake);
        assert_eq!(policy.on(), [0; 0]);
    }

    #[test]
    fn locks_are_looked_at_where_nothing_stalls() {
        let mut policy = Policy::new(SampleMode::Auto, 0..9);
        let mut fake = Fake::default();
        let look = CloserLook {
            cpus: [0, 1, 2, 3].map(Some),
            until_ns: 10 * SECOND,
        };
        policy.look_closer(look);
        assert_eq!(policy.apply(0, &mut fake), Some(SECOND));
        assert_eq!(policy.on(), [0, 1, 2, 3]);
        assert_eq!(policy.stalling(0).count(), 0);
        policy.stalled(7, 5, SECOND);
        assert_eq!(policy.apply(SECOND, &mut fake), Some(2 * SECOND));
        assert_eq!(policy.on(), [0, 1, 2, 7]);
        policy.look_closer(CloserLook::default());
        assert_eq!(policy.apply(2 * SECOND, &mut fake), Some(3 * SECOND));
        assert_eq!(policy.on(), [7]);
        let mut off = Policy::new(SampleMode::Off, 0..9);
        off.look_closer(look);
        assert_eq!(off.apply(0, &mut fake), None);
        assert_eq!(off.on(), [0; 0]);
    }

    #[test]
    fn what_cannot_be_started_is_left_alone_for_a_while() {
        let mut policy = Policy::new(SampleMode::Auto, 0..4);
        let mut fake = Fake {
            offline: Some(1),
            ..Fake::default()
        };
        policy.watch(Some(1));
        assert_eq!(policy.apply(0, &mut fake), Some(10 * SECOND));
        assert_eq!(policy.apply(SECOND, &mut fake), Some(10 * SECOND));
        assert_eq!(fake.log, [(1, true)]);
        fake.offline = None;
        assert_eq!(policy.apply(10 * SECOND, &mut fake), Some(11 * SECOND));
        assert_eq!(policy.on(), [1]);
    }

    #[test]
    fn a_cpu_that_was_offline_for_a_moment_is_sampled_again() {
        let mut policy = Policy::new(SampleMode::Always, 0..3);
        let mut fake = Fake::default();
        assert_eq!(policy.apply(0, &mut fake), Some(SECOND));
        fake.log.clear();
        fake.stopped = Some(1);
        policy.apply(SECOND, &mut fake);
        assert_eq!(fake.log, [(1, false), (1, true)]);
        assert_eq!(policy.on(), [0, 1, 2]);
        // Gone for good, it is left alone for a while.
        (fake.offline, fake.stopped) = (Some(1), Some(1));
        policy.apply(2 * SECOND, &mut fake);
        assert_eq!(policy.on(), [0, 2]);
        fake.log.clear();
        policy.apply(3 * SECOND, &mut fake);
        assert!(fake.log.is_empty());
    }

    #[test]
    fn a_cpu_that_came_back_is_sampled_again() {
        let mut policy = Policy::new(SampleMode::Always, 0..2);
        let mut fake = Fake {
            offline: Some(1),
            ..Fake::default()
        };
        policy.apply(0, &mut fake);
        assert_eq!(policy.on(), [0]);
        fake.offline = None;
        policy.stop_all(&mut fake);
        assert_eq!(policy.on(), [0; 0]);
        assert_eq!(policy.apply(SECOND, &mut fake), Some(2 * SECOND));
        assert_eq!(policy.on(), [0, 1]);
        let log = [(0, true), (1, true), (0, false), (0, true), (1, true)];
        assert_eq!(fake.log, log);
    }

    #[test]
    fn always_and_never() {
        let mut fake = Fake::default();
        let mut policy = Policy::new(SampleMode::Always, 0..9);
        assert_eq!(policy.apply(0, &mut fake), Some(SECOND));
        assert_eq!(policy.on().len(), 9);
        let mut policy = Policy::new(SampleMode::Off, 0..9);
        policy.stalled(1, 5, 0);
        policy.watch(Some(2));
        assert_eq!(policy.apply(0, &mut fake), None);
        assert_eq!(policy.on(), [0; 0]);
    }
}
