//! Kind 3: ksoftirqd was woken and does not get its CPU, while a vector is pending.
//!
//! A NET_RX handler of this process runs over a tick: what that raises (timers, RCU, load
//! balancing) is pending behind it, its time is up, and so the kernel wakes ksoftirqd
//! (`handle_softirqs`, kernel/softirq.c). The process has real-time priority, so ksoftirqd does
//! not get the CPU, and enters `BPF_PROG_TEST_RUN` at once, which raises NET_RX as well and keeps
//! bottom halves off: until its end nobody can handle the vectors.
//!
//! From about 6.2 on they are then handled inline, by the process itself; older kernels leave them
//! to the ksoftirqd that was woken (`ksoftirqd_running`, kernel/softirq.c, 5.10).

use std::io;

use super::super::spin::{Place, Spinner};
use super::network::Handler;
use super::{Injected, Trouble, about};
use crate::sys::isolate;

/// How long the handler runs, ns: over a tick at 250 Hz, which is all the time that handlers have
/// in one go (`MAX_SOFTIRQ_TIME`), and shorter than what it is to be told from.
const HANDLER_NS: u64 = 4_500_000;

pub(super) struct Ksoftirqd {
    handler: Handler,
    spinner: Spinner,
}

impl Ksoftirqd {
    pub(super) fn new() -> io::Result<Self> {
        let handler = Handler::new()?;
        let spinner = Spinner::load(Place::RaisesNetRx, "st_ksoftirqd")
            .map_err(about("to load a packet program"))?;
        isolate::first_in_first_out().map_err(about("real-time priority"))?;
        Ok(Self { handler, spinner })
    }
}

impl Trouble for Ksoftirqd {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        self.spinner.arm(duration_ns)?;
        let Some(handler) = self.handler.hold(HANDLER_NS)? else {
            return Ok(None);
        };
        self.spinner
            .run(Place::RaisesNetRx)
            .map_err(about("BPF_PROG_TEST_RUN"))?;
        Ok(self.spinner.held()?.map(|held| Injected {
            from_ns: handler.begin_ns,
            begin_ns: held.begin_ns,
            end_ns: held.end_ns,
        }))
    }
}
