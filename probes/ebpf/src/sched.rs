//! Switches of tasks on this CPU: every task's wait for it, ksoftirqd's time, tasks that kept it
//! although they were to leave it, and real-time tasks that kept others waiting.
//!
//! Hooks `sched_switch` as `tp_btf`: the task pointers are read without a helper, at offsets that
//! user space finds in the running kernel's BTF and puts into the read-only globals below, where
//! the verifier sees constants. Writes this CPU's slot of the map `CPUS`; interrupts are off.
//!
//! Run-queue delay comes from this hook alone: when the tracepoint fires, `sched_info_arrive`
//! (kernel/sched/stats.h) has not yet reset `sched_info.last_queued`, and `rq->clock` is what the
//! kernel itself will subtract it from. It covers a wakeup as well as a preemption.
//!
//! Measured by the kernel on 6.18: 136 to 143 ns a switch while two tasks wake each other in turn
//! (110 to 130 under mixed load), where a program that does nothing has 67.
//!
//! The current task is still the one that leaves: what an event says of a task is of that one, but
//! where real-time tasks kept the CPU. Who waited for them need not be the one that follows: RT
//! throttling and the fair server give ordinary tasks 50 ms of each second, and of these a task that
//! has just been woken may be first. So what such tasks did is kept until it is known.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use stalltop_wire::stall::kind;
use stalltop_wire::{Cpu, NO_OFFSET};

use crate::cores::{now, parity, this_cpu};
use crate::stall::{
    KSOFTIRQD_NS, LATE_NS, NO_VECTOR, REAL_TIME_NS, RESCHED_NS, emit, kernel, oldest_pending,
};

#[unsafe(no_mangle)]
pub(crate) static TASK_PID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_LAST_QUEUED: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
pub(crate) static TASK_CFS_RQ: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
pub(crate) static CFS_RQ_RQ: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static RQ_CLOCK: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static TASK_PRIO: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static TASK_POLICY: Global<u64> = Global::new(NO_OFFSET);

/// `task_struct.prio` from which on a task is not a real-time one (`MAX_RT_PRIO`,
/// include/linux/sched/prio.h): below it are those of `SCHED_FIFO` and `SCHED_RR`, those that inherit
/// such a priority, and at -1 those of `SCHED_DEADLINE`. The idle task's is above.
const MAX_RT_PRIO: i32 = 100;

