//! Kind 5: a task stays in the kernel although another one is to run.
//!
//! `BPF_PROG_TEST_RUN` of a raw tracepoint's program runs with preemption off but with bottom
//! halves and interrupts on (`bpf_prog_test_run_raw_tp`, net/bpf/test_run.c, 5.10 and later).
//! Meanwhile a timer wakes a second thread of this process on the same CPU, with real-time
//! priority where that is allowed, so that the kernel asks for a reschedule at once. That
//! thread's own clock tells how late it came to run.

use std::io;

use rustix::fs::Timespec;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::ClockId;

use super::super::spin::{Place, Spinner};
use super::waiter::Waiter;
use super::{Injected, Trouble, about, now_ns};
use crate::sys::isolate;

/// From the order to the second thread until its timer, ns: enough to be asleep by then.
const AHEAD_NS: u64 = 2_000_000;
/// How long before its timer the program begins, ns.
const BEFORE_NS: u64 = 500_000;
/// With less left than this it is too late.
const LEAST_BEFORE_NS: u64 = 100_000;
/// How often it is tried.
const ATTEMPTS: u32 = 20;

pub(super) struct NoResched {
    spinner: Spinner,
    waiter: Waiter,
}

impl NoResched {
    pub(super) fn new() -> io::Result<Self> {
        let spinner = Spinner::load(Place::RawTracepoint, "st_no_resched")
            .map_err(about("to load a tracepoint program"))?;
        // Without it a reschedule is asked for only where the scheduler finds it fair, which after a
        // sleep it does.
        let first = || isolate::first_in_first_out().unwrap_or(());
        let waiter = Waiter::start(first, sleep_until)?;
        Ok(Self { spinner, waiter })
    }
}

fn sleep_until(at_ns: u64) {
    let at = Timespec {
        tv_sec: (at_ns / 1_000_000_000) as i64,
        tv_nsec: (at_ns % 1_000_000_000) as _,
    };
    // Interrupted or refused: then it comes early, which the stamps tell.
    let _ = clock_nanosleep_absolute(ClockId::Boottime, &at);
}

impl Trouble for NoResched {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        for _ in 0..ATTEMPTS {
            let wake_ns = now_ns() + AHEAD_NS;
            self.waiter.order(wake_ns)?;
            sleep_until(wake_ns - BEFORE_NS);
            let before_ns = wake_ns.saturating_sub(now_ns());
            if before_ns >= LEAST_BEFORE_NS {
                return self.hold(wake_ns, before_ns + duration_ns).map(Some);
            }
            // On a busy CPU it came too late; once more.
            self.waiter.answer()?;
        }
        Ok(None)
    }
}

impl NoResched {
    fn hold(&self, wake_ns: u64, for_ns: u64) -> io::Result<Injected> {
        self.spinner.arm(for_ns)?;
        self.spinner
            .run(Place::RawTracepoint)
            .map_err(about("BPF_PROG_TEST_RUN"))?;
        let ran_ns = self.waiter.answer()?;
        let held = self.spinner.held()?;
        let end_ns = ran_ns.max(held.map_or(0, |held| held.end_ns));
        let from_ns = held.map_or(wake_ns, |held| held.begin_ns);
        Ok(Injected {
            from_ns,
            // Where the timer came first nobody waited: of no length, not to be judged.
            begin_ns: if from_ns < wake_ns { wake_ns } else { end_ns },
            end_ns,
        })
    }
}
