//! Stalls: the samples of what a CPU runs, and the events that say where to look among them.
//!
//! Each CPU writes its [`StackSample`]s into a ring of its own in the map `SAMPLES`, without a
//! lock; only what passed a threshold becomes a [`StallEvent`] in the ring buffer `STALLS`. User
//! space then reads the window that an event names out of that CPU's ring.
//!
//! Words of kernel values keep what the kernel has; nothing here is interpreted.

use core::mem::{align_of, offset_of, size_of};

/// Name of the map of [`StackSample`]s: CPU `c` owns the entries from `c * SAMPLE_SLOTS` on.
pub const SAMPLES_MAP: &str = "SAMPLES";
/// Name of the ring buffer of [`StallEvent`]s.
pub const STALLS_MAP: &str = "STALLS";
/// Bytes of that ring buffer: about 2,500 events.
pub const STALLS_BYTES: u32 = 256 * 1024;
/// Global that holds how many samples each CPU's ring has; a power of two.
pub const SAMPLE_SLOTS: &str = "SAMPLE_SLOTS";
/// Global that holds the bits of `thread_info.flags` that ask for a reschedule; 0 where unknown.
pub const NEED_RESCHED: &str = "NEED_RESCHED";
/// Global that is 1 where the sampler's interrupts are not maskable.
pub const SAMPLER_NMI: &str = "SAMPLER_NMI";
/// Return addresses in a sample; the rest of a deeper stack is left out at its outer end.
pub const FRAMES: usize = 52;
/// Return addresses of user space in a sample, innermost first.
pub const USER_FRAMES: usize = 15;

/// "No such value" in a word of a sample or an event.
pub const NONE: u64 = u64::MAX;

/// What kind of stall an event tells of.
pub mod kind {
    /// A softirq vector was pending too long: raise to entry.
    pub const PENDING: u64 = 1;
    /// A softirq handler ran too long: entry to exit.
    pub const HANDLER: u64 = 2;
    /// ksoftirqd was runnable but did not run, while one of its vectors was pending: told when
    /// ksoftirqd runs, and ended then or when somebody else ran the vector.
    pub const KSOFTIRQD: u64 = 3;
    /// The tick or a sample came late.
    pub const IRQS_OFF: u64 = 4;
    /// A task did not leave the CPU although a reschedule was requested.
    pub const RESCHED: u64 = 5;
    /// No stall: the handler that ended an event of kind [`PENDING`] has finished. `start_ns` is
    /// its entry, which equals the `end_ns` of that event.
    pub const DRAINED: u64 = 6;
    /// A task was runnable but did not run, while real-time tasks of higher priority kept its CPU.
    /// From when on it was so, by the run queue's clock, to when the last of them left the CPU: told
    /// when the one that waited runs, which may be later.
    pub const REAL_TIME: u64 = 7;
}

/// The thresholds in ns, as the names of the object's read-only globals; `u64::MAX` switches a kind
/// off.
pub mod threshold {
    /// Kind 1.
    pub const PENDING: &str = "PENDING_NS";
    /// The shorter of those of kinds 1 and 3: from when on a delay is looked at.
    pub const DELAY: &str = "DELAY_NS";
    /// Kind 2.
    pub const HANDLER: &str = "HANDLER_NS";
    /// Kind 3.
    pub const KSOFTIRQD: &str = "KSOFTIRQD_NS";
    /// Kind 4.
    pub const IRQS_OFF: &str = "IRQS_OFF_NS";
    /// Kind 5.
    pub const RESCHED: &str = "RESCHED_NS";
    /// Kind 7.
    pub const REAL_TIME: &str = "REAL_TIME_NS";
}

