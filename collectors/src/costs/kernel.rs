//! What the meter asks of the kernel, so that its tests can be a kernel of their own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, MapInfo, ProgramCounters};
use stalltop_probes::sys::load;

/// bpf(2), as far as costs need it.
pub(super) trait Kernel {
    /// Every program's id, ascending, into `out`.
    fn programs(&mut self, out: &mut Vec<u32>) -> io::Result<()>;
    /// A program's counters; none if it is gone.
    fn counters(&mut self, program: u32) -> Option<ProgramCounters>;
    /// Ids of the maps that a program uses.
    fn maps_of(&mut self, program: u32) -> Vec<u32>;
    /// A map; none if it is gone.
    fn map(&mut self, map: u32) -> Option<MapInfo>;
    /// Switches run-time statistics on for as long as the descriptor lives.
    fn enable(&mut self) -> io::Result<OwnedFd>;
}

/// This host's kernel. No descriptor is kept: one would keep a program that its owner unloads, and
/// opening costs as much as asking.
pub(super) struct ThisHost;

impl Kernel for ThisHost {
    fn programs(&mut self, out: &mut Vec<u32>) -> io::Result<()> {
        ids::all(Object::Program, out)
    }

    fn counters(&mut self, program: u32) -> Option<ProgramCounters> {
        let fd = ids::open(Object::Program, program).ok()?;
        info::program_counters(fd.as_fd()).ok()
    }

    fn maps_of(&mut self, program: u32) -> Vec<u32> {
        let info = ids::open(Object::Program, program)
            .and_then(|fd| info::program(fd.as_fd()))
            .unwrap_or_default();
        info.map_ids
    }

    fn map(&mut self, map: u32) -> Option<MapInfo> {
        let fd = ids::open(Object::Map, map).ok()?;
        info::map(fd.as_fd()).ok()
    }

    fn enable(&mut self) -> io::Result<OwnedFd> {
        load::enable_run_time_stats()
    }
}
