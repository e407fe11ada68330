//! The samples that the programs keep of each CPU, read from shared memory.
//!
//! [`Stalls`](crate::Stalls) reads the window around an event; [`Samples`] reads all of them, for
//! whoever wants to know what the CPUs did on the whole. Readers take nothing out of a ring: there
//! may be any number of them, each with mappings of its own.

use std::io;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};

use stalltop_wire::stall::{FRAMES, NONE, StackSample, USER_FRAMES, flag};
use stalltop_wire::{CPU_SIZE, Cpu};

use crate::ring::Ring;
use crate::sys::mapping::{Access, Mapping};

/// How many samples before a window are read along with it: who ran before.
const BEFORE: u32 = 4;

const SAMPLE: usize = size_of::<StackSample>();
const SAMPLE_WORDS: usize = SAMPLE / size_of::<u64>();

/// The samples that the programs keep of each CPU.
pub(crate) type SampleRing = Ring<SAMPLE_WORDS>;

/// Every sample of every CPU, for a thread of its own: the tick's, always, and the 1 kHz sampler's
/// where it runs. Reads shared memory only: no system call but the mapping of a CPU's ring when it
/// is first read.
#[derive(Debug)]
pub struct Samples {
    ring: SampleRing,
    cpus: Mapping,
}

impl Samples {
    pub(crate) fn new(
        samples: OwnedFd,
        slots: u64,
        cpus: BorrowedFd<'_>,
        possible: u32,
    ) -> io::Result<Self> {
        let len = possible as usize * CPU_SIZE;
        Ok(Self {
            ring: Ring::new(samples, slots, possible),
            cpus: Mapping::new(cpus, 0, len, Access::Read)?,
        })
    }

    /// How many CPUs have a ring: ids `0..possible()`.
    #[must_use]
    pub fn possible(&self) -> u32 {
        self.ring.cpus()
    }

    /// How many samples a ring holds: at 250 Hz a second is 250 of a busy CPU.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.ring.slots()
    }

    /// Number of this CPU's newest sample; 0 where it has none. Where one begins to read from now
    /// on, with [`Samples::newer`].
    #[must_use]
    pub fn newest(&self, cpu: u32) -> u64 {
        if cpu >= self.possible() {
            return 0;
        }
        self.cpus
            .get(cpu as usize * CPU_SIZE + offset_of!(Cpu, samples))
    }

    /// Adds this CPU's samples after number `after_seq` to `out`, oldest first, and moves
    /// `after_seq` on to the last one. One that is being written just now is left for the next
    /// call.
    ///
    /// Gives how many there were that can no longer be read: overwritten by newer ones.
    pub fn newer(&mut self, cpu: u32, after_seq: &mut u64, out: &mut Vec<StackSample>) -> u64 {
        let newest = self.newest(cpu);
        let Some(part) = self.ring.part(cpu) else {
            return 0;
        };
        part.newer(newest, after_seq, |words| out.push(sample(words)))
    }
}

/// The samples of a CPU around a stretch of time: see [`Stalls::window`](crate::Stalls::window).
pub(crate) fn window(
    ring: &mut SampleRing,
    cpu: u32,
    newest: u64,
    from_ns: u64,
    to_ns: u64,
    out: &mut Vec<StackSample>,
) -> u32 {
    let Some(part) = ring.part(cpu) else { return 0 };
    let oldest = part.oldest(newest);
    let mut lost = 0;
    let mut before = 0;
    // Of the sample read last: everything older is older than this.
    let mut upper_ns = u64::MAX;
    // Samples newer than what was asked for: kept, but it is no loss where one is missing.
    let mut gap = 0;
    for seq in (oldest..=newest).rev() {
        let Some(words) = part.read(seq) else {
            gap += 1;
            continue;
        };
        let sample = sample(&words);
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

#[cfg(test)]
#[expect(unsafe_code, reason = "plays the programs on memory of its own")]
mod tests;
