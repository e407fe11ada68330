//! The samples that the programs keep of each CPU, read from shared memory.
//!
//! [`Stalls`](crate::Stalls) reads the window around an event; [`Samples`] reads all of them, for
//! whoever wants to know what the CPUs did on the whole. Readers take nothing out of a ring: there
//! may be any number of them, each with mappings of its own.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use stalltop_wire::stall::{FRAMES, NONE, StackSample, USER_FRAMES, flag};
use stalltop_wire::{CPU_SIZE, Cpu};

use crate::sys::mapping::{Access, Mapping};

/// How many samples before a window are read along with it: who ran before.
const BEFORE: u32 = 4;

const SAMPLE: usize = size_of::<StackSample>();
const SAMPLE_WORDS: usize = SAMPLE / size_of::<u64>();
/// How many samples of a CPU can be in the making at once: an interrupt's, and that of a
/// non-maskable one within it.
const IN_THE_MAKING: u64 = 2;

/// The samples that the programs keep of each CPU.
#[derive(Debug)]
pub(crate) struct Ring {
    map: OwnedFd,
    /// Samples per CPU, a power of two.
    slots: u64,
    /// Each CPU's part, mapped when it is first read.
    parts: Vec<Option<Mapping>>,
}

/// Every sample of every CPU, for a thread of its own: the tick's, always, and the 1 kHz sampler's
/// where it runs. Reads shared memory only: no system call but the mapping of a CPU's ring when it
/// is first read.
#[derive(Debug)]
pub struct Samples {
    ring: Ring,
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
        self.ring.slots
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
        self.ring.newer(cpu, newest, after_seq, out)
    }
}

impl Ring {
    pub(crate) fn new(map: OwnedFd, slots: u64, cpus: u32) -> Self {
        Self {
            map,
            slots,
            parts: (0..cpus).map(|_| None).collect(),
        }
    }

    /// How many CPUs have a part.
    pub(crate) fn cpus(&self) -> u32 {
        self.parts.len() as u32
    }

    fn part(&mut self, cpu: u32) -> Option<&Mapping> {
        let part = self.parts.get_mut(cpu as usize)?;
        if part.is_none() {
            let len = self.slots as usize * SAMPLE;
            let offset = cpu as usize * len;
            *part = Mapping::new(self.map.as_fd(), offset, len, Access::Read).ok();
        }
        part.as_ref()
    }

    pub(crate) fn window(
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

    fn newer(
        &mut self,
        cpu: u32,
        newest: u64,
        after_seq: &mut u64,
        out: &mut Vec<StackSample>,
    ) -> u64 {
        let slots = self.slots;
        let Some(part) = self.part(cpu) else { return 0 };
        let mut lost = newest.saturating_sub(slots).saturating_sub(*after_seq);
        *after_seq += lost;
        for seq in *after_seq + 1..=newest {
            match read(part, (seq & (slots - 1)) as usize, seq) {
                Some(sample) => out.push(sample),
                None if newest - seq < IN_THE_MAKING => break,
                None => lost += 1,
            }
            *after_seq = seq;
        }
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

#[cfg(test)]
#[expect(unsafe_code, reason = "plays the programs on memory of its own")]
mod tests;
