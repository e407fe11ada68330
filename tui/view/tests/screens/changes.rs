//! Changes: from the key to the dialog, to the effect, to the result.

use stalltop_model::change::{
    ChangeError, Effect as Measured, EffectRow, Entry, Left, OpenMode, Outcome, Plan, Request,
    UndoClass, Write,
};
use stalltop_model::{Reading, Reason};
use stalltop_view::{Effect, Msg, Progress, Wants};

use super::host::Kind;
use super::{Screen, snap};

pub(super) fn write(path: &str, value: &str, before: &str, after: &str) -> Write {
    Write {
        path: path.into(),
        mode: OpenMode::Truncate,
        value: value.into(),
        item: None,
        before: Some(before.into()),
        after: Some(after.into()),
        kept: Vec::new(),
        undo: Vec::new(),
    }
}

pub(super) fn kprobes_plan(request: Request) -> Plan {
    Plan {
        request,
        title: "switch off all kprobes of this host".into(),
        writes: vec![write("/sys/kernel/debug/kprobes/enabled", "0", "1", "0")],
        undo: UndoClass::Exact,
        notes: vec!["stops 18 kprobes of netdata[812]; none of others'".into()],
        left: vec![Left {
            what: "kprobe.multi, fentry".into(),
            why: "the master switch does not stop them: stop netdata[812], netdata.service".into(),
        }],
        confirm_word: None,
    }
}

pub(super) fn drop_plan(request: Request) -> Plan {
    Plan {
        request,
        title: "drop caches (1: page cache)".into(),
        writes: vec![Write {
            before: None,
            after: None,
            ..write("/proc/sys/vm/drop_caches", "1", "", "")
        }],
        undo: UndoClass::Never,
        notes: vec!["3.1 GiB of cache must be read again; it may take minutes".into()],
        left: Vec::new(),
        confirm_word: Some("drop".into()),
    }
}

pub(super) fn entry(id: u64, plan: Plan, outcome: Outcome) -> Entry {
    Entry {
        id,
        wall_ns: 1_773_528_130_000_000_000,
        by: "root[4711]".into(),
        boot: "b".into(),
        plan,
        outcome,
        undoes: None,
        effect: None,
    }
}

/// What is asked for of changes.
#[derive(Debug, PartialEq)]
pub(super) enum Ask {
    Plan(Request),
    Apply(Box<Plan>),
}

/// What was asked for, but for what is to be measured.
pub(super) fn asked(screen: &Screen) -> Vec<Ask> {
    let list = screen.last.list.iter();
    list.filter_map(|effect| match effect {
        Effect::Plan { request, .. } => Some(Ask::Plan(request.clone())),
        Effect::Apply { plan, .. } => Some(Ask::Apply(plan.clone())),
        _ => None,
    })
    .collect()
}

#[test]
fn a_change_is_shown_confirmed_and_told() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("1 K");
    let request = Request::Off {
        selector: "kprobes".into(),
    };
    assert_eq!(asked(&screen), [Ask::Plan(request.clone())]);
    snap!("change_planning", screen);
    let plan = kprobes_plan(request.clone());
    screen.planned(Ok(Box::new(plan.clone())));
    snap!("change_asking", screen);
    screen.keys("enter");
    assert_eq!(asked(&screen), [Ask::Apply(Box::new(plan.clone()))]);
    screen.keys("enter");
    assert_eq!(asked(&screen), [], "a second Enter does nothing");
    screen.applied(Ok(Box::new(entry(1, plan, Outcome::Done))));
    let text = screen.text();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains("22:42:10 switch off all kprobes") && last.contains("u undo"),
        "{last}"
    );
    screen.keys("down");
    assert!(
        !screen.text().contains("u undo all"),
        "the next key brings the footer back"
    );
}

#[test]
fn however_long_a_plan_is_the_question_is_in_view() {
    let mut screen = Screen::new(Kind::sick(4), 80, 24);
    screen.keys("E");
    let request = Request::Off {
        selector: "set_event".into(),
    };
    let mut plan = kprobes_plan(request.clone());
    plan.title = "switch off 60 events of the top-level instance".into();
    plan.writes = (0..60)
        .map(|n| {
            let path = format!("/sys/kernel/tracing/events/irq_vectors/event_{n}/enable");
            write(&path, "0", "1", "0")
        })
        .collect();
    screen.planned(Ok(Box::new(plan)));
    snap!("change_long", screen);
    screen.keys("pgdn pgdn pgdn pgdn pgdn");
    snap!("change_long_scrolled", screen);
}

