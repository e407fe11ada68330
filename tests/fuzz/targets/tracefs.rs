//! Files of tracefs and the list of kprobes: module, probe and event names come from whoever
//! made them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::tracing::{dynamic, text};
use stalltop_model::sample::EnableState;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(text::set_event(bytes).count() <= lines);
    assert!(text::triggers(bytes).len() <= lines);
    assert!(text::kprobes_list(bytes).len() <= lines);
    let _ = text::filter(bytes);
    let _ = text::buffer_stats(bytes);
    let _ = EnableState::parse(bytes);
    for origin in [
        dynamic::Origin::Kprobes,
        dynamic::Origin::Uprobes,
        dynamic::Origin::All,
    ] {
        assert!(dynamic::definitions(bytes, origin).len() <= lines);
    }
    let merged = dynamic::merge(bytes, bytes, bytes);
    assert!(merged.len() <= 3 * lines);
    let _ = dynamic::kprobe_profile(bytes);
    let _ = dynamic::uprobe_profile(bytes);
});
