//! Programs that do nothing, for `cargo xtask bench probes`: what attaching anything costs.
//! Only the benchmark loads them.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

#[raw_tracepoint(tracepoint = "softirq_raise")]
pub fn empty_raise(_: RawTracePointContext) -> i32 {
    0
}

#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn empty_entry(_: RawTracePointContext) -> i32 {
    0
}

#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn empty_exit(_: RawTracePointContext) -> i32 {
    0
}
