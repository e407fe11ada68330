//! Stall events and samples: what the programs that find stalls have in common. No hook of its own.
//!
//! A sample goes to this CPU's entries of [`SAMPLES`], an event to the ring buffer [`STALLS`].
//!
//! Samples are written in hard interrupts and, with a hardware counter, in non-maskable ones. Each
//! takes the next number before it writes anything else, so one that interrupts another uses the
//! entry after it. Between reading and writing that number a non-maskable one would take the same
//! and be overwritten as a whole: no entry ever holds parts of two. A reader checks the number
//! before and after. On arm64 the stores may become visible in another order: a reader of an entry
//! written within the last microsecond could see a stale word.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_USER_STACK},
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_get_smp_processor_id, bpf_get_stack, bpf_probe_read_kernel, bpf_ringbuf_reserve,
        bpf_ringbuf_submit,
    },
    macros::map,
    maps::{Array, RingBuf},
};
use stalltop_wire::stall::{FRAMES, NONE, StackSample, StallEvent, USER_FRAMES, flag, kind};
use stalltop_wire::{Cpu, NO_OFFSET, VECTORS, Vector};

use crate::sched::{CFS_RQ_RQ, TASK_CFS_RQ};

/// The loader sets the number of entries: `SAMPLE_SLOTS` for each possible CPU.
#[map]
static SAMPLES: Array<StackSample> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The loader sets the size.
#[map]
static STALLS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[unsafe(no_mangle)]
static SAMPLE_SLOTS: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
pub(crate) static PENDING_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static DELAY_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static HANDLER_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static KSOFTIRQD_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static IRQS_OFF_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static RESCHED_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
pub(crate) static REAL_TIME_NS: Global<u64> = Global::new(u64::MAX);
#[unsafe(no_mangle)]
static TASK_TI_FLAGS: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static NEED_RESCHED: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static RQ_STEAL: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
pub(crate) static SAMPLER_NMI: Global<u64> = Global::new(0);

/// How late an interrupt is at the least before one looks whether interrupts were off; and for how
/// long at the least a requested reschedule was seen. Less is an interrupt handler's own time.
pub(crate) const LATE_NS: u64 = 1_000_000;

/// In the word that tells [`emit`] what happened: no vector.
pub(crate) const NO_VECTOR: u64 = 0xff << 8;
/// In the same word: nobody got the CPU.
pub(crate) const NO_NEXT: u64 = 0xffff_ffff << 32;

/// Sends an event. `what` has the kind in bits 0 to 7, the vector in 8 to 15, the pid of the task
/// that got the CPU in 32 to 63.
///
/// Out of line, so that it costs the hot paths nothing; with five arguments, which is all that a
/// BPF function can have. Not `#[cold]`: that moves it to another section, and the linker of
/// aya-obj takes functions at the same offset of two sections for one.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(never)]
pub(crate) unsafe fn emit(cpu: *mut Cpu, what: u64, start: u64, earliest: u64, end: u64) {
    // SAFETY: `event` is as large as was asked for and every word of it is written; the helpers
    // write no more than the given lengths.
    unsafe {
        let size = size_of::<StallEvent>() as u64;
        let event = bpf_ringbuf_reserve((&raw const STALLS).cast_mut().cast(), size, 0)
            .cast::<StallEvent>();
        if event.is_null() {
            // An interrupt may come in between: one instruction, atomic on this CPU.
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {one}",
                word = in(reg) &raw mut (*cpu).events_lost,
                one = in(reg) 1_u64,
                options(nostack),
            );
            return;
        }
        (*event).kind = what & 0xff;
        (*event).cpu = u64::from(bpf_get_smp_processor_id());
        (*event).vector = match what & NO_VECTOR {
            NO_VECTOR => NONE,
            vector => vector >> 8,
        };
        (*event).start_ns = start;
        (*event).earliest_ns = earliest;
        (*event).end_ns = end;
        if what & 0xff == kind::REAL_TIME {
            // Another task may have run since.
            (*event).pid_tgid = (*cpu).real_time_pid_tgid;
            (*event).comm[0] = (*cpu).real_time_comm[0];
            (*event).comm[1] = (*cpu).real_time_comm[1];
            (*event).sched = (*cpu).real_time_sched;
        } else {
            (*event).pid_tgid = bpf_get_current_pid_tgid();
            bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
            (*event).sched = NONE;
        }
        (*event).next_pid = match what & NO_NEXT {
            NO_NEXT => NONE,
            pid => pid >> 32,
        };
        (*event).sample = (*cpu).samples;
        bpf_ringbuf_submit(event.cast(), 0);
    }
}

