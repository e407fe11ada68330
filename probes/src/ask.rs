//! What a program of ours, run or attached for a moment, tells of this host.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::object::{self, Array};
use crate::programs::{Failure, Step};
use crate::sys::{load, run};

/// The program that [`own_tgid`] runs, in the object and in the kernel.
pub(crate) const OWN_TGID: &str = "own_tgid";
/// The program that [`resched_bits`] attaches.
pub(crate) const RESCHED_BITS: &str = "resched_bits";

const RESCHED_MAP: &str = "RESCHED_BITS";
const SET_NEED_RESCHED: &CStr = c"sched_set_need_resched_tp";
/// For how long it is attached at the most: each of our own sleeps ends with a reschedule.
const SLEEPS: u32 = 20;
const SLEEP: Duration = Duration::from_millis(1);

/// This process's id as the kernel counts, which is that of the host's first PID namespace: what
/// samples and events have. In a namespace of its own `getpid(2)` gives another.
///
/// # Errors
/// CAP_BPF and CAP_PERFMON are missing, or the kernel is older than 5.10.
pub fn own_tgid() -> Result<u32, Failure> {
    let program = object::prepare_one(OWN_TGID, &[], &Vec::new())?.verify(OWN_TGID)?;
    run::run_raw(program.as_fd(), &[]).map_err(|e| Failure {
        step: Step::Load,
        errno: e.raw_os_error(),
        detail: "running a program for its loader's process id".into(),
    })
}

/// Bits of `thread_info.flags` that were seen to be set to ask for a reschedule: one or more of
/// them. `None` where the kernel does not tell (before 6.15), or nothing was rescheduled.
#[must_use]
pub fn resched_bits() -> Option<u64> {
    let map = Array {
        name: RESCHED_MAP,
        value_size: size_of::<u64>(),
        entries: 1,
        flags: load::F_MMAPABLE,
    };
    let prepared = object::prepare_one(RESCHED_BITS, &[map], &Vec::new()).ok()?;
    let program = prepared.verify(RESCHED_BITS).ok()?;
    let map = prepared.maps.get(RESCHED_MAP)?;
    let _link = load::attach_raw_tracepoint(program.as_fd(), Some(SET_NEED_RESCHED)).ok()?;
    (0..SLEEPS).find_map(|_| {
        std::thread::sleep(SLEEP);
        let mut bits = [0; size_of::<u64>()];
        run::get(map.as_fd(), 0, &mut bits).ok()?;
        Some(u64::from_ne_bytes(bits)).filter(|bits| *bits != 0)
    })
}
