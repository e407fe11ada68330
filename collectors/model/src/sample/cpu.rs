//! Per-CPU figures: softirqs, hardirqs, ksoftirqd, packets, time.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Hist, Reading, Reason};

/// Number of softirq vectors (include/linux/interrupt.h, unchanged since 2.6.31).
pub const SOFTIRQS: usize = 10;

/// A softirq vector, numbered as in include/linux/interrupt.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum Vector {
    /// High-priority tasklets.
    Hi = 0,
    /// Timers.
    Timer = 1,
    /// Network transmit.
    NetTx = 2,
    /// Network receive.
    NetRx = 3,
    /// Block layer completions.
    Block = 4,
    /// Interrupt polling of block devices.
    IrqPoll = 5,
    /// Tasklets.
    Tasklet = 6,
    /// Scheduler load balancing.
    Sched = 7,
    /// High-resolution timers that expire in softirq context.
    Hrtimer = 8,
    /// Read-copy-update callbacks.
    Rcu = 9,
}

impl Vector {
    /// All vectors, by number.
    pub const ALL: [Self; SOFTIRQS] = [
        Self::Hi,
        Self::Timer,
        Self::NetTx,
        Self::NetRx,
        Self::Block,
        Self::IrqPoll,
        Self::Tasklet,
        Self::Sched,
        Self::Hrtimer,
        Self::Rcu,
    ];

    /// The kernel's name (`softirq_to_name`, kernel/softirq.c).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hi => "HI",
            Self::Timer => "TIMER",
            Self::NetTx => "NET_TX",
            Self::NetRx => "NET_RX",
            Self::Block => "BLOCK",
            Self::IrqPoll => "IRQ_POLL",
            Self::Tasklet => "TASKLET",
            Self::Sched => "SCHED",
            Self::Hrtimer => "HRTIMER",
            Self::Rcu => "RCU",
        }
    }

    /// The vector of a kernel name; `BLOCK_IOPOLL` is what `IRQ_POLL` was before 4.5.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "BLOCK_IOPOLL" {
            return Some(Self::IrqPoll);
        }
        Self::ALL.into_iter().find(|v| v.as_str() == name)
    }
}

/// Where the softirq figures come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// The source in use.
    pub source: CoresSource,
    /// Whether eBPF measures; if not, why not (the source then is `/proc`).
    #[serde(with = "crate::reason::works")]
    pub bpf: Reading<()>,
    /// When counting began (`CLOCK_BOOTTIME`, ns); 0 for boot.
    pub since_ns: u64,
    /// Context switches of all CPUs since boot (`/proc/stat`, `ctxt`).
    #[serde(default = "Reading::not_recorded")]
    pub switches: Reading<u64>,
}

/// Sources of softirq figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoresSource {
    /// eBPF: counts, times, delays and histograms since attach.
    Bpf,
    /// `/proc/softirqs`, `/proc/stat`, ksoftirqd's `schedstat`: counts since boot, no delays.
    #[default]
    Proc,
}

/// One CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuSample {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online; an offline CPU keeps its counters.
    pub online: bool,
    /// Per vector, cumulative.
    #[serde(with = "by_name")]
    pub softirqs: [Softirq; SOFTIRQS],
    /// Hard interrupts, cumulative.
    pub hardirq: Hardirq,
    /// `ksoftirqd/N`, cumulative.
    pub ksoftirqd: Reading<Ksoftirqd>,
    /// `/proc/net/softnet_stat`, cumulative.
    pub softnet: Reading<Softnet>,
    /// `/proc/stat`, cumulative.
    pub times: Reading<CpuTimes>,
    /// How long tasks waited for this CPU, cumulative.
    #[serde(default = "Reading::not_recorded")]
    pub run_delay: Reading<RunDelay>,
}

/// One softirq vector on one CPU, cumulative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Softirq {
    /// How often the handler ran.
    pub count: u64,
    /// Times and delays: eBPF only.
    pub timing: Reading<SoftirqTiming>,
}

/// Times of one softirq vector on one CPU, cumulative since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftirqTiming {
    /// Total time in the handler, ns.
    pub time_ns: u64,
    /// Longest run of the handler since attach, ns.
    pub max_ns: u64,
    /// Longest run that ended in this tick, ns.
    pub tick_max_ns: u64,
    /// Entries whose raise was seen.
    pub delay_count: u64,
    /// Total time from the first raise to entry, ns.
    pub delay_ns: u64,
    /// Longest raise-to-entry delay since attach, ns.
    pub delay_max_ns: u64,
    /// Longest raise-to-entry delay that ended in this tick, ns.
    pub tick_delay_max_ns: u64,
    /// Time in the handler.
    pub service: Hist,
    /// Raise-to-entry delay.
    pub delay: Hist,
}

/// Hard interrupts of one CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardirq {
    /// Handlers run (`irq:irq_handler_entry`; without eBPF the `intr`-like sum of
    /// `/proc/interrupts`). With eBPF, timers and inter-processor interrupts are not in it:
    /// they do not pass through `irq_handler_entry`.
    pub count: Reading<u64>,
    /// Time in the handlers, ns (same limits).
    pub time_ns: Reading<u64>,
}

/// `ksoftirqd/N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ksoftirqd {
    /// Process id.
    pub pid: u32,
    /// Time on the CPU, ns.
    pub run_ns: u64,
    /// Times it was switched in.
    pub runs: u64,
    /// Time runnable but not running (run-queue delay), ns.
    pub wait_ns: u64,
}

