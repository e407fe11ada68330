//! Contention of the kernel's locks: what waits, for how long, and the stacks of the waits.
//!
//! Each CPU owns one [`LockCpu`] of the map `LOCKS`. What it adds up there is kept twice, as two
//! [`Window`]s: the program writes one while user space reads and empties the other, so that user
//! space has exact windows that follow each other without a gap, and locks that are gone take no
//! room for longer than a window.
//!
//! A wait is begun and ended by two runs of one program. In between, a spinning one is kept in this
//! CPU's `levels` (it cannot leave the CPU, and only an interrupt can spin above it), a sleeping
//! one in the shared map `WAITERS`, as it may end on any CPU.

use core::mem::{align_of, offset_of, size_of};

use crate::BUCKETS;

/// Name of the map that holds one [`LockCpu`] per possible CPU.
pub const LOCKS_MAP: &str = "LOCKS";
/// Name of the map of [`LockSlot`]s, by lock and kind: CPU `c` owns two tables of [`TABLE_SLOTS`]
/// entries, from `2 * c * TABLE_SLOTS` on, one for each of its [`Window`]s.
pub const TABLES_MAP: &str = "LOCK_TABLES";
/// Name of the map of tasks that sleep for a lock: one value, [`Waiters`].
pub const WAITERS_MAP: &str = "WAITERS";
/// Name of the map of [`LockWait`]s that have a stack: CPU `c` owns two rings of `LOCK_SLOTS`
/// entries, from `2 * c * LOCK_SLOTS` on. The first is for [`LONG`] waits, which are to be seen each
/// by itself, the second for [`SHORT`] ones, which are so many that they would overwrite the others.
pub const LOCK_STACKS_MAP: &str = "LOCK_STACKS";

/// Global that holds how many [`LockWait`]s each ring has; a power of two.
pub const LOCK_SLOTS: &str = "LOCK_SLOTS";
/// Global that holds how many [`LockSlot`]s each table has; a power of two, [`TABLE`] at most.
pub const TABLE_SLOTS: &str = "TABLE_SLOTS";
/// Global that holds the offset of `mutex.owner`, or [`NO_OFFSET`](crate::NO_OFFSET).
pub const MUTEX_OWNER: &str = "MUTEX_OWNER";
/// Global that holds the offset of `rw_semaphore.owner`, or [`NO_OFFSET`](crate::NO_OFFSET).
pub const RWSEM_OWNER: &str = "RWSEM_OWNER";

/// Of waits every so many-th, on average, has its stack taken when it begins.
pub const EVERY: u64 = 64;
/// After a long wait so many more on that CPU have their stacks taken when they begin: where waits
/// are long, the next one will be, too, and a waiter has time.
pub const EAGER: u32 = 8;

/// Index of a CPU's ring of long waits.
pub const LONG: usize = 0;
/// Index of a CPU's ring of short waits that were sampled.
pub const SHORT: usize = 1;
/// How many rings a CPU has.
pub const RINGS: usize = 2;

/// Slots of a window's table of locks, at most.
pub const TABLE: usize = 1024;
/// How many slots are tried for a lock.
pub const PROBES: usize = 4;
/// How deep waits can nest on a CPU: a rwlock's own spinlock, and interrupts.
pub const LEVELS: usize = 4;
/// Tasks that can sleep for locks at once: buckets of [`WAYS`].
pub const BUCKETS_OF_WAITERS: usize = 512;
/// Tasks in a bucket: their keys share a cache line.
pub const WAYS: usize = 8;
/// All of them.
pub const WAITERS: usize = BUCKETS_OF_WAITERS * WAYS;
/// Return addresses of a wait; the rest of a deeper stack is left out at its outer end.
pub const LOCK_FRAMES: usize = 52;

