use std::path::Path;

use super::*;

fn recorded(name: &str) -> Vec<Check> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    doctor(&Env::at(Path::new(fixtures).join(name)))
}

fn works<'a>(checks: &'a [Check], capability: &str) -> &'a Reading<String> {
    let found = checks.iter().find(|c| c.capability == capability);
    &found
        .unwrap_or_else(|| panic!("no check of {capability}"))
        .works
}

#[test]
fn old_hosts_are_told_what_to_do() {
    let checks = recorded("4.18-rhel8");
    let psi = works(&checks, "pressure (PSI)").reason().unwrap();
    assert_eq!(
        &*psi.fix(),
        "add psi=1 to the kernel command line and reboot"
    );
    let preemption = works(&checks, "preemption").value().unwrap();
    assert!(preemption.starts_with("voluntary"), "{preemption}");
    assert!(works(&checks, "kernel types (BTF)").reason().is_some());
    assert_eq!(
        works(&checks, "irq:softirq_entry"),
        &Reading::Off(Reason::NotRecorded)
    );
    let backlog = works(&checks, "/proc/net/softnet_stat").value().unwrap();
    assert!(backlog.starts_with("without"), "{backlog}");
}

#[test]
fn newer_hosts_work() {
    let checks = recorded("6.1");
    for capability in [
        "/proc/softirqs",
        "ksoftirqd's schedstat",
        "tracefs",
        "list of kernel probes",
        "memory cgroups",
        "high-resolution timers",
    ] {
        assert!(
            works(&checks, capability).value().is_some(),
            "{capability}: {:?}",
            works(&checks, capability)
        );
    }
    let offline = works(&recorded("6.12"), "/proc/softirqs").value().cloned();
    assert_eq!(offline.as_deref(), Some("3 of 4 present CPUs online"));
}

#[test]
fn every_check_says_what_is_done_without_it() {
    for check in recorded("6.18") {
        assert!(!check.capability.is_empty());
        assert!(
            check.area == "facts" || !check.instead.is_empty(),
            "{}",
            check.capability
        );
    }
}

#[test]
fn an_empty_host_is_no_reason_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let checks = doctor(&Env::at(dir.path()));
    assert!(works(&checks, "/proc/softirqs").reason().is_some());
    assert!(works(&checks, "memory cgroups").reason().is_some());
    for check in &checks {
        if let Some(reason) = check.works.reason() {
            assert!(!reason.fix().is_empty(), "{}", check.capability);
        }
    }
}

#[test]
fn this_host_loads_or_says_why() {
    let checks = doctor(&Env::live());
    let programs = checks.iter().filter(|c| c.capability.starts_with("irq:"));
    assert_eq!(programs.count(), 5);
    // Named by whoever may read others' maps; else the capability is named.
    match works(&checks, "names of user functions") {
        Reading::Value(how) => assert!(how.contains("frame pointers"), "{how}"),
        Reading::Off(reason) => assert!(!reason.fix().is_empty(), "{reason}"),
    }
}
