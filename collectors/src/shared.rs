//! What a background thread and who asks it share: a state under a lock, and word that it changed.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use stalltop_model::Reason;

pub(crate) use crate::alive::Alive;

/// Why there is nothing of `what` any more: a thread of ours failed.
pub(crate) fn failed(what: &str) -> Reason {
    Reason::Refused {
        what: what.into(),
        why: "stalltop failed to read it (a bug): start it again".into(),
    }
}

/// Why there is nothing of `what`: its thread could not be started.
pub(crate) fn no_thread(what: &str, error: &io::Error) -> Reason {
    Reason::Refused {
        what: format!("a thread that reads {what}").into(),
        why: error.to_string().into(),
    }
}

/// A state that is shared by threads. The lock is only ever held to move pointers, so that the
/// ticking thread may take it; a panic cannot leave the state half-done.
#[derive(Debug, Default)]
pub(crate) struct Shared<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T> Shared<T> {
    /// Shares a state.
    pub(crate) fn new(state: T) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The state. Nobody is told of what is changed in it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless somebody has it just now.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Changes the state, and wakes those who wait if `change` says that they must know.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        if change(&mut self.lock()) {
            self.changed.notify_all();
        }
    }

    /// Changes the state, and wakes those who wait.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits for `time`, but no longer than `go_on` holds.
    pub(crate) fn wait_while(
        &self,
        time: Duration,
        go_on: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'_, T> {
        let waited = self.changed.wait_timeout_while(self.lock(), time, go_on);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until somebody changes the state, for `time` at most where one is given. It may end
    /// before.
    pub(crate) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, T>,
        time: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        match time {
            Some(time) => {
                let waited = self.changed.wait_timeout(state, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}