#[test]
fn esc_leaves_everything_as_it_is() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    let before = screen.text();
    screen.keys("K esc");
    assert_eq!(screen.text(), before);
    // A plan that arrives after that is not shown, not even where it is asked for again.
    let plan = kprobes_plan(Request::Off {
        selector: "kprobes".into(),
    });
    screen.planned(Ok(Box::new(plan.clone())));
    assert_eq!(screen.text(), before);
    let old = screen.job.unwrap();
    let waiting = screen.keys("K").text();
    let result = Ok(Box::new(plan.clone()));
    assert_eq!(
        screen.send(Msg::Planned { job: old, result }).text(),
        waiting
    );
    screen.planned(Ok(Box::new(plan)));
    assert!(screen.text().contains("Enter do it"), "{}", screen.text());
}

#[test]
fn dropping_caches_wants_the_word_and_reports() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("6 d");
    let request = Request::DropCaches { level: None };
    assert_eq!(asked(&screen), [Ask::Plan(request.clone())]);
    let plan = drop_plan(request.clone());
    screen.planned(Ok(Box::new(plan.clone())));
    screen.keys("enter");
    assert_eq!(asked(&screen), [], "without the word nothing happens");
    screen.typed("dro");
    screen.keys("enter");
    assert_eq!(asked(&screen), []);
    screen.typed("p");
    snap!("drop_caches_typed", screen);
    screen.keys("enter");
    assert_eq!(asked(&screen), [Ask::Apply(Box::new(plan.clone()))]);
    let job = screen.job.unwrap();
    let progress = Progress {
        what: "zombies left".into(),
        done: 1_200,
        total: Some(4_725),
    };
    screen.send(Msg::Applying { job, progress });
    snap!("drop_caches_progress", screen);
    let row = |what: &str, unit: &str, before: u64, after: u64| EffectRow {
        what: what.into(),
        unit: unit.into(),
        before: Reading::Value(before),
        after: Reading::Value(after),
    };
    let mut done = entry(2, plan, Outcome::Done);
    done.effect = Some(Measured {
        rows: vec![
            row("zombie cgroups", "count", 4_725, 91),
            row("memory.stat read", "ns", 153_000_000, 41_000),
            row("free memory", "bytes", 1 << 30, 4 << 30),
            EffectRow {
                after: Reading::Off(Reason::NotAsked),
                ..row("stall p99", "ns", 178_000_000, 0)
            },
        ],
        took_ns: 412_000_000,
    });
    screen.applied(Ok(Box::new(done)));
    snap!("drop_caches_report", screen);
}

#[test]
fn an_undo_of_a_moved_value_shows_both_and_asks() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("u");
    let request = Request::Undo {
        entry: None,
        force: false,
    };
    assert_eq!(asked(&screen), [Ask::Plan(request.clone())]);
    screen.planned(Err(ChangeError::Moved {
        path: "/sys/kernel/debug/kprobes/enabled".into(),
        expected: "0".into(),
        found: "1".into(),
    }));
    snap!("undo_moved", screen);
    screen.keys("enter");
    let forced = Request::Undo {
        entry: None,
        force: true,
    };
    assert_eq!(asked(&screen), [Ask::Plan(forced)]);
}

#[test]
fn what_cannot_be_switched_says_who_to_stop() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("5 down x");
    assert!(asked(&screen).is_empty());
    assert!(
        screen.text().contains("stop the process 812"),
        "{}",
        screen.text()
    );
    screen.keys("K");
    screen.planned(Err(ChangeError::Instead {
        reason: Reason::Lockdown {
            level: "integrity".into(),
            what: "kprobes/enabled".into(),
        },
        instead: "stop netdata[812], netdata.service".into(),
    }));
    snap!("change_refused", screen);
}

#[test]
fn keys_on_rows_ask_for_what_the_row_is() {
    let mut screen = Screen::new(Kind::sick(4), 100, 40);
    let off = |selector: &str| {
        vec![Ask::Plan(Request::Off {
            selector: selector.into(),
        })]
    };
    screen
        .keys("5 /")
        .typed("softirq_entry")
        .keys("enter end x");
    assert_eq!(asked(&screen), off("irq:softirq_entry"));
    screen.keys("esc X");
    assert_eq!(asked(&screen), off("irq:*"));
    screen.keys("esc E");
    assert_eq!(asked(&screen), off("set_event"));
    screen.keys("esc W");
    assert_eq!(asked(&screen), off("tracing_on"));
    screen
        .keys("esc esc /")
        .typed("kprobes:openat")
        .keys("enter end D");
    assert_eq!(
        asked(&screen),
        [Ask::Plan(Request::Remove {
            selector: "kprobes:openat".into()
        })]
    );
}

