//! Events as tests make them up.

use stalltop_probes::wire::stall::{NONE, StallEvent};

/// A millisecond, ns.
pub(super) const MS: u64 = 1_000_000;

/// An event of NET_RX on a CPU, from and to a time in milliseconds.
pub(super) fn event(kind: u64, cpu: u64, from_ms: u64, to_ms: u64) -> StallEvent {
    StallEvent {
        kind,
        cpu,
        vector: 3,
        start_ns: from_ms * MS,
        earliest_ns: from_ms * MS,
        end_ns: to_ms * MS,
        pid_tgid: 1,
        comm: [0; 2],
        next_pid: NONE,
        sample: 0,
        sched: NONE,
    }
}
