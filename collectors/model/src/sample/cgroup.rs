//! Memory cgroups.

use serde::{Deserialize, Serialize};

use crate::sample::tracing::Owner;
use crate::{Name, Reading, bounded};

/// The host's memory cgroups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cgroups {
    /// How the host mounts cgroups.
    pub layout: CgroupLayout,
    /// Where the memory hierarchy is mounted.
    pub mount: Name,
    /// Dying memory cgroups of the whole host: removed, but still charged.
    /// v1: `/proc/cgroups` minus visible directories; v2: `nr_dying_descendants`,
    /// or `nr_dying_subsys_memory` where the kernel (6.12+) has it.
    pub zombies: Reading<u64>,
    /// Memory cgroup directories that exist.
    pub visible: u64,
    /// What the background sweep has done so far.
    pub sweep: Sweep,
    /// Every memory cgroup, parents before children.
    #[serde(deserialize_with = "bounded::many")]
    pub rows: Vec<Cgroup>,
}

/// How a host mounts cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupLayout {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Both; the memory controller sits in one of them.
    Hybrid {
        /// Which one.
        memory: MemoryVersion,
    },
}

/// The cgroup version that owns the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryVersion {
    /// cgroup v1.
    V1,
    /// cgroup v2.
    V2,
}

/// The background sweep over all memory cgroups, under a time budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Reads of memory.stat since start.
    pub reads: u64,
    /// Time spent in them, ns.
    pub read_ns: u64,
    /// Cgroups that have not been read once yet.
    pub unread: u64,
    /// Cgroups that are read less often because they are slow.
    pub backed_off: u64,
    /// Cgroups that vanished between listing and reading, since start: normal.
    pub vanished: u64,
    /// The read that is going on now, since when (`CLOCK_BOOTTIME`, ns); 0 for none.
    /// A read cannot be cut short: it is awaited on its own thread and its age shown.
    pub reading_since_ns: u64,
}

/// One memory cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the mount; `/` for the root.
    pub path: Name,
    /// Index of the parent in [`Cgroups::rows`]; `None` for the root.
    pub parent: Option<u32>,
    /// Levels below the root.
    pub depth: u16,
    /// Who a person would say it is, from the path alone.
    pub owner: Owner,
    /// `memory.current` or `memory.usage_in_bytes`.
    pub used_bytes: Reading<u64>,
    /// Processes in this cgroup itself (`cgroup.procs`).
    pub processes: Reading<u64>,
    /// Dying memory cgroups in this subtree (v2 only).
    pub zombies: Reading<u64>,
    /// Our own timing of reads of its `memory.stat`.
    pub read: Reading<ReadTiming>,
    /// When the row's figures were read (`CLOCK_BOOTTIME`, ns); 0 for not yet.
    pub read_at_ns: u64,
    /// Whether it is read less often because its read is slow.
    pub backed_off: bool,
}

/// Our own timing of one file's reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTiming {
    /// The last read, ns.
    pub last_ns: u64,
    /// The longest since start, ns.
    pub longest_ns: u64,
    /// Exponentially smoothed, weight 1/8, ns.
    pub smoothed_ns: u64,
    /// Reads so far.
    pub count: u64,
}