#[test]
fn changes_are_listed_and_told_in_full() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    let request = Request::Off {
        selector: "kprobes".into(),
    };
    let done = entry(1, kprobes_plan(request), Outcome::Done);
    let failed = Outcome::Failed {
        written: 0,
        why: "Operation not permitted".into(),
    };
    let dropped = entry(
        2,
        drop_plan(Request::DropCaches { level: None }),
        failed.clone(),
    );
    // There is nothing to undo of what was not even begun.
    let request = done.plan.request.clone();
    screen
        .model
        .note_change(entry(3, kprobes_plan(request), failed));
    screen.model.note_change(dropped.clone());
    assert!(!screen.keys("J").text().contains("u undo"));
    screen.keys("esc");
    screen.model = super::host::model(Kind::sick(4));
    screen.model.note_change(done);
    screen.model.note_change(dropped);
    screen.keys("J");
    snap!("changes", screen);
    screen.keys("down enter");
    snap!("change_in_full", screen);
    screen.keys("esc u");
    assert_eq!(
        asked(&screen),
        [Ask::Plan(Request::Undo {
            entry: Some(1),
            force: false
        })]
    );
    screen.keys("esc esc");
    assert!(screen.text().contains("TRACING"));
    // Who leaves for another pane has done with the list.
    screen.keys("4 J");
    assert!(screen.text().contains("CHANGES"));
    screen.keys("4 5");
    assert!(!screen.text().contains("CHANGES"), "{}", screen.text());
}

#[test]
fn sources_run_only_while_they_are_looked_at() {
    let mut screen = Screen::new(Kind::calm(2), 80, 24);
    screen.keys("2");
    assert_eq!(
        screen.last.list,
        [],
        "the Overview is content with what comes anyway"
    );
    screen.keys("5");
    let tracing = Wants {
        cpu: None,
        tracing: true,
        costs: true,
        ..Wants::default()
    };
    assert_eq!(screen.last.list, [Effect::Wants(tracing)]);
    screen.keys("down");
    assert_eq!(screen.last.list, []);
    // A verdict on a change needs figures of before it.
    screen.keys("1");
    screen.keys("K");
    let judged = Wants {
        costs: true,
        locks: true,
        ..Wants::default()
    };
    assert_eq!(screen.last.list.last(), Some(&Effect::Wants(judged)));
    screen.keys("esc");
    assert_eq!(screen.last.list, [Effect::Wants(Wants::default())]);
}

#[test]
fn what_a_change_did_is_told_where_it_was_made() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    let pass = |screen: &mut Screen, seconds: u64| {
        for _ in 0..seconds {
            let mut sample = screen.model.now().clone();
            sample.at_ns += 1_000_000_000;
            sample.wall_ns += 1_000_000_000;
            sample.locks = Reading::Off(Reason::NotAsked);
            screen.model.advance(&mut sample);
            screen.send(Msg::Advanced);
        }
    };
    pass(&mut screen, 1);
    let request = Request::Off {
        selector: "kprobes".into(),
    };
    let mut entry = entry(7, kprobes_plan(request), Outcome::Done);
    entry.wall_ns = screen.model.now().wall_ns;
    screen.keys("K");
    screen.planned(Ok(Box::new(entry.plan.clone())));
    // The screen may be held: what came of the change is told all the same.
    screen.keys("enter esc space");
    screen.model.note_change(entry.clone());
    screen.applied(Ok(Box::new(entry)));
    pass(&mut screen, 2);
    let text = screen.text();
    assert!(text.contains(" kprobes off: too early to tell ("), "{text}");
    let wants = &mut screen.last.list;
    assert_eq!(*wants, [], "wanted from the change on");
    pass(&mut screen, 38);
    let text = screen.text();
    // What stands still does no work either: that is said, and no cure claimed.
    assert!(
        text.contains(
            " kprobes off: worst delay a second 178 -> 0.2 ms, stalls 25 -> 0 a minute, packets \
             76,140 -> 0/s"
        ),
        "{text}"
    );
    screen.keys("space J enter");
    let text = screen.text();
    // Lines are wrapped, within a border.
    let words = text.split_whitespace().filter(|word| *word != "│");
    let text = words.collect::<Vec<_>>().join(" ");
    for part in [
        "what it did: worst delay a second 178 -> 0.2 ms, stalls 25 -> 0 a minute",
        "load may have ended by itself",
        "lock wait 3.306 s/s, not measured since",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The details that lie open go on with what is measured.
    let compared = |screen: &mut Screen| {
        let text = screen.text();
        let line = text.lines().find(|l| l.contains("compared: "));
        line.map(str::to_owned)
    };
    let before = compared(&mut screen).expect("a line");
    pass(&mut screen, 5);
    let after = compared(&mut screen).expect("a line");
    assert_ne!(before, after);
}
