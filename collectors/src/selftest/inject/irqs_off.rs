//! Kind 4: interrupts are off in a system call.
//!
//! An eBPF program on the tracepoint `signal:signal_generate`, which the kernel passes with this
//! process's own signal lock held and interrupts off (`__send_signal_locked`, kernel/signal.c;
//! also for a signal that is ignored). It spins in signals that this process sends to itself and
//! returns at once in all others. The length is free, which that of other ways (switching on a
//! group of perf events) is not: those take minutes and hundreds of megabytes to reach 10 ms.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, getpid, kill_process};
use stalltop_probes::sys::load::attach_raw_tracepoint;

use super::super::spin::{Place, Spinner};
use super::{Injected, Trouble, about};

pub(super) struct IrqsOff {
    spinner: Spinner,
    /// The program stays attached as long as this is open.
    _link: OwnedFd,
}

impl IrqsOff {
    pub(super) fn new() -> io::Result<Self> {
        let place = Place::OwnRawTracepoint {
            tgid: std::process::id(),
        };
        let spinner =
            Spinner::load(place, "st_irqs_off").map_err(about("to load a tracepoint program"))?;
        let link = attach_raw_tracepoint(spinner.program().as_fd(), Some(c"signal_generate"))
            .map_err(about("to attach to signal:signal_generate"))?;
        Ok(Self {
            spinner,
            _link: link,
        })
    }
}

impl Trouble for IrqsOff {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        self.spinner.arm(duration_ns)?;
        // Ignored unless somebody asks for it (signal(7)), and nobody here does.
        kill_process(getpid(), Signal::URG)?;
        Ok(self.spinner.held()?.map(|held| Injected {
            from_ns: held.begin_ns,
            begin_ns: held.begin_ns,
            end_ns: held.end_ns,
        }))
    }
}
