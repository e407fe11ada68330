//! The types that stalltop's eBPF programs and its user space share.
//!
//! Everything here is `repr(C)`, made of `u64` only, and has the same layout on both sides of the
//! kernel boundary: the offsets are asserted at compile time below, so a change that moves a field
//! fails both builds. Nothing in here is written by two CPUs: each possible CPU owns one [`Cpu`]
//! slot of the map `CPUS`, its programs write it, and user space writes only the words marked so.
//!
//! All times are nanoseconds of `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
#![no_std]

pub mod held;
pub mod lock;
pub mod stall;

use core::mem::{align_of, offset_of, size_of};

/// Softirq vectors of the kernel (`NR_SOFTIRQS`, include/linux/interrupt.h), in number order.
pub const SOFTIRQS: [&str; VECTORS] = [
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
];

/// How many softirq vectors there are; the same on every kernel from 5.10 to 6.18.
pub const VECTORS: usize = 10;

/// Buckets of a histogram: bucket `i` counts durations in `[2^i, 2^(i+1))` ns, bucket 0 also
/// counts 0 ns, and the last one everything from 2^31 ns (2.1 s) on.
pub const BUCKETS: usize = 32;

/// Name of the map that holds one [`Cpu`] per possible CPU.
pub const CPUS_MAP: &str = "CPUS";

/// An offset global that holds this value names a field the running kernel does not have.
pub const NO_OFFSET: u64 = u64::MAX;

/// Offsets of fields, as the names of the object's read-only globals.
pub mod offset {
    /// `task_struct.pid`.
    pub const TASK_PID: &str = "TASK_PID";
    /// `task_struct.prio`.
    pub const TASK_PRIO: &str = "TASK_PRIO";
    /// `task_struct.policy`.
    pub const TASK_POLICY: &str = "TASK_POLICY";
    /// `task_struct.sched_info.last_queued`.
    pub const TASK_LAST_QUEUED: &str = "TASK_LAST_QUEUED";
    /// `task_struct.se.cfs_rq`.
    pub const TASK_CFS_RQ: &str = "TASK_CFS_RQ";
    /// `cfs_rq.rq`.
    pub const CFS_RQ_RQ: &str = "CFS_RQ_RQ";
    /// `rq.clock`.
    pub const RQ_CLOCK: &str = "RQ_CLOCK";
    /// `rq.prev_steal_time_rq`.
    pub const RQ_STEAL: &str = "RQ_STEAL";
    /// `task_struct.thread_info.flags`.
    pub const TASK_TI_FLAGS: &str = "TASK_TI_FLAGS";
    /// `hrtimer.function`.
    pub const HRTIMER_FUNCTION: &str = "HRTIMER_FUNCTION";
    /// `hrtimer.node.expires`.
    pub const HRTIMER_EXPIRES: &str = "HRTIMER_EXPIRES";
}

/// Addresses in the kernel, as the names of the object's read-only globals; 0 where unknown.
pub mod address {
    /// The tick's timer function from 6.9 on.
    pub const TICK_NOHZ_HANDLER: &str = "TICK_NOHZ_HANDLER";
    /// The tick's timer function before.
    pub const TICK_SCHED_TIMER: &str = "TICK_SCHED_TIMER";
    /// `__entry_text_start`: where the code begins by which interrupts enter the kernel.
    pub const ENTRY_START: &str = "ENTRY_START";
    /// `__entry_text_end`.
    pub const ENTRY_END: &str = "ENTRY_END";
}

/// The machine's architecture, whose registers the sampler finds in its context.
pub mod arch {
    /// Name of the read-only global.
    pub const GLOBAL: &str = "ARCH";
    /// None of the others: samples come without registers.
    pub const OTHER: u64 = 0;
    /// x86-64.
    pub const X86_64: u64 = 1;
    /// arm64.
    pub const ARM64: u64 = 2;
}

/// What one CPU measured of one softirq vector. The first cache line is all that an entry and an
/// exit touch besides one word of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Vector {
    /// When the vector was first raised since it last ran; 0 while not pending.
    pub raised_ns: u64,
    /// When the handler that runs now was entered; 0 while none runs.
    pub entered_ns: u64,
    /// Time spent in completed handlers.
    pub time_ns: u64,
    /// Sum of the raise-to-entry delays.
    pub delay_ns: u64,
    /// Longest completed handler of the ticks with even and with odd epoch.
    pub max_ns: [u64; 2],
    /// Longest raise-to-entry delay of the ticks with even and with odd epoch.
    pub delay_max_ns: [u64; 2],
    /// Completed handlers by duration. The sum is the number of completed handlers: no separate
    /// counter can disagree with it.
    pub hist: [u64; BUCKETS],
    /// Raise-to-entry delays by duration; the sum is their number.
    pub delay_hist: [u64; BUCKETS],
}

