//! One line of a stream: whatever is read is written and read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_model::Frame;

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    let line = serde_json::to_vec(&frame).expect("a frame becomes JSON");
    let again = Frame::parse(&line).expect("our own line is read");
    assert_eq!(frame, again);
});
