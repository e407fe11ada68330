//! What waits for the kernel's own locks.
//!
//! Figures are of *windows*: stretches of time that follow each other without a gap, so that any
//! stretch is the sum of its windows. Waits come from the tracepoints `lock:contention_begin` and
//! `lock:contention_end` (5.19+, kernel/locking/); where those see nothing, the share of the CPUs'
//! samples that were inside a lock's slow path stands in their place, and is named so.

use serde::{Deserialize, Serialize};

use crate::{Name, Reading, Reason, bounded};

/// Kinds of locks, as the flags of `contention_begin` tell them (include/trace/events/lock.h).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// A queued spinlock (`LCB_F_SPIN` alone).
    #[default]
    Spin,
    /// A rwlock, taken to read.
    RwlockRead,
    /// A rwlock, taken to write.
    RwlockWrite,
    /// A mutex; its optimistic spinning included.
    Mutex,
    /// A rw_semaphore, taken to read.
    RwsemRead,
    /// A rw_semaphore, taken to write.
    RwsemWrite,
    /// An rt_mutex.
    RtMutex,
    /// A percpu-rwsem, taken to read.
    PercpuRwsemRead,
    /// A percpu-rwsem, taken to write.
    PercpuRwsemWrite,
    /// Any other: a semaphore, or something newer than stalltop.
    Other,
}

impl LockKind {
    /// How many kinds there are.
    pub const COUNT: usize = 10;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Spin,
        Self::RwlockRead,
        Self::RwlockWrite,
        Self::Mutex,
        Self::RwsemRead,
        Self::RwsemWrite,
        Self::RtMutex,
        Self::PercpuRwsemRead,
        Self::PercpuRwsemWrite,
        Self::Other,
    ];

    /// A short name for a column, as `perf lock contention` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spin => "spinlock",
            Self::RwlockRead => "rwlock:R",
            Self::RwlockWrite => "rwlock:W",
            Self::Mutex => "mutex",
            Self::RwsemRead => "rwsem:R",
            Self::RwsemWrite => "rwsem:W",
            Self::RtMutex => "rt_mutex",
            Self::PercpuRwsemRead => "pcpu-sem:R",
            Self::PercpuRwsemWrite => "pcpu-sem:W",
            Self::Other => "other",
        }
    }

    /// Whether a waiter burns its CPU.
    pub const fn spins(self) -> bool {
        matches!(self, Self::Spin | Self::RwlockRead | Self::RwlockWrite)
    }
}

/// Contention of the kernel's locks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Locks {
    /// What is watched, and what cannot be seen on this host.
    pub watch: LockWatch,
    /// Number of this window since stalltop's start, from 1 on: samples share a window until the
    /// next one is there.
    pub window: u64,
    /// Its end (`CLOCK_BOOTTIME`, ns).
    pub at_ns: u64,
    /// Its length, ns.
    pub span_ns: u64,
    /// For how much of it the tracepoints were watched, ns: what rates are divided by. 0 where
    /// they were not.
    pub measured_ns: u64,
    /// Exact: every wait that ended in the window, by kind; kinds without a wait are left out.
    #[serde(deserialize_with = "bounded::frames")]
    pub kinds: Vec<LockWaits>,
    /// Exact, by lock and kind: the longest waits first; what is left out is in `rest`.
    #[serde(deserialize_with = "bounded::rows")]
    pub locks: Vec<Lock>,
    /// Waits of locks that are not listed: too many at once, or for the kernel's table of them.
    pub rest: Waits,
    /// By CPU on which the wait ended, which for what spins is that on which it began; CPUs
    /// without a wait are left out.
    #[serde(deserialize_with = "bounded::cpus")]
    pub cpus: Vec<(u32, Waits)>,
    /// By call stack and waiter: the longest waits first.
    #[serde(deserialize_with = "bounded::rows")]
    pub stacks: Vec<LockStack>,
    /// Waits that last, by lock: at the end of the window, in kinds that sleep. The longest first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::rows"
    )]
    pub lasting: Vec<Lasting>,
    /// What of the waits the stacks do not show: of short waits every n-th alone has one.
    pub unseen: Waits,
    /// The share of samples in lock slow paths: independent of the tracepoints.
    #[serde(default = "Reading::not_recorded")]
    pub share: Reading<LockShare>,
}

/// Waits, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// How many ended.
    pub count: u64,
    /// Their time together, ns.
    pub wait_ns: u64,
    /// The longest, ns.
    pub longest_ns: u64,
}

impl Waits {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

/// Waits for locks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockWaits {
    /// The kind.
    pub kind: LockKind,
    /// Exact.
    pub waits: Waits,
    /// By duration: bucket `i` counts waits in `[2^i, 2^(i+1))` ns; zeros at the end are left out.
    #[serde(deserialize_with = "bounded::frames")]
    pub hist: Vec<u64>,
}

/// Waits for one lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// Its kind and, for those, the way it was taken.
    pub kind: LockKind,
    /// Its address in the kernel; 0 where addresses are hidden.
    pub address: u64,
    /// Its symbol, for a static lock where kallsyms has data symbols; or what it can be called by
    /// its callers (`of epoll_wait`); or why it has no name.
    pub name: Reading<Name>,
    /// Exact.
    pub waits: Waits,
}

