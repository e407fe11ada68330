//! Contention of the kernel's locks: every wait, from `contention_begin` to `contention_end`
//! (include/trace/events/lock.h, from 5.19 on).
//!
//! One program for both, attached to the end first and then to the beginning. From 6.1 on the kernel
//! runs a program only once at a time on a CPU and leaves out the runs of an interrupt that comes in
//! between (`__bpf_trace_run`, kernel/trace/bpf_trace.c); before, the program itself does, by a word
//! of this CPU's. Either way that interrupt's beginnings and ends are left out alike, where with two
//! programs an end alone could be and the next one be paired with a stale beginning. The two are
//! told apart by the second argument: the flags of a beginning are greater than 0, an end has 0 or an
//! error number. Only a semaphore's beginning has no flags: it is taken for an end, finds no
//! beginning, and is counted so. A raw tracepoint, never a classic one: those are blind to
//! contention within other BPF programs (`trace_call_bpf` runs nothing
//! while `bpf_prog_active` is raised).
//!
//! Waits that spin are kept in this CPU's slot of [`LOCKS`], those that sleep in [`WAITERS`], where
//! a place is claimed by compare-exchange. What has ended is added up in this CPU's slot. As the
//! program never interrupts itself, every other word has one writer.
//!
//! Stacks are taken when a wait begins, while the waiter has nothing better to do; at the end it
//! holds the lock, and whoever waits behind it would wait for the stack, too. Which waits will be
//! long is not known then. So one is taken of every 64th wait on average, and of each of the 8 that
//! follow a long one on that CPU: where many wait in a queue, all wait long. The stack of a long
//! wait that neither catches is taken at its end: of at most one in nine waits, and marked so. It
//! is the same but for the tracepoint's own frames, as both fire in the same function.
//!
//! Measured on 6.18 (a machine of two CPUs with paravirtual spinlocks and much other work), two
//! threads on dup and close of one descriptor table, by the kernel's own run time, which is 70 ns
//! for two runs of a program that does nothing: 238 to 246 ns for each of 1.8 to 2.7 million waits
//! a second, stacks included. A stack is about 1 us. Attaching and detaching take about 2 ms each.
//!
//! Needs atomic instructions (5.12), so the loader looks for the tracepoint before it loads this.

use aya_ebpf::{
    EbpfContext, Global,
    bindings::BPF_F_MMAPABLE,
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_prandom_u32,
        bpf_get_smp_processor_id, bpf_get_stack, bpf_probe_read_kernel,
    },
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use stalltop_wire::NO_OFFSET;
use stalltop_wire::lock::{
    BUCKETS_OF_WAITERS, EAGER, EVERY, KEY_KIND_SHIFT, KindWaits, LEVELS, LOCK_FRAMES, LONG,
    LockCpu, LockSlot, LockWait, PROBES, RINGS, SHORT, TABLE, WAYS, Waiters, Window, kind, lcb,
    what,
};

use crate::cores::{arg, now, slot};
use crate::sched::TASK_PID;
use crate::stall::{fence, kernel};

/// One slot per possible CPU; the loader sets the number of entries.
#[map]
static LOCKS: Array<LockCpu> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The loader sets the number of entries: twice `TABLE_SLOTS` for each possible CPU.
#[map]
static LOCK_TABLES: Array<LockSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static WAITERS: Array<Waiters> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The loader sets the number of entries: twice `LOCK_SLOTS` for each possible CPU.
#[map]
static LOCK_STACKS: Array<LockWait> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[unsafe(no_mangle)]
static LOCK_SLOTS: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
static TABLE_SLOTS: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
static MUTEX_OWNER: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static RWSEM_OWNER: Global<u64> = Global::new(NO_OFFSET);

/// `RWSEM_READER_OWNED` (kernel/locking/rwsem.c).
const READER_OWNED: u64 = 1;
/// Bits of an owner's word that are no part of the pointer (`MUTEX_FLAGS`, and rwsem's two).
const OWNER_FLAGS: u64 = 7;
/// Of the odd multiplier of Fibonacci hashing.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Keeps two words of a key apart.
const MIX: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// Index into `eager`: of waits that spin, and others.
const SPINNING: usize = 0;
const SLEEPING: usize = 1;

