//! Selectors, as a person writes them or a program hands them on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_collectors::change::selector;

fuzz_target!(|text: &str| {
    if let Ok(selectors) = selector::parse(text) {
        for selector in selectors {
            // What one selector was given as means the same again.
            assert_eq!(
                selector::parse(&selector.text).as_deref(),
                Ok(&[selector][..])
            );
        }
    }
});