/// Bits of [`StackSample::flags`].
pub mod flag {
    /// Taken by the 1 kHz sampler; else by the scheduler's tick.
    pub const SAMPLER: u64 = 1 << 0;
    /// Taken in a non-maskable interrupt: sees inside interrupts-off sections.
    pub const NMI: u64 = 1 << 1;
    /// The interrupted code was user space. Only where [`REGS`] is set.
    pub const USER: u64 = 1 << 2;
    /// The task's `TIF_NEED_RESCHED` (or its lazy sibling) was set.
    pub const NEED_RESCHED: u64 = 1 << 3;
    /// The interrupted registers were found: `ip`, `code` and [`USER`] say something.
    pub const REGS: u64 = 1 << 4;
    /// A softirq vector was running: its number is in bits 8 to 15.
    pub const IN_SOFTIRQ: u64 = 1 << 5;
    /// Shift of the running vector.
    pub const VECTOR_SHIFT: u32 = 8;
    /// Shift of the mask of pending vectors (bits 16 to 31).
    pub const PENDING_SHIFT: u32 = 16;
    /// Shift of the number of frames that belong to the timer interrupt (bits 32 to 39): between
    /// the programs and the reader of the ring only, who leaves them out and clears these bits.
    pub const SKIP_SHIFT: u32 = 32;
    /// The bits of that number.
    pub const SKIP_MASK: u64 = 0xff << SKIP_SHIFT;
}

/// What one CPU ran at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct StackSample {
    /// Its number on this CPU, from 1 on; 0 while it is being written.
    pub seq: u64,
    /// When it was taken.
    pub at_ns: u64,
    /// The task, as `bpf_get_current_pid_tgid` has it: tgid in the upper half.
    pub pid_tgid: u64,
    /// The task's comm.
    pub comm: [u64; 2],
    /// When the task was switched in; 0 where that was before we were attached.
    pub on_cpu_ns: u64,
    /// When this CPU was last known to take interrupts, before this sample.
    pub alive_ns: u64,
    /// `rq.prev_steal_time_rq` of this CPU, or [`NONE`]. The kernel brings it up to date after
    /// this sample: a pause shows in the next one.
    pub steal_ns: u64,
    /// Interrupted instruction, or 0.
    pub ip: u64,
    /// The 8 bytes before `ip` in kernel text, in memory order; 0 where they were not read.
    pub code: u64,
    /// See [`flag`].
    pub flags: u64,
    /// Frames in `stack`, innermost first; [`NONE`] where no stack was taken.
    pub frames: u64,
    /// Frames in `user`; [`NONE`] where none were taken. A program without frame pointers has
    /// one, or wrong ones after it.
    pub user_frames: u64,
    /// Kernel return addresses.
    pub stack: [u64; FRAMES],
    /// User space's return addresses: where the task entered the kernel, and its callers.
    pub user: [u64; USER_FRAMES],
}

/// A stall, at the moment it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct StallEvent {
    /// See [`kind`].
    pub kind: u64,
    /// The CPU.
    pub cpu: u64,
    /// The softirq vector, or [`NONE`].
    pub vector: u64,
    /// When it began at the latest: the shortest it can have been is `end_ns - start_ns`.
    pub start_ns: u64,
    /// When it began at the earliest. Equal to `start_ns` where the start was seen.
    pub earliest_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// The task of [`kind::RESCHED`] and [`kind::IRQS_OFF`] that held the CPU; of
    /// [`kind::KSOFTIRQD`] the one switched out; of [`kind::REAL_TIME`] the real-time task that ran
    /// longest in one go; else the one current at the end.
    pub pid_tgid: u64,
    /// That task's comm.
    pub comm: [u64; 2],
    /// The task that got the CPU ([`kind::RESCHED`], [`kind::REAL_TIME`]: pid only), or [`NONE`].
    pub next_pid: u64,
    /// Number of the newest sample of this CPU when the event was sent.
    pub sample: u64,
    /// How the task of [`kind::REAL_TIME`] was scheduled: `task_struct.policy` in the upper half,
    /// `task_struct.prio` in the lower one. Else [`NONE`].
    pub sched: u64,
}

impl StackSample {
    /// An unused entry of the ring.
    pub const ZERO: Self = Self {
        seq: 0,
        at_ns: 0,
        pid_tgid: 0,
        comm: [0; 2],
        on_cpu_ns: 0,
        alive_ns: 0,
        steal_ns: 0,
        ip: 0,
        code: 0,
        flags: 0,
        frames: 0,
        user_frames: 0,
        stack: [0; FRAMES],
        user: [0; USER_FRAMES],
    };
}

const _: () = {
    assert!(size_of::<StackSample>() == 640 && align_of::<StackSample>() == 64);
    assert!(offset_of!(StackSample, stack) == 104 && offset_of!(StackSample, user) == 520);
    assert!(size_of::<StallEvent>() == 96 && align_of::<StallEvent>() == 8);
    assert!(offset_of!(StallEvent, sample) == 80 && offset_of!(StallEvent, sched) == 88);
};
