//! Kind 1: NET_RX is raised while bottom halves are off, and they stay off.
//!
//! `BPF_PROG_TEST_RUN` of a packet program runs with bottom halves off (`bpf_test_run`,
//! net/bpf/test_run.c, since 5.18). The program gives a packet to the loopback of a network
//! namespace of this process, which raises NET_RX on this CPU, and then spins. The vector is
//! handled at the `local_bh_enable` behind the program. So the pending time is the program's.

use std::io;

use super::super::spin::{Place, Spinner};
use super::{Injected, Trouble, about};
use crate::sys::isolate;

pub(super) struct Pending {
    spinner: Spinner,
}

impl Pending {
    pub(super) fn new() -> io::Result<Self> {
        isolate::own_network().map_err(about("a network namespace of its own"))?;
        let spinner = Spinner::load(Place::RaisesNetRx, "st_pending")
            .map_err(about("to load a packet program"))?;
        Ok(Self { spinner })
    }
}

impl Trouble for Pending {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        self.spinner.arm(duration_ns)?;
        self.spinner
            .run(Place::RaisesNetRx)
            .map_err(about("BPF_PROG_TEST_RUN"))?;
        Ok(self.spinner.held()?.map(|held| Injected {
            from_ns: held.begin_ns,
            begin_ns: held.begin_ns,
            end_ns: held.end_ns,
        }))
    }
}
