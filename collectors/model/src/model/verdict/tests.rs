use super::*;
use crate::Frame;
use crate::change::Request;
use crate::made::{self, MS, Made, S};
use crate::sample::{LockKind, LockShare, Stall};

const STACK: &[&str] = &[
    "native_queued_spin_lock_slowpath",
    "htab_map_update_elem",
    "bpf_prog_0123456789abcdef_nd_probe [bpf]",
    "trampoline_handler",
];

/// A storm of probes; costs are looked at.
fn storm() -> Made {
    let mut made = Made::new();
    made.now.tracing = made::tracing(vec![made::program(
        41,
        "kretprobe",
        "tcp_sendmsg",
        vec![made::holder(812, "netdata")],
    )]);
    made.now.stacks = Some(vec![made::stack(LockKind::Spin, 3_100, STACK)]);
    made.now.costs = Some(made::costs(&[(41, 1.73)]));
    made.now.system_ms = 500;
    made.now.delay_ns = 41 * MS;
    made
}

/// The storm is over.
fn calm(made: &mut Made) {
    made.now.stacks = Some(Vec::new());
    made.now.costs = Some(made::costs(&[(41, 0.0)]));
    made.now.system_ms = 30;
    made.now.delay_ns = 300_000;
}

fn told(made: &Made, id: u64) -> String {
    made.model.verdict(id).unwrap().to_string()
}

#[test]
fn a_switch_that_ends_a_storm_says_so_in_one_line() {
    let mut made = storm();
    made.ticks(60);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.ticks(3);
    assert_eq!(told(&made, 1), "too early to tell (60 s before, 3 s since)");
    made.ticks(9);
    assert_eq!(
        told(&made, 1),
        "lock wait 3.1 -> 0.0 s/s, worst delay a second 41 -> 0.3 ms, probe cost 173 -> 0 % of one CPU, \
         system time 50 -> 3.0 %"
    );
    let verdict = made.model.verdict(1).unwrap();
    assert_eq!(verdict.came(), Came::Moved);
    assert!(verdict.open);
    let lines = verdict.lines();
    assert!(lines.contains(&"packets 50,000 -> 50,000/s: no effect seen".to_owned()));
    let (entry, newest) = made.model.newest_verdict().unwrap();
    assert_eq!((short(entry), newest.entry), ("kprobes off".to_owned(), 1));
    // It stays as it was, and is no news any more.
    made.ticks(60);
    let settled = made.model.verdict(1).unwrap().clone();
    assert!(!settled.open);
    made.now.system_ms = 900;
    made.ticks(90);
    assert_eq!(*made.model.verdict(1).unwrap(), settled);
    assert!(made.model.newest_verdict().is_none());
}

/// A clock that is set does not move what is compared: back, the load that ended would be taken
/// for one before the change; forth, there would be nothing after it.
#[test]
fn a_clock_that_is_set_moves_no_verdict() {
    let run = |step_s: i64| {
        let mut made = storm();
        made.ticks(60);
        made.change(1, made::kprobes_off());
        calm(&mut made);
        made.ticks(4);
        made.clock_ns = step_s * S as i64;
        made.ticks(16);
        assert!(made.model.newest_verdict().is_some());
        made.model.verdict(1).unwrap().clone()
    };
    let still = run(0);
    assert_eq!((still.before_ns / S, still.after_ns / S), (60, 20));
    for step_s in [-30, -3, 40, 3_600] {
        assert_eq!(run(step_s), still, "{step_s} s");
    }
}

#[test]
fn an_undo_has_a_verdict_of_its_own() {
    let mut made = storm();
    made.ticks(30);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.ticks(20);
    let mut undo = made::entry(
        2,
        made.wall_ns(),
        Request::Undo {
            entry: Some(1),
            force: false,
        },
    );
    undo.undoes = Some(1);
    made.model.note_change(undo);
    let back = storm();
    made.now = back.now;
    made.ticks(15);
    let undone = made.model.verdict(2).unwrap();
    // Only what was between both changes is compared.
    assert_eq!((undone.before_ns / S, undone.after_ns / S), (20, 15));
    assert!(
        told(&made, 2).starts_with("lock wait 0.0 -> 3.1 s/s, worst delay a second 0.3 -> 41 ms"),
        "{}",
        told(&made, 2)
    );
    let first = made.model.verdict(1).unwrap();
    assert_eq!((first.after_ns / S, first.open), (20, false));
    let line = told(&made, 1);
    assert!(line.starts_with("lock wait 3.0 -> 0.0 s/s"), "{line}");
}