#[raw_tracepoint(tracepoint = "contention_begin")]
pub fn lock_contention(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper takes no argument and cannot fail.
    let me = unsafe { bpf_get_smp_processor_id() };
    let Some(cpu) = LOCKS.get_ptr_mut(me) else {
        return 0;
    };
    // SAFETY: `cpu` is this CPU's slot, which no other run writes while this one lasts.
    unsafe {
        // An interrupt between the two has done its runs and left the word as it was.
        let busy = &raw mut (*cpu).busy;
        if busy.read_volatile() != 0 {
            // Another one may come in between: one instruction, atomic on this CPU.
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {one}",
                word = in(reg) &raw mut (*cpu).nested,
                one = in(reg) 1_u64,
                options(nostack),
            );
            return 0;
        }
        busy.write_volatile(1);
        fence();
        let entered = &raw mut (*cpu).entered;
        entered.write_volatile(entered.read_volatile() + 1);
        let lock = arg(&ctx, 0);
        let flags = arg(&ctx, 1) as u32;
        if flags as i32 > 0 {
            begin(&ctx, cpu, lock, u64::from(flags));
        } else {
            end(&ctx, cpu, lock);
        }
        fence();
        let left = &raw mut (*cpu).left;
        left.write_volatile(left.read_volatile() + 1);
        fence();
        busy.write_volatile(0);
    }
    0
}

/// The kind that the flags of a beginning tell.
#[inline(always)]
fn kind_of(flags: u64) -> u64 {
    let write = flags & lcb::WRITE != 0;
    let read = flags & lcb::READ != 0;
    if flags & lcb::MUTEX != 0 {
        kind::MUTEX
    } else if flags & lcb::RT != 0 {
        kind::RT_MUTEX
    } else if flags & lcb::PERCPU != 0 {
        kind::PERCPU_RWSEM_READ + u64::from(write)
    } else if flags & lcb::SPIN != 0 {
        if write {
            kind::RWLOCK_WRITE
        } else if read {
            kind::RWLOCK_READ
        } else {
            kind::SPIN
        }
    } else if write {
        kind::RWSEM_WRITE
    } else if read {
        kind::RWSEM_READ
    } else {
        kind::OTHER
    }
}

/// Whether waits of such flags never sleep.
#[inline(always)]
fn spins(flags: u64) -> bool {
    flags & (lcb::SPIN | lcb::MUTEX | lcb::RT | lcb::PERCPU) == lcb::SPIN
}

/// Adds 1 to a counter of this CPU.
///
/// # Safety
/// The counter is one of this CPU's.
#[inline(always)]
unsafe fn count(counter: *mut u64) {
    // SAFETY: the caller's.
    unsafe { counter.write_volatile(counter.read_volatile() + 1) };
}

/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
unsafe fn begin(ctx: &RawTracePointContext, cpu: *mut LockCpu, lock: u64, flags: u64) {
    // SAFETY: the caller's; levels and ways are in bounds.
    unsafe {
        if spins(flags) {
            let depth = (*cpu).depth;
            if depth >= LEVELS as u64 {
                count(&raw mut (*cpu).full);
                return;
            }
            let wait = (&raw mut (*cpu).levels)
                .cast::<LockWait>()
                .add(depth as usize);
            (*wait).owner = 0;
            start(ctx, cpu, wait, lock, kind_of(flags), SPINNING);
            (*cpu).depth = depth + 1;
            return;
        }
        let Some(waiters) = WAITERS.get_ptr_mut(0) else {
            return;
        };
        let pid_tgid = bpf_get_current_pid_tgid();
        let (key, first) = key(lock, pid_tgid as u32);
        let mut way = find(waiters, first, key);
        if way < WAYS {
            let wait = wait_of(waiters, first, way);
            if (*wait).begin_ns >= (*cpu).since_ns {
                count(&raw mut (*cpu).repeats);
                return;
            }
            // Left behind when we were detached.
            count(&raw mut (*cpu).begins_unpaired);
        } else {
            way = claim(waiters, first, key);
            if way >= WAYS {
                count(&raw mut (*cpu).full);
                return;
            }
        }
        let wait = wait_of(waiters, first, way);
        let kind = kind_of(flags);
        let mut owner = owner(lock, kind);
        let mut readers = 0;
        if owner == READERS {
            owner = 0;
            readers = what::HELD_BY_READERS;
        }
        (*wait).owner = owner;
        // User space asks for those that last.
        (*wait).pid_tgid = pid_tgid;
        start(ctx, cpu, wait, lock, kind | readers, SLEEPING);
    }
}

