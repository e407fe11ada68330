//! Changes under way: those that stop half-way, and those that outlive their dialog.

use stalltop_model::change::{ChangeError, Effect, Failure, Outcome, Plan, Request, UndoClass};
use stalltop_view::Msg;

use super::changes::{Ask, asked, drop_plan, entry, kprobes_plan, write};
use super::host::Kind;
use super::{Screen, snap};

fn remove_plan(request: Request) -> Plan {
    let dir = "/sys/kernel/tracing/events/kprobes/openat";
    Plan {
        title: "remove kprobes:openat".into(),
        writes: vec![
            write(&format!("{dir}/enable"), "0", "1", "0"),
            write(&format!("{dir}/filter"), "0", "dfd == 1", "none"),
            write(
                "/sys/kernel/tracing/dynamic_events",
                "-:kprobes/openat",
                "p",
                "",
            ),
        ],
        undo: UndoClass::Partial,
        notes: Vec::new(),
        left: Vec::new(),
        ..kprobes_plan(request)
    }
}

/// The kernel refuses after `written` writes of the removal; that is entry 3.
fn refused(plan: &Plan, written: u32) -> Failure {
    let error = ChangeError::Refused {
        command: plan.writes[written as usize].command().into(),
        why: "Device or resource busy (os error 16); something still uses it".into(),
    };
    let outcome = Outcome::Failed {
        written,
        why: error.to_string().into(),
    };
    Failure {
        error,
        entry: Some(Box::new(entry(3, plan.clone(), outcome))),
    }
}

/// The removal is being written.
fn removing() -> (Screen, Plan) {
    let mut screen = Screen::new(Kind::sick(4), 120, 30);
    screen
        .keys("5 /")
        .typed("kprobes:openat")
        .keys("enter end D");
    let request = Request::Remove {
        selector: "kprobes:openat".into(),
    };
    assert_eq!(asked(&screen), [Ask::Plan(request.clone())]);
    let plan = remove_plan(request);
    screen.planned(Ok(Box::new(plan.clone()))).keys("enter");
    (screen, plan)
}

#[test]
fn a_change_that_stops_half_way_says_what_is_in_effect() {
    let (mut screen, plan) = removing();
    screen.applied(Err(refused(&plan, 2)));
    snap!("change_stopped", screen);
    assert!(!screen.text().contains("nothing was written"));
    screen.keys("u");
    let undo = Request::Undo {
        entry: Some(3),
        force: false,
    };
    assert_eq!(asked(&screen), [Ask::Plan(undo.clone())]);

    // A value that moved before the first write, and one that moved in between.
    let (mut screen, plan) = removing();
    let moved = ChangeError::Moved {
        path: "/x".into(),
        expected: "0".into(),
        found: "1".into(),
    };
    screen.applied(Err(moved.clone().into()));
    let text = screen.text();
    assert!(
        text.contains("Not done") && text.contains("nothing was written"),
        "{text}"
    );
    assert!(!text.contains("undo what"), "{text}");
    screen.keys("u");
    assert_eq!(asked(&screen), []);
    let (mut screen, _) = removing();
    let failure = Failure {
        error: moved,
        ..refused(&plan, 1)
    };
    screen.applied(Err(failure));
    let text = screen.text();
    assert!(text.contains("Stopped after 1 of 3 writes"), "{text}");
    assert!(!text.contains("nothing was written"), "{text}");

    // All is written, and only the journal does not say so.
    let (mut screen, _) = removing();
    let failure = Failure {
        error: ChangeError::Journal {
            path: "/run/stalltop/journal".into(),
            why: "cannot be written: No space left on device".into(),
        },
        entry: Some(Box::new(entry(3, plan, Outcome::Done))),
    };
    screen.applied(Err(failure));
    let text = screen.text();
    assert!(
        text.contains("All of 3 writes done, but not journaled"),
        "{text}"
    );
    screen.keys("u");
    assert_eq!(asked(&screen), [Ask::Plan(undo)]);
}

#[test]
fn what_goes_on_without_its_dialog_is_told_in_the_footer() {
    let (mut screen, plan) = removing();
    screen.keys("esc");
    let text = screen.text();
    assert!(text.contains("remove kprobes:openat …"), "{text}");
    screen.applied(Err(refused(&plan, 2)));
    let text = screen.text();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains("remove kprobes:openat: stopped after 2 of 3 writes: echo ")
            && last.contains("u undo"),
        "{last}"
    );
    assert!(!text.contains("remove kprobes:openat …"), "{text}");

    let (mut screen, _) = removing();
    screen.keys("esc");
    let why = "opened read-only".into();
    screen.applied(Err(ChangeError::ReadOnly { why }.into()));
    let text = screen.text();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains("remove kprobes:openat: not done: read-only") && !last.contains("u undo"),
        "{last}"
    );
}

#[test]
fn the_end_of_one_change_leaves_the_dialog_of_another() {
    for fails in [false, true] {
        let mut screen = Screen::new(Kind::sick(4), 120, 30);
        screen.keys("d");
        let dropping = screen.job.unwrap();
        let plan = drop_plan(Request::DropCaches { level: Some(1) });
        screen.planned(Ok(Box::new(plan.clone())));
        screen.typed("drop").keys("enter esc");
        let text = screen.text();
        assert!(text.contains("drop caches (1: page cache) …"), "{text}");
        let request = Request::Off {
            selector: "kprobes".into(),
        };
        screen.keys("K");
        screen.planned(Ok(Box::new(kprobes_plan(request))));
        let result = if fails {
            let why = "no word of it".into();
            Err(ChangeError::NothingToDo { why }.into())
        } else {
            let mut done = entry(2, plan, Outcome::Done);
            done.effect = Some(Effect::default());
            Ok(Box::new(done))
        };
        screen.send(Msg::Applied {
            job: dropping,
            result,
        });
        let text = screen.text();
        assert!(
            text.contains("Switch off all kprobes of this host"),
            "{text}"
        );
        assert!(text.contains("Enter do it"), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains("drop caches (1: page cache)"), "{last}");
        let told = last.contains("not done: nothing to do: no word of it");
        assert_eq!(told, fails, "{last}");
    }
}