/// Everything the programs keep for one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Cpu {
    /// Written by user space: its lowest bit picks the word of `max_ns` pairs in use.
    pub epoch: u64,
    /// Runs of the `softirq_raise` program.
    pub raises: u64,
    /// Nesting depth of hard interrupt handlers now running here.
    pub hardirq_depth: u64,
    /// When the outermost hard interrupt handler now running was entered.
    pub hardirq_entered_ns: u64,
    /// Completed hard interrupt handlers.
    pub hardirqs: u64,
    /// Time in hard interrupt handlers, nested ones counted once.
    pub hardirq_ns: u64,
    /// Longest outermost hard interrupt handler of the ticks with even and with odd epoch.
    pub hardirq_max_ns: [u64; 2],

    /// Written by user space: pid of this CPU's ksoftirqd, 0 while unknown.
    pub ksoftirqd_pid: u64,
    /// Runs of the `sched_switch` program.
    pub switches: u64,
    /// When ksoftirqd was switched in; 0 while it does not run.
    pub ksoftirqd_since_ns: u64,
    /// Time ksoftirqd ran, without the run in progress.
    pub ksoftirqd_ns: u64,
    /// How often ksoftirqd was switched in.
    pub ksoftirqd_runs: u64,
    /// Time ksoftirqd was runnable but did not run (run-queue delay).
    pub ksoftirqd_wait_ns: u64,
    /// Longest such wait of the ticks with even and with odd epoch.
    pub ksoftirqd_wait_max_ns: [u64; 2],

    /// When the last `softirq_entry` or `softirq_exit` fired: interrupts were on. While a handler
    /// runs it equals that vector's `entered_ns`.
    pub softirq_ns: u64,
    /// The vector, plus 1, whose handler runs after a stall of kind `PENDING` was told; else 0.
    pub draining: u64,
    /// When the last switch of tasks was; interrupts were on. The task that runs now has run since then.
    pub switched_ns: u64,
    /// When the idle task was last switched out.
    pub busy_ns: u64,
    /// When the tick last fired while a task ran.
    pub ticked_ns: u64,
    /// When the last sample of the sampler was taken; user space clears it before it starts one.
    pub sampled_ns: u64,
    /// When the task that runs was first seen with a reschedule requested; 0 where it was not.
    pub resched_seen_ns: u64,
    /// When a task was last seen without.
    pub resched_clear_ns: u64,

    /// Number of the newest sample.
    pub samples: u64,
    /// Stall events that did not fit into the ring buffer.
    pub events_lost: u64,
    /// Runs of the `hrtimer_expire_entry` program, for whatever timer.
    pub hrtimers: u64,
    /// Runs of the `sample` program.
    pub sampler_runs: u64,
    /// Waits for the CPU (run-queue delays) of all tasks that were switched in.
    pub run_delays: u64,
    /// Time in them.
    pub run_delay_ns: u64,
    /// Longest of them of the ticks with even and with odd epoch.
    pub run_delay_max_ns: [u64; 2],
    /// The softirq vector that was entered latest since the last switch, of those that were pending
    /// for longer than the shorter of the thresholds of `PENDING` and `KSOFTIRQD`.
    pub late_vector: u64,
    /// When it had been raised.
    pub late_raised_ns: u64,
    /// When it was entered.
    pub late_entered_ns: u64,
    /// When the idle task was last switched in.
    pub idle_ns: u64,
    /// The vector that was pending longest when ksoftirqd was last switched in late.
    pub oldest_vector: u64,
    /// How far the run queue's clock was behind ours when it was up to date; 0 before the first
    /// switch.
    pub clock_behind_ns: u64,
    /// When a task that is not a real-time one, the idle task among them, was last switched out; 0
    /// before the first. Since then only real-time tasks have run here.
    pub ordinary_ns: u64,
    /// From when on only real-time tasks ran, the last time that was so for longer than the
    /// threshold of `REAL_TIME`.
    pub real_time_from_ns: u64,
    /// Until when; it may be so still.
    pub real_time_to_ns: u64,
    /// The longest wait for it that was told.
    pub real_time_told_ns: u64,
    /// How long the one of them ran in one go that did so longest, and which task it is.
    pub real_time_ran_ns: u64,
    /// Its pid and tgid, as `bpf_get_current_pid_tgid` has them.
    pub real_time_pid_tgid: u64,
    /// Its comm.
    pub real_time_comm: [u64; 2],
    /// Its policy and priority, as in an event.
    pub real_time_sched: u64,

    /// Per softirq vector.
    pub vectors: [Vector; VECTORS],
}

