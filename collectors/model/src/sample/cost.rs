//! What probes cost.
//!
//! Every share is of one CPU: 1.0 is one CPU kept busy. What was extrapolated from short windows
//! carries its deviation; what was worked out from figures of another machine is an estimate and
//! named so.

use serde::{Deserialize, Serialize};

use crate::{Name, Reading, bounded};

/// What the probes of this host cost, by the newest windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// When the newest window ended (`CLOCK_BOOTTIME`, ns).
    pub at_ns: u64,
    /// How run time was measured, or why it was not.
    pub method: Reading<CostMethod>,
    /// BPF programs, ours included, ascending by id.
    #[serde(deserialize_with = "bounded::first_some")]
    pub programs: Vec<ProgramCost>,
    /// Maps that the programs use, ascending by id.
    #[serde(deserialize_with = "bounded::first_some")]
    pub maps: Vec<BpfMap>,
    /// Maps that are used as well but were too many to list.
    #[serde(default)]
    pub maps_left_out: u64,
    /// Dynamic events that are not BPF, by their group and name.
    #[serde(deserialize_with = "bounded::first_some")]
    pub dynamic: Vec<DynamicCost>,
    /// ftrace instances, the top level's name empty.
    #[serde(deserialize_with = "bounded::first_some")]
    pub instances: Vec<InstanceCost>,
    /// What an estimate takes for one hit of each kind, ns, and where that is from.
    #[serde(deserialize_with = "bounded::first_some")]
    pub per_hit: Vec<PerHit>,
}

impl Costs {
    /// What a program costs, by its id.
    pub fn program(&self, id: u32) -> Option<&ProgramCost> {
        let at = self.programs.binary_search_by_key(&id, |p| p.id).ok()?;
        self.programs.get(at)
    }

    /// A map, by its id.
    pub fn map(&self, id: u32) -> Option<&BpfMap> {
        let at = self.maps.binary_search_by_key(&id, |m| m.id).ok()?;
        self.maps.get(at)
    }
}

/// How the kernel's run-time statistics were had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum CostMethod {
    /// Switched on by us for short windows (`BPF_ENABLE_STATS`): figures are extrapolated.
    Windows {
        /// Windows so far.
        windows: u32,
        /// How long each was, ns.
        window_ns: u64,
        /// The part of the time that they take, 0 to 1.
        duty: f64,
    },
    /// `kernel.bpf_stats_enabled` was on already, by somebody else.
    Sysctl,
}

/// What one BPF program costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// The kernel's id of the program.
    pub id: u32,
    /// Windows in which it was looked at.
    pub windows: u32,
    /// Runs a second.
    pub runs_per_s: f64,
    /// Standard deviation of that over the windows; bursty loads make it large. One window has
    /// none.
    pub runs_deviation: Reading<f64>,
    /// Time of a run, ns, while statistics were on; why not, where it did not run.
    pub ns_per_run: Reading<f64>,
    /// Standard deviation of that over the windows, ns; of one window there is none.
    pub ns_deviation: Reading<f64>,
    /// Share of one CPU: runs times time.
    pub share: f64,
    /// Runs that the kernel left out a second, because the program ran already (`recursion_misses`).
    pub misses_per_s: Reading<f64>,
    /// Whether a run takes the longer the more CPUs are busy, as those that wait for each other do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
}

/// A program's time per run with few and with many CPUs busy. Stated only where the difference
/// stands out from what the windows differ by among themselves.
///
/// Why CPUs that are busy and not time spent in the program: that time is runs times time per
/// run, so it would grow with every run that takes longer, whatever the reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// CPUs of the host that were busy in the quieter windows (`/proc/stat`).
    pub few_cpus: f64,
    /// Time per run then, ns.
    pub few_ns: f64,
    /// CPUs busy in the busier windows.
    pub many_cpus: f64,
    /// Time per run then, ns.
    pub many_ns: f64,
}