#[test]
fn a_change_without_effect_says_so_and_what_was_not_measured() {
    let mut made = Made::new();
    made.ticks(30);
    made.change(
        1,
        Request::Off {
            selector: "sched:*".into(),
        },
    );
    made.ticks(20);
    assert_eq!(
        told(&made, 1),
        "no effect seen in 20 s; probe cost not measured"
    );
    assert_eq!(made.model.verdict(1).unwrap().came(), Came::NoEffect);
}

#[test]
fn what_was_not_watched_before_is_not_judged() {
    let mut made = Made::new();
    made.change(1, made::kprobes_off());
    made.ticks(20);
    assert_eq!(told(&made, 1), "not watched before it: nothing to compare");
    // Three seconds before are too little, and will never be more.
    let mut made = storm();
    made.ticks(3);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.ticks(70);
    assert_eq!(
        told(&made, 1),
        "too little to tell (3 s before, 60 s after)"
    );
    // What was never carried out, or long before the start, has no verdict.
    let mut made = Made::new();
    let mut entry = made::entry(1, made.wall_ns(), made::kprobes_off());
    entry.outcome = crate::change::Outcome::Intended;
    made.model.note_change(entry);
    made.model.note_change(made::entry(
        2,
        made.wall_ns() - 3_600 * S,
        made::kprobes_off(),
    ));
    made.ticks(10);
    assert_eq!(made.model.verdict(1), None);
    assert_eq!(made.model.verdict(2), None);
}

#[test]
fn two_at_once_share_a_verdict() {
    let mut made = storm();
    made.ticks(20);
    made.change(1, made::kprobes_off());
    made.tick();
    made.change(2, made::kprobes_off());
    calm(&mut made);
    made.ticks(20);
    for id in [1, 2] {
        let verdict = made.model.verdict(id).unwrap();
        assert_eq!((verdict.others, verdict.before_ns / S), (1, 20));
        assert!(told(&made, id).ends_with("(with 1 other change at the same time)"));
    }
}

#[test]
fn a_load_that_ended_is_not_taken_for_a_cure() {
    let mut made = storm();
    made.ticks(30);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.now.packets = 400;
    made.ticks(20);
    let line = told(&made, 1);
    assert!(
        line.ends_with("(less work, too: the load may have ended by itself)"),
        "{line}"
    );
    assert!(line.contains("packets 50,000 -> 400/s"), "{line}");
}

#[test]
fn few_windows_of_costs_tell_only_what_is_plain() {
    let run = |before: &[f64], after: &[f64]| {
        let mut made = storm();
        made.now.costs = None;
        made.ticks(30);
        for share in before {
            made.now.costs = Some(made::costs(&[(41, *share)]));
            made.tick();
        }
        made.change(1, made::kprobes_off());
        made.now.costs = None;
        made.ticks(20);
        for share in after {
            made.now.costs = Some(made::costs(&[(41, *share)]));
            made.tick();
        }
        made.now.costs = None;
        made.ticks(50);
        made.model
            .verdict(1)
            .unwrap()
            .row(Metric::ProbeCost)
            .unwrap()
            .told
    };
    assert_eq!(run(&[1.7, 1.8], &[0.0, 0.0]), Told::Moved(Went::Down));
    assert_eq!(run(&[1.7, 1.8], &[1.0, 1.1]), Told::TooLittle);
    assert_eq!(run(&[1.7], &[0.0]), Told::TooLittle);
    assert_eq!(run(&[], &[0.0, 0.0]), Told::NotMeasured);
    assert_eq!(run(&[1.7, 1.7], &[]), Told::NotMeasured);
}

