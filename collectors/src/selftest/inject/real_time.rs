//! Kind 6: a real-time task keeps the CPU while an ordinary one waits in the run queue.
//!
//! The process has real-time priority, wakes a second, ordinary thread of its own on the same CPU,
//! and then stays in user space: RT throttling and the fair server let others run only after the
//! 950 ms of a second, which is far longer. When it goes to sleep the second thread runs.

use std::io;

use super::waiter::Waiter;
use super::{Injected, Trouble, about, now_ns};
use crate::sys::isolate;

pub(super) struct RealTime(Waiter);

impl RealTime {
    pub(super) fn new() -> io::Result<Self> {
        // Before: a thread begins with the policy of the one that starts it.
        let waiter = Waiter::start(|| (), |_| ())?;
        isolate::first_in_first_out().map_err(about("real-time priority"))?;
        Ok(Self(waiter))
    }
}

impl Trouble for RealTime {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        let begin_ns = now_ns();
        self.0.order(0)?;
        let mut end_ns = now_ns();
        while end_ns.saturating_sub(begin_ns) < duration_ns {
            std::hint::spin_loop();
            end_ns = now_ns();
        }
        let ran_ns = self.0.answer()?;
        // It ran at once where it was still on its way to sleep: nobody waited.
        Ok((ran_ns >= end_ns).then_some(Injected {
            from_ns: begin_ns,
            begin_ns,
            end_ns,
        }))
    }
}