/// Begins a wait: its stack, where it is to have one, and then the time, so that the walk of the
/// stack is no part of it.
///
/// # Safety
/// `cpu` is this CPU's slot, `wait` a place of this wait's own.
#[inline(always)]
unsafe fn start(
    ctx: &RawTracePointContext,
    cpu: *mut LockCpu,
    wait: *mut LockWait,
    lock: u64,
    what: u64,
    class: usize,
) {
    // SAFETY: the caller's; `class` is below 2.
    unsafe {
        (*wait).lock = lock;
        (*wait).what = what;
        (*wait).frames = 0;
        let countdown = (*cpu).countdown;
        let eager = (&raw mut (*cpu).eager).cast::<u32>().add(class);
        if countdown <= 1 {
            // Random, so that no pattern of waits runs along with it; EVERY on average.
            (*cpu).countdown = u64::from(bpf_get_prandom_u32()) & (2 * EVERY - 1);
            (*wait).what = what | what::SAMPLED;
            stack(ctx, wait);
        } else {
            (*cpu).countdown = countdown - 1;
            if *eager != 0 {
                *eager -= 1;
                stack(ctx, wait);
            }
        }
        fence();
        (&raw mut (*wait).begin_ns).write_volatile(now());
    }
}

/// Who waits, and its stack.
///
/// # Safety
/// `wait` is a place of this wait's own.
#[inline(always)]
unsafe fn stack(ctx: &RawTracePointContext, wait: *mut LockWait) {
    // SAFETY: the helpers write no more than the given lengths.
    unsafe {
        (*wait).cpu = u64::from(bpf_get_smp_processor_id());
        (*wait).pid_tgid = bpf_get_current_pid_tgid();
        bpf_get_current_comm((&raw mut (*wait).comm).cast(), 16);
        let frames = (&raw mut (*wait).stack).cast();
        let bytes = bpf_get_stack(ctx.as_ptr(), frames, (LOCK_FRAMES * 8) as u32, 0);
        (*wait).frames = if bytes > 0 { bytes as u64 >> 3 } else { 0 };
    }
}

/// What [`owner`] gives where readers hold the lock.
const READERS: u64 = u64::MAX;

/// The thread that holds a mutex or a rwsem; 0 where there is none or it is not known.
#[inline(always)]
unsafe fn owner(lock: u64, kind: u64) -> u64 {
    let offset = match kind {
        kind::MUTEX => MUTEX_OWNER.load(),
        kind::RWSEM_READ | kind::RWSEM_WRITE => RWSEM_OWNER.load(),
        _ => NO_OFFSET,
    };
    if offset == NO_OFFSET {
        return 0;
    }
    // SAFETY: `kernel` takes any address.
    unsafe {
        let owner = kernel(lock + offset);
        if kind != kind::MUTEX && owner & READER_OWNED != 0 {
            return READERS;
        }
        let task = owner & !OWNER_FLAGS;
        if task == 0 {
            return 0;
        }
        kernel(task + TASK_PID.load()) & 0xffff_ffff
    }
}

/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
unsafe fn end(ctx: &RawTracePointContext, cpu: *mut LockCpu, lock: u64) {
    let now = now();
    // SAFETY: the caller's; levels and ways are in bounds.
    unsafe {
        let depth = (*cpu).depth;
        if depth != 0 {
            for level in (0..LEVELS).rev() {
                let wait = (&raw mut (*cpu).levels).cast::<LockWait>().add(level);
                if depth <= level as u64 || (*wait).lock != lock {
                    continue;
                }
                // Those above it have not ended as far as we saw, and cannot last.
                let above = depth - 1 - level as u64;
                (*cpu).begins_unpaired += above;
                (*cpu).depth = level as u64;
                finish(ctx, cpu, wait, now, SPINNING);
                return;
            }
        }
        let Some(waiters) = WAITERS.get_ptr_mut(0) else {
            return;
        };
        let pid = bpf_get_current_pid_tgid() as u32;
        let (key, first) = key(lock, pid);
        let way = find(waiters, first, key);
        if way >= WAYS {
            count(&raw mut (*cpu).ends_unpaired);
            return;
        }
        let wait = wait_of(waiters, first, way);
        finish(ctx, cpu, wait, now, SLEEPING);
        // Whoever takes the place next has not begun to wait until it says so.
        (&raw mut (*wait).begin_ns).write_volatile(0);
        fence();
        let held = (&raw mut (*waiters).keys)
            .cast::<u64>()
            .add(place(first, way));
        exchange(held, key, 0);
    }
}