#[test]
fn without_lock_tracepoints_samples_stand_in() {
    let share = |in_lock, suspected| {
        Some(LockShare {
            samples: 800,
            kernel: 700,
            in_lock,
            suspected,
            ..LockShare::default()
        })
    };
    let mut made = storm();
    (made.now.stacks, made.now.share) = (None, share(8, 400));
    made.ticks(30);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    (made.now.stacks, made.now.share) = (None, share(0, 8));
    made.ticks(20);
    let line = told(&made, 1);
    assert!(
        line.starts_with("interrupts off, lock suspected 50 -> 1.0 %, worst delay"),
        "{line}"
    );
    assert!(!line.contains("not measured"), "{line}");
    let lines = made.model.verdict(1).unwrap().lines();
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("lock wait") && l.contains("not measured"))
    );
}

fn stall_effect(before: Side, after: Side) -> StallEffect {
    StallEffect {
        entry: 1,
        at_ns: 0,
        before,
        after,
        reads: false,
        shorter: false,
        lost: 0,
    }
}

#[test]
fn stalls_are_one_of_the_figures() {
    let side = |count| Side {
        span_ns: 60 * S,
        count,
        seconds: count,
        p99_ns: 50 * MS,
        worst_ns: 60 * MS,
    };
    let told = |before, after| stall_effect(before, after).verdict();
    assert_eq!(told(side(12), side(40)), StallVerdict::Worse);
    assert_eq!(told(side(12), side(20)), StallVerdict::NoEffect);
    assert_eq!(told(side(0), side(14)), StallVerdict::Worse);
    assert_eq!(told(side(0), side(4)), StallVerdict::TooFew);
    assert_eq!(told(side(14), side(0)), StallVerdict::Ended);
    // One burst is one event, however many stalls it has.
    let burst = Side {
        seconds: 2,
        ..side(40)
    };
    assert_eq!(told(side(0), burst), StallVerdict::TooFew);
    assert_eq!(told(burst, side(0)), StallVerdict::TooFew);
    // Six in a minute, none in ten seconds: it may be chance.
    let soon = Side {
        span_ns: 10 * S,
        ..side(0)
    };
    assert_eq!(told(side(6), soon), StallVerdict::TooEarly);
}

/// Stalls that come in bursts of their own time, half a minute each side of a change that does
/// nothing: none in two hundred is said to have moved anything.
#[test]
fn bursts_of_stalls_are_no_effect() {
    let mut next = made::noise(17);
    let mut alarms = 0;
    for _ in 0..300 {
        let mut side = |span: u32| {
            let (mut count, mut seconds) = (0, 0);
            for _ in 0..span {
                if next() < 0.1 {
                    count += 1 + (next() * 8.0) as u32;
                    seconds += 1;
                }
            }
            Side {
                span_ns: u64::from(span) * S,
                count,
                seconds,
                p99_ns: 20 * MS,
                worst_ns: 20 * MS,
            }
        };
        let (before, after) = (side(60), side(60));
        let effect = stall_effect(before, after);
        use StallVerdict::{Better, Ended, Worse};
        alarms += u32::from(matches!(effect.verdict(), Better | Ended | Worse));
    }
    assert!(alarms <= 1, "{alarms} of 300");
}

#[test]
fn stalls_that_end_are_told_with_the_rest() {
    let mut made = storm();
    for second in 0..30 {
        let stall = Stall {
            id: second + 1,
            at_ns: made.second * S + 1,
            wall_ns: made.wall_ns() + 1,
            delay_ns: 20 * MS,
            ..Stall::default()
        };
        made.model.apply(&mut Frame::Stall(Box::new(stall)));
        made.watch_stalls = true;
        made.tick();
    }
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.ticks(30);
    let line = told(&made, 1);
    assert!(line.contains("stalls 60 -> 0 a minute"), "{line}");
}

/// A quiet holder beside the one whose probes are switched off.
fn two_holders() -> Made {
    let mut made = storm();
    made.now.tracing = made::tracing(vec![
        made::program(
            41,
            "kretprobe",
            "tcp_sendmsg",
            vec![made::holder(812, "netdata")],
        ),
        made::program(42, "fentry", "tcp_close", vec![made::holder(99, "agent")]),
    ]);
    made.now.costs = Some(made::costs(&[(41, 1.73), (42, 0.4)]));
    made
}

