//! Changes on a real kernel, in tracefs instances of these tests' own.

use std::fs;

use stalltop_model::change::{ChangeError, Outcome, Plan, Request, UndoClass};
use stalltop_tests::change::{Bench, UNDO, kill_at, killed_child, off, on};
use stalltop_tests::instance::Instance;
use stalltop_tests::{need, require};

const EXEC: &str = "events/sched/sched_process_exec/enable";
const EXIT: &str = "events/sched/sched_process_exit/enable";

macro_rules! own_instance {
    ($name:literal) => {{
        require!(need::root());
        let tracefs = require!(need::tracefs());
        require!(need::tracepoint("sched:sched_process_exec"));
        Instance::new(&tracefs, $name).unwrap()
    }};
}

/// See [`kill_at`].
#[test]
fn child_that_is_killed() {
    killed_child();
}

#[test]
fn an_event_goes_off_and_comes_back_with_its_filter() {
    let own = own_instance!("filter");
    let filter = "events/sched/sched_process_exec/filter";
    own.write(filter, "pid == 4711");
    own.write(EXEC, "1");
    let bench = Bench::new();
    let selector = format!("{}/sched:sched_process_exec", own.name());
    let plan = bench.plan(&off(&selector)).unwrap();
    assert_eq!(plan.writes.len(), 1);
    assert_eq!(own.read(EXEC), "1", "planning writes nothing");
    assert!(!bench.writer.journal().exists());

    let entry = bench.apply(&plan).unwrap();
    assert_eq!(
        (entry.outcome, own.read(EXEC).as_str()),
        (Outcome::Done, "0")
    );
    assert!(matches!(
        bench.plan(&off(&selector)),
        Err(ChangeError::NothingToDo { .. })
    ));
    bench.undo();
    assert_eq!(
        (own.read(EXEC), own.read(filter)),
        ("1".into(), "pid == 4711".into())
    );
    assert_eq!(
        bench.journal().entries()[0].outcome,
        Outcome::Undone { by: 2 }
    );
    assert!(matches!(
        bench.plan(&UNDO),
        Err(ChangeError::NothingToDo { .. })
    ));
}

#[test]
fn set_event_is_cleared_per_event_and_soft_armed_events_stay_what_they_are() {
    let own = own_instance!("armed");
    // 0* by a trigger, 1* by a trigger and on, 1 and 0 as they are.
    own.append(
        "events/sched/sched_process_fork/trigger",
        "traceoff if child_pid == 1",
    )
    .unwrap();
    own.append(
        "events/sched/sched_process_exec/trigger",
        "stacktrace:3 if pid == 1",
    )
    .unwrap();
    own.write(EXEC, "1");
    own.write(EXIT, "1");
    let state = || {
        ["fork", "exec", "exit", "wait"]
            .map(|e| own.read(&format!("events/sched/sched_process_{e}/enable")))
    };
    let triggers =
        || ["fork", "exec"].map(|e| own.read(&format!("events/sched/sched_process_{e}/trigger")));
    assert_eq!(state(), ["0*", "1*", "1", "0"]);
    let before = (state(), triggers());
    let bench = Bench::new();
    let set_event = format!("{}/set_event", own.name());
    let plan = bench.plan(&off(&set_event)).unwrap();
    assert!(plan.writes.iter().all(|w| w.path.ends_with("/enable")));
    bench.apply(&plan).unwrap();
    assert_eq!(state(), ["0*", "0*", "0", "0"]);
    assert_eq!(triggers(), before.1);
    bench.undo();
    assert_eq!((state(), triggers()), before);

    // The same through `on`, which restores only what the journal knows.
    bench.make(&off(&set_event));
    let sched = format!("{}/sched:*", own.name());
    bench.make(&on(&sched, false));
    assert_eq!((state(), triggers()), before);
    let wait = format!("{}/sched:sched_process_wait", own.name());
    assert!(matches!(
        bench.plan(&on(&wait, false)),
        Err(ChangeError::NothingToDo { .. })
    ));
    bench.make(&on(&wait, true));
    assert_eq!(state()[3], "1");
}

