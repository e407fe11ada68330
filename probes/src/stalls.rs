//! Stalls as they happen: events, and the samples around them.
//!
//! [`Stalls`] is taken out of [`Probes`](crate::Probes) once and moved to a thread of its own, which
//! sleeps in poll(2) on [`Stalls::fd`]: on a quiet host nothing wakes it.

mod sampler;

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use stalltop_wire::stall::{StackSample, StallEvent};
use stalltop_wire::{CPU_SIZE, Cpu};

use crate::samples::{self, SampleRing};
use crate::sys::mapping::{Access, Mapping};
use crate::sys::ringbuf::RingBuf;

pub use sampler::{SAMPLES_PER_SECOND, Sampler};

/// From when on each kind is a stall, ns; 0 switches it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A softirq vector is pending: raise to entry.
    pub pending_ns: u64,
    /// A softirq handler runs: entry to exit.
    pub handler_ns: u64,
    /// ksoftirqd is runnable but does not run while a vector is pending.
    pub ksoftirqd_ns: u64,
    /// The tick or a sample comes late.
    pub irqs_off_ns: u64,
    /// A task does not leave the CPU although a reschedule was requested.
    pub resched_ns: u64,
    /// A task is runnable but does not run while real-time tasks of higher priority do.
    pub real_time_ns: u64,
}

impl Default for Thresholds {
    /// 5 ms for every kind, but 100 ms for what waits for real-time tasks.
    fn default() -> Self {
        const DEFAULT_NS: u64 = 5_000_000;
        Self {
            pending_ns: DEFAULT_NS,
            handler_ns: DEFAULT_NS,
            ksoftirqd_ns: DEFAULT_NS,
            irqs_off_ns: DEFAULT_NS,
            resched_ns: DEFAULT_NS,
            real_time_ns: 100_000_000,
        }
    }
}

const EVENT_WORDS: usize = size_of::<StallEvent>() / size_of::<u64>();

/// Stall events and samples. Dropping it leaves the programs attached: what they have to say then
/// fills the ring buffer and is counted as lost.
pub struct Stalls {
    events: RingBuf,
    ring: SampleRing,
    cpus: Arc<Mapping>,
    sampler: Sampler,
}

/// What [`Stalls`] is made of.
pub(crate) struct Parts {
    pub(crate) events: OwnedFd,
    pub(crate) events_bytes: usize,
    pub(crate) samples: OwnedFd,
    pub(crate) slots: u64,
    pub(crate) cpus: OwnedFd,
    pub(crate) possible: u32,
    /// The sampler's program, and whether its events are non-maskable interrupts; or why there is
    /// none.
    pub(crate) sample: Result<OwnedFd, String>,
    pub(crate) nmi: bool,
}

impl Stalls {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let len = parts.possible as usize * CPU_SIZE;
        let cpus = Arc::new(Mapping::new(parts.cpus.as_fd(), 0, len, Access::ReadWrite)?);
        Ok(Self {
            events: RingBuf::new(parts.events, parts.events_bytes)?,
            ring: SampleRing::new(parts.samples, parts.slots, parts.possible),
            sampler: Sampler::new(parts.sample, parts.nmi, parts.possible, Arc::clone(&cpus)),
            cpus,
        })
    }

    /// Readable (poll(2)) as soon as there is an event.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.fd()
    }

    /// The oldest event not yet taken; `None` when there is none.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: there may be another one after a None"
    )]
    pub fn next(&mut self) -> Option<StallEvent> {
        let mut words = [0; EVENT_WORDS];
        self.events.next(&mut words).then(|| event(&words))
    }

    /// Events that did not fit into the ring buffer since the programs were loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        (0..self.ring.cpus())
            .map(|cpu| self.word(cpu, offset_of!(Cpu, events_lost)))
            .sum()
    }

    /// Number of this CPU's newest sample; 0 where it has none.
    #[must_use]
    pub fn newest(&self, cpu: u32) -> u64 {
        if cpu >= self.ring.cpus() {
            return 0;
        }
        self.word(cpu, offset_of!(Cpu, samples))
    }

    fn word(&self, cpu: u32, offset: usize) -> u64 {
        self.cpus.get(cpu as usize * CPU_SIZE + offset)
    }

    /// Reads this CPU's samples from `from_ns` on, oldest first, and a few before: those up to
    /// `to_ns` and all newer ones up to now. `out` is cleared first.
    ///
    /// Frames of the timer interrupt itself are left out where the programs could tell them, so
    /// that a stack begins with the interrupted function.
    ///
    /// Gives how many samples from `from_ns` on could not be read: overwritten by newer ones, or
    /// being written. Where the ring no longer reaches back to `from_ns`, one more is counted for
    /// all those it has forgotten.
    pub fn window(
        &mut self,
        cpu: u32,
        from_ns: u64,
        to_ns: u64,
        out: &mut Vec<StackSample>,
    ) -> u32 {
        out.clear();
        let newest = self.newest(cpu);
        samples::window(&mut self.ring, cpu, newest, from_ns, to_ns, out)
    }

    /// The sampler: 1,000 samples a second of CPUs that somebody is interested in.
    pub fn sampler(&mut self) -> &mut Sampler {
        &mut self.sampler
    }
}

fn event(words: &[u64; EVENT_WORDS]) -> StallEvent {
    let [
        kind,
        cpu,
        vector,
        start_ns,
        earliest_ns,
        end_ns,
        pid_tgid,
        comm0,
        comm1,
        next_pid,
        sample,
        sched,
    ] = *words;
    StallEvent {
        kind,
        cpu,
        vector,
        start_ns,
        earliest_ns,
        end_ns,
        pid_tgid,
        comm: [comm0, comm1],
        next_pid,
        sample,
        sched,
    }
}
