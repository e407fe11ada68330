//! Slow reads, on a clock of our own: what they may cost is arithmetic, not luck.

use stalltop_model::Reading;

use super::fake::{CHEAP, Fake, sweeper, tick};
use crate::cgroups::files::Files;
use crate::cgroups::sweep::{PAYBACK, Sweeper};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn reads_of(sweeper: &Sweeper<Fake>, path: &str) -> Vec<u64> {
    let reads = sweeper.files.reads.iter();
    reads
        .filter(|(_, p)| p == path)
        .map(|(at, _)| *at)
        .collect()
}

/// The shortest time from the end of a read of `took` to the start of the next.
fn shortest_pause(reads: &[u64], took: u64) -> u64 {
    let pauses = reads.windows(2).map(|w| w[1] - w[0] - took);
    pauses.min().unwrap_or(u64::MAX)
}

#[test]
fn a_read_of_a_second_is_not_repeated_for_200() {
    let mut s = sweeper(|files| {
        files.make("slow", SECOND);
        for n in 0..10 {
            files.make(&format!("fast{n}"), CHEAP);
        }
    });
    for _ in 0..1_000 {
        tick(&mut s);
    }
    let slow = reads_of(&s, "slow");
    assert!((4..=6).contains(&slow.len()), "{slow:?}");
    assert!(shortest_pause(&slow, SECOND) >= PAYBACK * SECOND);
    // The others go on meanwhile, at every tick.
    assert!(reads_of(&s, "fast7").len() > 990);
    assert_eq!(s.done.backed_off, 1);
    let node = s.tree.node(s.tree.find("/slow").unwrap());
    let timing = node.timing.get().unwrap();
    assert_eq!((timing.last_ns, timing.count), (SECOND, slow.len() as u64));
    // Its age shows: it has not been read since.
    let age = s.files.monotonic_ns() + 1_000 * SECOND - node.read_at_ns;
    assert!(node.slow && age > SECOND, "{age}");
}

#[test]
fn five_milliseconds_are_the_limit() {
    let mut s = sweeper(|files| {
        files.make("under", 5 * MS - 10 * CHEAP);
        files.make("over", 5 * MS + 1);
    });
    for _ in 0..100 {
        tick(&mut s);
    }
    assert!(shortest_pause(&reads_of(&s, "over"), 5 * MS + 1) >= PAYBACK * (5 * MS + 1));
    let slow = |path: &str| s.tree.node(s.tree.find(path).unwrap()).slow;
    assert!(slow("/over") && !slow("/under"));
}

#[test]
fn a_slow_root_holds_up_nobody() {
    let mut s = sweeper(|files| {
        files.set_cost(".", 5 * SECOND);
        for n in 0..10 {
            files.make(&format!("c{n}"), CHEAP);
        }
    });
    for _ in 0..100 {
        tick(&mut s);
    }
    assert_eq!(reads_of(&s, ".").len(), 1);
    assert!(reads_of(&s, "c3").len() > 90);
}

#[test]
fn many_slow_cgroups_together_stay_within_half_a_percent() {
    let mut s = sweeper(|files| {
        for n in 0..2_000 {
            files.make(&format!("c{n}"), 150 * MS);
        }
    });
    // What nobody can foresee is bounded: 2 s of reads, the one that goes over, and
    // what 60 s pay back, which is two more.
    for _ in 0..60 {
        tick(&mut s);
    }
    let surprises = s.done.read_ns;
    assert!(surprises <= 2 * SECOND + 3 * 150 * MS, "{surprises}");
    // From there on 0.5 % of the time.
    let start = s.files.monotonic_ns();
    for _ in 0..5_000 {
        tick(&mut s);
    }
    let span = s.files.monotonic_ns() - start;
    let share = (s.done.read_ns - surprises) as f64 / span as f64;
    assert!((0.004..=0.0051).contains(&share), "{share}");
}

