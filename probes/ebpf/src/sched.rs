//! ksoftirqd on this CPU: time running, number of runs, time runnable but not running.
//!
//! Hooks `sched_switch` as `tp_btf`: the task pointers are read without a helper, at offsets that
//! user space finds in the running kernel's BTF and puts into the read-only globals below, where
//! the verifier sees constants. Writes this CPU's slot of the map `CPUS`; interrupts are off.
//!
//! Run-queue delay comes from this hook alone: when the tracepoint fires, `sched_info_arrive`
//! (kernel/sched/stats.h) has not yet reset `sched_info.last_queued`, and `rq->clock` is what the
//! kernel itself will subtract it from. It covers a wakeup as well as a preemption.

use aya_ebpf::{Global, macros::btf_tracepoint, programs::BtfTracePointContext};
use stalltop_wire::NO_OFFSET;

use crate::cores::{now, parity, this_cpu};

#[unsafe(no_mangle)]
static TASK_PID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_LAST_QUEUED: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static TASK_CFS_RQ: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static CFS_RQ_RQ: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static RQ_CLOCK: Global<u64> = Global::new(NO_OFFSET);

/// Reads a field of a kernel structure that `base` points to.
///
/// # Safety
/// `base` is a pointer the verifier tracks by type, and a `T` lies at `offset` by the kernel's BTF.
#[inline(always)]
unsafe fn field<T: Copy>(base: *const u8, offset: &Global<u64>) -> T {
    // SAFETY: the caller's; the verifier checks the access against the kernel's types.
    unsafe { base.add(offset.load() as usize).cast::<T>().read_volatile() }
}

#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot, interrupts are off, and arguments 1 and 2 are
    // `struct task_struct *` (include/trace/events/sched.h).
    unsafe {
        (*cpu).switches += 1;
        let ksoftirqd = (&raw const (*cpu).ksoftirqd_pid).read_volatile();
        let prev: *const u8 = ctx.arg(1);
        let next: *const u8 = ctx.arg(2);
        // pid 0 is the idle task of every CPU, and of a slot that user space has not filled in.
        if ksoftirqd == 0 {
            return 0;
        }
        if u64::from(field::<u32>(prev, &TASK_PID)) == ksoftirqd {
            let since = (*cpu).ksoftirqd_since_ns;
            if since != 0 {
                (*cpu).ksoftirqd_since_ns = 0;
                (*cpu).ksoftirqd_ns += now().wrapping_sub(since);
            }
            return 0;
        }
        if u64::from(field::<u32>(next, &TASK_PID)) != ksoftirqd {
            return 0;
        }
        (*cpu).ksoftirqd_since_ns = now();
        (*cpu).ksoftirqd_runs += 1;
        if TASK_LAST_QUEUED.load() == NO_OFFSET || RQ_CLOCK.load() == NO_OFFSET {
            return 0;
        }
        let queued: u64 = field(next, &TASK_LAST_QUEUED);
        if queued == 0 {
            return 0;
        }
        let cfs_rq: *const u8 = field(next, &TASK_CFS_RQ);
        let rq: *const u8 = field(cfs_rq, &CFS_RQ_RQ);
        let clock: u64 = field(rq, &RQ_CLOCK);
        // Clocks of two CPUs' run queues differ a little; the kernel too takes such a wait as none.
        if clock > queued {
            let wait = clock - queued;
            (*cpu).ksoftirqd_wait_ns += wait;
            let max = (&raw mut (*cpu).ksoftirqd_wait_max_ns)
                .cast::<u64>()
                .add(parity(cpu));
            if wait > *max {
                *max = wait;
            }
        }
    }
    0
}