#[test]
fn undo_stops_at_a_value_that_has_moved() {
    let own = own_instance!("moved");
    own.write(EXEC, "1");
    own.write(EXIT, "1");
    let bench = Bench::new();
    bench.make(&off(&format!("{}/sched:*", own.name())));
    // Somebody sets a trigger, and somebody a filter, in between.
    own.append(
        "events/sched/sched_process_exec/trigger",
        "traceoff if pid == 1",
    )
    .unwrap();
    let error = bench.plan(&UNDO).unwrap_err();
    let ChangeError::Moved {
        path,
        expected,
        found,
    } = error
    else {
        panic!("{error}");
    };
    assert!(path.ends_with("sched_process_exec/enable"));
    assert_eq!((&*expected, &*found), ("0", "0*"));
    assert_eq!((own.read(EXEC), own.read(EXIT)), ("0*".into(), "0".into()));
    own.append("events/sched/sched_process_exec/trigger", "!traceoff")
        .unwrap();
    own.write("events/sched/sched_process_exit/filter", "pid == 5");
    assert!(
        matches!(bench.plan(&UNDO), Err(ChangeError::KeptMoved { found, .. }) if &*found == "pid == 5")
    );

    // A plan made before the move is not carried out after it either.
    own.write("events/sched/sched_process_exit/filter", "0");
    let plan = bench.plan(&UNDO).unwrap();
    own.write(EXIT, "1");
    let failure = bench.apply(&plan).unwrap_err();
    assert!(matches!(failure.error, ChangeError::Moved { .. }) && failure.entry.is_none());
    assert_eq!(own.read(EXEC), "0", "nothing was written");

    // EXIT reads what it read before the change: nothing is left to do for it.
    let entry = bench.undo();
    assert_eq!(entry.plan.writes.len(), 1);
    assert_eq!((own.read(EXEC), own.read(EXIT)), ("1".into(), "1".into()));
}

#[test]
fn forced_undo_goes_on_over_a_moved_value() {
    let own = own_instance!("forced");
    own.write(EXEC, "1");
    let bench = Bench::new();
    bench.make(&off(&format!("{}/sched:*", own.name())));
    own.append(
        "events/sched/sched_process_exec/trigger",
        "traceoff if pid == 1",
    )
    .unwrap();
    assert!(bench.plan(&UNDO).is_err());
    let forced = Request::Undo {
        entry: Some(1),
        force: true,
    };
    let plan = bench.plan(&forced).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("has moved since: 0 expected, 0* found"))
    );
    bench.apply(&plan).unwrap();
    assert_eq!(own.read(EXEC), "1*");
}

#[test]
fn recording_and_selectors_of_an_instance() {
    let own = own_instance!("switch");
    let bench = Bench::new();
    let selector = format!("{}/tracing_on", own.name());
    assert_eq!(own.read("tracing_on"), "1");
    bench.make(&off(&selector));
    assert_eq!(own.read("tracing_on"), "0");
    bench.make(&on(&selector, false));
    assert_eq!(own.read("tracing_on"), "1");

    let near = format!("{}x/set_event", own.name());
    let error = bench.plan(&off(&near)).unwrap_err().to_string();
    assert!(
        error.contains(&format!("did you mean {}/set_event?", own.name())),
        "{error}"
    );
    for (wrong, right) in [
        ("sched:sched_swich", "sched:sched_switch"),
        ("irq:sched_switch", "sched:sched_switch"),
        ("shced:*", "sched:*"),
        ("sched/sched_switch", "sched:sched_switch"),
    ] {
        let error = bench.plan(&off(wrong)).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("; did you mean {right}?")),
            "{error}"
        );
    }
}

