//! The newest stalls, and what they have in common.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sample::{Pause, Stall};

/// How many stalls are kept: an hour at one a second.
const KEPT: usize = 4096;

/// The newest stalls, oldest first.
#[derive(Clone, Debug, Default)]
pub struct StallsModel {
    stalls: VecDeque<Arc<Stall>>,
    dropped: u64,
}

impl StallsModel {
    /// Takes a stall; the oldest goes when there is no room.
    pub fn push(&mut self, stall: Stall) {
        if self.stalls.len() == KEPT {
            self.stalls.pop_front();
            self.dropped += 1;
        }
        self.stalls.push_back(Arc::new(stall));
    }

    /// Every stall kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Stall>> + ExactSizeIterator {
        self.stalls.iter()
    }

    /// The stalls that ended in `(from_ns, to_ns]` of `CLOCK_BOOTTIME`, oldest first. Stalls
    /// are told a little after they end, those of several CPUs out of order: each is looked at.
    pub fn between(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Stall>> {
        self.stalls
            .iter()
            .filter(move |stall| stall.at_ns > from_ns && stall.at_ns <= to_ns)
    }

    /// The stall of that number.
    pub fn get(&self, id: u64) -> Option<&Arc<Stall>> {
        self.stalls.iter().rev().find(|stall| stall.id == id)
    }

    /// How many were dropped because newer ones came.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Whether a stall counts as one of this host's kernel: not a paused virtual CPU.
pub fn counts(stall: &Stall) -> bool {
    stall.pause != Pause::Paused
}