impl Vector {
    /// A vector at which nothing has happened.
    pub const ZERO: Self = Self {
        raised_ns: 0,
        entered_ns: 0,
        time_ns: 0,
        delay_ns: 0,
        max_ns: [0; 2],
        delay_max_ns: [0; 2],
        hist: [0; BUCKETS],
        delay_hist: [0; BUCKETS],
    };
}

impl Cpu {
    /// A CPU on which nothing has happened: what a fresh map holds.
    pub const ZERO: Self = Self {
        epoch: 0,
        raises: 0,
        hardirq_depth: 0,
        hardirq_entered_ns: 0,
        hardirqs: 0,
        hardirq_ns: 0,
        hardirq_max_ns: [0; 2],
        ksoftirqd_pid: 0,
        switches: 0,
        ksoftirqd_since_ns: 0,
        ksoftirqd_ns: 0,
        ksoftirqd_runs: 0,
        ksoftirqd_wait_ns: 0,
        ksoftirqd_wait_max_ns: [0; 2],
        softirq_ns: 0,
        draining: 0,
        switched_ns: 0,
        busy_ns: 0,
        ticked_ns: 0,
        sampled_ns: 0,
        resched_seen_ns: 0,
        resched_clear_ns: 0,
        samples: 0,
        events_lost: 0,
        hrtimers: 0,
        sampler_runs: 0,
        run_delays: 0,
        run_delay_ns: 0,
        run_delay_max_ns: [0; 2],
        late_vector: 0,
        late_raised_ns: 0,
        late_entered_ns: 0,
        idle_ns: 0,
        oldest_vector: 0,
        clock_behind_ns: 0,
        ordinary_ns: 0,
        real_time_from_ns: 0,
        real_time_to_ns: 0,
        real_time_told_ns: 0,
        real_time_ran_ns: 0,
        real_time_pid_tgid: 0,
        real_time_comm: [0; 2],
        real_time_sched: 0,
        vectors: [Vector::ZERO; VECTORS],
    };
}

/// Bytes of one slot of the map.
pub const CPU_SIZE: usize = size_of::<Cpu>();