/// Waits with one call stack, of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockStack {
    /// What kind of lock.
    pub kind: LockKind,
    /// Address of the lock, as in [`Lock::address`]; 0 where stacks of several were merged.
    pub lock: u64,
    /// The lock's name, as in [`Lock::name`].
    pub name: Reading<Name>,
    /// Functions, innermost first. Those of BPF programs are `bpf_prog_<tag>_<name> [bpf]`.
    #[serde(deserialize_with = "bounded::frames")]
    pub frames: Vec<Name>,
    /// Ids of the BPF programs in the stack, found by the addresses of their machine code,
    /// innermost first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::frames"
    )]
    pub programs: Vec<u32>,
    /// Process id of the waiters.
    pub tgid: u32,
    /// Comm of a waiter.
    pub comm: Name,
    /// Waits that this stack stands for: the long ones exactly, and the share of the short ones
    /// that its samples give it.
    pub waits: Waits,
    /// Of these, long ones, each of which was seen.
    pub long: Waits,
    /// Samples of short waits that it rests on; 0 where all were long and exact.
    pub sampled: u64,
    /// Who held the lock when a wait began, as often as that was seen: mutexes and rwsems only.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::frames"
    )]
    pub owners: Vec<LockOwner>,
}

/// Who held a lock while others waited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockOwner {
    /// Thread id.
    pub pid: u32,
    /// Its comm, looked up after the fact; empty where it was gone.
    pub comm: Name,
    /// Waits during which it was seen.
    pub count: u64,
    /// Its kernel stack after the fact (`/proc/PID/stack`), innermost first; empty where it ran,
    /// was gone or may not be seen.
    #[serde(deserialize_with = "bounded::frames")]
    pub frames: Vec<Name>,
}

/// Threads that wait for a lock and have not got it yet: no other figure has their wait until it
/// ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lasting {
    /// Its kind, and how it is to be taken by the one that waits longest.
    pub kind: LockKind,
    /// Its address, as in [`Lock::address`].
    pub address: u64,
    /// Its name, as in [`Lock::name`].
    pub name: Reading<Name>,
    /// How many threads wait for it, of those that have for a tenth of a second.
    pub threads: u32,
    /// Since when the first of them waits (`CLOCK_BOOTTIME`, ns).
    pub since_ns: u64,
    /// Thread id of that one.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its comm; empty where it was gone.
    pub comm: Name,
    /// Its kernel stack (`/proc/PID/stack`), innermost first; empty where it may not be seen.
    #[serde(deserialize_with = "bounded::frames")]
    pub frames: Vec<Name>,
    /// Who held the lock when that wait began: mutexes and rwsems only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<LockOwner>,
}

/// How contention is watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockWatch {
    /// How the tracepoints are watched, or why they are not.
    pub tracer: Reading<LockTracer>,
    /// Waits that the tracepoints do not show on this host; found by contending locks of our own
    /// where that is possible. Empty where all that is looked for shows.
    #[serde(deserialize_with = "bounded::measured_some")]
    pub hidden: Reading<Vec<Hidden>>,
    /// Waits whose beginning was seen and whose end was not, or the other way round.
    pub unpaired: u64,
    /// Waits that were counted by kind but found no place in the tables of locks or stacks.
    pub overflowed: u64,
    /// Runs that were left out because the program was running on that CPU already.
    pub missed: Reading<u64>,
    /// Whether threads that wait and threads that held a lock can be named, or why they cannot.
    #[serde(default, with = "crate::reason::works")]
    pub owners: Reading<()>,
    /// From when on a wait is long, so that its stack is always taken, ns.
    pub long_ns: u64,
    /// Of short waits every so many-th has its stack taken.
    pub every: u32,
    /// What our program spends on a wait, ns.
    pub ns_per_wait: Reading<u64>,
}

/// Waits that the tracepoints do not show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hidden {
    /// What, in a few words: `spinlocks`, `the first waiter of a spinlock`, `locks of BPF maps`.
    pub what: Name,
    /// The kinds that are hidden entirely; empty where only a part of them is.
    #[serde(deserialize_with = "bounded::frames")]
    pub kinds: Vec<LockKind>,
    /// Why, with what would mend it.
    pub why: Reason,
}

/// How the tracepoints are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockTracer {
    /// All the time.
    #[default]
    Always,
    /// In windows, as watching all the time would cost more than the budget: rates are
    /// those of the windows.
    Windows,
    /// Not now: nobody looks, and `--locks` says not to.
    Paused,
}

/// Samples inside lock slow paths, of all samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockShare {
    /// Where samples come from: `the scheduler's tick (250 Hz)`, `1 kHz cpu-clock`, `NMI`.
    pub source: Name,
    /// Whether the source sees inside interrupts-off sections.
    pub nmi: bool,
    /// Samples in the window, of CPUs that were not idle.
    pub samples: u64,
    /// Of these, in the kernel.
    pub kernel: u64,
    /// Of these, in a lock's slow path.
    pub in_lock: u64,
    /// Taken just as interrupts came back on from an unlock: interrupts were off, a lock is
    /// suspected. Never a part of `in_lock`.
    pub suspected: u64,
    /// By stack, the most samples first; bounded.
    #[serde(deserialize_with = "bounded::rows")]
    pub stacks: Vec<ShareStack>,
    /// By CPU: samples, of these in a lock's slow path, and suspected; only CPUs with either.
    #[serde(deserialize_with = "bounded::cpus")]
    pub cpus: Vec<(u32, u64, u64, u64)>,
}

/// One stack of samples in, or suspected behind, a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareStack {
    /// The lock function: `native_queued_spin_lock_slowpath`, `_raw_spin_unlock_irqrestore`.
    pub function: Name,
    /// Whether a lock is only suspected.
    pub suspected: bool,
    /// Functions, innermost first.
    #[serde(deserialize_with = "bounded::frames")]
    pub frames: Vec<Name>,
    /// Ids of the BPF programs in the stack, innermost first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::frames"
    )]
    pub programs: Vec<u32>,
    /// Process id of the task that was sampled.
    pub tgid: u32,
    /// Comm of the task that was sampled.
    pub comm: Name,
    /// How many samples.
    pub samples: u64,
}