/// Since when the vector is pending that has been so longest, and which it is; `u64::MAX` where none
/// is.
///
/// Its number is kept in memory while they are compared: in a register the verifier would follow each
/// order by itself.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
pub(crate) unsafe fn oldest_pending(cpu: *mut Cpu) -> (u64, u64) {
    let mut oldest = u64::MAX;
    // SAFETY: in bounds.
    unsafe {
        let number = &raw mut (*cpu).oldest_vector;
        for nr in 0..VECTORS {
            let vector = (&raw const (*cpu).vectors).cast::<Vector>().add(nr);
            let raised = (&raw const (*vector).raised_ns).read_volatile();
            if raised != 0 && raised < oldest {
                oldest = raised;
                number.write_volatile(nr as u64);
            }
        }
        (oldest, number.read_volatile() & 0xf)
    }
}

/// When this CPU was last known to take interrupts; 0 where it never was. A non-maskable interrupt
/// is no such proof.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
pub(crate) unsafe fn alive(cpu: *mut Cpu) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let mut alive = (*cpu).softirq_ns;
        for other in [(*cpu).switched_ns, (*cpu).ticked_ns] {
            if other > alive {
                alive = other;
            }
        }
        if SAMPLER_NMI.load() == 0 && (*cpu).sampled_ns > alive {
            alive = (*cpu).sampled_ns;
        }
        alive
    }
}

/// Tells of interrupts that were off, when an interrupt came that was due at `due`.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
pub(crate) unsafe fn irqs_off(cpu: *mut Cpu, due: u64, alive: u64, now: u64) {
    if due.wrapping_add(LATE_NS) > now || alive == 0 {
        return;
    }
    if now.wrapping_sub(alive) >= IRQS_OFF_NS.load() {
        let start = if due > alive { due } else { alive };
        // SAFETY: the caller's.
        unsafe { emit(cpu, kind::IRQS_OFF | NO_VECTOR | NO_NEXT, start, alive, now) };
    }
}

/// Reads a word of the kernel's; 0 where that fails.
#[inline(always)]
pub(crate) unsafe fn kernel(at: u64) -> u64 {
    let mut word = 0_u64;
    // SAFETY: the helper writes 8 bytes or zeros and takes any address.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), 8, at as *const c_void) };
    word
}

/// Whether a reschedule of the task that runs is requested; and since when, for `sched_switch`.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(always)]
unsafe fn need_resched(cpu: *mut Cpu, task: u64, now: u64) -> bool {
    if TASK_TI_FLAGS.load() == NO_OFFSET {
        return false;
    }
    // SAFETY: the caller's.
    unsafe {
        if kernel(task + TASK_TI_FLAGS.load()) & NEED_RESCHED.load() == 0 {
            (*cpu).resched_clear_ns = now;
            (*cpu).resched_seen_ns = 0;
            return false;
        }
        // A stamp from before the task was switched in is another task's.
        if (*cpu).resched_seen_ns <= (*cpu).switched_ns {
            (*cpu).resched_seen_ns = now;
        }
    }
    true
}

/// Time that others than this machine had of this CPU, as the scheduler last took account of it.
#[inline(always)]
unsafe fn steal(task: u64) -> u64 {
    if TASK_CFS_RQ.load() == NO_OFFSET || RQ_STEAL.load() == NO_OFFSET {
        return NONE;
    }
    // SAFETY: `kernel` takes any address.
    unsafe {
        let cfs_rq = kernel(task + TASK_CFS_RQ.load());
        let rq = kernel(cfs_rq + CFS_RQ_RQ.load());
        if rq == 0 {
            return NONE;
        }
        kernel(rq + RQ_STEAL.load())
    }
}

/// What interrupted the task, as the caller knows it.
pub(crate) struct Interrupt {
    /// The program's context.
    pub(crate) ctx: *mut c_void,
    /// Bits of [`flag`].
    pub(crate) flags: u64,
    /// The interrupted instruction, where `REGS` is among them.
    pub(crate) ip: u64,
    pub(crate) pid_tgid: u64,
    pub(crate) now: u64,
    pub(crate) alive: u64,
    /// Take a stack whatever the CPU does.
    pub(crate) stack: bool,
}

