//! stalltop on other kernels than this host's, in machines that `cargo xtask vm` boots.
//!
//! The scripts of `tests/vm` run there and leave in /out what is looked at here. Nothing about
//! time is asserted: the machines are emulated.

#[path = "vm/foreign.rs"]
mod foreign;
#[path = "vm/i1.rs"]
mod i1;
#[path = "vm/i2.rs"]
mod i2;
#[path = "vm/kinds.rs"]
mod kinds;
#[path = "vm/virtual_machine.rs"]
mod virtual_machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stalltop_tests::require;

/// A machine that has run a script.
struct Run {
    out: tempfile::TempDir,
}

impl Run {
    fn text(&self, name: &str) -> String {
        let path = self.out.path().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.out.path().join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    /// The JSON objects of a file, one per line.
    fn lines(&self, name: &str) -> Vec<Value> {
        self.text(name)
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }
}

/// Whether the kernel was fetched: a test does not download anything by itself.
fn fetched(kernel: &str) -> Result<(), String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let kernel_dir = cache.join("stalltop/vm/kernel").join(kernel);
    if kernel_dir.is_dir() {
        Ok(())
    } else {
        Err(format!(
            "the kernel {kernel} is not there: cargo xtask vm fetch {kernel}"
        ))
    }
}

/// Boots `kernel` with `options` of `cargo xtask vm`, and runs a scenario of `tests/vm` there.
fn run(kernel: &str, options: &[&str], scenario: &str) -> Run {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask", "--", "vm", kernel])
        .args(options)
        .arg("--out")
        .arg(out.path())
        .arg(scenario)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{scenario} on {kernel}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Run { out }
}

/// The rows of a /proc/softirqs, summed over CPUs.
fn softirqs(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .skip(1)
        .map(|line| {
            let (name, counts) = line.split_once(':').unwrap();
            let sum = counts
                .split_whitespace()
                .map(|count| count.parse::<u64>().unwrap())
                .sum();
            (name.trim().to_owned(), sum)
        })
        .collect()
}

/// A vector's count in a sample, summed over CPUs.
fn counted(sample: &Value, vector: &str) -> u64 {
    let cpus = sample["cpus"].as_array().unwrap();
    cpus.iter()
        .filter_map(|cpu| cpu["softirqs"][vector]["count"].as_u64())
        .sum()
}

fn live_tests_pass(kernel: &str) {
    require!(fetched(kernel));
    run(kernel, &[], "live");
}

/// The changing commands on another kernel; gives what they printed and left.
fn changes(kernel: &str, cgroup: &str) -> Option<Run> {
    stalltop_tests::need::or_skip(fetched(kernel))?;
    Some(run(kernel, &["--cgroup", cgroup], "changes"))
}

/// A probe that only its holder can detach names the holder; the master switch stops it all
/// the same, and undo brings it back.
fn a_foreign_kprobe_is_stopped_by_the_master_switch(run: &Run) {
    let held = run.text("held");
    assert!(held.contains("held by bpf-holder["), "{held}");
    assert!(
        held.contains("stalltop stop ") && held.contains("stalltop off kprobes"),
        "{held}"
    );
    assert!(held.ends_with("status 1\n"), "{held}");
    let master = run.text("master");
    assert!(master.contains("stops bpf-holder["), "{master}");
    assert!(master.ends_with("status 0\n"), "{master}");
    assert_eq!(run.text("enabled").trim(), "0");
    assert!(run.text("undo").ends_with("status 0\n"));
    assert_eq!(run.text("enabled.undone").trim(), "1");
}

/// These zombies are charged with pages of tmpfs files, which no drop frees: said beforehand,
/// and afterwards.
fn no_effect_is_said(run: &Run, is_so: bool) {
    let drop = run.text("drop");
    assert!(
        drop.contains("only removing those files frees these"),
        "{drop}"
    );
    assert_eq!(drop.contains("no effect seen"), is_so, "{drop}");
}

/// The effect that a drop journaled: zombies before and after.
fn dropped(run: &Run) -> (u64, u64) {
    let drop = run.text("drop");
    assert!(drop.ends_with("status 0\n"), "{drop}");
    let effect = run
        .lines("journal")
        .into_iter()
        .rev()
        .find(|line| line["effect"].is_object())
        .unwrap();
    let row = &effect["effect"]["rows"][0];
    assert_eq!(row["what"], "zombie cgroups");
    let of = |when: &str| row[when].as_u64().unwrap_or_else(|| panic!("{row}"));
    (of("before"), of("after"))
}