#[test]
fn each_holder_is_told_apart() {
    let mut made = two_holders();
    made.ticks(40);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    made.now.costs = Some(made::costs(&[(41, 0.0), (42, 0.4)]));
    made.ticks(15);
    let line = told(&made, 1);
    assert!(
        line.contains("probe cost 213 -> 40 % of one CPU (netdata[812] 173 -> 0 %), system"),
        "{line}"
    );
    let lines = made.model.verdict(1).unwrap().lines();
    for wanted in [
        "  of netdata[812] 173 -> 0 % of one CPU",
        "  of agent[99] 40 -> 40 % of one CPU: no effect seen",
        "probe runs 2,130,000 -> 400,000/s",
    ] {
        assert!(lines.iter().any(|l| l == wanted), "{wanted}: {lines:#?}");
    }
}

#[test]
fn a_holder_that_moves_is_told_where_the_sum_does_not() {
    let mut made = two_holders();
    made.now.costs = Some(made::costs(&[(41, 1.73), (42, 0.1)]));
    made.ticks(40);
    made.change(1, made::kprobes_off());
    made.now.costs = Some(made::costs(&[(41, 1.73), (42, 0.0)]));
    made.ticks(15);
    assert_eq!(
        told(&made, 1),
        "probe cost of agent[99] 10 -> 0 % of one CPU"
    );
}

#[test]
fn a_rare_long_delay_is_not_worse_the_longer_one_looks() {
    // Every fortieth second has one, before and after.
    let run = |after: u64| {
        let mut made = storm();
        let second = |made: &mut Made, n: u64| {
            for _ in 0..n {
                made.now.delay_ns = if made.second.is_multiple_of(40) {
                    41 * MS
                } else {
                    MS
                };
                made.tick();
            }
        };
        second(&mut made, 60);
        made.change(1, made::kprobes_off());
        second(&mut made, after);
        *made
            .model
            .verdict(1)
            .unwrap()
            .row(Metric::WorstDelay)
            .unwrap()
    };
    for after in [20, 30, 60] {
        let row = run(after);
        assert_eq!(row.told, Told::NoEffect);
        assert!(
            row.before.unwrap() < 1.1e6 && row.after.unwrap() < 1.1e6,
            "{row:?}"
        );
    }
}

#[test]
fn work_that_rises_is_told_and_does_not_pass_for_a_load_that_ended() {
    let mut made = storm();
    made.now.packets = 52_000;
    made.ticks(30);
    made.change(1, made::kprobes_off());
    calm(&mut made);
    (made.now.packets, made.now.user_ms) = (1_043_000, 400);
    made.ticks(20);
    let line = told(&made, 1);
    assert!(
        line.ends_with("packets 52,000 -> 1,043,000/s, user time 1.0 -> 40 %"),
        "{line}"
    );
}

/// All figures waver together with a load that comes and goes: nothing is said to have moved.
#[test]
fn a_host_that_wavers_is_left_alone_by_a_change_that_did_nothing() {
    let mut next = made::noise(3);
    let mut alarms = 0;
    const RUNS: u32 = 60;
    for _ in 0..RUNS {
        let mut made = two_holders();
        let mut load = 1.0f64;
        let mut alarm = false;
        for second in 0..110 {
            if second == 50 {
                made.change(1, made::kprobes_off());
            }
            load = 1.0 + 0.5 * (load - 1.0) + 0.5 * (next() - 0.5);
            let mut some = |mean: f64| (mean * load * (0.7 + 0.6 * next())).max(0.0);
            made.now.packets = some(50_000.0) as u64;
            made.now.system_ms = some(300.0) as u64;
            made.now.user_ms = some(200.0) as u64;
            made.now.delay_ns = (some(1.0).powi(4) * 2e6) as u64;
            made.now.stacks = Some(vec![made::stack(LockKind::Spin, some(800.0) as u64, STACK)]);
            let costs = [(41, some(0.9)), (42, some(0.3))];
            made.now.costs = (second % 2 == 0).then(|| made::costs(&costs));
            made.tick();
            let came = made.model.verdict(1).map(Verdict::came);
            alarm |= came == Some(Came::Moved);
        }
        alarms += u32::from(alarm);
    }
    assert_eq!(alarms, 0, "of {RUNS}");
}
