//! Files of memory cgroups.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::cgroups::parse;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse::single(bytes);
    let _ = parse::keyed(bytes, "anon");
    let _ = parse::dying(bytes);
    let _ = parse::num_cgroups(bytes);
    assert!(parse::processes(bytes) <= bytes.len() as u64);
});
