//! The rings into which programs write what is read at leisure: one of each CPU, in an array that
//! is mapped. Each entry begins with its number, 0 while it is being written.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use crate::sys::mapping::{Access, Mapping};

/// How many entries of a CPU can be in the making at once: an interrupt's, and that of a
/// non-maskable one within it.
const IN_THE_MAKING: u64 = 2;

/// The rings of all CPUs, of entries of so many words.
#[derive(Debug)]
pub(crate) struct Ring<const WORDS: usize> {
    map: OwnedFd,
    /// Entries per CPU, a power of two.
    slots: u64,
    /// Each CPU's part, mapped when it is first read.
    parts: Vec<Option<Mapping>>,
}

/// One CPU's ring.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a, const WORDS: usize> {
    mapping: &'a Mapping,
    slots: u64,
}

impl<const WORDS: usize> Ring<WORDS> {
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

    /// How many entries a part has.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// That CPU's part; `None` where there is none or it cannot be mapped.
    pub(crate) fn part(&mut self, cpu: u32) -> Option<Part<'_, WORDS>> {
        let part = self.parts.get_mut(cpu as usize)?;
        if part.is_none() {
            let len = self.slots as usize * WORDS * size_of::<u64>();
            let offset = cpu as usize * len;
            *part = Mapping::new(self.map.as_fd(), offset, len, Access::Read).ok();
        }
        let slots = self.slots;
        part.as_ref().map(|mapping| Part { mapping, slots })
    }
}

impl<const WORDS: usize> Part<'_, WORDS> {
    /// Number of the oldest entry that can still be there.
    pub(crate) fn oldest(&self, newest: u64) -> u64 {
        newest.saturating_sub(self.slots - 1).max(1)
    }

    /// Reads the entry of that number, if it is there before and after.
    pub(crate) fn read(&self, seq: u64) -> Option<[u64; WORDS]> {
        let at = (seq & (self.slots - 1)) as usize * WORDS * size_of::<u64>();
        if self.mapping.word(at).load(Ordering::Acquire) != seq {
            return None;
        }
        let mut words = [0; WORDS];
        self.mapping.copy(at, &mut words);
        fence(Ordering::Acquire);
        (self.mapping.get(at) == seq).then_some(words)
    }

    /// Passes on the entries after number `after`, oldest first, and moves it on to the last one.
    /// One that is being written is left for the next call. Gives how many can no longer be read.
    pub(crate) fn newer(
        &self,
        newest: u64,
        after: &mut u64,
        mut found: impl FnMut(&[u64; WORDS]),
    ) -> u64 {
        let mut lost = newest.saturating_sub(self.slots).saturating_sub(*after);
        *after += lost;
        for seq in *after + 1..=newest {
            match self.read(seq) {
                Some(words) => found(&words),
                None if newest - seq < IN_THE_MAKING => break,
                None => lost += 1,
            }
            *after = seq;
        }
        lost
    }
}
