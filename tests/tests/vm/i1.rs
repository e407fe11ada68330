//! Incident I1 in a machine: CPUs wait for each other in an agent's kretprobe, until all kernel
//! probes are switched off.

use stalltop_tests::{require, storm};

use super::foreign::by_id;
use super::{Run, fetched, has_probe, run};

impl Run {
    fn number(&self, name: &str) -> u64 {
        let text = self.text(name);
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {text}"))
    }
}

/// Both probes, with the processes that hold them, as bpftool has them.
fn probes_have_their_holders(run: &Run) {
    let audit = run.json("audit.json");
    // kprobes/list names an address by any of its symbols: here __do_sys_getppid.
    let list = audit["kprobes"]["list"].as_array().unwrap();
    let on_getppid = |probe: &&serde_json::Value| {
        let symbol = probe["symbol"].as_str().unwrap();
        probe["kind"] == "kretprobe" && symbol.ends_with("sys_getppid")
    };
    assert_eq!(list.iter().filter(on_getppid).count(), 1, "{list:?}");
    assert!(has_probe(&audit, "kprobe", "do_nanosleep"));
    let programs = audit["bpf"]["programs"].as_array().unwrap();
    let holders = run.text("holders");
    let perf = run.json("bpftool.perf");
    let rows = perf.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{perf}");
    for row in rows {
        let program = by_id(programs, &row["prog_id"]);
        let by = &program["holders"][0];
        let line = format!("{} {}", row["pid"], by["comm"].as_str().unwrap());
        assert!(holders.lines().any(|holder| holder == line), "{program}");
        assert_eq!(by["pid"], row["pid"], "{program}");
    }
}

#[test]
fn incident_1_ends_with_its_probes_and_comes_back_with_them_on_6_1() {
    require!(fetched("6.1"));
    let run = run("6.1", &[], "i1");
    probes_have_their_holders(&run);

    let off = run.text("off");
    for holder in ["ebpf.plugin[", "bpftrace["] {
        assert!(off.contains(holder), "no {holder} in {off}");
    }
    assert!(off.ends_with("status 0\n"), "{off}");
    assert_eq!(run.number("enabled.off"), 0);
    let undo = run.text("undo");
    assert!(undo.ends_with("status 0\n"), "{undo}");
    assert_eq!(run.number("enabled.undone"), 1);

    storm::assert_told(&run.bytes("i1.zst"));
    perf_counts_the_same(&run);
}

#[test]
fn incident_1_is_told_by_samples_on_5_10() {
    require!(fetched("5.10"));
    let run = run("5.10", &[], "i1_old");
    for (name, enabled) in [("off", 0), ("undo", 1)] {
        let said = run.text(name);
        assert!(said.ends_with("status 0\n"), "{said}");
        let after = if name == "off" { "off" } else { "undone" };
        assert_eq!(run.number(&format!("enabled.{after}")), enabled);
    }
    assert!(run.text("off").contains("ebpf.plugin["));
    storm::assert_told_by_samples(&run.bytes("i1.zst"));
}

/// The burst's waits for the lock of the agent's hash, as perf adds them up and as stalltop does.
fn perf_counts_the_same(run: &Run) {
    let perf = run.text("perf.lock");
    // By callers, of which perf skips those that only take locks.
    let row = |line: &&str| line.contains("spinlock") && line.contains(" htab_");
    let rows = perf.lines().filter(row).filter_map(waits_of_perf);
    let theirs = rows.fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    // The script has waited for 5 s by then: a window that began late in them has nothing else.
    let since_ns = (run.number("burst.at") - 3) * 1_000_000_000;
    let mut windows = storm::windows(run.bytes("burst.zst"));
    windows.retain(|window| window.from_ns >= since_ns);
    let ours = storm::longest(&windows);
    let ours = (ours.count as f64, ours.wait_ns as f64 / 1e9);
    println!("waits and seconds: perf {theirs:?}, stalltop {ours:?}");
    let off = |one: f64, other: f64| (one - other).abs() / one.max(1e-9);
    assert!(theirs.0 >= 100.0, "{perf}");
    assert!(off(theirs.0, ours.0) <= 0.01, "{theirs:?}, {ours:?}");
    assert!(off(theirs.1, ours.1) <= 0.05, "{theirs:?}, {ours:?}");
}

/// Waits and seconds of `17517  1.22 s  3.95 ms  69.57 us  spinlock  htab_map_update_elem+0x9f`.
fn waits_of_perf(line: &str) -> Option<(f64, f64)> {
    let mut words = line.split_whitespace();
    let count = words.next()?.parse().ok()?;
    let time: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()? {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some((count, time * unit))
}
