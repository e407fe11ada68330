//! Recordings written, cut, damaged and forged.

use super::*;
use crate::sample::{CpuSample, Host, Sample};

fn header() -> Header {
    Header {
        format: "stalltop".into(),
        schema: SCHEMA,
        version: "0".into(),
        tick_ns: 1_000_000_000,
        host: Host::default(),
    }
}

fn sample(i: u64) -> Frame {
    let mut sample = Sample {
        at_ns: i * 1_000_000_000,
        ..Sample::default()
    };
    sample.cpus.push(CpuSample {
        cpu: 0,
        online: true,
        ..CpuSample::default()
    });
    Frame::Sample(Box::new(sample))
}

fn record(samples: u64) -> Vec<u8> {
    let mut recorder = Recorder::new(Vec::new(), header()).unwrap();
    for i in 1..=samples {
        recorder.write(&sample(i)).unwrap();
    }
    recorder.finish().unwrap()
}

fn play(data: Vec<u8>) -> (Vec<u64>, Option<String>) {
    let recording = Recording::open(data, |_| ()).unwrap();
    let note = recording.note().map(str::to_owned);
    let mut player = Player::new(recording);
    let mut times = Vec::new();
    while let Some(frame) = player.next_frame().unwrap() {
        if let Frame::Sample(sample) = frame {
            times.push(sample.at_ns / 1_000_000_000);
        }
    }
    (times, note)
}

#[test]
fn what_was_written_is_played_and_can_be_sought() {
    let data = record(150);
    let (times, note) = play(data.clone());
    assert_eq!(times, (1..=150).collect::<Vec<_>>());
    assert_eq!(note, None);
    let recording = Recording::open(data, |_| ()).unwrap();
    assert_eq!(recording.span_ns(), Some((1_000_000_000, 150_000_000_000)));
    let mut player = Player::new(recording);
    player.seek(130_000_000_000);
    let Some(Frame::Sample(first)) = player.next_frame().unwrap() else {
        panic!("a sample")
    };
    assert_eq!(first.at_ns, 121_000_000_000);
}

#[test]
fn a_recording_cut_anywhere_plays_up_to_its_last_whole_sample() {
    let data = record(63);
    let mut before = 0;
    // Every cut near a group's edges, and every 41st in between.
    let near = |cut: usize| cut < 600 || cut + 600 > data.len();
    for cut in (1..data.len()).filter(|cut| near(*cut) || cut % 41 == 0) {
        match Recording::open(data[..cut].to_vec(), |_| ()) {
            Ok(_) => {
                let (times, note) = play(data[..cut].to_vec());
                assert_eq!(times, (1..=times.len() as u64).collect::<Vec<_>>());
                assert!(times.len() >= before, "more bytes never show less");
                before = times.len();
                assert!(note.is_some() || times.len() == 60, "cut at {cut} is noted");
            }
            Err(RecordingError::NoHeader | RecordingError::NotZstd { .. }) => {
                assert_eq!(before, 0);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(before >= 62, "{before}");
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let data = record(130);
    let whole = play(data.clone()).0;
    for at in (200..data.len()).step_by(97) {
        let mut damaged = data.clone();
        damaged[at] ^= 0x10;
        let Ok(recording) = Recording::open(damaged, |_| ()) else {
            continue;
        };
        let noted = recording.note().is_some();
        let mut player = Player::new(recording);
        let (mut times, mut told) = (Vec::new(), false);
        loop {
            match player.next_frame() {
                Ok(Some(Frame::Sample(sample))) => times.push(sample.at_ns / 1_000_000_000),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => told = true,
            }
        }
        assert!(
            noted || told,
            "byte {at}: {} of {}",
            times.len(),
            whole.len()
        );
    }
}

#[test]
fn bombs_end_soon_and_within_bounds() {
    let mut text = serde_json::to_vec(&Frame::Header(Box::new(header()))).unwrap();
    text.push(b'\n');
    let sample = serde_json::to_vec(&sample(1)).unwrap();
    let mut after_a_sample = text.clone();
    after_a_sample.extend_from_slice(&sample);
    after_a_sample.push(b'\n');
    for mut bomb in [text, after_a_sample] {
        bomb.resize(LARGEST_GROUP + (1 << 20), b'\n');
        let bomb = zstd::encode_all(&bomb[..], 1).unwrap();
        let Ok(recording) = Recording::open(bomb, |_| ()) else {
            continue;
        };
        let mut player = Player::new(recording);
        while let Ok(Some(_)) = player.next_frame() {}
    }
}

#[test]
fn other_files_are_named_as_such() {
    let error = |data: &[u8]| {
        Recording::open(data.to_vec(), |_| ())
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(error(b""), "it is empty");
    assert!(error(b"{\"type\"").contains("begins with 7b227479"));
    let other = zstd::encode_all(&b"{\"type\":\"sample\"}\n"[..], 1).unwrap();
    assert!(error(&other).starts_with("line 1 is not the header"));
    let mut newer = header();
    newer.schema = 99;
    let newer = Recorder::new(Vec::new(), newer).unwrap().finish().unwrap();
    assert!(error(&newer).contains("schema 99"));
}
