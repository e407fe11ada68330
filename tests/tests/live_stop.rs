//! Stopping a holder of probes on the real kernel: a process of these tests' own, through the
//! program as a person uses it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal};
use stalltop_model::change::{Outcome, Request, StopSignal, stop};
use stalltop_model::{Reading, sample};
use stalltop_tests::change::{Bench, kill_at, killed_child};
use stalltop_tests::program::stalltop;
use stalltop_tests::tty::{Start, Tty};
use stalltop_tests::{need, require};

/// `bpf-holder` with a raw tracepoint. It ends with its standard input, or is killed with the
/// test.
struct Holder(Child);

impl Holder {
    /// `ignores` makes it ignore TERM: that is inherited by what a shell executes.
    fn new(ignores: bool) -> Self {
        let trap = if ignores { "trap '' TERM; " } else { "" };
        let program = env!("CARGO_BIN_EXE_bpf-holder");
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "{trap}exec '{program}' raw_tracepoint:sched_process_exec"
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let held = lines.next().unwrap().unwrap();
        assert_eq!(held, "held raw_tracepoint:sched_process_exec");
        assert!(lines.next().unwrap().unwrap().starts_with("ready"));
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn stop(&self, pid: u32, more: &[&str]) -> Tty {
        Start::new(stalltop())
            .args(["stop", &pid.to_string(), "--journal"])
            .args([self.journal()])
            .args(more)
            .size(160, 40)
            .run()
    }

    fn entries(&self) -> Vec<stalltop_model::change::Entry> {
        let journal = Journal::read(&Env::live(), &self.journal()).unwrap();
        journal.entries().to_vec()
    }
}

/// See [`kill_at`].
#[test]
fn a_number_that_held_probes_once_is_looked_at_anew() {
    let bench = Bench::new();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    // As an older look would have it: what had the number then held a program.
    let holder = sample::Holder {
        pid: child.id(),
        comm: "agent".into(),
        cmdline: "agent".into(),
        owner: sample::Owner {
            kind: sample::OwnerKind::Root,
            name: "/".into(),
            cgroup: "/".into(),
        },
        by: sample::HeldBy::Link,
    };
    let program = sample::BpfProgram {
        id: u32::MAX,
        kind: "kprobe".into(),
        name: "gone".into(),
        tag: "0".into(),
        loaded_at_ns: 0,
        uid: 0,
        maps: Vec::new(),
        attached: Vec::new(),
        holders: vec![holder],
        pins: Vec::new(),
        ours: false,
    };
    let known = sample::Tracing {
        bpf: Reading::Value(sample::BpfObjects {
            programs: vec![program],
            links: Vec::new(),
            holders: Reading::Value(()),
        }),
        ..sample::Tracing::default()
    };
    let stop = Request::Stop {
        pid: child.id(),
        signal: None,
    };
    let journal = bench.journal();
    let believed = change::plan(&bench.env, &stop, &journal, Some(&known));
    let now = change::plan_now(&bench.env, &stop, &journal, Some(&known));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(believed.is_ok(), "{believed:?}");
    assert!(now.is_err(), "it holds nothing: {now:?}");
}

#[test]
fn child_that_is_killed() {
    killed_child();
}

#[test]
fn a_holder_is_stopped_after_the_word() {
    let _alone = need::alone();
    require!(need::root());
    let mut holder = Holder::new(false);
    let desk = Desk::new();
    // The question itself goes to standard error, which is no terminal here.
    let word = "cannot be undone";
    let mut person = desk.stop(holder.pid(), &[]);
    let shown = person.see(&[word]);
    for part in [
        format!("kill -TERM {}", holder.pid()),
        "with it go 1 BPF program: raw_tracepoint:sched_process_exec".into(),
    ] {
        assert!(shown.contains(&part), "{part}: {shown}");
    }
    person.keys("y\r");
    let left = person.end();
    assert!(left.errors.contains("not confirmed"), "{left:?}");
    assert!(holder.runs() && !desk.journal().exists());

    let mut person = desk.stop(holder.pid(), &[]);
    person.see(&[word]);
    person.keys("bpf-holder\r");
    person.see(&[
        "exited",
        "BPF programs that it held: 1 -> 0",
        "done, journal entry 1",
    ]);
    assert!(person.end().status.success());
    assert!(!holder.runs());
    let [entry] = &desk.entries()[..] else {
        panic!("one entry");
    };
    assert_eq!(
        (&entry.outcome, stop::exited(entry)),
        (&Outcome::Done, Some(true))
    );
    let undo = Command::new(stalltop())
        .args(["undo", "--yes", "--journal"])
        .arg(desk.journal())
        .output()
        .unwrap();
    assert_eq!(undo.status.code(), Some(3), "{undo:?}");
}

#[test]
fn a_script_gives_the_word() {
    let _alone = need::alone();
    require!(need::root());
    let mut holder = Holder::new(false);
    let desk = Desk::new();
    let stop = |more: &[&str]| {
        let output = Command::new(stalltop())
            .args(["stop", &holder.pid().to_string(), "--journal"])
            .arg(desk.journal())
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), errors)
    };
    let (status, errors) = stop(&[]);
    assert!(
        status == Some(1) && errors.contains("--confirm bpf-holder confirms"),
        "{errors}"
    );
    let (status, errors) = stop(&["--confirm", "netdata"]);
    assert!(
        status == Some(1) && errors.contains("the word is bpf-holder"),
        "{errors}"
    );
    assert!(!desk.journal().exists());
    assert_eq!(stop(&["--confirm", "bpf-holder"]), (Some(0), String::new()));
    assert!(!holder.runs());
}

