//! The newest state of what a thread reads over and over, for the ticking thread, with its age where
//! a reading hangs: it cannot be cut short.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A state that can say that it is not of now. Copies are cheap.
pub(crate) trait Aged: Clone {
    /// The same, but said to be read anew since then (`CLOCK_BOOTTIME`, ns) without an end; none
    /// where it says so already, or says nothing of the host anyway.
    fn late(&self, since_ns: u64) -> Option<Self>;
    /// Whether both are one and the same.
    fn is(&self, other: &Self) -> bool;
}

/// The meeting point. Its lock is held for moving a pointer, never while the kernel is asked.
#[derive(Debug, Default)]
pub(crate) struct Newest<S> {
    /// `CLOCK_BOOTTIME` of the start of the reading that goes on, ns; 0 for none.
    since_ns: AtomicU64,
    state: Mutex<S>,
}

impl<S: Aged> Newest<S> {
    /// A reading begins; 0: it has ended.
    pub(crate) fn reading(&self, since_ns: u64) {
        self.since_ns.store(since_ns, Ordering::Relaxed);
    }

    /// Puts a state there.
    pub(crate) fn publish(&self, state: S) {
        // Dropped after the lock: the last holder of a state frees what is in it.
        let _before = std::mem::replace(&mut *self.lock(), state);
    }

    /// The newest state. Copies a pointer; only for a reading that has been hanging for
    /// `hanging_ns` and more it makes, once, a whole copy that says so. `now_ns` is
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn get(&self, now_ns: u64, hanging_ns: u64) -> S {
        let since = self.since_ns.load(Ordering::Relaxed);
        let newest = self.lock().clone();
        if since == 0 || now_ns.saturating_sub(since) < hanging_ns {
            return newest;
        }
        let Some(late) = newest.late(since) else {
            return newest;
        };
        let mut state = self.lock();
        // Unless something newer is there by now.
        if state.is(&newest) {
            *state = late.clone();
        }
        late
    }

    /// Nothing that is locked here can be left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same state, changed by `change`.
pub(crate) fn changed<T: Clone>(state: &T, change: impl FnOnce(&mut T)) -> Arc<T> {
    let mut state = state.clone();
    change(&mut state);
    Arc::new(state)
}
