//! What stalltop itself costs.

use serde::{Deserialize, Serialize};

use crate::{Name, Reading, bounded};

/// stalltop's own cost: a tool that hunts stalls must not cause them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCost {
    /// User and system time of this process and all its threads since start, ns.
    pub cpu_ns: u64,
    /// Resident set, bytes.
    pub rss_bytes: u64,
    /// Time spent in our eBPF programs since attach, ns: events counted exactly, times
    /// the time per run that short windows of `BPF_ENABLE_STATS` measured. Leaves out
    /// the dispatch of the tracepoints themselves (about 30 to 40 ns an event).
    pub probe_ns: Reading<u64>,
    /// Events that our probes had to drop since attach.
    pub drops: Reading<u64>,
    /// How long the last tick's collection took, ns.
    pub tick_ns: u64,
    /// Each of our eBPF programs.
    #[serde(deserialize_with = "bounded::some")]
    pub programs: Vec<ProgramHealth>,
}

/// The state of one of our eBPF programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramHealth {
    /// Its name in the object.
    pub name: Name,
    /// What it hooks, for example `irq:softirq_entry`.
    pub hook: Name,
    /// Attached (with the kernel's program id), or why not.
    pub attached: Reading<u32>,
    /// What is shown in its place when it is not attached.
    pub instead: Name,
    /// Runs since attach.
    pub runs: Reading<u64>,
    /// Measured time per run, ns.
    pub ns_per_run: Reading<u64>,
}
