//! What this CPU runs, looked at from its timer interrupts: the scheduler's tick, always, and the
//! sampler, 1,000 times a second where user space starts it.
//!
//! `hrtimer_expire_entry` (include/trace/events/timer.h) as `tp_btf` costs no interrupt of its own:
//! it fires just before each high-resolution timer's function, and all but the tick's are left at
//! once (where the tick is no such timer, with `highres=off`, there are no samples). The tick is
//! told by its function's address, which user space finds in kallsyms. The timer says when it was
//! due: how late it is, is for how long interrupts were off at the least.
//!
//! `sample` is a `perf_event` program, run by the interrupt of a clock or of a cycle counter; the
//! latter is not maskable, is never late, and finds nothing but what runs.
//!
//! Measured by the kernel on a busy 6.18: 0.5 to 0.7 us for a timer that expires, the tick nearly
//! always; 1.6 to 2.4 us for a sample, beside 10 to 20 us for its interrupt.
//!
//! Both write a sample (`stall.rs`) when the interrupted task is not the idle task.

use aya_ebpf::{
    EbpfContext, Global,
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, perf_event},
    programs::{BtfTracePointContext, PerfEventContext},
};
use stalltop_wire::stall::{StackSample, flag};
use stalltop_wire::{NO_OFFSET, arch};

use crate::cores::{now, this_cpu};
use crate::sched::field;
use crate::stall::{Interrupt, LATE_NS, SAMPLER_NMI, alive, code, irqs_off, publish, take};

#[unsafe(no_mangle)]
static HRTIMER_FUNCTION: Global<u64> = Global::new(NO_OFFSET);
#[unsafe(no_mangle)]
static HRTIMER_EXPIRES: Global<u64> = Global::new(NO_OFFSET);
/// Addresses of the tick's functions; 0 where the kernel has no such function.
#[unsafe(no_mangle)]
static TICK_NOHZ_HANDLER: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TICK_SCHED_TIMER: Global<u64> = Global::new(0);
/// Where the code by which interrupts enter the kernel begins and ends.
#[unsafe(no_mangle)]
static ENTRY_START: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static ENTRY_END: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static ARCH: Global<u64> = Global::new(arch::OTHER);

/// A sampler's period.
const PERIOD_NS: u64 = 1_000_000;
/// Among how many frames the interrupt's entry is looked for: a handler behind generic interrupt
/// handling is about 15 deep.
const ENTRY_DEPTH: usize = 24;

#[btf_tracepoint(function = "hrtimer_expire_entry")]
pub fn hrtimer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot, interrupts are off, and argument 0 is a
    // `struct hrtimer *`.
    unsafe {
        (*cpu).hrtimers += 1;
        let timer: *const u8 = ctx.arg(0);
        let function: u64 = field(timer, &HRTIMER_FUNCTION);
        if function != TICK_NOHZ_HANDLER.load() && function != TICK_SCHED_TIMER.load() {
            return 0;
        }
        let pid_tgid = bpf_get_current_pid_tgid();
        if pid_tgid as u32 == 0 {
            return 0;
        }
        let due: u64 = field(timer, &HRTIMER_EXPIRES);
        let now = now();
        let alive = alive(cpu);
        let interrupt = Interrupt {
            ctx: ctx.as_ptr(),
            flags: 0,
            ip: 0,
            pid_tgid,
            now,
            alive,
            stack: true,
        };
        if let Some((slot, number)) = take(cpu, &interrupt) {
            interrupted(slot);
            publish(slot, number);
        }
        (*cpu).ticked_ns = now;
        irqs_off(cpu, due, alive, now);
    }
    0
}