/// Kinds of locks, told from the flags of `contention_begin`.
pub mod kind {
    /// A queued spinlock.
    pub const SPIN: u64 = 0;
    /// A rwlock, taken to read.
    pub const RWLOCK_READ: u64 = 1;
    /// A rwlock, taken to write.
    pub const RWLOCK_WRITE: u64 = 2;
    /// A mutex, its optimistic spinning included.
    pub const MUTEX: u64 = 3;
    /// A rw_semaphore, taken to read.
    pub const RWSEM_READ: u64 = 4;
    /// A rw_semaphore, taken to write.
    pub const RWSEM_WRITE: u64 = 5;
    /// An rt_mutex; with PREEMPT_RT all but raw spinlocks.
    pub const RT_MUTEX: u64 = 6;
    /// A percpu-rwsem, taken to read.
    pub const PERCPU_RWSEM_READ: u64 = 7;
    /// A percpu-rwsem, taken to write.
    pub const PERCPU_RWSEM_WRITE: u64 = 8;
    /// Any other.
    pub const OTHER: u64 = 9;
    /// How many there are.
    pub const COUNT: usize = 10;
}

/// Flags of `contention_begin` (include/trace/events/lock.h).
pub mod lcb {
    /// `LCB_F_SPIN`.
    pub const SPIN: u64 = 1 << 0;
    /// `LCB_F_READ`.
    pub const READ: u64 = 1 << 1;
    /// `LCB_F_WRITE`.
    pub const WRITE: u64 = 1 << 2;
    /// `LCB_F_RT`.
    pub const RT: u64 = 1 << 3;
    /// `LCB_F_PERCPU`.
    pub const PERCPU: u64 = 1 << 4;
    /// `LCB_F_MUTEX`.
    pub const MUTEX: u64 = 1 << 5;
}

/// Bits of [`LockWait::what`].
pub mod what {
    /// The [`kind`](super::kind).
    pub const KIND_MASK: u64 = 0xff;
    /// One of the waits whose stack is taken whatever becomes of them: the [`EVERY`](super::EVERY)
    /// n-th.
    pub const SAMPLED: u64 = 1 << 8;
    /// The stack was taken when the wait ended, as it was long and none had been taken before.
    pub const AT_END: u64 = 1 << 9;
    /// Readers held the rwsem: which, the kernel does not know.
    pub const HELD_BY_READERS: u64 = 1 << 10;
}

/// The bits of a table's key that hold the kind, in place of the uppermost byte of the lock's
/// address, which is all ones in a kernel.
pub const KEY_KIND_SHIFT: u32 = 56;

/// A wait: while it lasts, and as an entry of the ring of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct LockWait {
    /// In the ring its number on this CPU, from 1 on; 0 while it is being written.
    pub seq: u64,
    /// Address of the lock.
    pub lock: u64,
    /// When it began: where the kernel tells of the beginning repeatedly, the first.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// See [`what`].
    pub what: u64,
    /// Frames in `stack`, innermost first; 0 where none was taken.
    pub frames: u64,
    /// Thread id of who held the lock when the wait began; 0 where that is not known.
    pub owner: u64,
    /// The CPU on which it began.
    pub cpu: u64,
    /// The waiter, as `bpf_get_current_pid_tgid` has it: tgid in the upper half.
    pub pid_tgid: u64,
    /// The waiter's comm.
    pub comm: [u64; 2],
    /// Unused: rounds the size.
    pub pad: u64,
    /// Kernel return addresses.
    pub stack: [u64; LOCK_FRAMES],
}

/// Waits for one lock, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct LockSlot {
    /// The lock's address and, in its uppermost byte, the kind; 0 where the slot is free.
    pub key: u64,
    /// Waits that ended.
    pub count: u64,
    /// Their time together.
    pub wait_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

/// Waits of one kind, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct KindWaits {
    /// Waits that ended: the sum of `hist`, kept so that a reader need not add.
    pub count: u64,
    /// Their time together.
    pub wait_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// Of `count`, how many found no slot in the table of locks.
    pub overflow: u64,
    /// By duration.
    pub hist: [u64; BUCKETS],
}

