//! `off`, `on`, `undo`, `drop-caches` and `audit` as a shell sees them, on made-up hosts.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic, as tests may"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rexpect::session::PtySession;

const BIN: &str = env!("CARGO_BIN_EXE_stalltop");

/// A made-up host with a few events.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in [
            (
                "proc/self/mountinfo",
                "1 2 0:3 / /sys/kernel/tracing rw - tracefs tracefs rw\n\
                 1 2 0:4 / /cg rw - cgroup2 cgroup2 rw\n",
            ),
            ("proc/sys/kernel/random/boot_id", "boot\n"),
            ("proc/sys/kernel/osrelease", "6.12.1\n"),
            ("proc/sys/vm/drop_caches", "0\n"),
            ("proc/meminfo", "MemFree: 1 kB\nCached: 4096 kB\n"),
            ("cg/cgroup.controllers", "memory\n"),
            ("cg/cgroup.stat", "nr_dying_descendants 7\n"),
            ("cg/memory.stat", "anon 0\n"),
            ("run/.keep", ""),
            ("sys/kernel/tracing/set_event", "sched:one\nsched:two\n"),
            ("sys/kernel/tracing/tracing_on", "1\n"),
        ] {
            tree.put(path, text);
        }
        for (event, enable) in [("sched/one", "1"), ("sched/two", "1"), ("irq/three", "0")] {
            let dir = format!("sys/kernel/tracing/events/{event}");
            tree.put(&format!("{dir}/enable"), &format!("{enable}\n"));
            tree.put(&format!("{dir}/filter"), "none\n");
            tree.put(&format!("{dir}/trigger"), "# Available triggers:\n");
        }
        fs::create_dir_all(tree.path("sys/kernel/tracing/instances")).unwrap();
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn enabled(&self, event: &str) -> String {
        let path = format!("sys/kernel/tracing/events/{event}/enable");
        fs::read_to_string(self.path(&path))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Runs stalltop on this host without a terminal.
    fn run(&self, args: &[&str]) -> Run {
        let output = Command::new(BIN)
            .args(args)
            .arg("--root")
            .arg(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Run::of(&output)
    }

    /// Runs stalltop on this host in a terminal.
    fn terminal(&self, args: &str) -> PtySession {
        let command = format!("{BIN} {args} --root {}", self.0.path().display());
        rexpect::spawn(&command, Some(20_000)).unwrap()
    }
}

#[derive(Debug)]
struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            status: output.status.code().unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

#[test]
fn off_and_undo_from_a_script() {
    let tree = Tree::new();
    let dry = tree.run(&["off", "sched:*", "--dry-run"]);
    assert_eq!((dry.status, dry.err.as_str()), (0, ""));
    assert!(
        dry.out
            .contains("echo 0 > /sys/kernel/tracing/events/sched/one/enable   1 -> 0")
    );
    assert!(dry.out.contains("can be undone: stalltop undo"));
    assert!(!tree.path("run/stalltop").exists());

    let unasked = tree.run(&["off", "sched:*"]);
    assert_eq!(unasked.status, 1);
    assert!(
        unasked
            .err
            .contains("no terminal to ask on; --yes confirms"),
        "{unasked:?}"
    );
    assert_eq!(tree.enabled("sched/one"), "1");

    let done = tree.run(&["off", "sched:*", "--yes"]);
    assert_eq!((done.status, tree.enabled("sched/two").as_str()), (0, "0"));
    assert!(done.out.ends_with("done, journal entry 1\n"), "{done:?}");
    assert_eq!(tree.run(&["off", "sched:*", "--yes"]).status, 3);

    let json = tree.run(&["undo", "--list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json[0]["id"], &json[0]["can_undo"]),
        (&1.into(), &true.into())
    );
    let when = json[0]["when"].as_str().unwrap();
    assert!(when.len() == 25 && when.contains(['+', '-']), "{when}");
    let list = tree.run(&["undo", "--list"]);
    assert!(list.out.contains(when), "{list:?}");
    assert!(
        list.out.contains("done") && list.out.contains("switch off 2 events of sched:*"),
        "{list:?}"
    );
    let undone = tree.run(&["undo", "--yes"]);
    assert_eq!(
        (undone.status, tree.enabled("sched/two").as_str()),
        (0, "1")
    );
    assert!(tree.run(&["undo", "--list"]).out.contains("undone by 2"));
    let nothing = tree.run(&["undo", "--yes"]);
    assert_eq!(nothing.status, 3);
    assert!(
        nothing.err.contains("no change of this boot to undo"),
        "{nothing:?}"
    );
}

#[test]
fn on_restores_and_with_force_switches_anything_on() {
    let tree = Tree::new();
    tree.run(&["off", "sched:one", "--yes"]);
    tree.run(&["off", "sched:two", "tracing_on", "--yes"]);
    assert_eq!(tree.run(&["on", "*:*", "tracing_on", "--yes"]).status, 0);
    for (event, enable) in [("sched/one", "1"), ("sched/two", "1"), ("irq/three", "0")] {
        assert_eq!(tree.enabled(event), enable);
    }
    let unknown = tree.run(&["on", "irq:three", "--yes"]);
    assert_eq!(unknown.status, 3);
    assert!(unknown.err.contains("--force"), "{unknown:?}");
    assert_eq!(tree.run(&["on", "irq:three", "--force", "--yes"]).status, 0);
    assert_eq!(tree.enabled("irq/three"), "1");

    // All of it back to how it was before the first change.
    let all = tree.run(&["undo", "--all", "--yes"]);
    assert_eq!(all.status, 0, "{all:?}");
    assert!(all.out.starts_with("undo 1 change\n"), "{all:?}");
    for (event, enable) in [("sched/one", "1"), ("sched/two", "1"), ("irq/three", "0")] {
        assert_eq!(tree.enabled(event), enable);
    }
}

#[test]
fn what_is_switched_off_and_on_again_leaves_nothing_to_undo() {
    let tree = Tree::new();
    tree.run(&["off", "sched:*", "--yes"]);
    let on = tree.run(&["on", "sched:*", "--yes"]);
    assert_eq!(on.status, 0, "{on:?}");
    assert!(
        on.out.contains("undoes change 1 (switch off 2 events") && !on.out.contains("be undone"),
        "{on:?}"
    );
    let list = tree.run(&["undo", "--list"]).out;
    assert!(list.contains("undone by 2"), "{list}");
    let undo = tree.run(&["undo", "--yes"]);
    assert_eq!(undo.status, 3, "{undo:?}");
    assert_eq!(tree.enabled("sched/one"), "1");
}

#[test]
fn what_fails_says_what_is_left_of_it_and_where_it_is_written() {
    let tree = Tree::new();
    let journal = tree.path("a journal");
    let flag = ["--journal", journal.to_str().unwrap()];
    // It reads, and does not open for writing.
    let link = |event: &str| {
        let path = tree.path(&format!("sys/kernel/tracing/events/sched/{event}/enable"));
        fs::rename(&path, tree.path(event)).unwrap();
        std::os::unix::fs::symlink(tree.path(event), &path).unwrap();
    };
    link("two");
    let part = tree.run(&[&["off", "sched:*", "--yes"], &flag[..]].concat());
    assert_eq!(part.status, 1);
    let hint = format!(
        "stalltop undo 1 --journal '{}' puts it back",
        journal.display()
    );
    assert!(part.err.contains(&hint), "{part:?}");
    let nothing = tree.run(&[&["off", "sched:two", "--yes"], &flag[..]].concat());
    assert_eq!(nothing.status, 1);
    assert!(
        nothing
            .err
            .contains("nothing was written (journal entry 2)")
            && !nothing.err.contains("stalltop undo"),
        "{nothing:?}"
    );
    // Under way, an undo is not done with what it could not do.
    link("one");
    let undo = tree.run(&[&["undo", "--yes"], &flag[..]].concat());
    assert!(
        undo.err.contains("nothing was written (journal entry 3)"),
        "{undo:?}"
    );
}

#[test]
fn undo_all_goes_on_past_what_has_moved() {
    let tree = Tree::new();
    let (one, two) = (
        "sys/kernel/tracing/events/sched/one/enable",
        "sys/kernel/tracing/events/sched/two/enable",
    );
    tree.run(&["off", "tracing_on", "--yes"]);
    tree.run(&["off", "sched:one", "--yes"]);
    tree.put(one, "1\n");
    tree.run(&["off", "sched:*", "--yes"]);
    tree.run(&["on", "irq:three", "--force", "--yes"]);
    tree.put(two, "0*\n");
    let all = tree.run(&["undo", "--all", "--yes"]);
    assert_eq!(all.status, 1, "{all:?}");
    let recording = fs::read_to_string(tree.path("sys/kernel/tracing/tracing_on")).unwrap();
    assert_eq!(
        (recording.trim(), tree.enabled("irq/three").as_str()),
        ("1", "0")
    );
    assert_eq!(
        tree.enabled("sched/one"),
        "0",
        "it belongs to what is not undone"
    );
    let told = all.err.split_once("not undone:\n").unwrap().1;
    let told: Vec<&str> = told.lines().map(str::trim).collect();
    assert!(
        told[0].starts_with("3  switch off 2 events")
            && told[0].contains("found \"0*\"")
            && told[0].ends_with("; --force to undo it all the same"),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        "2  switch off sched:one: it concerns files of 3, which is not undone"
    );
    assert_eq!(told.len(), 2);
    assert_eq!(tree.run(&["undo", "--all", "--force", "--yes"]).status, 0);
    assert_eq!(
        (tree.enabled("sched/one"), tree.enabled("sched/two")),
        ("1".into(), "1".into())
    );
}

#[test]
fn a_moved_value_stops_a_script_and_asks_a_person() {
    let tree = Tree::new();
    let enable = "sys/kernel/tracing/events/sched/one/enable";
    tree.run(&["off", "sched:one", "--yes"]);
    tree.put(enable, "0*\n");
    let moved = tree.run(&["undo", "--yes"]);
    assert_eq!(moved.status, 1);
    assert!(
        moved.err.contains("expected \"0\", found \"0*\"") && moved.err.contains("--force"),
        "{moved:?}"
    );
    let mut person = tree.terminal("undo");
    person.exp_string("expected \"0\", found \"0*\"").unwrap();
    person
        .exp_string("type force to undo it all the same: ")
        .unwrap();
    person.send_line("no").unwrap();
    person.exp_string("not confirmed: left as it is").unwrap();
    person.exp_eof().unwrap();
    assert_eq!(tree.enabled("sched/one"), "0*");
    let mut person = tree.terminal("undo");
    person.exp_string("all the same: ").unwrap();
    person.send_line("force").unwrap();
    person.exp_string("go on? [y/N] ").unwrap();
    person.send_line("y").unwrap();
    person.exp_string("done, journal entry 2").unwrap();
    person.exp_eof().unwrap();
    assert_eq!(tree.enabled("sched/one"), "1");
}

#[test]
fn a_person_is_asked_and_may_say_no() {
    let tree = Tree::new();
    for (answer, says, enabled) in [
        ("", "not confirmed", "1"),
        ("n", "not confirmed", "1"),
        ("y", "done, journal entry 1", "0"),
    ] {
        let mut person = tree.terminal("off sched:one");
        person.exp_string("1 -> 0").unwrap();
        person.exp_string("go on? [y/N] ").unwrap();
        person.send_line(answer).unwrap();
        person.exp_string(says).unwrap();
        person.exp_eof().unwrap();
        assert_eq!(tree.enabled("sched/one"), enabled);
    }
}

#[test]
fn dropping_caches_asks_for_the_word_and_says_what_it_did() {
    let tree = Tree::new();
    let dropped = || fs::read_to_string(tree.path("proc/sys/vm/drop_caches")).unwrap();
    let mut person = tree.terminal("drop-caches");
    person.exp_string("cannot be undone").unwrap();
    person.exp_string("type drop to go on").unwrap();
    person.send_line("y").unwrap();
    person.exp_string("not confirmed").unwrap();
    person.exp_eof().unwrap();
    assert_eq!(dropped(), "0\n");
    let mut person = tree.terminal("drop-caches 3");
    person.exp_string("1 would be proposed here").unwrap();
    person.exp_string("type drop to go on").unwrap();
    person.send_line("drop").unwrap();
    person.exp_string("zombie cgroups     7 -> 7").unwrap();
    person.exp_string("no effect seen").unwrap();
    person.exp_string("done, journal entry 1").unwrap();
    person.exp_eof().unwrap();
    assert_eq!(dropped(), "3\n");
    assert_eq!(tree.run(&["undo", "--yes"]).status, 3, "cannot be undone");
    assert_eq!(tree.run(&["drop-caches", "4"]).status, 2);
}

#[test]
fn bad_input_is_one_clear_line() {
    let tree = Tree::new();
    for (args, status, says) in [
        (&["off", "../../etc"][..], 2, "one / at most"),
        (&["off", "a\nb"], 2, "control characters"),
        (&["off", "sched:onne"], 2, "did you mean sched:one?"),
        (&["off", "nosuch/set_event"], 2, "no tracefs instances"),
        (&["off", "kprobes"], 1, "stalltop on debugfs"),
        (&["undo", "7", "--yes"], 3, "no entry 7"),
    ] {
        let run = tree.run(args);
        assert_eq!(run.status, status, "{args:?}: {run:?}");
        assert!(run.err.contains(says), "{run:?}");
        assert_eq!(run.err.lines().count(), 1, "{run:?}");
    }
    assert_eq!(tree.run(&["undo", "x"]).status, 2);
    assert_eq!(tree.run(&["off"]).status, 2);
}

#[test]
fn a_journal_elsewhere_its_damage_named() {
    let tree = Tree::new();
    let journal = tree.path("my journal");
    let flag = ["--journal", journal.to_str().unwrap()];
    let done = tree.run(&[&["off", "sched:one", "--yes"], &flag[..]].concat());
    assert!(done.out.contains("stalltop undo --journal '"), "{done:?}");
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(
        &journal,
        format!("\x1b[2Jnonsense\n{text}{{\"record\":\"ent"),
    )
    .unwrap();
    let undone = tree.run(&[&["undo", "--yes"], &flag[..]].concat());
    assert_eq!(
        (undone.status, tree.enabled("sched/one").as_str()),
        (0, "1")
    );
    assert!(
        undone
            .err
            .contains("line 1: is damaged and not used; it stays in the file"),
        "{undone:?}"
    );
    assert!(
        undone
            .err
            .contains("line 4: was cut off while it was written"),
        "{undone:?}"
    );
    let kept = fs::read_to_string(&journal).unwrap();
    assert!(kept.starts_with("\x1b[2Jnonsense\n"), "nothing is erased");
    fs::remove_file(&journal).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &journal).unwrap();
    let refused = tree.run(&[&["off", "sched:one", "--yes"], &flag[..]].concat());
    assert_eq!(
        (refused.status, tree.enabled("sched/one").as_str()),
        (1, "1")
    );
    assert!(refused.err.contains("symbolic link"), "{refused:?}");
}

#[test]
fn read_only_and_the_journal_are_heeded_before_and_after_the_command() {
    let tree = Tree::new();
    for args in [
        ["--read-only", "off", "sched:one", "--yes"],
        ["off", "sched:one", "--yes", "--read-only"],
    ] {
        let refused = tree.run(&args);
        assert_eq!(
            (refused.status, tree.enabled("sched/one").as_str()),
            (1, "1")
        );
        assert!(refused.err.contains("read-only"), "{refused:?}");
    }
    assert_eq!(tree.run(&["undo", "--list", "--read-only"]).status, 0);
    assert_eq!(
        tree.run(&["off", "sched:*", "--dry-run", "--read-only"])
            .status,
        0
    );
    let elsewhere = tree.path("elsewhere");
    let path = elsewhere.to_str().unwrap();
    tree.run(&["--journal", path, "off", "sched:one", "--yes"]);
    assert!(elsewhere.exists() && !tree.path("run/stalltop").exists());
    assert_eq!(tree.run(&["undo", "--yes", "--journal", path]).status, 0);
    assert_eq!(tree.enabled("sched/one"), "1");
}

#[test]
fn audit_lists_what_is_on() {
    let tree = Tree::new();
    let text = tree.run(&["audit"]);
    assert_eq!(text.status, 0);
    assert!(text.out.contains("top level: 2 of 3 events on"), "{text:?}");
    assert!(text.out.contains("    1  sched:one\n"), "{text:?}");
    assert!(
        text.out
            .contains("PERF EVENTS WITHOUT A PROGRAM\n  not known: "),
        "{text:?}"
    );
    assert!(
        text.out
            .contains("to mend it: mount -t debugfs debugfs /sys/kernel/debug"),
        "{text:?}"
    );
    let json = tree.run(&["audit", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["tracefs"]["instances"][0]["events"][0]["name"], "one");
    assert!(json["kprobes"]["off"]["fix"].is_string(), "{json}");
}

#[test]
fn audit_sums_up_many_events_and_names_them_as_selectors() {
    let tree = Tree::new();
    let mut set_event = String::from("few:one\n");
    for n in 0..13 {
        set_event.push_str(&format!("many:e{n}\n"));
        let dir = format!("sys/kernel/tracing/instances/c/events/many/e{n}");
        tree.put(&format!("{dir}/enable"), "1\n");
    }
    tree.put(
        "sys/kernel/tracing/instances/c/events/few/one/enable",
        "1\n",
    );
    let path = "sys/kernel/tracing/instances/c/set_event";
    tree.put(path, &set_event);
    let short = tree.run(&["audit"]).out;
    assert!(
        short.contains("    c/many:*  13 on (--all lists them)\n"),
        "{short}"
    );
    assert!(short.contains("    1  c/few:one\n") && !short.contains("c/many:e"));
    assert!(short.contains(" and 2 more\n"), "{short}");
    assert!(
        short.contains("events on: 16 (in 2 of 2 instances, top level included)"),
        "{short}"
    );
    let all = tree.run(&["audit", "--all"]).out;
    assert!(all.contains("    1  c/many:e12\n") && !all.contains("--all lists"));
    let pasted = tree.run(&["off", "c/few:one", "c/many:*", "--yes"]);
    assert_eq!(pasted.status, 0, "{pasted:?}");
    tree.put(path, "");
    let quiet = tree.run(&["audit"]).out;
    assert!(quiet.contains("  instance c: all events off"), "{quiet}");
}

#[test]
fn audit_fails_only_where_nothing_is_known() {
    let tree = Tree::new();
    tree.put("proc/self/mountinfo", "");
    let audit = tree.run(&["audit"]);
    let json = tree.run(&["audit", "--json"]);
    let parsed: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(parsed["bpf"]["off"]["reason"].is_string(), "{parsed}");
    assert_eq!((audit.status, json.status), (1, 1), "{audit:?}");
    assert!(audit.out.contains("not known: tracefs is not mounted"));
    assert!(audit.out.contains("events on: unknown"), "{audit:?}");
}
