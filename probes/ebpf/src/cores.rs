//! Softirqs and hard interrupts per CPU.
//!
//! Hooks `softirq_raise`, `softirq_entry`, `softirq_exit`, `irq_handler_entry` and
//! `irq_handler_exit` (include/trace/events/irq.h, 5.10 to 6.18), one program each: a second
//! program on one tracepoint costs 42 ns more. All arguments used are scalars, so the programs
//! load both as `raw_tracepoint` and as `tp_btf`.
//!
//! Writes only this CPU's slot of [`CPUS`]. Softirq handlers do not nest on a CPU and hard
//! interrupts are off while `softirq_raise` and `irq_handler_*` fire, so every word has one writer.
//! One exception is harmless: an interrupt between the two instructions of `softirq_entry` that
//! take the pending stamp can raise the same vector again; that raise's delay is then not
//! measured. No wrong delay can come of it.
//!
//! A delay or a handler past its threshold becomes an event; that path is out of line. What is always
//! paid for it is one comparison and, for the interrupts-off detection, one store: an entry or an
//! exit fires with interrupts on.
//!
//! Attach exit, then entry, then raise: a stamp set by raise that no entry clears would show as a
//! delay of seconds.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_smp_processor_id, generated::bpf_ktime_get_ns},
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use stalltop_wire::stall::kind;
use stalltop_wire::{BUCKETS, Cpu, VECTORS, Vector, bucket};

use crate::stall::{DELAY_NS, HANDLER_NS, NO_NEXT, PENDING_NS, emit};

/// One slot per possible CPU; the loader sets the number of entries.
#[map]
static CPUS: Array<Cpu> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// This CPU's slot.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<*mut Cpu> {
    // SAFETY: the helper takes no argument and cannot fail.
    CPUS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() } as u32)
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// The `i`th argument of the tracepoint.
#[inline(always)]
pub(crate) fn arg(ctx: &RawTracePointContext, i: usize) -> u64 {
    // SAFETY: the kernel passes the tracepoint's arguments as an array of u64, and the verifier
    // checks the index.
    unsafe { *ctx.as_ptr().cast::<u64>().add(i) }
}

/// The slot of vector `nr` and the word of its `max_ns` pairs now in use.
///
/// # Safety
/// `cpu` came from [`this_cpu`].
#[inline(always)]
unsafe fn vector(cpu: *mut Cpu, nr: u64) -> Option<*mut Vector> {
    if nr >= VECTORS as u64 {
        return None;
    }
    // SAFETY: in bounds by the check above; no slice index, which would leave a panic behind.
    Some(unsafe { (&raw mut (*cpu).vectors).cast::<Vector>().add(nr as usize) })
}

/// [`bucket`], bounded in a way that every verifier sees.
///
/// The compiler knows that a bucket is below 32 and drops a mask written in Rust; verifiers before
/// 6.8 know nothing of a register after `or` with another (`adjust_scalar_min_max_vals`).
#[inline(always)]
pub(crate) fn slot(ns: u64) -> usize {
    let mut slot = bucket(ns) as u64;
    // SAFETY: one instruction on one register.
    unsafe {
        core::arch::asm!(
            "{slot} &= {mask}",
            slot = inout(reg) slot,
            mask = const BUCKETS - 1,
            options(pure, nomem, nostack),
        );
    }
    slot as usize
}

#[raw_tracepoint(tracepoint = "softirq_raise")]
pub fn softirq_raise(ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot, and nobody else writes it while interrupts are off.
    unsafe {
        (*cpu).raises += 1;
        let Some(v) = vector(cpu, arg(&ctx, 0)) else {
            return 0;
        };
        // A vector that is pending already has waited since its first raise.
        if (*v).raised_ns == 0 {
            (*v).raised_ns = now();
        }
    }
    0
}

