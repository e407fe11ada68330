//! The journal: written by us, but it outlives crashes and can be cut or damaged anywhere.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::change::Journal;

fuzz_target!(|bytes: &[u8]| {
    let journal = Journal::parse(Path::new("journal"), "boot".into(), bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(journal.entries().len() + journal.damage().len() <= lines);
    if let Some(entry) = journal.last_undoable() {
        assert!(journal.can_undo(entry));
    }
});
