//! /proc and /sys files about the host as a whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::{cpu_list, env, host, own, system};

fuzz_target!(|bytes: &[u8]| {
    let _ = system::parse_uptime(bytes);
    let _ = system::parse_loadavg(bytes);
    let _ = system::parse_meminfo(bytes);
    let _ = system::parse_pressure(bytes, b"some");
    let _ = own::parse_statm_resident(bytes);
    let _ = host::parse_sched_preempt(bytes);
    if let Ok(release) = std::str::from_utf8(bytes) {
        let _ = env::KernelVersion::parse(release);
    }
    let cpus = cpu_list::cpus(bytes);
    assert!(cpus.is_sorted_by(|a, b| a < b));
});
