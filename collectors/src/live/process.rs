//! What stalltop asks of the kernel for itself, to stay responsive on a sick host.
//! Nothing here is an error: where it is refused, stalltop runs as any other process.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::env::{Capabilities, Env};

/// How much more the thread that draws is preferred: five steps, a factor of three in its
/// share of a CPU (kernel/sched/core.c, `sched_prio_to_weight`).
const NICE: i32 = -5;

/// Allows as many open files as the hard limit does: files that are read again at each
/// tick stay open, one per cgroup and per ksoftirqd thread.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// Prefers the calling thread. Linux keeps the priority per thread, whatever POSIX says
/// (setpriority(2), "C library/kernel differences").
pub(super) fn raise_priority() {
    let _ = setpriority_process(None, NICE);
}

/// Keeps pages that were touched once in memory, so that no page fault waits for a disk in
/// the middle of an incident. `MCL_ONFAULT` does not touch what is never used.
///
/// Only with `CAP_IPC_LOCK`: without it the limit on locked memory (`RLIMIT_MEMLOCK`)
/// would make later allocations fail.
pub(super) fn lock_memory(env: &Env) {
    if env.capabilities.has(Capabilities::IPC_LOCK) {
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    }
}
