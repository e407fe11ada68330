//! Tools that we did not write, in machines: stalltop lists what they attached as bpftool does, with
//! the process that holds it.

use std::collections::BTreeSet;

use serde_json::Value;
use stalltop_tests::require;

use super::{Run, fetched, has_probe, run};

/// bpftrace's probes and opensnoop's tracepoints, by what bpftool says of them.
fn foreign_tools_are_listed(kernel: &str) {
    require!(fetched(kernel));
    let run = run(kernel, &[], "foreign");
    let audit = run.json("audit.json");
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    // bpftool was there before: what stalltop itself loads to look, it has not seen.
    let (own, ours): (Vec<Value>, _) =
        (programs.iter().cloned()).partition(|program| program["ours"] == true);
    let own: Vec<_> = own.iter().map(|program| &program["name"]).collect();
    assert_eq!(own, ["holders"]);
    let theirs = run.json("bpftool.prog");
    let ids = |programs: &[Value]| -> BTreeSet<u64> {
        programs.iter().filter_map(|p| p["id"].as_u64()).collect()
    };
    let theirs = theirs.as_array().unwrap();
    assert_eq!(ids(&ours), ids(theirs));
    for program in theirs {
        let same = by_id(&ours, &program["id"]);
        assert_eq!(same["kind"], program["type"], "{same} {program}");
        assert_eq!(same["tag"], program["tag"], "{same} {program}");
    }

    // One row of `bpftool perf` for each descriptor through which a program is attached.
    let holders = run.text("holders");
    let perf = run.json("bpftool.perf");
    let attached = perf.as_array().unwrap();
    let mut held = BTreeSet::new();
    for row in attached {
        let program = by_id(&ours, &row["prog_id"]);
        let pid = row["pid"].as_u64().unwrap();
        let name = holders
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{pid} ")))
            .unwrap_or_else(|| panic!("{row}"));
        let by = program["holders"].as_array().unwrap();
        assert!(
            by.len() == 1 && by[0]["pid"] == pid && by[0]["comm"] == name,
            "{program}"
        );
        let target = program["attached"][0]["target"].as_str().unwrap();
        let function = row["func"].as_str().or(row["tracepoint"].as_str()).unwrap();
        assert!(target.ends_with(function), "{program} {row}");
        held.insert(name.to_owned());
    }
    assert_eq!(
        held.into_iter().collect::<Vec<_>>(),
        ["bpftrace", "opensnoop"]
    );
    assert_eq!(attached.len(), ours.len(), "{attached:?}");
    assert!(has_probe(&audit, "kprobe", "do_nanosleep"));
    assert!(has_probe(&audit, "kretprobe", "vfs_read"));
    the_user_of_a_tracepoint_without_bpf_is_listed(&run, &audit);
}

/// `perf record` shows in no file of the kernel, and bpftool does not list it.
fn the_user_of_a_tracepoint_without_bpf_is_listed(run: &Run, audit: &Value) {
    let holders = run.text("holders");
    let perf = holders
        .lines()
        .find_map(|line| line.strip_suffix(" perf")?.parse::<u64>().ok());
    let uses = audit["perf"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", audit["perf"]));
    let used = uses
        .iter()
        .find(|used| used["event"] == "sched:sched_switch")
        .unwrap_or_else(|| panic!("{uses:?}"));
    assert_eq!(used["kind"], "tracepoint");
    assert_eq!(used["holder"]["pid"].as_u64(), perf, "{used}");
    assert_eq!(used["holder"]["comm"], "perf", "{used}");
    // Of every CPU one, and all of them on.
    assert_eq!((&used["descriptors"], &used["on"]), (&2.into(), &2.into()));
    let text = run.text("audit");
    let mut lines = text.lines();
    assert!(
        lines.any(|line| line.contains("sched:sched_switch") && line.contains("held by perf[")),
        "{text}"
    );
}

pub(super) fn by_id<'p>(programs: &'p [Value], id: &Value) -> &'p Value {
    let mut of_id = programs.iter().filter(|program| program["id"] == *id);
    of_id.next().unwrap_or_else(|| panic!("no program {id}"))
}

#[test]
fn foreign_tools_are_listed_on_6_1() {
    foreign_tools_are_listed("6.1");
}

#[test]
fn foreign_tools_are_listed_on_6_12() {
    foreign_tools_are_listed("6.12");
}