/// Adds the pending and the running vectors to the sample's flags; gives since when the oldest is
/// pending or running, or `now`.
///
/// Both are kept in memory while they are put together. In registers the verifier would follow each
/// combination of vectors by itself: 4^10 of them.
///
/// # Safety
/// `cpu` is this CPU's slot, `slot` one of its entries.
#[inline(always)]
unsafe fn softirqs(cpu: *mut Cpu, slot: *mut StackSample, now: u64) -> u64 {
    // SAFETY: the caller's; the vectors are in bounds.
    unsafe {
        let running = (*cpu).softirq_ns;
        let flags = &raw mut (*slot).flags;
        // Written for good only afterwards.
        let oldest = &raw mut (*slot).frames;
        oldest.write_volatile(now);
        for nr in 0..VECTORS {
            let vector = (&raw const (*cpu).vectors).cast::<Vector>().add(nr);
            let raised = (&raw const (*vector).raised_ns).read_volatile();
            if raised != 0 {
                let bit = 1 << (flag::PENDING_SHIFT + nr as u32);
                flags.write_volatile(flags.read_volatile() | bit);
                if raised < oldest.read_volatile() {
                    oldest.write_volatile(raised);
                }
            }
            // Equal only while it runs: any other entry or exit has moved the other word on.
            let entered = (&raw const (*vector).entered_ns).read_volatile();
            if entered != 0 && entered == running {
                let bits = flag::IN_SOFTIRQ | (nr as u64) << flag::VECTOR_SHIFT;
                flags.write_volatile(flags.read_volatile() | bits);
                if entered < oldest.read_volatile() {
                    oldest.write_volatile(entered);
                }
            }
        }
        oldest.read_volatile()
    }
}

/// Keeps the compiler from moving a store to the other side.
#[inline(always)]
pub(crate) fn fence() {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("", options(nostack)) };
}

/// Writes a sample of what this CPU runs, but for its number; gives the entry and the number, to be
/// passed to [`publish`].
///
/// # Safety
/// `cpu` is this CPU's slot; in an interrupt.
#[inline(always)]
pub(crate) unsafe fn take(cpu: *mut Cpu, interrupt: &Interrupt) -> Option<(*mut StackSample, u64)> {
    let now = interrupt.now;
    // SAFETY: `cpu` is this CPU's slot and `slot` one of this CPU's entries; the helpers write no
    // more than the given lengths.
    unsafe {
        let task = bpf_get_current_task();
        let number = (*cpu).samples + 1;
        (*cpu).samples = number;
        let slots = SAMPLE_SLOTS.load();
        let me = u64::from(bpf_get_smp_processor_id());
        let slot = SAMPLES.get_ptr_mut((me * slots + (number & (slots - 1))) as u32)?;
        (&raw mut (*slot).seq).write_volatile(0);
        fence();
        (*slot).at_ns = now;
        (*slot).pid_tgid = interrupt.pid_tgid;
        bpf_get_current_comm((&raw mut (*slot).comm).cast(), 16);
        let on_cpu = (*cpu).switched_ns;
        (*slot).on_cpu_ns = on_cpu;
        (*slot).alive_ns = interrupt.alive;
        (*slot).steal_ns = steal(task);
        (*slot).ip = interrupt.ip;
        (*slot).code = 0;
        let mut flags = interrupt.flags;
        if need_resched(cpu, task, now) {
            flags |= flag::NEED_RESCHED;
        }
        (*slot).flags = flags;
        let oldest = softirqs(cpu, slot, now);

        let kernel_mode = flags & flag::REGS != 0 && flags & flag::USER == 0;
        if kernel_mode {
            code(slot, interrupt.ip);
        }
        let long = now.wrapping_sub(on_cpu) >= LATE_NS;
        let owed = now.wrapping_sub(oldest) >= LATE_NS / 2;
        if interrupt.stack || owed || kernel_mode && long {
            let stack = (&raw mut (*slot).stack).cast();
            let bytes = bpf_get_stack(interrupt.ctx, stack, (FRAMES * 8) as u32, 0);
            (*slot).frames = if bytes > 0 { bytes as u64 >> 3 } else { 0 };
        } else {
            (*slot).frames = NONE;
        }
        // A person asks for it only of a task that holds the CPU.
        (*slot).user_frames = NONE;
        if owed || long {
            let stack = (&raw mut (*slot).user).cast();
            let size = (USER_FRAMES * 8) as u32;
            let bytes = bpf_get_stack(interrupt.ctx, stack, size, u64::from(BPF_F_USER_STACK));
            if bytes > 0 {
                (*slot).user_frames = bytes as u64 >> 3;
            }
        }
        Some((slot, number))
    }
}

/// Makes a sample valid for its reader.
///
/// # Safety
/// The entry and the number came from [`take`].
#[inline(always)]
pub(crate) unsafe fn publish(slot: *mut StackSample, number: u64) {
    fence();
    // SAFETY: the caller's.
    unsafe { (&raw mut (*slot).seq).write_volatile(number) };
}

/// Reads the 8 bytes of code before an instruction of the kernel.
///
/// # Safety
/// `slot` is an entry of this CPU.
#[inline(always)]
pub(crate) unsafe fn code(slot: *mut StackSample, ip: u64) {
    // SAFETY: the helper writes 8 bytes or zeros and takes any address.
    unsafe {
        let before = ip.wrapping_sub(8) as *const c_void;
        bpf_probe_read_kernel((&raw mut (*slot).code).cast(), 8, before);
    }
}
