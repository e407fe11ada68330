//! What a recording of incident I1 holds: an agent's kernel probes make CPUs wait for a lock, are
//! switched off, and on again.

use stalltop_model::frame::Frame;
use stalltop_model::model::verdict::{Metric, Told, Went};
use stalltop_model::recording::{Player, Recording};
use stalltop_model::rules::Confidence;
use stalltop_model::sample::{Lock, LockShare, LockStack, Sample, Waits};

use crate::story::Story;

/// The agent of the incident.
pub const AGENT: &str = "ebpf.plugin";

/// One window of contention.
#[derive(Clone, Debug)]
pub struct Window {
    /// By the time of day, ns since 1970.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// For how much of it waits were watched, ns.
    pub measured_ns: u64,
    /// The time of all waits that ended, ns.
    pub wait_ns: u64,
    /// By lock.
    pub locks: Vec<Lock>,
    /// By stack.
    pub stacks: Vec<LockStack>,
    /// The share of samples.
    pub share: Option<LockShare>,
}

/// Every window of a recording, once.
///
/// # Panics
/// Where it is no recording, or damaged.
#[must_use]
pub fn windows(recording: Vec<u8>) -> Vec<Window> {
    let recording = Recording::open(recording, |_| ()).expect("a recording");
    let mut player = Player::new(recording);
    let (mut windows, mut last) = (Vec::new(), 0);
    while let Some(frame) = player.next_frame().expect("whole lines") {
        let Frame::Sample(sample) = frame else {
            continue;
        };
        let window = window(&sample, &mut last);
        windows.extend(window);
    }
    windows
}

fn window(sample: &Sample, last: &mut u64) -> Option<Window> {
    let locks = sample.locks.value()?;
    if std::mem::replace(last, locks.window) == locks.window {
        return None;
    }
    let age_ns = sample.at_ns.saturating_sub(locks.at_ns);
    let to_ns = sample.wall_ns.saturating_sub(age_ns);
    Some(Window {
        from_ns: to_ns.saturating_sub(locks.span_ns),
        to_ns,
        measured_ns: locks.measured_ns,
        wait_ns: locks.kinds.iter().map(|kind| kind.waits.wait_ns).sum(),
        locks: locks.locks.clone(),
        stacks: locks.stacks.clone(),
        share: locks.share.value().cloned(),
    })
}

/// Seconds of waiting a second.
fn per_s<'a>(windows: impl Iterator<Item = &'a Window>) -> f64 {
    let (wait, measured) = windows.fold((0, 0), |(wait, measured), window| {
        (wait + window.wait_ns, measured + window.measured_ns)
    });
    assert!(measured > 0, "nothing was measured");
    wait as f64 / measured as f64
}

/// The waits for the lock that was waited for longest.
///
/// # Panics
/// Where no lock was waited for.
#[must_use]
pub fn longest(windows: &[Window]) -> Waits {
    let mut sums: Vec<(u64, Waits)> = Vec::new();
    for lock in windows.iter().flat_map(|window| &window.locks) {
        match sums
            .iter_mut()
            .find(|(address, _)| *address == lock.address)
        {
            Some((_, sum)) => sum.add(&lock.waits),
            None => sums.push((lock.address, lock.waits)),
        }
    }
    let longest = sums.into_iter().max_by_key(|(_, waits)| waits.wait_ns);
    longest.expect("a lock").1
}

