//! Incidents I1 and I2 as they were recorded in machines: what a person would have been told, and
//! when.

use std::fs;

use stalltop_model::model::stalls::{Filter, GroupBy, Key};
use stalltop_model::recording::{Player, Recording};
use stalltop_model::rules::Confidence;
use stalltop_model::{Frame, Model};
use stalltop_tests::program::root;
use stalltop_tests::storm;
use stalltop_tests::story::Story;

fn bytes() -> Vec<u8> {
    fs::read(root().join("tests/recordings/i2.zst")).expect("a recording")
}

#[test]
fn incident_1_is_told_with_its_agent_and_ends_with_its_probes() {
    let recording = fs::read(root().join("tests/recordings/i1.zst")).expect("a recording");
    storm::assert_told(&recording);
}

#[test]
fn incident_2_is_told_with_process_function_core_and_zombies() {
    let story = Story::of(bytes());
    let told = story.finding("statistics-stalls");
    let (sentence, evidence) = (&told.finding.sentence, told.finding.evidence.join("\n"));
    for part in [
        "cadvisor's reads of memory.stat stall cpu 1: ",
        " in memory_stat_show; ",
        " zombie cgroups",
    ] {
        assert!(sentence.contains(part), "no {part:?} in {sentence}");
    }
    for part in [
        "it is cadvisor[",
        "of cadvisor.service",
        "memory_stat_show",
        "our own read of memory.stat of ",
        "drop_caches: 1 fits here: on kernel 6.1 it is page cache",
        "since the last drop of caches: stalls in reads of memory statistics: ",
    ] {
        assert!(evidence.contains(part), "no {part:?} in {evidence}");
    }
    assert_eq!(told.finding.confidence, Confidence::High);
    // Before the drop there is a cure to offer; what it did is told afterwards.
    let dropped = story.finding("caches-dropped");
    assert!(told.first_ns < dropped.first_ns);
    assert!(
        dropped
            .finding
            .sentence
            .starts_with("since caches were dropped")
    );
}

#[test]
fn its_stalls_have_the_reader_and_the_core_in_common() {
    let story = Story::of(bytes());
    let stalls = &story.model.stalls;
    let in_the_reads = Filter {
        function: Some(Some("memory_stat_show".into())),
        ..Filter::default()
    };
    for by in [GroupBy::Cpu, GroupBy::Culprit] {
        let groups = stalls.groups(by, &in_the_reads, 0, u64::MAX);
        let most = groups.first().expect("stalls");
        match &most.key {
            Key::Cpu(cpu) => assert_eq!(*cpu, 1),
            Key::Culprit(name) => assert_eq!(name.as_deref(), Some("cadvisor")),
            other => panic!("{other:?}"),
        }
    }
    let tally = stalls.tally(&Filter::default(), 0, u64::MAX);
    assert!(tally.shown > 0 && tally.worst_ns >= 10_000_000, "{tally:?}");
}

/// Whatever was looked at before, a seek shows the stalls that playing from there shows.
#[test]
fn a_seek_gives_the_same_stalls() {
    let open = || Player::new(Recording::open(bytes(), |_| ()).expect("a recording"));
    let play = |player: &mut Player| {
        let mut model = Model::new();
        while let Some(mut frame) = player.next_frame().expect("a frame") {
            model.apply(&mut frame);
        }
        let ids: Vec<u64> = model.stalls.iter().map(|s| s.id).collect();
        ids
    };
    let mut player = open();
    let (first, last) = player.recording().span_ns().expect("samples");
    let all = play(&mut player);
    assert!(!all.is_empty());
    player.seek(first);
    assert_eq!(play(&mut player), all);
    player.seek(last);
    let end = play(&mut player);
    assert!(all.ends_with(&end), "{end:?}");
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len(), "none comes twice");
    let mut fresh = open();
    let stalls = std::iter::from_fn(|| fresh.next_frame().expect("a frame"))
        .filter(|frame| matches!(frame, Frame::Stall(_)))
        .count();
    assert_eq!(stalls, all.len());
}
