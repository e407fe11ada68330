//! Stalls as they happen: events, and the samples around them.
//!
//! [`Stalls`] is taken out of [`Probes`](crate::Probes) once and moved to a thread of its own, which
//! sleeps in poll(2) on [`Stalls::fd`]: on a quiet host nothing wakes it.

mod sampler;

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use stalltop_wire::stall::{FRAMES, NONE, StackSample, StallEvent, USER_FRAMES, flag};
use stalltop_wire::{CPU_SIZE, Cpu};

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
}

impl Default for Thresholds {
    /// 5 ms for every kind.
    fn default() -> Self {
        const DEFAULT_NS: u64 = 5_000_000;
        Self {
            pending_ns: DEFAULT_NS,
            handler_ns: DEFAULT_NS,
            ksoftirqd_ns: DEFAULT_NS,
            irqs_off_ns: DEFAULT_NS,
            resched_ns: DEFAULT_NS,
        }
    }
}

/// How many samples before a window are read along with it: who ran before.
const BEFORE: u32 = 4;

const SAMPLE: usize = size_of::<StackSample>();
const SAMPLE_WORDS: usize = SAMPLE / size_of::<u64>();
const EVENT_WORDS: usize = size_of::<StallEvent>() / size_of::<u64>();

/// The samples that the programs keep of each CPU.
struct Ring {
    map: OwnedFd,
    /// Samples per CPU, a power of two.
    slots: u64,
    /// Each CPU's part, mapped when it is first read.
    parts: Vec<Option<Mapping>>,
}

/// Stall events and samples. Dropping it leaves the programs attached: what they have to say then
/// fills the ring buffer and is counted as lost.
pub struct Stalls {
    events: RingBuf,
    ring: Ring,
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
            ring: Ring {
                map: parts.samples,
                slots: parts.slots,
                parts: (0..parts.possible).map(|_| None).collect(),
            },
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
        (0..self.ring.parts.len() as u32)
            .map(|cpu| self.word(cpu, offset_of!(Cpu, events_lost)))
            .sum()
    }

    /// Number of this CPU's newest sample; 0 where it has none.
    #[must_use]
    pub fn newest(&self, cpu: u32) -> u64 {
        if cpu as usize >= self.ring.parts.len() {
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
        self.ring.window(cpu, newest, from_ns, to_ns, out)
    }

    /// The sampler: 1,000 samples a second of CPUs that somebody is interested in.
    pub fn sampler(&mut self) -> &mut Sampler {
        &mut self.sampler
    }
}

impl Ring {
    fn part(&mut self, cpu: u32) -> Option<&Mapping> {
        let part = self.parts.get_mut(cpu as usize)?;
        if part.is_none() {
            let len = self.slots as usize * SAMPLE;
            let offset = cpu as usize * len;
            *part = Mapping::new(self.map.as_fd(), offset, len, Access::Read).ok();
        }
        part.as_ref()
    }

    fn window(
        &mut self,
        cpu: u32,
        newest: u64,
        from_ns: u64,
        to_ns: u64,
        out: &mut Vec<StackSample>,
    ) -> u32 {
        let slots = self.slots;
        let Some(part) = self.part(cpu) else { return 0 };
        let oldest = newest.saturating_sub(slots - 1).max(1);
        let mut lost = 0;
        let mut before = 0;
        // Of the sample read last: everything older is older than this.
        let mut upper_ns = u64::MAX;
        // Samples newer than what was asked for: kept, but it is no loss where one is missing.
        let mut gap = 0;
        for seq in (oldest..=newest).rev() {
            let Some(sample) = read(part, (seq & (slots - 1)) as usize, seq) else {
                gap += 1;
                continue;
            };
            if upper_ns > to_ns && sample.at_ns > to_ns {
                gap = 0;
            }
            lost += std::mem::take(&mut gap);
            upper_ns = sample.at_ns;
            out.push(sample);
            if sample.at_ns < from_ns {
                before += 1;
                if before == BEFORE {
                    break;
                }
            }
        }
        lost += gap;
        if before == 0 && oldest > 1 && newest > 0 {
            lost += 1;
        }
        out.reverse();
        lost
    }
}

/// Reads one entry if it holds the sample of that number, before and after.
fn read(part: &Mapping, entry: usize, seq: u64) -> Option<StackSample> {
    let at = entry * SAMPLE;
    if part.word(at).load(Ordering::Acquire) != seq {
        return None;
    }
    let mut words = [0; SAMPLE_WORDS];
    part.copy(at, &mut words);
    fence(Ordering::Acquire);
    if part.get(at) != seq {
        return None;
    }
    Some(sample(&words))
}

fn sample(words: &[u64; SAMPLE_WORDS]) -> StackSample {
    const HEAD: usize = offset_of!(StackSample, stack) / size_of::<u64>();
    const USER: usize = offset_of!(StackSample, user) / size_of::<u64>();
    let [
        seq,
        at_ns,
        pid_tgid,
        comm0,
        comm1,
        on_cpu_ns,
        alive_ns,
        steal_ns,
        ip,
        code,
        flags,
        frames,
        user_frames,
        ..,
    ] = *words;
    let mut sample = StackSample {
        seq,
        at_ns,
        pid_tgid,
        comm: [comm0, comm1],
        on_cpu_ns,
        alive_ns,
        steal_ns,
        ip,
        code,
        flags: flags & !flag::SKIP_MASK,
        frames,
        user_frames: match user_frames {
            NONE => NONE,
            frames => frames.min(USER_FRAMES as u64),
        },
        stack: [0; FRAMES],
        user: [0; USER_FRAMES],
    };
    sample
        .user
        .copy_from_slice(&words[USER..USER + USER_FRAMES]);
    if frames != NONE {
        let frames = (frames as usize).min(FRAMES);
        let skip = ((flags & flag::SKIP_MASK) >> flag::SKIP_SHIFT) as usize;
        let stack = &words[HEAD + skip.min(frames)..HEAD + frames];
        sample.stack[..stack.len()].copy_from_slice(stack);
        sample.frames = stack.len() as u64;
    }
    sample
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
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "plays the programs on memory of its own")]
mod tests;
