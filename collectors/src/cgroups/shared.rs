//! What the sweeping thread and the ticking thread share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stalltop_model::sample::Cgroups;
use stalltop_model::{Name, Reading};

use crate::newest::{Aged, Newest, changed};

/// Requests that wait at most; a person does not press faster than reads are done.
const REQUESTS: usize = 16;

/// The meeting point: states one way, requests the other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) newest: Newest<Reading<Arc<Cgroups>>>,
    requests: Mutex<VecDeque<Name>>,
}

impl Aged for Reading<Arc<Cgroups>> {
    fn late(&self, since_ns: u64) -> Option<Self> {
        let state = self.value()?;
        let known = state.sweep.reading_since_ns == since_ns;
        let late = || changed(&**state, |late| late.sweep.reading_since_ns = since_ns);
        (!known).then(|| Reading::Value(late()))
    }

    fn is(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Value(a), Self::Value(b)) if Arc::ptr_eq(a, b))
    }
}

impl Shared {
    pub(super) fn request(&self, name: Name) {
        let mut requests = self.requests();
        if requests.len() < REQUESTS && !requests.contains(&name) {
            requests.push_back(name);
        }
    }

    pub(super) fn next_request(&self) -> Option<Name> {
        self.requests().pop_front()
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests().is_empty()
    }

    /// Nothing that is locked here can be left half done by a panic.
    fn requests(&self) -> MutexGuard<'_, VecDeque<Name>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
