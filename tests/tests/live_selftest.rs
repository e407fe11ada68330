//! `stalltop selftest` on this host, as root: what it injects is found, and nothing of it is left,
//! however it ends. Lengths are not judged here: a test machine is busy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stalltop_collectors::Env;
use stalltop_collectors::cgroups::Place;
use stalltop_collectors::selftest::NAME;
use stalltop_tests::program::stalltop;
use stalltop_tests::{need, require};

/// How long something may take that usually takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn selftest(arguments: &[&str]) -> Command {
    let mut command = Command::new(stalltop());
    command
        .arg("selftest")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}\n{}", text(&output.stdout), text(&output.stderr)))
}

/// What outlives a process: tracefs instances and cgroups of self-tests.
fn left_behind() -> Vec<PathBuf> {
    let mut parents = vec![need::tracefs().unwrap().join("instances")];
    if let Ok(place) = Place::find(&Env::live()) {
        parents.push(PathBuf::from(place.mount));
    }
    let entries = |dir: &PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
    let found = parents.iter().flat_map(entries).map(|entry| entry.path());
    found
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(NAME)
        })
        .collect()
}

/// The processes below one, by the parents that `/proc` names.
fn children(parent: u32) -> BTreeSet<u32> {
    let ppid = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(1)?.parse::<u32>().ok()
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| ppid(*pid) == Some(parent))
        .collect()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn comm(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
    comm.unwrap_or_default().trim().to_owned()
}

/// Starts one, waits until a child of that name is there, kills it, and waits until all is gone.
fn kill_in_the_middle(arguments: &[&str], name: &str, ready: impl Fn(u32) -> bool) {
    let mut running: Child = selftest(arguments).spawn().unwrap();
    let pid = running.id();
    let made = || {
        children(pid).iter().any(|child| comm(*child) == name)
            && children(pid)
                .iter()
                .any(|child| comm(*child) == "st-keeper")
            && ready(pid)
    };
    wait_for(&format!("{name} of {arguments:?}"), made);
    let children = children(pid);
    // SIGKILL: nothing of it can run any more.
    running.kill().unwrap();
    running.wait().unwrap();
    wait_for("the children's end", || {
        !children.iter().any(|child| comm(*child).starts_with("st-"))
    });
    wait_for("the keeper's work", || left_behind().is_empty());
}

#[test]
fn what_is_injected_is_found_and_nothing_is_left() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracefs());
    require!(need::tracepoint("timer:hrtimer_expire_entry"));
    // A pause of the virtual CPU, at any time, makes one of them another stall than it was to be.
    let found_all = (0..3).any(|_| {
        let output = selftest(&["--yes", "--json", "--count", "4", "--mode", "sampler"])
            .output()
            .unwrap();
        let report = report(&output);
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), 6, "{report:#}");
        let zombies = &report["zombies"]["ok"];
        assert!(zombies["counted"].as_u64() >= Some(450), "{zombies}");
        assert!(zombies["reads"]["count"].as_u64() > Some(0), "{zombies}");
        assert_eq!(left_behind(), Vec::<PathBuf>::new());
        let missed = results.iter().filter(|result| !found_each(result));
        missed.inspect(|result| println!("{result:#}")).count() == 0
    });
    assert!(found_all, "something was missed three times over");
}

/// Whether each of four injections was found, the right process named, and all seen by the
/// kernel's own trace as well.
fn found_each(result: &Value) -> bool {
    let score = &result["judged"]["ok"]["score"];
    assert!(score.is_object(), "{result:#}");
    let long = &score["classes"][1];
    let second = &result["judged"]["ok"]["second"];
    ["injected", "detected", "process"]
        .iter()
        .all(|of| long[of] == 4)
        && second["seen"] == second["injected"]
}

#[test]
fn nothing_is_left_when_it_is_killed_in_the_middle() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let instance = |pid: u32| tracefs.join(format!("instances/{NAME}{pid}")).exists();
    let only = |kind| ["--yes", "--mode", "tick", "--only", kind];
    kill_in_the_middle(&only("handler"), "st-handler", instance);
    let place = Place::find(&Env::live()).map_err(|reason| reason.to_string());
    let mount = require!(place).mount;
    let cgroup = |pid: u32| Path::new(&mount).join(format!("{NAME}{pid}")).exists();
    kill_in_the_middle(&only("zombies"), "st-zombies", |pid| {
        instance(pid) && cgroup(pid)
    });
}

#[test]
fn what_an_earlier_one_left_is_removed() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    // A process id that no process has: beyond the largest that the kernel gives out (4,194,304).
    let stale = tracefs.join(format!("instances/{NAME}4194305"));
    fs::create_dir(&stale).unwrap();
    let output = selftest(&["--yes", "--mode", "tick", "--only", "zombies"])
        .output()
        .unwrap();
    assert!(!stale.exists(), "{}", text(&output.stderr));
}

#[test]
fn it_does_nothing_unasked() {
    let _alone = need::alone();
    require!(need::root());
    for arguments in [&["--count", "1"][..], &["--yes", "--read-only"][..]] {
        let output = selftest(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("--yes") || said.contains("--read-only"),
            "{said}"
        );
        assert!(!said.contains("attaching"), "{said}");
    }
    let output = selftest(&["--yes", "--cpu", "16000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
