//! Programs that answer a question about this host to their loader, and are gone again.
//!
//! `own_tgid` hooks nothing: its loader runs it (`BPF_PROG_TEST_RUN`), in its own context.
//! `resched_bits` hooks `sched_set_need_resched_tp` (include/trace/events/sched.h, from 6.15 on) for
//! some milliseconds, and writes one word that all CPUs share, once for each bit.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};

use crate::cores::arg;

/// The bits of `thread_info.flags` that were seen to be set.
#[map]
static RESCHED_BITS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Gives the process id of whoever runs it, as the kernel counts. Without aya's macro, whose
/// programs give 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/own_tgid")]
pub extern "C" fn own_tgid(_: *mut c_void) -> u32 {
    // SAFETY: the helper takes no argument.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The tracepoint's third argument is the number of the bit that asks for a reschedule.
#[raw_tracepoint(tracepoint = "sched_set_need_resched_tp")]
pub fn resched_bits(ctx: RawTracePointContext) -> i32 {
    let Some(bits) = RESCHED_BITS.get_ptr_mut(0) else {
        return 0;
    };
    let bit = 1_u64 << (arg(&ctx, 2) & 63);
    // SAFETY: a word of the map.
    unsafe {
        if bits.read_volatile() & bit == 0 {
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) |= {bit}",
                word = in(reg) bits,
                bit = in(reg) bit,
                options(nostack),
            );
        }
    }
    0
}
