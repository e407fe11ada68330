//! What the sweeping thread and the ticking thread share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stalltop_model::sample::Cgroups;
use stalltop_model::{Name, Reading};

/// Requests that wait at most; a person does not press faster than reads are done.
const REQUESTS: usize = 16;

/// The meeting point. Locks are held for moving a pointer, never while the kernel is asked.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// `CLOCK_BOOTTIME` of the start of the read that goes on, ns; 0 for none.
    reading_since_ns: AtomicU64,
    requests: Mutex<VecDeque<Name>>,
    newest: Mutex<Reading<Arc<Cgroups>>>,
}

impl Shared {
    pub(super) fn reading(&self, since_ns: u64) {
        self.reading_since_ns.store(since_ns, Ordering::Relaxed);
    }

    pub(super) fn reading_since_ns(&self) -> u64 {
        self.reading_since_ns.load(Ordering::Relaxed)
    }

    pub(super) fn request(&self, name: Name) {
        let mut requests = lock(&self.requests);
        if requests.len() < REQUESTS && !requests.contains(&name) {
            requests.push_back(name);
        }
    }

    pub(super) fn next_request(&self) -> Option<Name> {
        lock(&self.requests).pop_front()
    }

    pub(super) fn has_requests(&self) -> bool {
        !lock(&self.requests).is_empty()
    }

    pub(super) fn publish(&self, state: Reading<Arc<Cgroups>>) {
        // Dropped after the lock: the last holder of a state frees its rows.
        let _before = std::mem::replace(&mut *lock(&self.newest), state);
    }

    /// Puts `state` in the place of `before`, unless something newer is there.
    pub(super) fn amend(&self, before: &Arc<Cgroups>, state: Arc<Cgroups>) {
        let mut newest = lock(&self.newest);
        if matches!(&*newest, Reading::Value(now) if Arc::ptr_eq(now, before)) {
            *newest = Reading::Value(state);
        }
    }

    pub(super) fn newest(&self) -> Reading<Arc<Cgroups>> {
        lock(&self.newest).clone()
    }
}

/// Nothing that is locked here can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
