//! /proc/PID/cgroup, and cgroup paths: whose cgroup it is, and what of it a terminal gets to see.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::owner;
use stalltop_model::printable;

fuzz_target!(|bytes: &[u8]| {
    let _ = owner::of_proc_cgroup(bytes);
    if let Ok(path) = std::str::from_utf8(bytes) {
        let _ = owner::of_cgroup_path(path);
        assert!(!printable(path).chars().any(char::is_control));
    }
});