#[test]
fn what_cannot_be_journaled_is_not_asked_for() {
    let _alone = need::alone();
    require!(need::root());
    let mut holder = Holder::new(false);
    let dir = tempfile::tempdir().unwrap();
    // A link is not followed, root or not.
    let journal = dir.path().join("journal");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &journal).unwrap();
    let output = Command::new(stalltop())
        .args(["stop", &holder.pid().to_string(), "--confirm", "bpf-holder"])
        .arg("--journal")
        .arg(&journal)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("it is a symbolic link"), "{errors}");
    assert!(holder.runs() && !dir.path().join("elsewhere").exists());
}

#[test]
fn who_ignores_term_is_killed_as_the_second_step() {
    let _alone = need::alone();
    require!(need::root());
    let mut holder = Holder::new(true);
    let desk = Desk::new();
    let early = desk.stop(holder.pid(), &["--kill"]).end();
    assert!(
        early.errors.contains("KILL is the second step"),
        "{early:?}"
    );
    let mut person = desk.stop(holder.pid(), &[]);
    person.see(&["it ignores TERM", "cannot be undone"]);
    person.keys("bpf-holder\r");
    person.see(&["still runs", "--kill", "BPF programs that it held: 1 -> 1"]);
    assert_eq!(person.end().status.code(), Some(1));
    assert!(holder.runs());
    let mut person = desk.stop(holder.pid(), &["--kill"]);
    person.see(&[&format!("kill -KILL {}", holder.pid()), "cannot be undone"]);
    person.keys("bpf-holder\r");
    person.see(&["exited", "BPF programs that it held: 1 -> 0"]);
    assert!(person.end().status.success());
    assert!(!holder.runs());
}

#[test]
fn killed_between_the_intent_and_the_signal_the_journal_knows() {
    let _alone = need::alone();
    require!(need::root());
    let mut holder = Holder::new(false);
    let bench = Bench::new();
    let path = bench.writer.journal().display().to_string();
    kill_at(0, &format!("stop {path} {}", holder.pid()));
    let journal = bench.journal();
    let [entry] = journal.entries() else {
        panic!("one entry");
    };
    assert_eq!(entry.outcome, Outcome::Intended);
    assert!(holder.runs(), "nothing was sent");
    assert!(!journal.can_undo(entry));
    // Nothing was sent for certain: the second step is not due yet.
    let plan = bench
        .plan(&Request::Stop {
            pid: holder.pid(),
            signal: None,
        })
        .unwrap();
    assert_eq!(
        plan.request,
        Request::Stop {
            pid: holder.pid(),
            signal: Some(StopSignal::Term)
        }
    );
    let done = bench.apply(&plan).unwrap();
    assert_eq!(stop::exited(&done), Some(true), "{done:?}");
    assert!(!holder.runs());
    assert!(fs::exists(&path).unwrap());
}
