//! Every way to attach a BPF program, in machines: what stalltop lists is what bpftool lists, and
//! says where each program is, who holds it, or what of that is not known.

use std::collections::BTreeMap;

use serde_json::Value;
use stalltop_tests::require;

use super::foreign::by_id;
use super::{Run, fetched, run};

/// What bpf-holder's programs, by name, are attached to: the attachment's kind, and how its target
/// begins.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    ("kprobe", "kprobe", "do_sys_openat2"),
    ("kprobe_link", "kprobe", "vfs_read"),
    ("kretprobe", "kretprobe", "vfs_read"),
    ("kprobe_tracefs", "kprobe", "do_sys_openat2"),
    ("fentry", "fentry", "vfs_read"),
    ("fexit", "fexit", "vfs_write"),
    ("fmod_ret", "fmod_ret", "security_sb_statfs"),
    ("lsm", "lsm", "bpf_lsm_file_open"),
    (
        "lsm_cgroup",
        "lsm_cgroup",
        "/kinds bpf_lsm_socket_post_create",
    ),
    ("ssthresh", "struct_ops", "tcp_congestion_ops, map "),
    ("freplace", "freplace", "a function of program "),
    ("tracepoint", "tracepoint", "sched:sched_process_hang"),
    ("tracepoint_link", "tracepoint", "sched:sched_process_hang"),
    ("raw_tracepoint", "raw_tracepoint", "sched_process_hang"),
    ("tp_btf", "tp_btf", "sched_process_hang"),
    ("iter", "iter", "task"),
    ("perf_event", "perf_event", "cpu-clock"),
    ("uprobe", "uprobe", "/t/never+0x"),
    ("uretprobe", "uretprobe", "/t/never+0x"),
    ("cgroup", "cgroup_inet_ingress", "/kinds"),
    ("cgroup_device", "cgroup_device", "/kinds"),
    ("cgroup_sysctl", "cgroup_sysctl", "/kinds"),
    ("cgroup_sockopt", "cgroup_getsockopt", "/kinds"),
    ("cgroup_legacy", "cgroup_inet_ingress", "/legacy"),
    ("sk_lookup", "sk_lookup", "net:["),
    ("flow_dissector", "flow_dissector", "net:["),
    ("sk_skb", "sk_skb_stream_verdict", "map "),
    ("sk_msg", "sk_msg_verdict", "map "),
];

/// What 6.12 has as well. Of a session the kernel does not say that it is one.
const NEWER: &[(&str, &str, &str)] = &[
    ("kprobe_multi", "kprobe_multi", "vfs_"),
    ("kretprobe_multi", "kretprobe_multi", "vfs_read"),
    ("kprobe_session", "kprobe_multi", "vfs_read"),
    ("uprobe_multi", "uprobe_multi", "/t/never, 1 place"),
    ("tcx", "tcx_ingress", "lo"),
    ("netkit", "netkit_primary", "kit"),
    ("netfilter", "netfilter", "ipv4 input priority -128"),
    ("sk_msg_link", "sk_msg_verdict", "map "),
];

/// Of these it is not known what they are attached to, or they are attached to nothing: why.
const NOWHERE: &[(&str, &str)] = &[
    (
        "sk_reuseport",
        "the kernel does not list programs of sockets",
    ),
    (
        "socket_filter",
        "the kernel does not list programs of sockets",
    ),
    ("lwt_xmit", "routes do not tell their programs' ids"),
    ("syscall", "never attached"),
    ("replaced", "on no device of this network namespace"),
];

/// What `kprobes/enabled` stops, and what not.
const STOPPED: &[&str] = &["kprobe", "kprobe_link", "kretprobe", "kprobe_tracefs"];
const DEAF: &[&str] = &["fentry", "fexit"];
const DEAF_NEWER: &[&str] = &["kprobe_multi", "kretprobe_multi", "kprobe_session"];

