//! /proc/PID/fdinfo: which program, link or map a descriptor is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::tracing::holders;

fuzz_target!(|bytes: &[u8]| {
    let _ = holders::fdinfo(bytes);
});
