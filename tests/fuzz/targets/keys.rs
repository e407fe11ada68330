//! A file of keys, as `--keys` takes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_view::{Key, Keymap};

fuzz_target!(|text: &str| {
    let _ = Keymap::with(text);
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string().parse::<Key>().ok(), Some(key));
    }
});
