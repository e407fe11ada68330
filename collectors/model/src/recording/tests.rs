//! Recordings written, cut, damaged and forged.

use super::*;
use crate::sample::{
    CpuSample, Culprit, Host, Sample, Seen, SoftirqTiming, Stall, StallKind, StallWatch, Vector,
};
use crate::{Name, Reading, Reason};

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
fn stalls_between_samples_are_played_where_they_were() {
    let stall = |id: u64| {
        Frame::Stall(Box::new(Stall {
            id,
            at_ns: id * 1_000_000_000,
            ..Stall::default()
        }))
    };
    // Two groups are full to the last sample, and the last stalls follow the last of those.
    let mut recorder = Recorder::new(Vec::new(), header()).unwrap();
    recorder.write(&stall(0)).unwrap();
    for i in 1..=u64::from(2 * GROUP) {
        recorder.write(&sample(i)).unwrap();
        recorder.write(&stall(i)).unwrap();
    }
    let data = recorder.finish().unwrap();
    let recording = Recording::open(data, |_| ()).unwrap();
    assert_eq!(recording.span_ns(), Some((1_000_000_000, 120_000_000_000)));
    let mut player = Player::new(recording);
    let mut play = |from_ns| {
        player.seek(from_ns);
        let (mut samples, mut stalls) = (Vec::new(), Vec::new());
        while let Some(frame) = player.next_frame().unwrap() {
            match frame {
                Frame::Sample(sample) => samples.push(sample.at_ns / 1_000_000_000),
                Frame::Stall(stall) => stalls.push(stall.id),
                other => assert!(matches!(other, Frame::Header(_)), "{other:?}"),
            }
        }
        (samples, stalls)
    };
    let all = ((1..=120).collect(), (0..=120).collect());
    assert_eq!(play(0), all);
    // Back and forth: each once, whatever was played before.
    assert_eq!(play(70_000_000_000).1, (61..=120).collect::<Vec<_>>());
    assert_eq!(play(1_000_000_000), all);
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
    // The samples, and whether something was said to be wrong.
    let samples = |recording: Recording| {
        let mut player = Player::new(recording);
        let (mut samples, mut told) = (Vec::new(), false);
        loop {
            match player.next_frame() {
                Ok(Some(Frame::Sample(sample))) => samples.push(*sample),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => told = true,
            }
        }
        (samples, told)
    };
    let whole = samples(Recording::open(data.clone(), |_| ()).unwrap()).0;
    for at in (200..data.len()).step_by(97) {
        let mut damaged = data.clone();
        damaged[at] ^= 0x10;
        let Ok(recording) = Recording::open(damaged, |_| ()) else {
            continue;
        };
        let noted = recording.note().is_some();
        let (played, told) = samples(recording);
        // Some bits of a frame's header mean nothing, or how much memory to take (RFC 8878, 3.1.1.1).
        let same = played == whole;
        assert!(
            noted || told || same,
            "byte {at}: {} of {}",
            played.len(),
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

/// A stall of so many samples, as the 1 kHz sampler takes them.
fn stall(id: u64, samples: u64) -> Stall {
    let stack = |inner: &[&str]| -> Vec<Name> {
        let outer = [
            "seq_read_iter",
            "kernfs_fop_read_iter",
            "new_sync_read",
            "vfs_read",
            "ksys_read",
            "__x64_sys_read",
            "do_syscall_64",
            "entry_SYSCALL_64_after_hwframe",
        ];
        inner.iter().chain(&outer).map(|n| (*n).into()).collect()
    };
    Stall {
        id,
        at_ns: id * 1_000_000_000 + 7 * samples,
        wall_ns: 1_700_000_000_000_000_000 + id * 1_003_017_911,
        cpu: 11,
        kind: StallKind::SoftirqPending,
        vector: Some(Vector::NetRx),
        delay_ns: samples * 1_000_000 + id * 7_919,
        culprit: Reading::Value(Culprit {
            comm: "cadvisor".into(),
            function: Reading::Value("memcg_stat_show".into()),
            ..Culprit::default()
        }),
        timeline: (0..samples)
            .map(|i| Seen {
                offset_ns: (i * 1_000_000 + (i * 7_919 + id * 104_729) % 9_000) as i64,
                weight_ns: 1_000_000 + (i * 31 + id) % 9_000,
                pid: 10_436,
                comm: "cadvisor".into(),
                stack: Some((i % 3) as u32),
                ..Seen::default()
            })
            .collect(),
        stacks: vec![
            stack(&["mem_cgroup_nr_lru_pages", "memcg_stat_show"]),
            stack(&["mem_cgroup_iter", "memcg_stat_show"]),
            stack(&["memcg_stat_show"]),
        ],
        ..Stall::default()
    }
}

#[test]
fn a_recording_from_before_a_kind_of_stall_was_known_says_that_it_was_not_recorded() {
    let mut watch = serde_json::to_value(StallWatch {
        kinds: StallKind::ALL.map(|kind| Reading::Value(kind as u64)),
        symbols: Reading::Value(()),
        ..StallWatch::default()
    })
    .unwrap();
    watch["kinds"].as_array_mut().unwrap().pop();
    let old: StallWatch = serde_json::from_value(watch).unwrap();
    let [known @ .., new] = old.kinds;
    assert_eq!(known, [0, 1, 2, 3, 4].map(Reading::Value));
    assert_eq!(new, Reading::Off(Reason::NotRecorded));
}

#[test]
fn stalls_come_back_where_they_were_told() {
    let mut recorder = Recorder::new(Vec::new(), header()).unwrap();
    for i in 1..=150 {
        recorder.write(&sample(i)).unwrap();
        if i % 30 == 0 {
            let stall = Frame::Stall(Box::new(stall(i, 100)));
            recorder.write(&stall).unwrap();
        }
    }
    let recording = Recording::open(recorder.finish().unwrap(), |_| ()).unwrap();
    let mut player = Player::new(recording);
    let mut model = crate::Model::new();
    while let Some(mut frame) = player.next_frame().unwrap() {
        model.apply(&mut frame);
    }
    let ids = |model: &crate::Model| model.stalls.iter().map(|s| s.id).collect::<Vec<_>>();
    assert_eq!(ids(&model), [30, 60, 90, 120, 150]);
    assert_eq!(**model.stalls.get(90).unwrap(), stall(90, 100));
    // A seek begins with a new model: the stalls of the group come again, once. The one that was
    // told after the last sample of the group before belongs to that one.
    player.seek(100_000_000_000);
    let mut model = crate::Model::new();
    while let Some(mut frame) = player.next_frame().unwrap() {
        model.apply(&mut frame);
    }
    assert_eq!(ids(&model), [90, 120, 150]);
    // Another boot: its samples begin anew, and what was is not its past.
    model.apply(&mut sample(3));
    assert_eq!(ids(&model), [] as [u64; 0]);
}

/// A recording of a host, of samples from `from_s` on.
fn record_of(host: &str, from_s: u64, fill: impl Fn(&mut Sample, u64)) -> Vec<u8> {
    let mut header = header();
    header.host.hostname = host.into();
    let mut recorder = Recorder::new(Vec::new(), header).unwrap();
    for second in from_s..from_s + 70 {
        let Frame::Sample(mut one) = sample(second) else {
            unreachable!();
        };
        fill(&mut one, second);
        recorder.write(&Frame::Sample(one)).unwrap();
    }
    recorder.finish().unwrap()
}

/// `cat a b`: what is told of the second host, or of the second boot, rests on it alone.
#[test]
fn recordings_put_together_do_not_mix() {
    use crate::sample::{Cgroups, Costs, ProgramCost, Softnet};
    let noisy = |sample: &mut Sample, second: u64| {
        sample.cpus[0].softnet = Reading::Value(Softnet {
            dropped: second * 100,
            ..Softnet::default()
        });
        sample.cgroups = Reading::Value(std::sync::Arc::new(Cgroups {
            layout: crate::sample::CgroupLayout::V2,
            mount: "/".into(),
            zombies: Reading::Value(second * 50),
            visible: 1,
            sweep: crate::sample::Sweep::default(),
            rows: Vec::new(),
        }));
        sample.costs = Reading::Value(std::sync::Arc::new(Costs {
            at_ns: sample.at_ns,
            programs: vec![ProgramCost {
                share: 0.5,
                ..ProgramCost::default()
            }],
            ..Costs::default()
        }));
    };
    let quiet = |_: &mut Sample, _: u64| ();
    for host in ["b", "a"] {
        let mut data = record_of("a", 1_000, noisy);
        data.extend(record_of(host, 5, quiet));
        let recording = Recording::open(data, |_| ()).unwrap();
        let mut player = Player::new(recording);
        let mut model = crate::Model::new();
        let mut noisy = false;
        while let Some(mut frame) = player.next_frame().unwrap() {
            model.apply(&mut frame);
            noisy |= !model.findings().is_empty();
        }
        assert!(noisy, "the first of them has findings");
        assert_eq!(&*model.header().unwrap().host.hostname, host);
        assert_eq!(model.findings(), []);
        assert_eq!((model.samples(), model.cores.ticks().count()), (70, 69));
        assert_eq!(model.cgroups.points().count(), 70);
        assert!(model.costs.points().all(|point| point.window_ns == 0));
        let first = model.cores.time(model.cores.ticks().start).unwrap();
        assert_eq!((first.at_ns, first.span_ns), (6_000_000_000, 1_000_000_000));
    }
}

/// A few KB of zstd that would take gigabytes of memory.
#[test]
fn lists_without_end_are_refused_with_their_line() {
    let list = |item: &str, n: usize| format!("[{}{item}]", format!("{item},").repeat(n));
    let Frame::Sample(one) = sample(1) else {
        unreachable!();
    };
    // In few bytes of text.
    let mut one = one;
    for softirq in &mut one.cpus[0].softirqs {
        softirq.timing = Reading::Value(SoftirqTiming::default());
    }
    let line = serde_json::to_string(&Frame::Sample(one.clone())).unwrap();
    let cpu = serde_json::to_string(&one.cpus[0]).unwrap();
    let many = format!(r#""cpus":{}"#, list(&cpu, 9_000));
    let many_cpus = line.replacen(&format!(r#""cpus":[{cpu}]"#), &many, 1);
    assert!(many_cpus.len() > 9_000 * cpu.len());
    let Frame::Stall(stall) = Frame::Stall(Box::new(stall(1, 3))) else {
        unreachable!();
    };
    let stall = serde_json::to_string(&Frame::Stall(stall)).unwrap();
    let victims = format!(r#""victims":{},"lost":"#, list("7", 10_000));
    let many_victims = stall.replacen(r#""lost":"#, &victims, 1);
    for (text, why) in [
        (many_cpus, "more than 8192 CPUs"),
        (many_victims, "more than 8192 CPUs"),
    ] {
        let mut lines = serde_json::to_vec(&Frame::Header(Box::new(header()))).unwrap();
        for line in [&line, &text, &line] {
            lines.push(b'\n');
            lines.extend_from_slice(line.as_bytes());
        }
        lines.push(b'\n');
        let data = zstd::encode_all(&lines[..], 3).unwrap();
        assert!(data.len() < 64 << 10, "{}", data.len());
        let mut player = Player::new(Recording::open(data, |_| ()).unwrap());
        let mut errors = Vec::new();
        let mut samples = 0;
        loop {
            match player.next_frame() {
                Ok(Some(frame)) => samples += u32::from(matches!(frame, Frame::Sample(_))),
                Ok(None) => break,
                Err(error) => errors.push(error.to_string()),
            }
        }
        assert_eq!(samples, 2, "the rest is shown");
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].starts_with("line 3 of the group at byte 0"),
            "{errors:?}"
        );
        assert!(errors[0].contains(why), "{errors:?}");
    }
}

/// What a stall costs in a recording, as the module's introduction states it.
#[test]
fn a_stall_of_a_hundred_samples_takes_about_a_kilobyte() {
    let size = |stalls: u64, samples: u64| {
        let mut recorder = Recorder::new(Vec::new(), header()).unwrap();
        for id in 1..=stalls {
            let stall = Frame::Stall(Box::new(stall(id, samples)));
            recorder.write(&stall).unwrap();
        }
        recorder.finish().unwrap().len() as u64
    };
    for (samples, most) in [(5, 256), (100, 1_536), (600, 8_192)] {
        let each = (size(40, samples) - size(0, samples)) / 40;
        assert!(each <= most, "{samples} samples: {each} bytes");
    }
}

#[test]
fn what_cannot_have_been_measured_is_brought_into_bounds() {
    use crate::sample::{Costs, Lock, LockKind, Locks, ProgramCost, Waits};
    let Frame::Sample(mut forged) = sample(1) else {
        unreachable!();
    };
    let lock = Lock {
        kind: LockKind::Spin,
        address: 1,
        name: Reading::Value("a".into()),
        waits: Waits::default(),
    };
    forged.locks = Reading::Value(std::sync::Arc::new(Locks {
        locks: vec![lock; 5_000],
        ..Locks::default()
    }));
    let program = ProgramCost {
        share: 1.7e308,
        runs_per_s: -1.7e308,
        ns_per_run: Reading::Value(1.7e308),
        ..ProgramCost::default()
    };
    forged.costs = Reading::Value(std::sync::Arc::new(Costs {
        programs: vec![program],
        ..Costs::default()
    }));
    let line = serde_json::to_vec(&Frame::Sample(forged)).unwrap();
    let Ok(Frame::Sample(read)) = Frame::parse(&line) else {
        panic!("it is a sample");
    };
    assert_eq!(read.locks.value().unwrap().locks.len(), 1_024);
    let program = &read.costs.value().unwrap().programs[0];
    assert_eq!((program.share, program.runs_per_s), (16_384.0, 0.0));
    assert_eq!(program.ns_per_run.value(), Some(&8.64e13));
}

#[test]
fn lines_may_have_spaces() {
    assert_eq!(
        sample_time(br#"{"type": "sample", "at_ns": 42, "x": 1}"#),
        Some(42)
    );
    assert_eq!(sample_time(br#"{"type":"sample","at_ns":7}"#), Some(7));
    assert_eq!(sample_time(br#"{"type":"stall","at_ns":7}"#), None);
}
