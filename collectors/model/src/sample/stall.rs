//! Stalls: who held a CPU, for how long, and what it was doing.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{LATEST_NS, LATEST_WALL_NS, Owner, Vector};
use crate::name::printable;
use crate::{Name, Reading, bounded};

/// Kinds of stalls.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum StallKind {
    /// A softirq vector was pending too long: from its raise to its entry.
    #[default]
    SoftirqPending,
    /// A softirq handler ran long: from its entry to its exit.
    SoftirqHandler,
    /// ksoftirqd was runnable but did not run, while one of its vectors was pending.
    KsoftirqdWaiting,
    /// Interrupts were off: the tick or a sample came late.
    InterruptsOff,
    /// A task did not leave the CPU although a reschedule was requested.
    NoReschedule,
    /// A task was runnable but did not run, while real-time tasks of higher priority kept its CPU.
    RealTime,
}

impl StallKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::SoftirqPending,
        Self::SoftirqHandler,
        Self::KsoftirqdWaiting,
        Self::InterruptsOff,
        Self::NoReschedule,
        Self::RealTime,
    ];

    /// A short name for a column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoftirqPending => "pending",
            Self::SoftirqHandler => "handler",
            Self::KsoftirqdWaiting => "ksoftirqd",
            Self::InterruptsOff => "irqs off",
            Self::NoReschedule => "no resched",
            Self::RealTime => "real-time",
        }
    }
}

/// Whether the CPU was paused from outside rather than held from within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// The kernel on this CPU was held.
    #[default]
    Held,
    /// The hypervisor paused the virtual CPU.
    Paused,
    /// One or the other: nothing tells which.
    Either,
}

/// How the window was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// The scheduler's tick alone, which always looks.
    #[default]
    Tick,
    /// The 1 kHz sampler was on.
    Clock,
    /// The 1 kHz sampler was on, from a non-maskable interrupt of a hardware counter.
    Nmi,
}

/// One stall, whole, at the moment it was understood. Never changed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Its number since stalltop's start, from 1 on.
    pub id: u64,
    /// `CLOCK_BOOTTIME` of its end, ns.
    pub at_ns: u64,
    /// `CLOCK_REALTIME` of its end, ns since 1970.
    pub wall_ns: u64,
    /// The CPU.
    pub cpu: u32,
    /// Its kind.
    pub kind: StallKind,
    /// Whether it was the kernel or the hypervisor.
    pub pause: Pause,
    /// The softirq vector that waited or ran; none for the kinds without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    /// How long it took, ns: the best estimate.
    pub delay_ns: u64,
    /// The shortest it can have been, ns.
    pub least_ns: u64,
    /// The longest it can have been, ns.
    pub most_ns: u64,
    /// Who held the CPU for most of it.
    pub culprit: Reading<Culprit>,
    /// How it was looked at.
    pub sampling: Sampling,
    /// What was seen, oldest first. Also a little of what was before and after.
    #[serde(deserialize_with = "bounded::some")]
    pub timeline: Vec<Seen>,
    /// The distinct stacks that `timeline` refers to, innermost function first.
    #[serde(deserialize_with = "bounded::some")]
    pub stacks: Vec<Vec<Name>>,
    /// Samples that should be in the window but were lost (overwritten, or not taken).
    pub lost: u32,
    /// Who emptied the backlog afterwards: for [`StallKind::SoftirqPending`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
    /// The task that got the CPU at last: for [`StallKind::NoReschedule`] and
    /// [`StallKind::RealTime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<Name>,
    /// Other CPUs that stalled at the same time for the same reason; this is the row that
    /// names the holder, and theirs are merged into it.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::cpus"
    )]
    pub victims: Vec<u32>,
    /// Whether stalltop itself held the CPU.
    #[serde(default)]
    pub ours: bool,
}

impl Stall {
    /// Brings times into the bounds of what can have been measured.
    pub(crate) fn bound(&mut self) {
        self.at_ns = self.at_ns.min(LATEST_NS);
        self.wall_ns = self.wall_ns.min(LATEST_WALL_NS);
        let delays = [&mut self.delay_ns, &mut self.least_ns, &mut self.most_ns];
        delays.into_iter().for_each(|ns| *ns = (*ns).min(LATEST_NS));
    }
}