/// Ends a wait: adds it up, and puts it into the ring where it is long or sampled.
///
/// # Safety
/// `cpu` is this CPU's slot, `wait` a place of this wait's own.
#[inline(always)]
unsafe fn finish(
    ctx: &RawTracePointContext,
    cpu: *mut LockCpu,
    wait: *mut LockWait,
    now: u64,
    class: usize,
) {
    // SAFETY: the caller's; indices are in bounds as said at each.
    unsafe {
        let begin = (*wait).begin_ns;
        if begin < (*cpu).since_ns {
            count(&raw mut (*cpu).begins_unpaired);
            count(&raw mut (*cpu).ends_unpaired);
            return;
        }
        count(&raw mut (*cpu).ends);
        // It may have begun on another CPU, whose clock is ahead.
        let ns = if now > begin { now - begin } else { 0 };
        let kind = (*wait).what & what::KIND_MASK;
        if kind >= kind::COUNT as u64 {
            return;
        }
        let which = (*cpu).epoch & 1;
        let window = (&raw mut (*cpu).windows)
            .cast::<Window>()
            .add(which as usize);
        let waits = (&raw mut (*window).kinds)
            .cast::<KindWaits>()
            .add(kind as usize);
        (*waits).count += 1;
        (*waits).wait_ns += ns;
        if ns > (*waits).longest_ns {
            (*waits).longest_ns = ns;
        }
        *(&raw mut (*waits).hist).cast::<u64>().add(slot(ns)) += 1;
        if !add(window, which, (*wait).lock, kind, ns) {
            (*waits).overflow += 1;
        }
        let long = ns >= (&raw const (*cpu).long_ns).read_volatile();
        if long {
            *(&raw mut (*cpu).eager).cast::<u32>().add(class) = EAGER;
        }
        if long || (*wait).what & what::SAMPLED != 0 {
            let ring = if long { LONG } else { SHORT };
            keep(ctx, cpu, wait, now, ring);
        }
    }
}

/// Adds a wait to the table of locks; false where there is no slot for it.
///
/// # Safety
/// `window` is the one in use of this CPU, `which` of the two it is.
#[inline(always)]
unsafe fn add(window: *mut Window, which: u64, lock: u64, kind: u64, ns: u64) -> bool {
    let slots = TABLE_SLOTS.load();
    // SAFETY: the helper takes no argument and cannot fail.
    let me = u64::from(unsafe { bpf_get_smp_processor_id() });
    let table = (me * 2 + which) * slots;
    let key = lock & ((1 << KEY_KIND_SHIFT) - 1) | kind << KEY_KIND_SHIFT;
    let first = key.wrapping_mul(GOLDEN) >> (64 - TABLE.ilog2());
    // SAFETY: in bounds by the masks: there are no more slots than bits.
    unsafe {
        for probe in 0..PROBES as u64 {
            let at = (first + probe) & (slots - 1) & (TABLE as u64 - 1);
            let Some(slot) = LOCK_TABLES.get_ptr_mut((table + at) as u32) else {
                return false;
            };
            let there = (&raw const (*slot).key).read_volatile();
            if there != key {
                if there != 0 {
                    continue;
                }
                (&raw mut (*slot).key).write_volatile(key);
                let used = (&raw mut (*window).used).cast::<u64>();
                *used.add((at >> 6) as usize) |= 1 << (at & 63);
            }
            (*slot).count += 1;
            (*slot).wait_ns += ns;
            if ns > (*slot).longest_ns {
                (*slot).longest_ns = ns;
            }
            return true;
        }
    }
    false
}