fn measures(kernel: &str, cgroup: &str) {
    require!(fetched(kernel));
    let run = run(kernel, &["--cgroup", cgroup], "measure");
    let mut lines = run.lines("stream.jsonl");
    lines.retain(|line| line["type"] == "sample");
    let marks: Vec<usize> = run
        .text("marks")
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.parse::<usize>().unwrap() - 1)
        .collect();
    let (before, after) = (&lines[marks[0]], &lines[marks[1]]);
    softirqs_agree(&run, before, after);
    let last = lines.last().unwrap();
    zombies_agree(&run, cgroup, last);
    foreign_programs_are_listed(&run, last);
    nothing_was_dropped(last);
    doctor_agrees(&run, cgroup);
}

/// Between two samples as many softirqs as /proc/softirqs counted between the readings inside
/// them, and not more than between the readings around them.
fn softirqs_agree(run: &Run, before: &Value, after: &Value) {
    assert_eq!(after["cores"]["source"], "bpf", "{}", after["cores"]);
    let proc: Vec<_> = (0..4)
        .map(|n| softirqs(&run.text(&format!("softirqs.{n}"))))
        .collect();
    // /proc/softirqs counts a handler as it begins, we as it ends: one may be under way per CPU.
    let under_way = after["cpus"].as_array().unwrap().len() as u64;
    for (i, (vector, _)) in proc[0].iter().enumerate() {
        let ours = counted(after, vector) - counted(before, vector);
        let inside = proc[2][i].1 - proc[1][i].1;
        let around = proc[3][i].1 - proc[0][i].1;
        assert!(
            ours + under_way >= inside && ours <= around + under_way,
            "{vector}: {ours}, /proc/softirqs between {inside} and {around}"
        );
        if vector == "NET_RX" {
            assert!(inside >= 400, "only {inside} NET_RX for 400 pings");
        }
    }
}

fn nothing_was_dropped(sample: &Value) {
    let drops = &sample["self"]["drops"];
    // The kernel counts runs that it left out since 5.12.
    assert!(
        *drops == 0 || drops["off"]["code"]["kind"] == "kernel_too_old",
        "{drops}"
    );
}

/// The zombies that the script made, as the kernel counts them.
fn zombies_agree(run: &Run, cgroup: &str, sample: &Value) {
    let kernel: u64 = if cgroup == "v2" {
        let stat = run.text("cgroup.stat");
        let dying = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_dying_descendants "));
        dying.unwrap().parse().unwrap()
    } else {
        let cgroups = run.text("cgroups");
        let memory = cgroups
            .lines()
            .find(|line| line.starts_with("memory\t"))
            .unwrap();
        let all: u64 = memory.split('\t').nth(2).unwrap().parse().unwrap();
        all - run.text("visible").trim().parse::<u64>().unwrap()
    };
    assert_eq!(kernel, 20, "the script makes 20 zombies");
    assert_eq!(
        sample["cgroups"]["zombies"], kernel,
        "{}",
        sample["cgroups"]
    );
}

/// What `bpf-holder` holds, with what it is attached to and that it is bpf-holder's.
fn foreign_programs_are_listed(run: &Run, sample: &Value) {
    let holder: u64 = run.text("holder").trim().parse().unwrap();
    let programs = sample["tracing"]["bpf"]["programs"].as_array().unwrap();
    for held in run
        .text("held")
        .lines()
        .filter_map(|line| line.strip_prefix("held "))
    {
        let (kind, target) = held.split_once(':').unwrap();
        let program = programs
            .iter()
            .find(|program| program["name"] == kind)
            .unwrap_or_else(|| panic!("{held} is not listed: {programs:?}"));
        assert_eq!(program["ours"], false, "{program}");
        assert_eq!(program["attached"][0]["kind"], kind, "{program}");
        assert_eq!(program["attached"][0]["target"], target, "{program}");
        let by = &program["holders"][0];
        assert_eq!(
            (by["pid"].as_u64(), by["comm"].as_str()),
            (Some(holder), Some("bpf-holder"))
        );
    }
}

/// On these kernels every program of ours attaches, and both trees of files are there.
fn doctor_agrees(run: &Run, cgroup: &str) {
    let checks = run.json("doctor.json");
    let works = |capability: &str| checked(&checks, capability)["works"].as_str();
    let programs = checks.as_array().unwrap().iter();
    let programs: Vec<_> = programs.filter(|check| check["area"] == "eBPF").collect();
    assert!(programs.len() >= 7, "{programs:?}");
    for program in programs {
        assert!(program["works"].is_string(), "{program}");
    }
    assert_eq!(works("switch of all kernel probes"), Some("on"));
    let layout = works("memory cgroups").unwrap();
    let version = if cgroup == "v2" { "v2" } else { "v1" };
    assert!(layout.starts_with(version), "{layout}");
}