/// Looks for all of incident I1 in a recording of it: who holds the probe, which lock is waited
/// for in whose program, that it is told and what to do, what came of doing it and of undoing it.
///
/// # Panics
/// Where any of it is missing.
pub fn assert_told(recording: &[u8]) {
    let program = program(recording);
    let windows = windows(recording.to_vec());
    let story = Story::of(recording.to_vec());
    let [off, undo] = story.model.changes() else {
        panic!("{:?}", story.model.changes());
    };
    assert_eq!(undo.undoes, Some(off.id));

    let before = |window: &&Window| window.to_ns <= off.wall_ns;
    let behind = |stack: &&LockStack| {
        let update = |name: &stalltop_model::Name| &**name == "htab_map_update_elem";
        stack.programs.contains(&program) && stack.frames.iter().any(update)
    };
    let of_storm = windows.iter().filter(before);
    let waits = of_storm.clone().map(|window| window.wait_ns).sum::<u64>();
    let stacks = of_storm.clone().flat_map(|window| &window.stacks);
    let theirs = stacks.filter(behind).map(|stack| stack.waits.wait_ns);
    let theirs = theirs.sum::<u64>();
    println!("{theirs} of {waits} ns of waiting in the agent's program");
    assert!(theirs * 2 > waits, "{theirs} of {waits} ns");

    let told = &story.finding("probe-storm").finding;
    println!("{}\n  {}", told.sentence, told.evidence.join("\n  "));
    assert_eq!((told.incident, told.action), ("I1", "kprobes"));
    assert!(told.confidence >= Confidence::Medium, "{told:?}");
    assert!(told.sentence.starts_with(AGENT), "{}", told.sentence);
    assert!(
        told.sentence.contains("lock wait time"),
        "{}",
        told.sentence
    );
    let held = format!("held by {AGENT}[");
    assert!(told.evidence.iter().any(|line| line.starts_with(&held)));

    let rates = [
        per_s(of_storm),
        per_s(windows.iter().filter(|window| {
            window.from_ns >= off.wall_ns + 1_000_000_000 && window.to_ns <= undo.wall_ns
        })),
        per_s(
            windows
                .iter()
                .filter(|window| window.from_ns >= undo.wall_ns),
        ),
    ];
    println!("lock wait before, off, undone: {rates:.4?} s/s");
    assert!(rates[1] * 10.0 < rates[0], "{rates:?}");
    assert!(rates[2] > 3.0 * rates[1], "{rates:?}");

    let verdict = story.model.verdict(off.id).expect("a verdict");
    println!("{verdict}");
    let wait = verdict.row(Metric::LockWait).expect("a row");
    assert_eq!(wait.told, Told::Moved(Went::Down), "{verdict}");
    assert!(verdict.to_string().starts_with("lock wait "), "{verdict}");
    let undone = story.model.verdict(undo.id).expect("a verdict");
    println!("undone: {undone}");
    let wait = undone.row(Metric::LockWait).expect("a row");
    assert_ne!(wait.told, Told::Moved(Went::Down), "{undone}");
}

/// Looks for all of incident I1 in a recording of it on a kernel that does not tell of waits for
/// locks: who holds the probe, that it is told by samples and what to do, what came of doing it and
/// of undoing it.
///
/// # Panics
/// Where any of it is missing.
pub fn assert_told_by_samples(recording: &[u8]) {
    program(recording);
    let windows = windows(recording.to_vec());
    let story = Story::of(recording.to_vec());
    let [off, undo] = story.model.changes() else {
        panic!("{:?}", story.model.changes());
    };
    let told = &story.finding("probe-storm").finding;
    println!("{}\n  {}", told.sentence, told.evidence.join("\n  "));
    assert_eq!((told.incident, told.action), ("I1", "kprobes"));
    assert!(told.sentence.starts_with(AGENT), "{}", told.sentence);
    assert!(told.sentence.contains("samples") || told.sentence.contains("suspected"));
    let held = format!("held by {AGENT}[");
    assert!(told.evidence.iter().any(|line| line.starts_with(&held)));

    let between = |from_ns: u64, to_ns: u64| {
        let inside = |window: &&Window| window.from_ns >= from_ns && window.to_ns <= to_ns;
        share(windows.iter().filter(inside))
    };
    let shares = [
        between(0, off.wall_ns),
        between(off.wall_ns + 1_000_000_000, undo.wall_ns),
        between(undo.wall_ns, u64::MAX),
    ];
    println!("samples in and behind locks before, off, undone: {shares:.3?}");
    assert!(shares[1] * 3.0 < shares[0], "{shares:?}");
    assert!(shares[2] > 3.0 * shares[1], "{shares:?}");

    let verdict = story.model.verdict(off.id).expect("a verdict");
    println!("{verdict}");
    let fell = |metric: Metric| {
        let row = verdict.row(metric).expect("a row");
        row.told == Told::Moved(Went::Down)
    };
    assert!(
        fell(Metric::LockSamples) || fell(Metric::LockSuspected),
        "{verdict}"
    );
    let undone = story.model.verdict(undo.id).expect("a verdict");
    println!("undone: {undone}");
}

/// Samples in and behind locks, of all samples.
fn share<'a>(windows: impl Iterator<Item = &'a Window>) -> f64 {
    let shares = windows.filter_map(|window| window.share.as_ref());
    let (of, all) = shares.fold((0, 0), |(of, all), share| {
        (of + share.in_lock + share.suspected, all + share.samples)
    });
    assert!(all > 0, "no samples");
    of as f64 / all as f64
}

/// Id of the agent's program.
fn program(recording: &[u8]) -> u32 {
    let recording = Recording::open(recording.to_vec(), |_| ()).expect("a recording");
    let mut player = Player::new(recording);
    while let Some(frame) = player.next_frame().expect("whole lines") {
        let Frame::Sample(sample) = frame else {
            continue;
        };
        let Some(bpf) = sample.tracing.bpf.value() else {
            continue;
        };
        let theirs = bpf.programs.iter().find(|program| {
            let at = program.attached.first();
            at.is_some_and(|at| &*at.kind == "kretprobe" && &*at.target == "__x64_sys_getppid")
        });
        let Some(theirs) = theirs else { continue };
        assert_eq!(&*theirs.holders[0].comm, AGENT, "{theirs:?}");
        return theirs.id;
    }
    panic!("no program on a kretprobe");
}