#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn softirq_entry(ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot; softirqs do not nest on a CPU.
    unsafe {
        let Some(v) = vector(cpu, arg(&ctx, 0)) else {
            return 0;
        };
        let now = now();
        (*v).entered_ns = now;
        (*cpu).softirq_ns = now;
        let raised = (*v).raised_ns;
        if raised != 0 {
            (*v).raised_ns = 0;
            let delay = now.wrapping_sub(raised);
            (*v).delay_ns += delay;
            let max = (&raw mut (*v).delay_max_ns).cast::<u64>().add(parity(cpu));
            if delay > *max {
                *max = delay;
            }
            let slot = (&raw mut (*v).delay_hist).cast::<u64>().add(slot(delay));
            *slot += 1;
            if delay >= DELAY_NS.load() {
                late(cpu, arg(&ctx, 0), raised, now);
            }
        }
    }
    0
}

/// A vector was entered late. Out of line.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(never)]
unsafe fn late(cpu: *mut Cpu, nr: u64, raised: u64, now: u64) {
    // SAFETY: the caller's.
    unsafe {
        // Of those since the last switch the one that waited longest: who lets bottom halves on
        // again runs all of them, one after the other.
        let before = (*cpu).late_entered_ns;
        if before <= (*cpu).switched_ns || now - raised >= before - (*cpu).late_raised_ns {
            (*cpu).late_vector = nr;
            (*cpu).late_raised_ns = raised;
            (*cpu).late_entered_ns = now;
        }
        if now.wrapping_sub(raised) >= PENDING_NS.load() {
            (*cpu).draining = nr + 1;
            emit(cpu, kind::PENDING | nr << 8 | NO_NEXT, raised, raised, now);
        }
    }
}

#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn softirq_exit(ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot; softirqs do not nest on a CPU.
    unsafe {
        let Some(v) = vector(cpu, arg(&ctx, 0)) else {
            return 0;
        };
        let entered = (*v).entered_ns;
        // A handler that was running when the programs were attached has no entry.
        if entered == 0 {
            return 0;
        }
        (*v).entered_ns = 0;
        let now = now();
        (*cpu).softirq_ns = now;
        let time = now.wrapping_sub(entered);
        (*v).time_ns += time;
        let max = (&raw mut (*v).max_ns).cast::<u64>().add(parity(cpu));
        if time > *max {
            *max = time;
        }
        let slot = (&raw mut (*v).hist).cast::<u64>().add(slot(time));
        *slot += 1;
        if time >= HANDLER_NS.load() {
            let what = kind::HANDLER | arg(&ctx, 0) << 8 | NO_NEXT;
            emit(cpu, what, entered, entered, now);
        }
        // Only of the handler that was entered late: another vector's may have been lost with it.
        if (*cpu).draining != 0 {
            let nr = arg(&ctx, 0);
            if (*cpu).draining == nr + 1 {
                emit(
                    cpu,
                    kind::DRAINED | nr << 8 | NO_NEXT,
                    entered,
                    entered,
                    now,
                );
            }
            (*cpu).draining = 0;
        }
    }
    0
}

#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub fn irq_handler_entry(_: RawTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot, and interrupts are off.
    unsafe {
        if (*cpu).hardirq_depth == 0 {
            (*cpu).hardirq_entered_ns = now();
        }
        (*cpu).hardirq_depth += 1;
    }
    0
}

#[raw_tracepoint(tracepoint = "irq_handler_exit")]
pub fn irq_handler_exit(_: RawTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot, and interrupts are off.
    unsafe {
        let depth = (*cpu).hardirq_depth;
        // A handler that was running when the programs were attached has no entry.
        if depth == 0 {
            return 0;
        }
        (*cpu).hardirq_depth = depth - 1;
        (*cpu).hardirqs += 1;
        if depth == 1 {
            let time = now().wrapping_sub((*cpu).hardirq_entered_ns);
            (*cpu).hardirq_ns += time;
            let max = (&raw mut (*cpu).hardirq_max_ns)
                .cast::<u64>()
                .add(parity(cpu));
            if time > *max {
                *max = time;
            }
        }
    }
    0
}

/// Which word of the `max_ns` pairs the current tick uses.
///
/// # Safety
/// `cpu` came from [`this_cpu`].
#[inline(always)]
pub(crate) unsafe fn parity(cpu: *mut Cpu) -> usize {
    // SAFETY: the caller's; volatile because user space writes the word.
    unsafe { (&raw const (*cpu).epoch).read_volatile() as usize & 1 }
}
