//! Changes made in the terminal, in a tracefs instance of the test's own.

use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use stalltop_tests::instance::Instance;
use stalltop_tests::tty::Tty;
use stalltop_tests::{need, require};

use super::{Bench, HEADINGS, first_screen};

const EXEC: &str = "events/sched/sched_process_exec/enable";
const EXIT: &str = "events/sched/sched_process_exit/enable";

/// An instance with two events on.
fn own(name: &str) -> Result<Instance, String> {
    need::tracepoint("sched:sched_process_exec")?;
    let own = Instance::new(&need::tracefs()?, name).map_err(|e| e.to_string())?;
    own.write(EXEC, "1");
    own.write(EXIT, "1");
    Ok(own)
}

fn states(own: &Instance) -> [String; 2] {
    [own.read(EXEC), own.read(EXIT)]
}

/// Opens the tracing pane with the cursor on the row of `own`.
fn select(tty: &mut Tty, own: &Instance) {
    tty.keys("5");
    tty.see(&[HEADINGS[4]]);
    // An instance called stalltop_... counts as ours, and those are hidden at first.
    tty.keys("o");
    tty.keys("/");
    tty.keys(own.name());
    // The field at the bottom, and the row.
    tty.wait("the instance", |screen| {
        screen.matches(own.name()).count() >= 2 && screen.contains("2 of")
    });
    tty.keys("\r");
    tty.see(&[own.name(), "? help"]);
    tty.keys("g");
}

#[test]
fn events_go_off_and_come_back_by_keys() {
    require!(need::root());
    let own = require!(own("ui"));
    let bench = Bench::new();
    let mut tty = first_screen(bench.start().size(200, 36).run());
    select(&mut tty, &own);
    tty.keys(" ");
    // The literal commands, and what each changes.
    let folder = own.path("");
    let folder = folder.display().to_string();
    let dialog = tty.see(&[
        "Enter do it",
        "can be undone",
        &format!("{folder}{EXEC}"),
        &format!("{folder}{EXIT}"),
    ]);
    assert!(dialog.contains("echo 0 > "), "{dialog}");
    assert!(dialog.contains("1 → 0"), "{dialog}");
    assert_eq!(states(&own), ["1", "1"], "a dialog changes nothing");
    assert!(!bench.journal().exists(), "nor does it write a journal");

    // Esc leaves all as it is.
    tty.keys("\x1b");
    tty.wait("no dialog", |screen| !screen.contains("Enter do it"));
    assert_eq!(states(&own), ["1", "1"]);

    tty.keys(" ");
    tty.see(&["Enter do it"]);
    tty.keys("\r");
    tty.until("both events off", || states(&own) == ["0", "0"]);
    // Read anew from the kernel; the footer says what it did.
    tty.wait("the pane", |screen| {
        let said = |line: &str| line.contains(own.name()) && line.contains(" off: ");
        screen.contains("0 of") && screen.lines().any(said) && !screen.contains('┌')
    });

    tty.keys("u");
    let dialog = tty.see(&["Enter do it", &format!("{folder}{EXEC}")]);
    assert!(dialog.contains("0 → 1"), "{dialog}");
    tty.keys("\r");
    tty.until("both events on", || states(&own) == ["1", "1"]);
    tty.wait("the pane", |screen| {
        screen.contains("2 of") && !screen.contains('┌')
    });
    // The list of changes has both.
    tty.keys("J");
    tty.see(&["CHANGES", "2 changes", "undone"]);
    // The first q closes the list, the second one leaves.
    tty.keys("q");
    tty.wait("no list", |screen| !screen.contains("2 changes"));
    tty.keys("q");
    let left = tty.end();
    assert_eq!(left.status.code(), Some(0));
    assert!(!tty.text().contains("still in effect"), "{}", tty.text());
}

/// A screen that asks whether both events of an instance are to be switched off.
fn asked(bench: &Bench, own: &Instance) -> Tty {
    let mut tty = first_screen(bench.start().size(200, 36).run());
    select(&mut tty, own);
    tty.keys(" ");
    tty.see(&["Enter do it"]);
    tty
}

