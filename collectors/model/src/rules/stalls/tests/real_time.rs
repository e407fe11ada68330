//! Real-time tasks that keep CPUs.

use super::*;
use crate::sample::Sched;

/// What a task of priority 50 does that does not sleep: 950 ms of each second.
fn kept(case: &Case, cpu: u32, waited: &str) -> Stall {
    let mut stall = case.one(0, 950, "rt-hog", "");
    stall.at_ns = case.second * S;
    (stall.kind, stall.vector, stall.cpu) = (StallKind::RealTime, None, cpu);
    stall.waited = Some(waited.into());
    let culprit = stall.culprit.value_mut().unwrap();
    culprit.function = Reading::Off(Reason::UserSpace);
    culprit.sched = Some(Sched {
        policy: "SCHED_FIFO".into(),
        priority: Some(50),
    });
    stall
}

fn hold(case: &mut Case, seconds: u64) {
    for n in 0..seconds {
        let waited = ["kworker/1:2", "bash"][n as usize % 2];
        case.push(kept(case, 1, waited));
        case.tick();
    }
}

#[test]
fn a_real_time_task_that_keeps_a_cpu_is_a_finding_of_its_own() {
    let mut case = Case::new();
    hold(&mut case, 10);
    let finding = case.found("real-time-task").unwrap();
    assert_eq!(
        finding.sentence,
        "rt-hog[10137] of pod 2f6e (SCHED_FIFO 50) kept cpu 1 for up to 950.0 ms at a time, \
         9.5 s of the last 11 s, while other tasks waited"
    );
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Critical, Confidence::High)
    );
    let evidence = finding.evidence.join("\n");
    for line in [
        "it is rt-hog[10137] of pod 2f6e",
        "thread 10436 (rt-hog) of process 10137",
        "who waited longest each time: bash, kworker/1:2",
        "by kind: 10 real-time; 9.5 s together, typically 950.0 ms",
    ] {
        assert!(evidence.contains(line), "{evidence}");
    }
    // All is said.
    assert_eq!(case.ids(), ["real-time-task"]);
}

#[test]
fn other_stalls_are_told_apart_from_it() {
    let mut case = Case::new();
    hold(&mut case, 3);
    case.stall(8, 20, "nft", "nft_do_chain");
    assert_eq!(case.ids(), ["real-time-task", "stalls"]);
    let rest = case.found("stalls").unwrap();
    assert!(
        rest.sentence.starts_with("8 stalls on cpu 11"),
        "{}",
        rest.sentence
    );
}

#[test]
fn two_waits_in_a_minute_are_no_incident_nor_are_pauses_or_our_own() {
    let mut case = Case::new();
    hold(&mut case, 2);
    for _ in 0..20 {
        let mut paused = kept(&case, 1, "bash");
        paused.pause = Pause::Paused;
        case.push(paused);
        let mut ours = kept(&case, 1, "bash");
        ours.ours = true;
        case.push(ours);
        case.tick();
    }
    assert_eq!(case.found("real-time-task"), None);
}
