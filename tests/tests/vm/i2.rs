//! Incident I2 in a machine, from the zombies to the cure: what stalltop recorded there tells the
//! process, the function, the CPU and the zombies, and what dropping their caches did.

use stalltop_model::model::verdict::StallVerdict;
use stalltop_model::recording::{Player, Recording};
use stalltop_model::rules::Confidence;
use stalltop_model::sample::{Stall, StallKind};
use stalltop_model::{Frame, Reading};
use stalltop_tests::require;
use stalltop_tests::story::Story;

use super::{Run, fetched, run};

/// The CPU on which the agent reads and the packets arrive.
const CPU: u32 = 1;

/// The stalls of a recording for which cadvisor's reads of memory.stat are to blame.
fn by_the_agent(recording: Vec<u8>) -> Vec<Stall> {
    let recording = Recording::open(recording, |_| ()).unwrap();
    let mut player = Player::new(recording);
    let mut stalls = Vec::new();
    while let Some(frame) = player.next_frame().unwrap() {
        if let Frame::Stall(stall) = frame {
            let by = |stall: &Stall| {
                let culprit = stall.culprit.value()?;
                let function = culprit.function.value()?;
                Some(&*culprit.comm == "cadvisor" && &**function == "memory_stat_show")
            };
            if by(&stall) == Some(true) {
                stalls.push(*stall);
            }
        }
    }
    stalls
}

#[test]
fn incident_2_is_told_and_cured_on_6_1() {
    require!(fetched("6.1"));
    let run = run("6.1", &[], "i2");
    let recording = run.bytes("i2.zst");

    // Kind 1, each with its culprit, no shorter than the threshold.
    let stalls = by_the_agent(recording.clone());
    let pending: Vec<_> = stalls
        .iter()
        .filter(|s| s.kind == StallKind::SoftirqPending)
        .collect();
    assert!(
        !pending.is_empty(),
        "{} stalls of other kinds",
        stalls.len()
    );
    for stall in &pending {
        assert_eq!(stall.cpu, CPU);
        assert!(
            stall.vector.is_some() && stall.delay_ns >= 10_000_000,
            "{stall:?}"
        );
        let culprit = stall.culprit.value().unwrap();
        assert_eq!(culprit.syscall.as_deref(), Some("read"));
        assert!(!stall.ours);
    }

    let story = Story::of(recording);
    let told = story.finding("statistics-stalls");
    let sentence = &told.finding.sentence;
    assert!(
        sentence.starts_with("cadvisor's reads of memory.stat stall cpu 1: "),
        "{sentence}"
    );
    assert!(sentence.contains("in memory_stat_show; "), "{sentence}");
    assert!(sentence.ends_with(" zombie cgroups"), "{sentence}");
    assert_eq!(told.finding.incident, "I2");
    assert!(told.finding.confidence >= Confidence::Medium, "{told:?}");
    let typed: f64 = run.text("typed").trim().parse().unwrap();
    println!(
        "from typed to told: {:.1} s of the machine's time",
        told.first_ns as f64 / 1e9 - typed
    );

    dropping_their_caches_is_judged(&run, &story);
}

/// Page cache of a disk holds these zombies: on this kernel 1 frees most, and the report says
/// so. Whether the stalls end is the model's to tell, and it may say that it cannot.
fn dropping_their_caches_is_judged(run: &Run, story: &Story) {
    let report = run.text("drop");
    assert!(
        report.contains("echo 1 > /proc/sys/vm/drop_caches"),
        "{report}"
    );
    assert!(report.ends_with("status 0\n"), "{report}");
    let entry = story.model.changes().last().expect("a journaled drop");
    let zombies = &entry.effect.as_ref().unwrap().rows[0];
    let (Reading::Value(before), Reading::Value(after)) = (&zombies.before, &zombies.after) else {
        panic!("{zombies:?}");
    };
    assert!(*before >= 5_000 && after < before, "{before} -> {after}");
    let effect = story.model.drop_effect().expect("a drop");
    assert!(effect.before.count >= 3, "{effect}");
    let told = &story.finding("caches-dropped").finding.sentence;
    println!("{told}");
    assert_eq!(
        told.ends_with("no effect seen"),
        effect.verdict() == StallVerdict::NoEffect,
        "{told}"
    );
}