#[test]
fn who_leaves_is_told_what_is_still_off() {
    require!(need::root());
    let own = require!(own("left"));
    let bench = Bench::new();
    let mut tty = asked(&bench, &own);
    tty.keys("\r");
    tty.until("both events off", || states(&own) == ["0", "0"]);
    tty.wait("the pane", |screen| {
        screen.contains("0 of") && !screen.contains('┌')
    });
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
    tty.assert_given_back();
    let text = tty.text();
    assert!(
        text.contains("still in effect: switch off 2 events"),
        "{text}"
    );
    assert!(text.contains("stalltop undo 1"), "{text}");
}

#[test]
fn two_people_on_one_host_see_each_others_changes() {
    require!(need::root());
    let own = require!(own("two"));
    let bench = Bench::new();
    let run = || first_screen(bench.start().size(200, 36).run());
    let (mut first, mut second) = (run(), run());
    second.keys("J");
    second.see(&["CHANGES", "changed nothing on this host"]);

    select(&mut first, &own);
    first.keys(" ");
    first.see(&["Enter do it"]);
    first.keys("\r");
    first.until("both events off", || states(&own) == ["0", "0"]);

    let title = format!("switch off 2 events in instance {}", own.name());
    second.see(&["1 change", "in effect", &title]);
    // And the other one can undo it.
    second.keys("u");
    second.see(&["Enter do it", "0 → 1"]);
    second.keys("\r");
    second.until("both events on", || states(&own) == ["1", "1"]);
    first.wait("the pane", |screen| !screen.contains('┌'));
    first.keys("J");
    first.see(&["2 changes", "undone"]);
    for tty in [&mut first, &mut second] {
        tty.wait("the list", |screen| !screen.contains('┌'));
        // Whatever is open: q would close the list of changes.
        tty.keys("\x03");
        assert_eq!(tty.end().status.code(), Some(0));
    }
}

/// The journal, locked as by another instance that writes to it: a change waits for a while.
fn locked(bench: &Bench) -> std::fs::File {
    let journal = std::fs::File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(bench.journal())
        .expect("a journal");
    flock(&journal, FlockOperation::LockExclusive).expect("the lock");
    journal
}

/// Confirms a change that cannot begin, and leaves at once.
fn leave_within_a_change(bench: &Bench, own: &Instance) -> (Tty, std::fs::File) {
    let mut tty = asked(bench, own);
    let lock = locked(bench);
    tty.keys("\r\x03");
    (tty, lock)
}

#[test]
fn who_leaves_within_a_change_waits_for_its_end() {
    require!(need::root());
    let own = require!(own("within"));
    let bench = Bench::new();
    let (mut tty, lock) = leave_within_a_change(&bench, &own);
    tty.see(&["finishing: switch off 2 events"]);
    tty.assert_given_back();
    assert_eq!(states(&own), ["1", "1"], "the journal is locked");
    drop(lock);
    let left = tty.end();
    assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
    assert_eq!(states(&own), ["0", "0"]);
    let text = tty.text();
    assert!(text.contains("done: switch off 2 events"), "{text}");
    assert!(text.contains("still in effect: switch off 2"), "{text}");
}

#[test]
fn a_second_signal_does_not_wait() {
    require!(need::root());
    let own = require!(own("second"));
    let bench = Bench::new();
    let (mut tty, lock) = leave_within_a_change(&bench, &own);
    tty.see(&["finishing: switch off 2 events"]);
    tty.signal(Signal::TERM);
    assert_eq!(tty.end().status.code(), Some(0));
    drop(lock);
    let text = tty.text();
    assert!(text.contains("unfinished: switch off 2 events"), "{text}");
    assert_eq!(states(&own), ["1", "1"]);
}

#[test]
fn a_lost_connection_does_not_cut_a_change_off() {
    require!(need::root());
    let own = require!(own("lost"));
    let bench = Bench::new();
    let mut tty = asked(&bench, &own);
    let lock = locked(&bench);
    tty.keys("\r");
    tty.see(&["leaves it to go on"]);
    tty.hang_up();
    drop(lock);
    let left = tty.end();
    assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
    assert_eq!(states(&own), ["0", "0"]);
}