/// Finds the interrupted instruction in the stack: what follows the frame of the interrupt's entry,
/// because the kernel's unwinders go through the saved registers there. Where nothing follows, user
/// space was interrupted.
///
/// # Safety
/// `slot` is an entry of this CPU with a stack.
#[inline(always)]
unsafe fn interrupted(slot: *mut StackSample) {
    // SAFETY: in bounds of the stack, whose rest the kernel has zeroed.
    unsafe {
        let stack = (&raw const (*slot).stack).cast::<u64>();
        for i in 0..ENTRY_DEPTH {
            let at = stack.add(i).read_volatile();
            if at < ENTRY_START.load() || at >= ENTRY_END.load() {
                continue;
            }
            let ip = stack.add(i + 1).read_volatile();
            let skip = (i as u64 + 1) << flag::SKIP_SHIFT;
            if ip == 0 {
                (*slot).flags |= skip | flag::REGS | flag::USER;
            } else {
                (*slot).flags |= skip | flag::REGS;
                (*slot).ip = ip;
                code(slot, ip);
            }
            return;
        }
    }
}

#[perf_event]
pub fn sample(ctx: PerfEventContext) -> i32 {
    let Some(cpu) = this_cpu() else { return 0 };
    // SAFETY: `cpu` is this CPU's slot; interrupts are off.
    unsafe {
        (*cpu).sampler_runs += 1;
        let pid_tgid = bpf_get_current_pid_tgid();
        if pid_tgid as u32 == 0 {
            return 0;
        }
        let now = now();
        let alive = alive(cpu);
        // While the CPU was idle there were no samples: the next was due after that.
        let mut last = (*cpu).sampled_ns;
        if last != 0 && (*cpu).busy_ns > last {
            last = (*cpu).busy_ns;
        }
        let due = if last == 0 { now } else { last + PERIOD_NS };
        let (ip, flags) = registers(&ctx);
        // Who is in a lock, and behind whose program, only the stack tells.
        let kernel = flags & (flag::REGS | flag::USER) == flag::REGS;
        let interrupt = Interrupt {
            ctx: ctx.as_ptr(),
            flags: flags | flag::SAMPLER | SAMPLER_NMI.load() * flag::NMI,
            ip,
            pid_tgid,
            now,
            alive,
            stack: kernel || due.wrapping_add(LATE_NS) <= now,
        };
        if let Some((slot, number)) = take(cpu, &interrupt) {
            publish(slot, number);
        }
        (*cpu).sampled_ns = now;
        if SAMPLER_NMI.load() == 0 {
            irqs_off(cpu, due, alive, now);
        }
    }
    0
}

/// The interrupted instruction and its flags, from the registers in the context.
///
/// The verifier takes a constant offset only; the architecture is a constant to it, so that it
/// never sees the branch that is not taken.
#[inline(always)]
fn registers(ctx: &PerfEventContext) -> (u64, u64) {
    let ctx = ctx.as_ptr();
    let (ip, user): (u64, u64);
    match ARCH.load() {
        // struct pt_regs: ip is word 16, cs word 17, whose two lowest bits are the privilege level.
        arch::X86_64 => {
            let cs: u64;
            // SAFETY: loads from the context, within it.
            unsafe {
                core::arch::asm!(
                    "{ip} = *(u64 *)({ctx} + 128)",
                    "{cs} = *(u64 *)({ctx} + 136)",
                    ctx = in(reg) ctx,
                    ip = out(reg) ip,
                    cs = out(reg) cs,
                    options(nostack, readonly),
                );
            }
            user = (cs & 3 != 0) as u64;
        }
        // struct user_pt_regs: pc is word 32, pstate word 33, whose mode is 0 for EL0t.
        arch::ARM64 => {
            let pstate: u64;
            // SAFETY: as above.
            unsafe {
                core::arch::asm!(
                    "{ip} = *(u64 *)({ctx} + 256)",
                    "{pstate} = *(u64 *)({ctx} + 264)",
                    ctx = in(reg) ctx,
                    ip = out(reg) ip,
                    pstate = out(reg) pstate,
                    options(nostack, readonly),
                );
            }
            user = (pstate & 0xf == 0) as u64;
        }
        _ => return (0, 0),
    }
    (ip, flag::REGS | user * flag::USER)
}