/// Who held a CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Thread id; 0 where a softirq vector held the CPU.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// The thread's comm; of a vector, its name.
    pub comm: Name,
    /// The vector, where time inside a softirq is what held the CPU: it belongs to the
    /// vector and not to the task that it interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    /// How it was scheduled: of a real-time task, for [`StallKind::RealTime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sched: Option<Sched>,
    /// Its share of the window, 0 to 1.
    pub share: f32,
    /// Samples that say so, of all samples in the window.
    pub samples: (u32, u32),
    /// Unit, container or pod.
    pub owner: Reading<Owner>,
    /// cgroup path.
    pub cgroup: Reading<Name>,
    /// The system call it was in, as in `read`; none in user space or in kernel threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Name>,
    /// The kernel function at the top of the operation: `memory_stat_show`.
    pub function: Reading<Name>,
    /// The lock function, if it waited for or held one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Name>,
    /// Whether interrupts were off and a lock is only suspected: the sample was taken just
    /// as they reopened.
    #[serde(default)]
    pub lock_suspected: bool,
    /// The file it read: best effort, from its descriptors, after the fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Name>,
    /// Its user stack after the fact, innermost first, or why there is none.
    #[serde(deserialize_with = "bounded::measured_some")]
    pub user_stack: Reading<Vec<Name>>,
}

/// How a task is scheduled (sched(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sched {
    /// `SCHED_FIFO`, `SCHED_RR`, `SCHED_DEADLINE`; another one where the task has its priority from
    /// one that waits for it (priority inheritance).
    pub policy: Name,
    /// Its real-time priority, 1 to 99, as chrt(1) has it; none for `SCHED_DEADLINE`, which goes
    /// before all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

impl fmt::Display for Sched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.policy))?;
        match self.priority {
            Some(priority) => write!(f, " {priority}"),
            None => Ok(()),
        }
    }
}

/// One sample of a stall's timeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When, ns from the stall's start; negative before it.
    pub offset_ns: i64,
    /// How much of the window it stands for, ns; 0 outside the window.
    pub weight_ns: u64,
    /// Thread id.
    pub pid: u32,
    /// Its comm.
    pub comm: Name,
    /// The softirq vector that ran instead of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    /// Whether it was in user space.
    #[serde(default)]
    pub user: bool,
    /// Which of the stall's stacks; none where no stack was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<u32>,
}

/// Who emptied a backlog.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Thread id of the task in whose context it was.
    pub pid: u32,
    /// Its comm: `ksoftirqd/11`, or whom the softirq interrupted.
    pub comm: Name,
    /// How long the handler ran, ns; why not known, where it did not end.
    pub time_ns: Reading<u64>,
}

/// How stalls are watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StallWatch {
    /// From when on each kind is a stall, ns, in the order of [`StallKind::ALL`];
    /// or why that kind is not watched on this host.
    #[serde(deserialize_with = "kinds")]
    pub kinds: [Reading<u64>; StallKind::ALL.len()],
    /// Where the thresholds come from: `--stall`, or the default for this machine.
    pub chosen: Name,
    /// Between two ticks of the scheduler, ns (`CONFIG_HZ`).
    pub tick_ns: u64,
    /// CPUs on which the 1 kHz sampler is on now.
    #[serde(deserialize_with = "bounded::cpus")]
    pub sampling: Vec<u32>,
    /// Whether the sampler can see inside interrupts-off sections.
    pub nmi: bool,
    /// Stalls told since the start, paused ones and our own included.
    pub told: u64,
    /// Of these, virtual CPUs that were paused.
    pub paused: u64,
    /// Of these, caused by stalltop.
    pub ours: u64,
    /// Events of which nothing is told: the ring buffer or a queue was full, or more came than
    /// stalltop lets itself look into (200 a second, and 5 % of one CPU): then the longest are told.
    pub lost: u64,
    /// Whether kernel addresses can be named, or why not.
    #[serde(with = "crate::reason::works")]
    pub symbols: Reading<()>,
}

/// The thresholds of all kinds; a recording from before a kind was known lacks the last ones.
fn kinds<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<[Reading<u64>; StallKind::ALL.len()], D::Error> {
    let mut known = Vec::<Reading<u64>>::deserialize(from)?.into_iter();
    let kinds = std::array::from_fn(|_| known.next().unwrap_or_else(Reading::not_recorded));
    Ok(kinds)
}
