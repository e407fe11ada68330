//! A recording: any bytes open or are refused; what opens plays to its end from anywhere. Half
//! of the inputs are compressed first, as else zstd would stop nearly all of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_model::recording::{Player, Recording};

fuzz_target!(|bytes: &[u8]| {
    let (Some(first), rest) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else {
        return;
    };
    let data = if first & 1 == 0 {
        rest.to_vec()
    } else {
        zstd::encode_all(rest, 1).expect("zstd takes any bytes")
    };
    let Ok(recording) = Recording::open(data, |_| {}) else {
        return;
    };
    let span = recording.span_ns();
    let mut player = Player::new(recording);
    let mut frames = 0;
    while !matches!(player.next_frame(), Ok(None)) {
        frames += 1;
        assert!(frames <= 1 << 20, "it never ends");
    }
    if let Some((from, to)) = span {
        assert!(from <= to);
        player.seek(from.midpoint(to));
        let _ = player.next_frame();
    }
});