/// Reads a field of a kernel structure that `base` points to.
///
/// # Safety
/// `base` is a pointer the verifier tracks by type, and a `T` lies at `offset` by the kernel's BTF.
#[inline(always)]
pub(crate) unsafe fn field<T: Copy>(base: *const u8, offset: &Global<u64>) -> T {
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
        let prev: *const u8 = ctx.arg(1);
        let next: *const u8 = ctx.arg(2);
        let prev_pid = u64::from(field::<u32>(prev, &TASK_PID));
        let next_pid = u64::from(field::<u32>(next, &TASK_PID));
        let now = now();
        let switched = (*cpu).switched_ns;
        (*cpu).switched_ns = now;
        if prev_pid == 0 {
            (*cpu).busy_ns = now;
        }
        if TASK_PRIO.load() != NO_OFFSET {
            let prio: i32 = field(prev, &TASK_PRIO);
            if prio >= MAX_RT_PRIO {
                (*cpu).ordinary_ns = now;
            } else if now.wrapping_sub((*cpu).ordinary_ns) >= REAL_TIME_NS.load() {
                real_time_left(cpu, prio, switched);
            }
        }
        // pid 0 is the idle task of every CPU, which waits for nothing.
        let (mut wait, mut stale) = (0, 0);
        if next_pid == 0 {
            (*cpu).idle_ns = now;
        } else {
            (wait, stale) = waited(cpu, next, now.wrapping_sub(switched));
            // A CPU that went idle meanwhile was not what the task waited for: its cgroup was
            // throttled, or it slept. From 6.12 on a sleeping task can be moved to another queue
            // while its dequeue is delayed, and is then "queued" since, for the kernel's own
            // run_delay, too (seen: 382 s).
            if now.wrapping_sub(wait) < (*cpu).idle_ns {
                wait = 0;
            }
            if wait == 0 {
                stale = 0;
            }
        }
        if wait != 0 {
            (*cpu).run_delays += 1;
            (*cpu).run_delay_ns += wait;
            let max = (&raw mut (*cpu).run_delay_max_ns)
                .cast::<u64>()
                .add(parity(cpu));
            if wait > *max {
                *max = wait;
            }
            if TASK_PRIO.load() != NO_OFFSET && wait + stale >= REAL_TIME_NS.load() {
                let prio: i32 = field(next, &TASK_PRIO);
                real_time_waited(cpu, next_pid, prio, wait + stale);
            }
        }
        let seen = (*cpu).resched_seen_ns;
        if seen != 0 {
            (*cpu).resched_seen_ns = 0;
            // Set by a sample that interrupted a switch, it would be the stamp of another task.
            if seen > switched && prev_pid != 0 && now - seen >= LATE_NS {
                let clear = (*cpu).resched_clear_ns;
                let earliest = if clear > switched { clear } else { switched };
                resched(cpu, next_pid, earliest, seen, wait + stale);
            }
        }
        // 0 while user space has not filled it in.
        let ksoftirqd = (&raw const (*cpu).ksoftirqd_pid).read_volatile();
        if ksoftirqd == 0 {
            return 0;
        }
        if prev_pid == ksoftirqd {
            let since = (*cpu).ksoftirqd_since_ns;
            if since != 0 {
                (*cpu).ksoftirqd_since_ns = 0;
                (*cpu).ksoftirqd_ns += now.wrapping_sub(since);
            }
            return 0;
        }
        if next_pid != ksoftirqd {
            return 0;
        }
        (*cpu).ksoftirqd_since_ns = now;
        (*cpu).ksoftirqd_runs += 1;
        if wait != 0 {
            (*cpu).ksoftirqd_wait_ns += wait;
            let max = (&raw mut (*cpu).ksoftirqd_wait_max_ns)
                .cast::<u64>()
                .add(parity(cpu));
            if wait > *max {
                *max = wait;
            }
            if wait >= KSOFTIRQD_NS.load() {
                starved(cpu, next_pid, now, wait + stale);
            }
        }
    }
    0
}

/// For how long the task that is switched in was runnable, by the run queue's clock, as the kernel
/// itself has it; and for how long that clock has stood still. 0 where the kernel does not say.
///
/// The kernel does not bring the clock up to date for a switch that a wakeup asked for
/// (`rq_clock_skip_update` in `wakeup_preempt`, kernel/sched/core.c): then it is as old as the last
/// tick, and the wait of a task for one that does not yield would come out up to a tick too short.
/// How far it is behind ours in other switches tells how old it is. The two clocks may run apart by
/// 1 in 2,048; NTP keeps them far closer.
///
/// # Safety
/// `cpu` is this CPU's slot, whose last switch was before `since_last` ns, and `next` a
/// `struct task_struct`.
#[inline(always)]
unsafe fn waited(cpu: *mut Cpu, next: *const u8, since_last: u64) -> (u64, u64) {
    if TASK_LAST_QUEUED.load() == NO_OFFSET || RQ_CLOCK.load() == NO_OFFSET {
        return (0, 0);
    }
    // SAFETY: a typed pointer and its fields by the kernel's BTF.
    unsafe {
        let queued: u64 = field(next, &TASK_LAST_QUEUED);
        if queued == 0 {
            return (0, 0);
        }
        let cfs_rq: *const u8 = field(next, &TASK_CFS_RQ);
        let rq: *const u8 = field(cfs_rq, &CFS_RQ_RQ);
        let clock: u64 = field(rq, &RQ_CLOCK);
        let behind = (*cpu).switched_ns.wrapping_sub(clock);
        let usual = (*cpu).clock_behind_ns.wrapping_add(since_last >> 11);
        let stale = behind.wrapping_sub(usual);
        let stale = if (*cpu).clock_behind_ns == 0 || stale as i64 <= 0 {
            (*cpu).clock_behind_ns = behind;
            0
        } else {
            (*cpu).clock_behind_ns = usual;
            stale
        };
        // Clocks of two CPUs' run queues differ a little; the kernel too takes such a wait as none.
        if clock > queued {
            (clock - queued, stale)
        } else {
            (0, 0)
        }
    }
}