fn every_kind_is_listed(kernel: &str) {
    require!(fetched(kernel));
    let run = run(kernel, &[], "kinds");
    let audit = run.json("audit.json");
    let newer = if kernel == "6.12" { NEWER } else { &[] };
    for (name, kind, target) in EVERYWHERE.iter().chain(newer) {
        let program = of_holder(&audit, name);
        let at = program["attached"].as_array().unwrap();
        let [at] = &at[..] else {
            panic!("{name}: {program}");
        };
        let is = at["target"].as_str().unwrap();
        assert!(
            at["kind"] == *kind && is.starts_with(target),
            "{name}: {program}"
        );
    }
    for (name, why) in NOWHERE {
        let program = of_holder(&audit, name);
        assert_eq!(program["attached"].as_array().unwrap().len(), 0, "{name}");
        let nowhere = audit["nowhere"].as_array().unwrap();
        let said = nowhere.iter().find(|of| of["program"] == program["id"]);
        let said = said.unwrap_or_else(|| panic!("{name}"))["why"].as_str();
        assert!(said.unwrap().contains(why), "{name}: {said:?}");
        assert!(run.text("audit").contains(why), "{name}");
    }
    nobody_holds_what_is_left(&audit);
    agrees_with_bpftool(&run, &audit);
    foreign_tools_hold_theirs(&run, &audit);
    the_plan_says_what_runs_on(&run, kernel);
    what_is_switched_off_stops(&run, kernel);
    without_types_it_is_all_there(&run, &audit);
    names_do_nothing_to_a_terminal(&run, &audit);
    who_may_not_know_is_told_so(&run);
}

/// What a process and a pin are called is shown, without what a terminal would obey.
fn names_do_nothing_to_a_terminal(run: &Run, audit: &Value) {
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    let held = |p: &&Value| p["holders"][0]["comm"] == "bad\u{1b}[31m";
    let program = programs.iter().find(held).unwrap();
    assert_eq!(
        program["pins"],
        serde_json::json!(["/sys/fs/bpf/bad\u{1b}[31m"])
    );
    let text = run.text("audit");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(control), "{text:?}");
    assert!(text.contains("[31m["), "{text}");
}

/// No list that looks complete and is not.
fn who_may_not_know_is_told_so(run: &Run) {
    let bpf = &run.json("audit.nobody.json")["bpf"];
    assert_eq!(bpf["off"]["code"]["kind"], "no_capability", "{bpf}");
}

/// A program of bpf-holder, which is the one holder, in the unit that it was started in.
fn of_holder<'a>(audit: &'a Value, name: &str) -> &'a Value {
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    let program = (programs.iter().find(|program| program["name"] == name))
        .unwrap_or_else(|| panic!("{name} is not listed"));
    let holders = program["holders"].as_array().unwrap();
    let [holder] = &holders[..] else {
        panic!("{program}");
    };
    assert_eq!(holder["comm"], "bpf-holder", "{program}");
    assert_eq!(holder["owner"]["name"], "agent.service", "{program}");
    program
}

/// What a tool that is gone left: a pinned link, and what bpftool attached to a device.
fn nobody_holds_what_is_left(audit: &Value) {
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    let orphans = || {
        programs
            .iter()
            .filter(|p| p["holders"] == Value::Array(Vec::new()))
    };
    let at = |program: &Value, kind: &str, target: &str| {
        program["attached"][0]["kind"] == kind && program["attached"][0]["target"] == target
    };
    let pinned = orphans().find(|p| at(p, "tp_btf", "sched_process_exec"));
    assert_eq!(
        pinned.unwrap()["pins"],
        serde_json::json!(["/sys/fs/bpf/left"])
    );
    let device = orphans().find(|p| at(p, "xdp", "lo (generic)")).unwrap();
    assert_eq!(device["pins"].as_array().unwrap().len(), 0, "{device}");
}