#[test]
fn a_request_goes_ahead_of_every_back_off() {
    let mut s = sweeper(|files| files.make("slow", SECOND));
    tick(&mut s);
    for _ in 0..3 {
        tick(&mut s);
    }
    assert_eq!(reads_of(&s, "slow").len(), 1);
    s.shared.request("/slow".into());
    s.shared.request("/slow".into());
    s.shared.request("/nonexistent".into());
    tick(&mut s);
    assert_eq!(reads_of(&s, "slow").len(), 2);
    assert!(!s.shared.has_requests());
    for _ in 0..150 {
        tick(&mut s);
    }
    assert_eq!(reads_of(&s, "slow").len(), 2);
}

#[test]
fn a_cgroup_that_got_fast_again_is_read_at_every_tick_again() {
    let mut s = sweeper(|files| files.make("c", 10 * MS));
    for _ in 0..10 {
        tick(&mut s);
    }
    assert_eq!(s.done.backed_off, 1);
    s.files.set_cost("c", CHEAP);
    for _ in 0..3 {
        tick(&mut s);
    }
    let before = s.done.reads;
    for _ in 0..10 {
        tick(&mut s);
    }
    // The root and the one.
    assert_eq!((s.done.backed_off, s.done.reads - before), (0, 20));
}

#[test]
fn two_thousand_cost_what_the_budget_says() {
    // A fast read of 1 us would prove nothing: 3 us, as measured.
    let mut s = sweeper(|files| {
        for slice in 0..40 {
            files.make(&format!("s{slice}"), 3 * CHEAP);
            for n in 0..49 {
                files.make(&format!("s{slice}/c{n}"), 3 * CHEAP);
            }
        }
    });
    let mut ticks = 0;
    while !s.is_warm() {
        assert!(tick(&mut s) < 15 * MS);
        ticks += 1;
        assert!(ticks < 10);
    }
    assert_eq!((s.visible, s.done.unread), (2_001, 0));
    let (reads, listings) = (s.done.reads, s.files.listings);
    let mut total = 0;
    for _ in 0..100 {
        let took = tick(&mut s);
        assert!(took < 5 * MS);
        total += took;
    }
    assert!(total <= 400 * MS, "0.4 % of 100 s: {total}");
    // A turn in five ticks, and nothing listed that did not change.
    let turns = (s.done.reads - reads) as f64 / 2_001.0;
    assert!((19.0..=21.0).contains(&turns), "{turns}");
    assert_eq!(s.files.listings, listings);
}

#[test]
fn thousands_of_processes_are_counted_less_often() {
    let mut s = sweeper(|files| files.make("many", CHEAP));
    s.files.set_procs("many", 3_000);
    tick(&mut s);
    tick(&mut s);
    let many = s.tree.find("/many").unwrap();
    assert_eq!(s.tree.node(many).processes, Reading::Value(3_000));
    s.files.set_procs("many", 3_001);
    // 3 ms are paid back 200-fold: after 0.6 s, so at the next tick it is counted again.
    tick(&mut s);
    assert_eq!(s.tree.node(many).processes, Reading::Value(3_001));
    s.files.set_procs("many", 4_999);
    s.sweep(4 * MS);
    assert_eq!(s.tree.node(many).processes, Reading::Value(4_999));
    s.files.set_procs("many", 1);
    s.files.sleep(500 * MS);
    s.sweep(4 * MS);
    assert_eq!(
        s.tree.node(many).processes,
        Reading::Value(4_999),
        "too soon"
    );
}

#[test]
fn a_thread_that_waits_for_its_cpu_still_reads_every_cgroup() {
    let mut s = sweeper(|files| {
        for n in 0..10 {
            files.make(&format!("fast{n}"), CHEAP);
        }
    });
    for _ in 0..5 {
        tick(&mut s);
    }
    // A host short of CPU: 30 ms of waiting at every step, 7 times the whole budget.
    s.files.preempt_ns = 30 * MS;
    let before = reads_of(&s, "fast7").len();
    for _ in 0..30 {
        tick(&mut s);
    }
    let reads = reads_of(&s, "fast7").len() - before;
    assert!(reads >= 5, "{reads} reads in 30 s");
}