const _: () = {
    assert!(size_of::<Vector>() == 576 && align_of::<Vector>() == 64);
    assert!(offset_of!(Vector, raised_ns) == 0);
    assert!(offset_of!(Vector, entered_ns) == 8);
    assert!(offset_of!(Vector, time_ns) == 16);
    assert!(offset_of!(Vector, delay_ns) == 24);
    assert!(offset_of!(Vector, max_ns) == 32);
    assert!(offset_of!(Vector, delay_max_ns) == 48);
    assert!(offset_of!(Vector, hist) == 64);
    assert!(offset_of!(Vector, delay_hist) == 320);
    assert!(size_of::<Cpu>() == 6144 && align_of::<Cpu>() == 64);
    assert!(offset_of!(Cpu, epoch) == 0);
    assert!(offset_of!(Cpu, raises) == 8);
    assert!(offset_of!(Cpu, hardirq_depth) == 16);
    assert!(offset_of!(Cpu, hardirq_entered_ns) == 24);
    assert!(offset_of!(Cpu, hardirqs) == 32);
    assert!(offset_of!(Cpu, hardirq_ns) == 40);
    assert!(offset_of!(Cpu, hardirq_max_ns) == 48);
    assert!(offset_of!(Cpu, ksoftirqd_pid) == 64);
    assert!(offset_of!(Cpu, switches) == 72);
    assert!(offset_of!(Cpu, ksoftirqd_since_ns) == 80);
    assert!(offset_of!(Cpu, ksoftirqd_ns) == 88);
    assert!(offset_of!(Cpu, ksoftirqd_runs) == 96);
    assert!(offset_of!(Cpu, ksoftirqd_wait_ns) == 104);
    assert!(offset_of!(Cpu, ksoftirqd_wait_max_ns) == 112);
    assert!(offset_of!(Cpu, softirq_ns) == 128);
    assert!(offset_of!(Cpu, draining) == 136);
    assert!(offset_of!(Cpu, switched_ns) == 144);
    assert!(offset_of!(Cpu, busy_ns) == 152);
    assert!(offset_of!(Cpu, ticked_ns) == 160);
    assert!(offset_of!(Cpu, sampled_ns) == 168);
    assert!(offset_of!(Cpu, resched_seen_ns) == 176);
    assert!(offset_of!(Cpu, resched_clear_ns) == 184);
    assert!(offset_of!(Cpu, samples) == 192);
    assert!(offset_of!(Cpu, events_lost) == 200);
    assert!(offset_of!(Cpu, hrtimers) == 208);
    assert!(offset_of!(Cpu, sampler_runs) == 216);
    assert!(offset_of!(Cpu, run_delays) == 224);
    assert!(offset_of!(Cpu, run_delay_ns) == 232);
    assert!(offset_of!(Cpu, run_delay_max_ns) == 240);
    assert!(offset_of!(Cpu, late_vector) == 256);
    assert!(offset_of!(Cpu, late_raised_ns) == 264);
    assert!(offset_of!(Cpu, late_entered_ns) == 272);
    assert!(offset_of!(Cpu, idle_ns) == 280);
    assert!(offset_of!(Cpu, oldest_vector) == 288);
    assert!(offset_of!(Cpu, clock_behind_ns) == 296);
    assert!(offset_of!(Cpu, ordinary_ns) == 304);
    assert!(offset_of!(Cpu, real_time_from_ns) == 312);
    assert!(offset_of!(Cpu, real_time_to_ns) == 320);
    assert!(offset_of!(Cpu, real_time_told_ns) == 328);
    assert!(offset_of!(Cpu, real_time_ran_ns) == 336);
    assert!(offset_of!(Cpu, real_time_pid_tgid) == 344);
    assert!(offset_of!(Cpu, real_time_comm) == 352);
    assert!(offset_of!(Cpu, real_time_sched) == 368);
    assert!(offset_of!(Cpu, vectors) == 384);
};

/// The histogram bucket of a duration in nanoseconds: `floor(log2(ns))`, between 0 and 31.
///
/// BPF has no instruction that counts leading zeros: the bits are found by halves, in five steps.
#[inline(always)]
#[must_use]
pub const fn bucket(ns: u64) -> usize {
    let mut v = if ns > 0xffff_ffff { 0xffff_ffff } else { ns };
    let mut n = 0;
    let s = (0xffff_u64.wrapping_sub(v) >> 63) << 4;
    v >>= s;
    n |= s;
    let s = (0xff_u64.wrapping_sub(v) >> 63) << 3;
    v >>= s;
    n |= s;
    let s = (0xf_u64.wrapping_sub(v) >> 63) << 2;
    v >>= s;
    n |= s;
    let s = (0x3_u64.wrapping_sub(v) >> 63) << 1;
    v >>= s;
    (n | s | v >> 1) as usize & (BUCKETS - 1)
}

/// The shortest duration, in nanoseconds, that bucket `i` counts.
#[must_use]
pub const fn bucket_low_ns(i: usize) -> u64 {
    if i == 0 { 0 } else { 1 << i }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_the_binary_logarithm() {
        assert_eq!(bucket(0), 0);
        for i in 0..BUCKETS {
            assert_eq!(bucket(1 << i), i, "2^{i}");
            assert_eq!(bucket((1 << i) | ((1 << i) - 1)), i, "2^{}-1", i + 1);
            assert_eq!(bucket(bucket_low_ns(i)), i);
        }
        for i in BUCKETS..64 {
            assert_eq!(bucket(1 << i), BUCKETS - 1, "2^{i} saturates");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bucket_agrees_with_ilog2_on_every_small_duration() {
        for ns in 1..=1_u64 << 18 {
            assert_eq!(bucket(ns), ns.ilog2() as usize, "{ns} ns");
        }
    }

    #[test]
    fn every_vector_starts_on_a_cache_line() {
        for i in 0..VECTORS {
            assert_eq!((offset_of!(Cpu, vectors) + i * size_of::<Vector>()) % 64, 0);
        }
    }
}