fn checked<'c>(checks: &'c Value, capability: &str) -> &'c Value {
    let mut checks_of = checks.as_array().unwrap().iter();
    checks_of
        .find(|check| check["capability"] == capability)
        .unwrap_or_else(|| panic!("doctor does not check {capability}"))
}

/// Whether kprobes/list has a probe of this kind on this function.
fn has_probe(audit: &Value, kind: &str, symbol: &str) -> bool {
    let list = audit["kprobes"]["list"].as_array().unwrap();
    list.iter()
        .any(|probe| probe["kind"] == kind && probe["symbol"] == symbol)
}

#[test]
fn live_tests_pass_on_5_10() {
    live_tests_pass("5.10");
}

#[test]
fn live_tests_pass_on_6_1() {
    live_tests_pass("6.1");
}

#[test]
fn live_tests_pass_on_6_12() {
    live_tests_pass("6.12");
}

fn locks_are_traced(kernel: &str) {
    require!(fetched(kernel));
    run(kernel, &[], "locks");
}

#[test]
fn locks_are_traced_on_6_1() {
    locks_are_traced("6.1");
}

#[test]
fn locks_are_traced_on_6_12() {
    locks_are_traced("6.12");
}

#[test]
fn measures_softirqs_zombies_and_holders_on_5_10_with_v1() {
    measures("5.10", "v1");
}

#[test]
fn measures_softirqs_zombies_and_holders_on_6_1_hybrid() {
    measures("6.1", "hybrid");
}

#[test]
fn measures_softirqs_zombies_and_holders_on_6_12_with_v2() {
    measures("6.12", "v2");
}

#[test]
fn changes_on_5_10_with_v1() {
    let Some(run) = changes("5.10", "v1") else {
        return;
    };
    a_foreign_kprobe_is_stopped_by_the_master_switch(&run);
    let (before, after) = dropped(&run);
    assert!(before >= 200 && after <= before, "{before} {after}");
    no_effect_is_said(&run, before == after);
}

#[test]
fn changes_on_6_12_with_v2() {
    let Some(run) = changes("6.12", "v2") else {
        return;
    };
    a_foreign_kprobe_is_stopped_by_the_master_switch(&run);
    let (before, after) = dropped(&run);
    assert!(before >= 200 && after <= before, "{before} {after}");
    no_effect_is_said(&run, before == after);
}

/// The hits themselves are looked at by the script, in the machine.
#[test]
fn kprobes_go_off_and_come_back_on_6_1() {
    require!(fetched("6.1"));
    let run = run("6.1", &[], "kprobes");
    let audit = run.json("audit.json");
    let dynamic = audit["tracefs"]["dynamic"].as_array().unwrap();
    let opened = &dynamic[0];
    assert_eq!(opened["name"], "opened");
    assert_eq!(opened["kind"], "kprobe");
    assert_eq!(opened["state"], "1");
    assert!(opened["hits"].as_u64().unwrap() >= 10, "{opened}");
    assert_eq!(dynamic[1]["kind"], "kretprobe");
    assert!(has_probe(&audit, "kprobe", "do_sys_openat2"));
    assert!(has_probe(&audit, "kretprobe", "do_sys_openat2"));
    assert_eq!(audit["kprobes"]["enabled"], true);
    assert_eq!(run.json("audit.off.json")["kprobes"]["enabled"], false);
}

#[test]
fn lockdown_is_said_and_what_it_leaves_works_on_6_1() {
    require!(fetched("6.1"));
    let run = run("6.1", &[], "lockdown");
    let lockdown = |reading: &Value| reading["off"]["code"]["kind"] == "lockdown";

    let audit = run.json("audit.json");
    assert!(
        lockdown(&audit["kprobes"]["enabled"]),
        "{}",
        audit["kprobes"]
    );
    assert!(has_probe(&audit, "kprobe", "vfs_read"));
    let checks = run.json("doctor.json");
    assert!(lockdown(
        &checked(&checks, "switch of all kernel probes")["works"]
    ));

    // Refused, with what can be done in its place: the events, and stopping the holder.
    assert_eq!(run.text("refused.status").trim(), "1");
    let refused = run.text("refused");
    for part in [
        "lockdown=integrity",
        "stalltop off 'kprobes:*'",
        "bpf-holder[",
    ] {
        assert!(refused.contains(part), "no {part} in {refused}");
    }
}