/// Run-queue delay of one CPU since attach: from becoming runnable, by a wakeup or by being
/// preempted, to running (`sched_info.last_queued`, kernel/sched/stats.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDelay {
    /// Tasks that got the CPU after a wait.
    pub count: u64,
    /// Sum of their waits, ns.
    pub delay_ns: u64,
    /// Longest wait that ended in this tick, ns.
    pub tick_max_ns: u64,
}

/// One line of `/proc/net/softnet_stat` (net/core/net-procfs.c, `softnet_seq_show`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softnet {
    /// Packets processed.
    pub processed: u64,
    /// Packets dropped because the backlog was full.
    pub dropped: u64,
    /// Times that NET_RX stopped with work left (budget or time).
    pub time_squeeze: u64,
    /// Packets waiting now (5.10+; absent before, then 0 with `backlog_known` false).
    pub backlog: u64,
    /// Whether this kernel prints the backlog.
    pub backlog_known: bool,
}

/// One `cpuN` line of `/proc/stat`, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// User mode.
    pub user_ns: u64,
    /// User mode, niced.
    pub nice_ns: u64,
    /// Kernel mode.
    pub system_ns: u64,
    /// Idle.
    pub idle_ns: u64,
    /// Idle with I/O outstanding.
    pub iowait_ns: u64,
    /// Hard interrupts.
    pub irq_ns: u64,
    /// Softirqs.
    pub softirq_ns: u64,
    /// Taken by the hypervisor.
    pub steal_ns: u64,
}

/// The JSON form: flat, with every unmeasured field an `off` of its own.
#[derive(Serialize, Deserialize)]
struct Flat {
    count: u64,
    time_ns: Reading<u64>,
    max_ns: Reading<u64>,
    tick_max_ns: Reading<u64>,
    delay_count: Reading<u64>,
    delay_ns: Reading<u64>,
    delay_max_ns: Reading<u64>,
    tick_delay_max_ns: Reading<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<Hist>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<Hist>,
}

impl Serialize for Softirq {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let field = |f: fn(&SoftirqTiming) -> u64| match &self.timing {
            Reading::Value(t) => Reading::Value(f(t)),
            Reading::Off(reason) => Reading::Off(reason.clone()),
        };
        Flat {
            count: self.count,
            time_ns: field(|t| t.time_ns),
            max_ns: field(|t| t.max_ns),
            tick_max_ns: field(|t| t.tick_max_ns),
            delay_count: field(|t| t.delay_count),
            delay_ns: field(|t| t.delay_ns),
            delay_max_ns: field(|t| t.delay_max_ns),
            tick_delay_max_ns: field(|t| t.tick_delay_max_ns),
            service: self.timing.value().map(|t| t.service),
            delay: self.timing.value().map(|t| t.delay),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Softirq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Flat::deserialize(deserializer)?;
        let timing = || -> Result<SoftirqTiming, Reason> {
            let get = |r: &Reading<u64>| r.as_ref().copied().map_err(Clone::clone);
            Ok(SoftirqTiming {
                time_ns: get(&flat.time_ns)?,
                max_ns: get(&flat.max_ns)?,
                tick_max_ns: get(&flat.tick_max_ns)?,
                delay_count: get(&flat.delay_count)?,
                delay_ns: get(&flat.delay_ns)?,
                delay_max_ns: get(&flat.delay_max_ns)?,
                tick_delay_max_ns: get(&flat.tick_delay_max_ns)?,
                service: flat.service.unwrap_or_default(),
                delay: flat.delay.unwrap_or_default(),
            })
        };
        Ok(Self {
            count: flat.count,
            timing: timing().into(),
        })
    }
}

/// Vectors as an object keyed by the kernel's names.
mod by_name {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        softirqs: &[Softirq; SOFTIRQS],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SOFTIRQS))?;
        for (vector, softirq) in Vector::ALL.iter().zip(softirqs) {
            map.serialize_entry(vector.as_str(), softirq)?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[Softirq; SOFTIRQS], D::Error> {
        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = [Softirq; SOFTIRQS];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of softirq vectors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out: [Softirq; SOFTIRQS] = std::array::from_fn(|_| Softirq {
                    count: 0,
                    timing: Reading::Off(Reason::NotRecorded),
                });
                let mut seen = 0;
                while let Some(name) = map.next_key::<String>()? {
                    match Vector::from_name(&name) {
                        Some(vector) => {
                            out[vector as usize] = map.next_value()?;
                            seen += 1;
                        }
                        // A vector newer than this stalltop.
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                if seen == 0 {
                    return Err(A::Error::custom("no known softirq vector"));
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(ByName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_cpu_comes_back() {
        let mut cpu = CpuSample {
            cpu: 3,
            online: true,
            ..CpuSample::default()
        };
        cpu.softirqs[Vector::NetRx as usize] = Softirq {
            count: 12,
            timing: Reading::Value(SoftirqTiming {
                time_ns: 99,
                max_ns: 50,
                ..Default::default()
            }),
        };
        let text = serde_json::to_string(&cpu).unwrap();
        assert!(
            text.contains(r#""NET_RX":{"count":12,"time_ns":99,"max_ns":50"#),
            "{text}"
        );
        assert!(text.contains(r#""HI":{"count":0,"time_ns":{"off":{"reason":"starting""#));
        assert_eq!(serde_json::from_str::<CpuSample>(&text).unwrap(), cpu);
    }
}