/// ksoftirqd waited: a stall for as long as a vector was pending meanwhile. It may be no more: who
/// kept bottom halves off runs what is pending as it lets them on again.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(never)]
unsafe fn starved(cpu: *mut Cpu, pid: u64, now: u64, wait: u64) {
    // SAFETY: the caller's; the vector is in bounds.
    unsafe {
        let queued = now - wait;
        let mut nr = (*cpu).late_vector & 0xf;
        let (raised, mut end) = ((*cpu).late_raised_ns, (*cpu).late_entered_ns);
        let mut start = if queued > raised { queued } else { raised };
        let (raised, pending) = oldest_pending(cpu);
        if raised != u64::MAX {
            let since = if queued > raised { queued } else { raised };
            // The longer of the two.
            if end <= start || now - since > end - start {
                nr = pending;
                start = since;
                end = now;
            }
        }
        if end > start && end - start >= KSOFTIRQD_NS.load() {
            emit(
                cpu,
                kind::KSOFTIRQD | nr << 8 | pid << 32,
                start,
                start,
                end,
            );
        }
    }
}

/// A real-time task leaves the CPU, and for the threshold or longer none of another kind has run.
///
/// # Safety
/// `cpu` is this CPU's slot, and `switched` when the current task was switched in.
#[inline(never)]
unsafe fn real_time_left(cpu: *mut Cpu, prio: i32, switched: u64) {
    // SAFETY: the caller's; the helper writes no more than the given length.
    unsafe {
        let now = (*cpu).switched_ns;
        let from = (*cpu).ordinary_ns;
        if from == 0 {
            return;
        }
        if (*cpu).real_time_from_ns != from {
            (*cpu).real_time_from_ns = from;
            (*cpu).real_time_told_ns = 0;
            (*cpu).real_time_ran_ns = 0;
        }
        (*cpu).real_time_to_ns = now;
        let ran = now.wrapping_sub(switched);
        if ran < (*cpu).real_time_ran_ns {
            return;
        }
        (*cpu).real_time_ran_ns = ran;
        (*cpu).real_time_pid_tgid = bpf_get_current_pid_tgid();
        bpf_get_current_comm((&raw mut (*cpu).real_time_comm).cast(), 16);
        let policy = kernel(bpf_get_current_task() + TASK_POLICY.load());
        (*cpu).real_time_sched = policy << 32 | u64::from(prio as u32);
    }
}

/// A task runs that waited for the threshold or longer: a stall for as long as real-time tasks of
/// higher priority alone ran meanwhile. Of several that waited for the same ones each that did so
/// longer than those before it is told.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(never)]
unsafe fn real_time_waited(cpu: *mut Cpu, pid: u64, prio: i32, wait: u64) {
    // SAFETY: the caller's.
    unsafe {
        if prio <= (*cpu).real_time_sched as i32 {
            return;
        }
        let queued = (*cpu).switched_ns - wait;
        let (from, end) = ((*cpu).real_time_from_ns, (*cpu).real_time_to_ns);
        let start = if queued > from { queued } else { from };
        if end <= start || end - start < REAL_TIME_NS.load() {
            return;
        }
        if end - start > (*cpu).real_time_told_ns {
            (*cpu).real_time_told_ns = end - start;
            let what = kind::REAL_TIME | NO_VECTOR | pid << 32;
            emit(cpu, what, start, start, end);
        }
    }
}

/// A task leaves the CPU that was seen to be told to. When it was told lies between `earliest` and
/// `seen`; where the task that follows was queued between these two, it was then.
///
/// # Safety
/// `cpu` is this CPU's slot.
#[inline(never)]
unsafe fn resched(cpu: *mut Cpu, next_pid: u64, earliest: u64, seen: u64, wait: u64) {
    let what = kind::RESCHED | NO_VECTOR | next_pid << 32;
    // SAFETY: the caller's.
    unsafe {
        let now = (*cpu).switched_ns;
        let queued = now - wait;
        let exact = queued >= earliest && queued <= seen && wait != 0;
        let (start, earliest) = if exact {
            (queued, queued)
        } else {
            (seen, earliest)
        };
        if earliest != 0 && now - earliest >= RESCHED_NS.load() {
            emit(cpu, what, start, earliest, now);
        }
    }
}
