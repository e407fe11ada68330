//! Facts and whole-host figures.

use serde::{Deserialize, Serialize};

use crate::{Name, Reading, bounded};

/// What does not change while the host is up (but for hotplug, which samples show).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -n`.
    pub hostname: Name,
    /// `uname -r`.
    pub release: Name,
    /// `uname -m`.
    pub machine: Name,
    /// CPUs that could ever be present (`/sys/devices/system/cpu/possible`).
    pub possible_cpus: u32,
    /// Topology of each present CPU, ascending.
    #[serde(deserialize_with = "bounded::cpus")]
    pub topology: Vec<CpuTopology>,
    /// How the kernel preempts itself: decides which stalls can occur.
    pub preemption: Reading<Preemption>,
    /// Timer interrupts per second (`CONFIG_HZ`).
    pub hz: Reading<u32>,
    /// CPUs without a periodic tick (`/sys/devices/system/cpu/nohz_full`), as the kernel lists them.
    pub nohz_full: Reading<Name>,
    /// kernel_lockdown(7).
    pub lockdown: Reading<Lockdown>,
    /// Whether `/proc/cpuinfo` has the `hypervisor` flag or its equivalent.
    pub virtual_machine: Reading<bool>,
}

/// Where a CPU sits (`/sys/devices/system/cpu/cpuN/topology`, `cache`, `node*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTopology {
    /// The CPU's number.
    pub cpu: u32,
    /// `core_id`, unique only within its package.
    pub core: u32,
    /// Last-level cache: the lowest CPU number that shares it.
    pub llc: u32,
    /// `physical_package_id`.
    pub package: u32,
    /// NUMA node.
    pub node: u32,
}

/// Preemption model (`/sys/kernel/debug/sched/preempt`, `uname -v`, `CONFIG_PREEMPT*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preemption {
    /// The kernel runs until it sleeps.
    None,
    /// Preempts at `cond_resched()` points.
    Voluntary,
    /// Preempts anywhere but in critical sections.
    Full,
    /// Full for real-time tasks, at the tick for others (6.13+).
    Lazy,
    /// PREEMPT_RT.
    Rt,
    /// Chosen at boot (`PREEMPT_DYNAMIC`), and the kernel does not let us read which.
    Dynamic,
}

/// kernel_lockdown(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Off.
    None,
    /// User space may not change the running kernel.
    Integrity,
    /// User space may not read the kernel's memory either.
    Confidentiality,
}

/// Whole-host figures that change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Since boot, ns (`/proc/uptime`).
    pub uptime_ns: Reading<u64>,
    /// Load averages over 1, 5 and 15 minutes (`/proc/loadavg`).
    pub load: Reading<[f32; 3]>,
    /// Runnable and total scheduling entities (`/proc/loadavg`).
    pub tasks: Reading<[u32; 2]>,
    /// `MemTotal`, bytes.
    pub memory_total: Reading<u64>,
    /// `MemAvailable`, bytes.
    pub memory_available: Reading<u64>,
    /// Pressure stall information (Documentation/accounting/psi.rst).
    pub pressure: Pressure,
}

/// `/proc/pressure/*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// `/proc/pressure/cpu`, `some`.
    pub cpu: Reading<PressureLine>,
    /// `/proc/pressure/memory`, `some`.
    pub memory: Reading<PressureLine>,
    /// `/proc/pressure/io`, `some`.
    pub io: Reading<PressureLine>,
    /// `/proc/pressure/irq`, `full` (6.1+).
    pub irq: Reading<PressureLine>,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureLine {
    /// Share of the last 10 s in which tasks waited, percent.
    pub avg10: f32,
    /// Share of the last 60 s, percent.
    pub avg60: f32,
    /// Total time waited since boot, us.
    pub total_us: u64,
}