/// What a CPU added up in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Window {
    /// A bit for each slot of the window's table that is in use.
    pub used: [u64; TABLE / 64],
    /// By kind.
    pub kinds: [KindWaits; kind::COUNT],
}

/// What one CPU keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct LockCpu {
    /// Written by user space: its lowest bit picks the window in use.
    pub epoch: u64,
    /// Written by user space: when the program was last attached. What began before is not
    /// measured.
    pub since_ns: u64,
    /// Written by user space: from when on a wait is long, ns.
    pub long_ns: u64,
    /// Runs of the program that began.
    pub entered: u64,
    /// Runs of the program that are over.
    pub left: u64,
    /// How many of `levels` are in use.
    pub depth: u64,
    /// Waits to come until one is sampled; 0 and 1 mean the next.
    pub countdown: u64,
    /// So many more waits have their stacks taken when they begin: spinning ones, and others.
    pub eager: [u32; 2],

    /// Runs for `contention_end` that ended a wait.
    pub ends: u64,
    /// Runs for `contention_begin` of a wait that had begun already.
    pub repeats: u64,
    /// Runs for `contention_end` whose beginning was not seen: of a wait that began before we were
    /// attached, of one that is in `full`, or both runs of a semaphore's, whose flags look like an
    /// end.
    pub ends_unpaired: u64,
    /// Runs for `contention_begin` whose place another wait took, because their end was not seen.
    pub begins_unpaired: u64,
    /// Runs for `contention_begin` for which there was no place among `levels` or [`Waiters`].
    pub full: u64,
    /// Number of the newest entry of each of this CPU's rings.
    pub stacks: [u64; RINGS],
    /// Of the long ones, those whose stack was taken when the wait had ended.
    pub at_end: u64,

    /// Not 0 while a run lasts.
    pub busy: u64,
    /// Runs that did nothing, as they interrupted another one.
    pub nested: u64,

    /// Spinning waits that last, outermost first.
    pub levels: [LockWait; LEVELS],
    /// By the lowest bit of the epoch.
    pub windows: [Window; 2],
}

/// Tasks that sleep for a lock, or spin before they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Waiters {
    /// Made of the task and the lock; 0 where the place is free.
    pub keys: [u64; WAITERS],
    /// The waits.
    pub waits: [LockWait; WAITERS],
}

impl LockWait {
    /// An unused one.
    pub const ZERO: Self = Self {
        seq: 0,
        lock: 0,
        begin_ns: 0,
        end_ns: 0,
        what: 0,
        frames: 0,
        owner: 0,
        cpu: 0,
        pid_tgid: 0,
        comm: [0; 2],
        pad: 0,
        stack: [0; LOCK_FRAMES],
    };
}

/// Bytes of what one CPU keeps.
pub const LOCK_CPU_SIZE: usize = size_of::<LockCpu>();

const _: () = {
    assert!(size_of::<LockWait>() == 512 && align_of::<LockWait>() == 64);
    assert!(offset_of!(LockWait, what) == 32 && offset_of!(LockWait, stack) == 96);
    assert!(size_of::<LockSlot>() == 32);
    assert!(size_of::<KindWaits>() == 288 && offset_of!(KindWaits, hist) == 32);
    assert!(offset_of!(Window, kinds) == 128 && size_of::<Window>() == 3008);
    assert!(offset_of!(LockCpu, ends) == 64 && offset_of!(LockCpu, busy) == 128);
    assert!(offset_of!(LockCpu, levels) == 192 && offset_of!(LockCpu, windows) == 192 + 4 * 512);
    assert!(size_of::<LockCpu>() == 192 + 4 * 512 + 2 * 3008);
    assert!(offset_of!(Waiters, waits) == 32_768 && size_of::<Waiters>() == 2_129_920);
};
