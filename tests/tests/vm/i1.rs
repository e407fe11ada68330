//! Incident I1 in a machine: CPUs wait for each other in an agent's kretprobe, until all kernel
//! probes are switched off.

use stalltop_tests::require;

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
    assert!(has_probe(&audit, "kretprobe", "__x64_sys_getppid"));
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

    // perf has most of the waiting in the agent's program.
    let perf = run.text("perf.lock");
    let first = perf.lines().find(|line| line.contains("spinlock"));
    assert!(
        first.is_some_and(|line| line.contains("htab_map_update_elem")),
        "{perf}"
    );

    let off = run.text("off");
    for holder in ["ebpf.plugin[", "bpftrace["] {
        assert!(off.contains(holder), "no {holder} in {off}");
    }
    assert!(off.ends_with("status 0\n"), "{off}");
    assert_eq!(run.number("enabled.off"), 0);
    let undo = run.text("undo");
    assert!(undo.ends_with("status 0\n"), "{undo}");
    assert_eq!(run.number("enabled.undone"), 1);

    // As the kernel counts them. Ratios alone: the machine is emulated.
    let waits = ["waits.before", "waits.off", "waits.undone"].map(|name| run.number(name));
    let calls = ["calls.before", "calls.off", "calls.undone"].map(|name| run.number(name));
    println!("waits in 4 s: {waits:?}, calls/s: {calls:?}");
    assert!(waits[0] >= 1_000, "{waits:?}");
    assert!(
        waits[1] * 20 <= waits[0] && waits[1] * 20 <= waits[2],
        "{waits:?}"
    );
    assert!(calls[1] * 2 >= calls[0] * 3, "{calls:?}");
}