/// The same programs, links, places on cgroups and devices, and struct_ops.
fn agrees_with_bpftool(run: &Run, audit: &Value) {
    let bpf = &audit["bpf"];
    let programs = bpf["programs"].as_array().unwrap();
    let theirs: Vec<_> = programs.iter().filter(|p| p["ours"] == false).collect();
    let told = run.json("bpftool.prog");
    let told = told.as_array().unwrap();
    assert_eq!(theirs.len(), told.len());
    for program in told {
        let same = by_id(programs, &program["id"]);
        // Older than some of the types: a number, or nothing.
        if let Some(kind) = program["type"].as_str() {
            assert_eq!(same["kind"], kind, "{same} {program}");
        }
        assert_eq!(same["tag"], program["tag"], "{same} {program}");
    }

    let ours: Vec<_> = (programs.iter().filter(|p| p["ours"] == true))
        .map(|p| &p["id"])
        .collect();
    let links = bpf["links"].as_array().unwrap();
    let links: Vec<_> = (links.iter())
        .filter(|link| !ours.contains(&&link["program"]))
        .cloned()
        .collect();
    let told = run.json("bpftool.link");
    let told = told.as_array().unwrap();
    assert_eq!(links.len(), told.len(), "{links:?} {told:?}");
    for link in told {
        let same = by_id(&links, &link["id"]);
        assert_eq!(same["program"], link["prog_id"], "{same} {link}");
        if let Some(kind) = link["type"].as_str() {
            assert_eq!(same["kind"], kind, "{same} {link}");
        }
        for name in ["tp_name", "target_name"] {
            if link[name].is_string() {
                assert_eq!(same["target"], link[name], "{same} {link}");
            }
        }
    }

    for cgroup in run.json("bpftool.cgroup").as_array().unwrap() {
        let path = cgroup["cgroup"].as_str().unwrap();
        let path = path.strip_prefix("/sys/fs/cgroup").unwrap();
        for program in cgroup["programs"].as_array().unwrap() {
            let same = by_id(programs, &program["id"]);
            has_target(same, path, program);
            has_target(
                same,
                program["attach_btf_name"].as_str().unwrap_or(""),
                program,
            );
        }
    }
    let net = run.json("bpftool.net");
    let xdp = net[0]["xdp"].as_array().unwrap();
    assert_eq!(xdp.len(), 1, "{net}");
    for row in xdp {
        let device = row["devname"].as_str().unwrap();
        has_target(by_id(programs, &row["id"]), device, row);
    }
    for row in net[0]["flow_dissector"].as_array().unwrap() {
        let program = by_id(programs, &row["id"]);
        assert_eq!(program["attached"][0]["kind"], "flow_dissector");
    }
    let struct_ops = run.json("bpftool.struct_ops");
    for row in struct_ops.as_array().unwrap() {
        let target = format!(
            "{}, map {} ({})",
            row["kernel_struct_ops"].as_str().unwrap(),
            row["id"],
            row["name"].as_str().unwrap()
        );
        let of = programs
            .iter()
            .filter(|p| p["attached"][0]["target"] == *target);
        assert_eq!(of.count(), 3, "{target}");
    }
    for row in run.json("bpftool.perf").as_array().unwrap() {
        let program = by_id(programs, &row["prog_id"]);
        let held = program["holders"].as_array().unwrap();
        assert!(
            held.iter().any(|h| h["pid"] == row["pid"]),
            "{program} {row}"
        );
        let place = ["func", "tracepoint", "filename"];
        if let Some(place) = place.iter().find_map(|name| row[name].as_str()) {
            has_target(program, place, row);
        }
    }
}

/// The program is attached to a place whose name has this in it.
fn has_target(program: &Value, place: &str, told: &Value) {
    let mut attached = program["attached"].as_array().unwrap().iter();
    let is = |at: &Value| at["target"].as_str().is_some_and(|t| t.contains(place));
    assert!(attached.any(is), "{program} {told}");
}

