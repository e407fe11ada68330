//! /proc files that are read each tick, per CPU.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::cores::{
    interrupts, parse_ksoftirqd_stat, parse_schedstat, softirqs, softnet, stat,
};

fuzz_target!(|bytes: &[u8]| {
    let (mut columns, mut sums) = (Vec::new(), Vec::new());
    let mut cells = 0;
    let _ = softirqs::parse(bytes, &mut columns, |_, _, _| cells += 1);
    assert!(cells <= bytes.len());
    let _ = interrupts::parse(bytes, &mut columns, &mut sums);
    let _ = softnet::parse(bytes, |_| {});
    let _ = stat::parse(bytes, 10_000_000, |_, _| {});
    let _ = parse_ksoftirqd_stat(bytes);
    let _ = parse_schedstat(bytes);
});
