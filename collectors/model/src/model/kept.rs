//! Whole states of the past, for going back in time: as many as fit into their bytes, and none that
//! is older than the history of the CPUs, which nobody can go back to.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cores::MAX_TICKS;

/// States kept at most.
const STATES: usize = 120;

/// States with the tick that showed each first, of `BYTES` together. The newest is always kept.
#[derive(Clone, Debug)]
pub(super) struct Kept<T, const BYTES: usize> {
    states: VecDeque<State<T>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct State<T> {
    /// The first tick that showed it.
    seq: u64,
    bytes: usize,
    state: Arc<T>,
}

impl<T, const BYTES: usize> Default for Kept<T, BYTES> {
    /// Has room for all at once: a warm tick allocates nothing.
    fn default() -> Self {
        Self {
            states: VecDeque::with_capacity(STATES),
            bytes: 0,
        }
    }
}

impl<T, const BYTES: usize> Kept<T, BYTES> {
    /// Keeps a state that takes `bytes`; the oldest are dropped to make room.
    pub(super) fn push(&mut self, seq: u64, state: &Arc<T>, bytes: usize) {
        let oldest = seq.saturating_sub(MAX_TICKS as u64);
        // A state lasts until the next one begins.
        let is_past = |next: Option<&State<T>>| next.is_some_and(|next| next.seq <= oldest);
        while !self.states.is_empty()
            && (self.states.len() == STATES
                || self.bytes + bytes > BYTES
                || is_past(self.states.get(1)))
        {
            let dropped = self.states.pop_front();
            self.bytes -= dropped.map_or(0, |state| state.bytes);
        }
        self.bytes += bytes;
        self.states.push_back(State {
            seq,
            bytes,
            state: Arc::clone(state),
        });
    }

    /// The state of a tick. `None` before the first one, and for ticks older than what is kept.
    pub(super) fn at(&self, seq: u64) -> Option<&T> {
        let after = self.states.partition_point(|state| state.seq <= seq);
        Some(&self.states.get(after.checked_sub(1)?)?.state)
    }

    /// Whether nothing is kept yet.
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// What is kept takes, bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words = Kept<u64, 1_000>;

    #[test]
    fn the_newest_states_that_fit_are_kept() {
        let mut kept = Words::default();
        assert!(kept.is_empty() && kept.at(7).is_none());
        for seq in 0..10 {
            kept.push(seq * 2, &Arc::new(seq), 300);
            assert!(kept.bytes() <= 1_000);
        }
        assert_eq!(kept.at(19), Some(&9));
        assert_eq!((kept.at(14), kept.at(15)), (Some(&7), Some(&7)));
        assert_eq!(kept.at(13), None, "dropped to make room");
        // One that is larger than all the room is kept by itself.
        kept.push(40, &Arc::new(40), 5_000);
        assert_eq!((kept.at(39), kept.at(41)), (None, Some(&40)));
        kept.push(42, &Arc::new(42), 10);
        assert_eq!(
            (kept.at(41), kept.at(42), kept.bytes()),
            (None, Some(&42), 10)
        );
    }

    #[test]
    fn what_nobody_can_go_back_to_is_dropped() {
        let mut kept = Words::default();
        let history = MAX_TICKS as u64;
        kept.push(0, &Arc::new(0), 1);
        kept.push(10, &Arc::new(10), 1);
        // It still lasts at the oldest tick.
        kept.push(history + 9, &Arc::new(1), 1);
        assert_eq!(kept.at(9), Some(&0));
        kept.push(history + 10, &Arc::new(2), 1);
        assert_eq!((kept.at(9), kept.at(10)), (None, Some(&10)));
        for seq in 0..300 {
            kept.push(history + 20 + seq, &Arc::new(3), 1);
        }
        assert_eq!(kept.bytes(), STATES);
    }
}
