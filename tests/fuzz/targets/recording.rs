//! A recording: any bytes open or are refused; what opens plays to its end from anywhere, into the
//! model. Half of the inputs are compressed first, as else zstd would stop nearly all of them; half
//! are put together with themselves, as `cat a b` does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_model::Model;
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
    let data = if first & 2 == 0 {
        data
    } else {
        [&data[..], &data].concat()
    };
    let Ok(recording) = Recording::open(data, |_| {}) else {
        return;
    };
    let span = recording.span_ns();
    let mut player = Player::new(recording);
    let mut frames = 0;
    let mut model = Model::new();
    loop {
        match player.next_frame() {
            Ok(Some(mut frame)) => model.apply(&mut frame),
            Ok(None) => break,
            Err(_) => {}
        }
        frames += 1;
        assert!(frames <= 1 << 20, "it never ends");
    }
    if let Some((from, to)) = span {
        assert!(from <= to);
        player.seek(from.midpoint(to));
        let _ = player.next_frame();
    }
});