/// Kills by SIGKILL a process that is between the writes of a change, at every point there
/// is, then undoes what it left.
#[test]
fn a_change_killed_anywhere_is_undone_exactly() {
    let own = own_instance!("killed");
    own.append(
        "events/sched/sched_process_exec/trigger",
        "stacktrace:3 if pid == 1",
    )
    .unwrap();
    own.write(EXEC, "1");
    own.write(EXIT, "1");
    own.write("events/sched/sched_process_fork/enable", "1");
    let state = || {
        ["fork", "exec", "exit"]
            .map(|e| own.read(&format!("events/sched/sched_process_{e}/enable")))
    };
    let before = state();
    assert_eq!(before, ["1", "1*", "1"]);
    for point in 0..=3 {
        let bench = Bench::new();
        let journal = bench.writer.journal().to_str().unwrap();
        let selector = format!("{}/sched:*", own.name());
        kill_at(point, &format!("off {journal} {selector}"));
        let entries = bench.journal().entries().to_vec();
        assert_eq!(entries[0].outcome, Outcome::Intended, "point {point}");
        let off = state().iter().filter(|s| s.starts_with('0')).count();
        assert_eq!(off, point, "killed after {point} writes");
        // The undo is killed as well, at each of its points.
        for undo_point in 0..=point {
            kill_at(undo_point, &format!("undo {journal}"));
        }
        bench.undo();
        assert_eq!(state(), before, "point {point}");
        assert!(bench.journal().last_undoable().is_none(), "point {point}");
    }
}

/// Two stalltops at once: the journal lets one write at a time, and neither overwrites what
/// the other did.
#[test]
fn two_instances_at_once() {
    let own = own_instance!("two");
    let events = ["exec", "exit", "fork", "wait"];
    let file = |e: &str| format!("events/sched/sched_process_{e}/enable");
    for event in events {
        own.write(&file(event), "1");
    }
    let bench = Bench::new();
    // All four want their own event off, and one common event.
    let common = "events/irq/softirq_entry/enable";
    own.write(common, "1");
    let plans: Vec<Plan> = events
        .iter()
        .map(|event| {
            let name = own.name();
            let both = format!("{name}/irq:softirq_entry {name}/sched:sched_process_{event}");
            bench.plan(&off(&both)).unwrap()
        })
        .collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = plans
            .iter()
            .map(|p| scope.spawn(|| bench.apply(p)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (done, stopped): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), stopped.len()), (1, 3));
    for failure in stopped.into_iter().filter_map(Result::err) {
        assert!(
            matches!(failure.error, ChangeError::Moved { .. }),
            "{failure}"
        );
        assert!(failure.entry.is_none());
    }
    let off_now = events.iter().filter(|e| own.read(&file(e)) == "0").count();
    assert_eq!((off_now, own.read(common).as_str()), (1, "0"));
    assert_eq!(bench.journal().entries().len(), 1);

    // The same undo from two shells: one does it, the other finds nothing to do.
    let plan = bench.plan(&UNDO).unwrap();
    let results = [bench.apply(&plan), bench.apply(&plan)];
    assert!(results[0].is_ok());
    assert!(matches!(
        results[1].as_ref().unwrap_err().error,
        ChangeError::NothingToDo { .. }
    ));
    assert!(events.iter().all(|e| own.read(&file(e)) == "1"));
}

/// A tracer is put back, where the kernel has another than `nop` for an instance.
#[test]
fn a_tracer_is_put_back() {
    let own = own_instance!("tracer");
    if fs::write(own.path("current_tracer"), "function\n").is_err() {
        eprintln!(
            "skipped here: no function tracer (lockdown or not built); tests/vm.rs runs it elsewhere"
        );
        return;
    }
    let bench = Bench::new();
    let selector = format!("{}/current_tracer", own.name());
    let plan = bench.plan(&off(&selector)).unwrap();
    assert_eq!(plan.undo, UndoClass::Partial);
    bench.apply(&plan).unwrap();
    assert_eq!(own.read("current_tracer"), "nop");
    bench.undo();
    assert_eq!(own.read("current_tracer"), "function");
    bench.make(&off(&selector));
    bench.make(&on(&selector, false));
    assert_eq!(own.read("current_tracer"), "function");
}
