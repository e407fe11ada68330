//! One moment of one host: raw, cumulative, timestamped.

mod attach;
mod cgroup;
mod cost;
mod cpu;
mod host;
mod lock;
mod own;
mod stall;
mod tracing;

pub use attach::AttachKind;
pub use cgroup::{Cgroup, CgroupLayout, Cgroups, MemoryVersion, ReadTiming, Sweep};
pub use cost::{BpfMap, CostMethod, Costs, DynamicCost, Growth, InstanceCost, PerHit, ProgramCost};
pub use cpu::{
    Cores, CoresSource, CpuSample, CpuTimes, Hardirq, Ksoftirqd, RunDelay, SOFTIRQS, Softirq,
    SoftirqTiming, Softnet, Vector,
};
pub use host::{CpuTopology, Host, Lockdown, Preemption, Pressure, PressureLine, System};
pub use lock::{
    Hidden, Lasting, Lock, LockKind, LockOwner, LockShare, LockStack, LockTracer, LockWaits,
    LockWatch, Locks, ShareStack, Waits,
};
pub use own::{OwnCost, ProgramHealth};
pub use stall::{Culprit, Drained, Pause, Sampling, Sched, Seen, Stall, StallKind, StallWatch};
pub use tracing::{
    Attachment, BpfLink, BpfObjects, BpfProgram, DynamicEvent, DynamicKind, EnableState, Event,
    HeldBy, Holder, Instance, KernelProbe, KernelProbeKind, KernelProbes, Owner, OwnerKind,
    PerfUse, Tracefs, Tracing,
};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Reading, bounded};

/// The latest `CLOCK_BOOTTIME` that a recording may have, ns: 36 years after the boot.
pub(crate) const LATEST_NS: u64 = 1 << 60;
/// The latest time of day, ns since 1970: what the kernel's `ktime_t` holds, the year 2262.
pub(crate) const LATEST_WALL_NS: u64 = i64::MAX as u64;

/// One moment of one host. Buffers are reused from tick to tick: fill, do not replace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `CLOCK_BOOTTIME`, ns: orders samples and divides differences.
    pub at_ns: u64,
    /// `CLOCK_REALTIME`, ns since 1970: for people.
    pub wall_ns: u64,
    /// Load, pressure and memory of the whole host.
    pub system: System,
    /// Where the per-CPU softirq figures come from.
    pub cores: Cores,
    /// Every present CPU, ascending by number.
    #[serde(deserialize_with = "bounded::cpus")]
    pub cpus: Vec<CpuSample>,
    /// How stalls are watched; the stalls themselves are frames of their own.
    #[serde(default = "Reading::not_recorded")]
    pub stalls: Reading<StallWatch>,
    /// What waits for the kernel's locks; shared until the next window is there.
    #[serde(default = "Reading::not_recorded")]
    pub locks: Reading<Arc<Locks>>,
    /// What probes cost; shared until the next window is there, and only while wanted.
    #[serde(default = "Reading::not_recorded")]
    pub costs: Reading<Arc<Costs>>,
    /// What is switched on in the kernel's tracing machinery; shared while unchanged.
    pub tracing: Arc<Tracing>,
    /// Memory cgroups; shared while unchanged, as it is swept in the background.
    pub cgroups: Reading<Arc<Cgroups>>,
    /// What stalltop itself costs.
    #[serde(rename = "self")]
    pub own: OwnCost,
}

impl Sample {
    /// Brings what a recording says into the bounds of what can have been measured: it may have
    /// been written by anybody, and figures without sense would mislead who looks at them. Lists
    /// are bounded as they are read.
    pub(crate) fn bound(&mut self) {
        self.at_ns = self.at_ns.min(LATEST_NS);
        self.wall_ns = self.wall_ns.min(LATEST_WALL_NS);
        if let Reading::Value(costs) = &mut self.costs {
            Arc::make_mut(costs).bound();
        }
    }
}
