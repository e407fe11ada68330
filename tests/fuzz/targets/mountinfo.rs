//! /proc/self/mountinfo: mount points may hold any byte, escaped in octal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::env;

fuzz_target!(|bytes: &[u8]| {
    let mounts = env::parse_mountinfo(bytes);
    assert!(mounts.len() <= bytes.len());
});
