//! What is switched off and on again: what counts as undone then.

use std::path::Path;

use stalltop_collectors::change::{self, Journal};
use stalltop_model::change::{
    ChangeError, Entry, OpenMode, Outcome, Plan, Request, Standing, UndoClass,
};

use super::host::{Bench, Tree};
use super::{off, writes};

fn on(selector: &str, force: bool) -> Request {
    Request::On {
        selector: selector.into(),
        force,
    }
}

const UNDO: Request = Request::Undo {
    entry: None,
    force: false,
};

/// A host with the events `a:one` and `a:two` on, and `a:three` off.
fn host() -> (Tree, Bench) {
    let tree = Tree::new();
    for (event, state) in [("a/one", "1"), ("a/two", "1"), ("a/three", "0")] {
        tree.event("", event, state);
    }
    let bench = tree.bench();
    (tree, bench)
}

fn make(bench: &Bench, request: &Request) -> Plan {
    let plan = bench.plan(request).unwrap();
    change::apply(&bench.writer, &plan, &mut |_| ()).unwrap();
    plan
}

/// How the entries of the journal stand, the oldest first.
fn standing(bench: &Bench) -> Vec<Standing> {
    let journal = Journal::read(&bench.env, bench.writer.journal()).unwrap();
    journal.entries().iter().map(Entry::standing).collect()
}

fn states(tree: &Tree) -> [String; 3] {
    ["one", "two", "three"].map(|event| {
        let path = format!("sys/kernel/tracing/events/a/{event}/enable");
        tree.get(&path).trim().to_owned()
    })
}

#[test]
fn switched_off_and_on_again_nothing_is_in_effect() {
    let (tree, bench) = host();
    make(&bench, &off("a:*"));
    let back = make(&bench, &on("a:*", false));
    assert!(back.puts_back());
    assert_eq!(states(&tree), ["1", "1", "0"]);
    assert_eq!(standing(&bench), [Standing::Undone, Standing::Settled]);
    let journal = Journal::read(&bench.env, bench.writer.journal()).unwrap();
    assert_eq!(journal.entries()[0].outcome, Outcome::Undone { by: 2 });
    assert_eq!(journal.entries()[1].undoes, Some(1));
    assert!(matches!(
        bench.plan(&UNDO),
        Err(ChangeError::NothingToDo { .. })
    ));
}

#[test]
fn an_entry_is_undone_once_all_of_it_is_back() {
    let (tree, bench) = host();
    make(&bench, &off("a:*"));
    let first = make(&bench, &on("a:one", false));
    assert!(first.puts_back());
    assert!(
        first
            .notes
            .iter()
            .any(|n| n.starts_with("undoes a part of change 1 "))
    );
    assert_eq!(standing(&bench), [Standing::Whole, Standing::Settled]);
    // What is left of it can be undone, and what is back is left alone.
    let rest = bench.plan(&UNDO).unwrap();
    assert_eq!(writes(&rest), ["events/a/two/enable 1: 0 -> 1"]);
    let second = make(&bench, &on("a:two", false));
    assert!(second.puts_back());
    assert_eq!(
        standing(&bench),
        [Standing::Undone, Standing::Settled, Standing::Settled]
    );
    assert_eq!(states(&tree), ["1", "1", "0"]);
}

#[test]
fn one_switch_may_undo_several_entries() {
    let (_tree, bench) = host();
    make(&bench, &off("a:one"));
    make(&bench, &off("a:two"));
    make(&bench, &on("a:*", false));
    assert_eq!(
        standing(&bench),
        [Standing::Undone, Standing::Undone, Standing::Settled]
    );
}

#[test]
fn what_is_forced_on_besides_has_its_own_undo() {
    let (tree, bench) = host();
    make(&bench, &off("a:one"));
    let mixed = make(&bench, &on("a:*", true));
    assert_eq!((mixed.puts_back(), mixed.undo), (false, UndoClass::Exact));
    assert_eq!(states(&tree), ["1", "1", "1"]);
    assert_eq!(standing(&bench), [Standing::Undone, Standing::Whole]);
    make(&bench, &UNDO);
    assert_eq!(states(&tree), ["1", "1", "0"], "as at the start");
    assert_eq!(
        standing(&bench),
        [Standing::Undone, Standing::Undone, Standing::Settled]
    );
}

#[test]
fn what_is_switched_off_can_always_be_undone() {
    let (tree, bench) = host();
    make(&bench, &on("a:three", true));
    let again = make(&bench, &off("a:three"));
    assert_eq!(again.undo, UndoClass::Exact);
    make(&bench, &UNDO);
    assert_eq!(states(&tree)[2], "1");
    make(&bench, &UNDO);
    assert_eq!(states(&tree)[2], "0");
}

#[test]
fn what_was_undone_meanwhile_is_not_undone_again() {
    let (tree, bench) = host();
    make(&bench, &off("a:one"));
    let late = bench.plan(&on("a:one", false)).unwrap();
    make(&bench, &UNDO);
    tree.put("sys/kernel/tracing/events/a/one/enable", "0\n");
    let failure = change::apply(&bench.writer, &late, &mut |_| ()).unwrap_err();
    assert!(
        matches!(&failure.error, ChangeError::NothingToDo { why } if why.contains("meanwhile")),
        "{failure}"
    );
    assert_eq!(states(&tree)[0], "0");
}

/// A journal's text with entries that are done.
fn journal(plans: &[Plan]) -> String {
    let mut text = String::new();
    for (n, plan) in plans.iter().enumerate() {
        let entry = Entry {
            id: n as u64 + 1,
            wall_ns: 0,
            by: "x".into(),
            boot: "boot".into(),
            plan: plan.clone(),
            outcome: Outcome::Done,
            undoes: None,
            effect: None,
        };
        let mut line = serde_json::to_value(&entry).unwrap();
        line["record"] = "entry".into();
        text += &format!("{line}\n");
    }
    text
}

#[test]
fn unmounting_what_stalltop_mounted_is_its_undo() {
    let (tree, bench) = host();
    let mounts = tree.get("proc/self/mountinfo");
    tree.put("proc/self/mountinfo", "");
    let mount = tree.bench().plan(&on("debugfs", false)).unwrap();
    assert_eq!(mount.undo, UndoClass::Exact);
    tree.put("proc/self/mountinfo", &mounts);
    let journal = journal(&[mount]);
    let journal = Journal::parse(Path::new("x"), "boot".into(), journal.as_bytes());
    let plan = change::plan(&bench.env, &off("debugfs"), &journal, None).unwrap();
    assert_eq!(plan.writes[0].mode, OpenMode::Unmount);
    assert!(plan.puts_back());
}

#[test]
fn journals_of_before_read_as_they_did() {
    let (_tree, bench) = host();
    let off = bench.plan(&off("a:one")).unwrap();
    // As a switch on was written down then: a change of its own.
    let mut on = off.clone();
    on.request = self::on("a:one", false);
    for write in &mut on.writes {
        std::mem::swap(&mut write.before, &mut write.after);
    }
    let journal = journal(&[off, on]);
    let journal = Journal::parse(Path::new("x"), "boot".into(), journal.as_bytes());
    assert!(journal.damage().is_empty());
    assert_eq!(journal.last_undoable().map(|e| e.id), Some(2));
}