/// A map of BPF programs (`bpf_map_info`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BpfMap {
    /// The kernel's id.
    pub id: u32,
    /// Type, as bpftool names it.
    pub kind: Name,
    /// Name, cut to 15 characters by the kernel.
    pub name: Name,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// How many entries it can hold.
    pub max_entries: u32,
    /// Ids of the programs that use it.
    #[serde(deserialize_with = "bounded::first_some")]
    pub programs: Vec<u32>,
    /// Whether programs that write to it can make CPUs wait for each other: hash maps (per bucket,
    /// and for free entries), LRU lists, tries, queues, and ring buffers (kernel/bpf/).
    pub contends: bool,
}

/// What a dynamic event that is no BPF program costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicCost {
    /// Its group.
    pub group: Name,
    /// Its name.
    pub name: Name,
    /// Hits a second (`kprobe_profile`, `uprobe_profile`).
    pub hits_per_s: Reading<f64>,
    /// Misses a second.
    pub misses_per_s: Reading<f64>,
    /// Estimated share of one CPU.
    pub share: Reading<f64>,
}

/// What an ftrace instance's events cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceCost {
    /// Its name; empty for the top level.
    pub name: Name,
    /// Events written to its buffer a second (`per_cpu/*/stats`). What a filter throws away costs
    /// as well and is not in it.
    pub events_per_s: Reading<f64>,
    /// Of these, how many a second nobody will read: overwritten, or found no room
    /// (`overrun`, `dropped events`).
    #[serde(default = "Reading::not_recorded")]
    pub lost_per_s: Reading<f64>,
    /// Estimated share of one CPU.
    pub share: Reading<f64>,
}

/// What an estimate takes for one hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerHit {
    /// `kprobe`, `kretprobe`, `uprobe`, `ftrace event`, ...
    pub kind: Name,
    /// Time of one hit, ns.
    pub ns: f64,
    /// Where the figure is from: `measured here`, `measured on 6.1, emulated`, ...
    pub from: Name,
}

/// A program keeps no more CPUs busy than a kernel can have, by far.
const MOST_CPUS: f64 = 16_384.0;
/// The largest rate, and the longest time in ns, that can have been measured: a day.
const LARGEST: f64 = 8.64e13;

/// A figure that can have been measured; what cannot be is none.
fn figure(value: &mut f64) {
    *value = if value.is_finite() {
        value.clamp(0.0, LARGEST)
    } else {
        0.0
    };
}

fn reading(value: &mut Reading<f64>) {
    if let Reading::Value(value) = value {
        figure(value);
    }
}

impl Costs {
    /// Brings figures into the bounds of what can have been measured.
    pub(super) fn bound(&mut self) {
        if let Reading::Value(CostMethod::Windows { duty, .. }) = &mut self.method {
            figure(duty);
            *duty = duty.min(1.0);
        }
        for program in &mut self.programs {
            let figures = [&mut program.runs_per_s, &mut program.share];
            figures.into_iter().for_each(figure);
            let readings = [
                &mut program.runs_deviation,
                &mut program.ns_per_run,
                &mut program.ns_deviation,
                &mut program.misses_per_s,
            ];
            readings.into_iter().for_each(reading);
            program.share = program.share.min(MOST_CPUS);
            if let Some(growth) = &mut program.growth {
                let figures = [
                    &mut growth.few_cpus,
                    &mut growth.few_ns,
                    &mut growth.many_cpus,
                    &mut growth.many_ns,
                ];
                figures.into_iter().for_each(figure);
            }
        }
        for event in &mut self.dynamic {
            let readings = [
                &mut event.hits_per_s,
                &mut event.misses_per_s,
                &mut event.share,
            ];
            readings.into_iter().for_each(reading);
        }
        for instance in &mut self.instances {
            let readings = [
                &mut instance.events_per_s,
                &mut instance.lost_per_s,
                &mut instance.share,
            ];
            readings.into_iter().for_each(reading);
        }
        self.per_hit.iter_mut().for_each(|hit| figure(&mut hit.ns));
    }
}