/// bpftrace's and vfsstat's programs by what they are attached to.
fn foreign_tools_hold_theirs(run: &Run, audit: &Value) {
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let holders = run.text("holders");
    for program in programs {
        let holder = &program["holders"][0];
        for tool in ["bpftrace", "vfsstat"] {
            let known = format!("{} {tool}", holder["pid"]);
            if holders.lines().any(|line| line == known) {
                assert_eq!(holder["comm"], tool, "{program}");
                let attached = program["attached"].as_array().unwrap();
                let of = attached.iter().filter_map(|at| at["kind"].as_str());
                kinds.entry(tool).or_default().extend(of);
            }
        }
    }
    let has = |tool: &str, kind: &str| kinds.get(tool).is_some_and(|of| of.contains(&kind));
    for kind in ["fentry", "fexit", "uprobe", "perf_event"] {
        assert!(has("bpftrace", kind), "{kind}: {kinds:?}");
    }
    assert!(
        has("bpftrace", "kprobe") || has("bpftrace", "kprobe_multi"),
        "{kinds:?}"
    );
    assert!(
        has("vfsstat", "fentry") || has("vfsstat", "kprobe"),
        "{kinds:?}"
    );
}

/// The dialog of the master switch: whose probes it stops, whose run on.
fn the_plan_says_what_runs_on(run: &Run, kernel: &str) {
    let plan = run.text("plan");
    let line = |begins: &str| {
        let mut lines = plan.lines().filter(|line| line.contains("bpf-holder["));
        let found = lines.find(|line| line.contains(begins));
        found
            .unwrap_or_else(|| panic!("no {begins} in {plan}"))
            .to_owned()
    };
    let stops = line("stops ");
    assert!(stops.contains("3 kprobes, 1 kretprobe"), "{stops}");
    let stays = line("stays on");
    let newer: &[&str] = match kernel {
        "6.12" => &["2 kprobe_multi", "1 kretprobe_multi", "1 uprobe_multi"],
        _ => &[],
    };
    let both = [
        "1 fentry",
        "1 fexit",
        "1 fmod_ret",
        "1 lsm",
        "1 uprobe",
        "1 tp_btf",
    ];
    for kind in both.iter().chain(newer) {
        assert!(stays.contains(kind), "{kind}: {stays}");
    }
}

/// The kernel's own count of runs, while probes are off: of what is stopped it stands.
fn what_is_switched_off_stops(run: &Run, kernel: &str) {
    let (before, after) = (run.json("runs.before"), run.json("runs.after"));
    let runs = |told: &Value, name: &str| {
        let mut all = told.as_array().unwrap().iter();
        let program = all.find(|program| program["name"] == name);
        program.unwrap_or_else(|| panic!("no {name}"))["run_cnt"]
            .as_u64()
            .unwrap_or(0)
    };
    for name in STOPPED {
        assert_eq!(runs(&before, name), runs(&after, name), "{name}");
    }
    let newer = if kernel == "6.12" { DEAF_NEWER } else { &[] };
    for name in DEAF.iter().chain(newer) {
        assert!(runs(&before, name) < runs(&after, name), "{name}");
    }
}

/// Where the kernel does not tell its types, functions have no names, and programs of struct_ops
/// no place; nothing is lost but that.
fn without_types_it_is_all_there(run: &Run, audit: &Value) {
    let without = run.json("audit.nobtf.json");
    let count = |audit: &Value| {
        let programs = audit["bpf"]["programs"].as_array().unwrap();
        programs.iter().filter(|p| p["ours"] == false).count()
    };
    assert_eq!(count(&without), count(audit));
    for (name, kind) in [
        ("fentry", "fentry"),
        ("kprobe", "kprobe"),
        ("cgroup", "cgroup_inet_ingress"),
    ] {
        let program = of_holder(&without, name);
        assert_eq!(program["attached"][0]["kind"], kind, "{program}");
    }
    let fentry = &of_holder(&without, "fentry")["attached"][0];
    let target = fentry["target"].as_str().unwrap();
    assert!(target.starts_with("type "), "{fentry}");
}

#[test]
fn every_kind_is_listed_on_6_1() {
    every_kind_is_listed("6.1");
}

#[test]
fn every_kind_is_listed_on_6_12() {
    every_kind_is_listed("6.12");
}