/// Puts a wait into one of this CPU's rings.
///
/// # Safety
/// `cpu` is this CPU's slot, `wait` a place of this wait's own, `ring` is below `RINGS`.
#[inline(always)]
unsafe fn keep(
    ctx: &RawTracePointContext,
    cpu: *mut LockCpu,
    wait: *mut LockWait,
    now: u64,
    ring: usize,
) {
    // SAFETY: the entry is one of this CPU's; the helper writes what follows its number.
    unsafe {
        if (*wait).frames == 0 {
            (*wait).what |= what::AT_END;
            (*cpu).at_end += 1;
            stack(ctx, wait);
        }
        (*wait).end_ns = now;
        let newest = (&raw mut (*cpu).stacks).cast::<u64>().add(ring);
        let number = *newest + 1;
        *newest = number;
        let slots = LOCK_SLOTS.load();
        let me = u64::from(bpf_get_smp_processor_id());
        let first = (me * RINGS as u64 + ring as u64) * slots;
        let Some(entry) = LOCK_STACKS.get_ptr_mut((first + (number & (slots - 1))) as u32) else {
            return;
        };
        let seq = &raw mut (*entry).seq;
        seq.write_volatile(0);
        fence();
        let size = size_of::<LockWait>() - size_of::<u64>();
        let from = (&raw const (*wait).lock).cast();
        bpf_probe_read_kernel((&raw mut (*entry).lock).cast(), size as u32, from);
        fence();
        seq.write_volatile(number);
    }
}

/// What a task's wait for a lock is found by, and the first place of its bucket.
#[inline(always)]
fn key(lock: u64, pid: u32) -> (u64, usize) {
    let mixed = (lock ^ u64::from(pid).wrapping_mul(MIX)).wrapping_mul(GOLDEN);
    let bucket = mixed >> (64 - BUCKETS_OF_WAITERS.ilog2());
    (mixed | 1, bucket as usize * WAYS)
}

/// A place of a bucket, bounded in a way that every verifier sees: the compiler makes an `or` of the
/// sum, of which those before 6.8 know nothing.
#[inline(always)]
fn place(first: usize, way: usize) -> usize {
    let mut place = (first + way) as u64;
    // SAFETY: one instruction on one register.
    unsafe {
        core::arch::asm!(
            "{place} &= {mask}",
            place = inout(reg) place,
            mask = const BUCKETS_OF_WAITERS * WAYS - 1,
            options(pure, nomem, nostack),
        );
    }
    place as usize
}

/// Where in its bucket the key is; `WAYS` where it is not.
///
/// # Safety
/// `first` came from [`key`].
#[inline(always)]
unsafe fn find(waiters: *mut Waiters, first: usize, key: u64) -> usize {
    // SAFETY: in bounds.
    unsafe {
        let keys = (&raw const (*waiters).keys).cast::<u64>().add(first);
        for way in 0..WAYS {
            if keys.add(way).read_volatile() == key {
                return way;
            }
        }
    }
    WAYS
}

/// Takes a free place of the bucket; `WAYS` where there is none.
///
/// # Safety
/// `first` came from [`key`].
#[inline(always)]
unsafe fn claim(waiters: *mut Waiters, first: usize, key: u64) -> usize {
    // SAFETY: in bounds.
    unsafe {
        let keys = (&raw mut (*waiters).keys).cast::<u64>().add(first);
        for way in 0..WAYS {
            let place = keys.add(way);
            if place.read_volatile() == 0 && exchange(place, 0, key) == 0 {
                return way;
            }
        }
    }
    WAYS
}

/// # Safety
/// `first` came from [`key`], and `way` is below `WAYS`.
#[inline(always)]
unsafe fn wait_of(waiters: *mut Waiters, first: usize, way: usize) -> *mut LockWait {
    // SAFETY: in bounds.
    unsafe {
        (&raw mut (*waiters).waits)
            .cast::<LockWait>()
            .add(place(first, way))
    }
}

/// Compares and exchanges a word that all CPUs share; gives what was there. `core` has none for this
/// target.
///
/// # Safety
/// `place` is a word of a map.
#[inline(always)]
unsafe fn exchange(place: *mut u64, old: u64, new: u64) -> u64 {
    let there: u64;
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") old => there,
            options(nostack),
        );
    }
    there
}
