//! Recorded hosts.

use std::path::PathBuf;
use std::time::Duration;

use stalltop_model::Reading;
use stalltop_model::sample::{Cgroup, CgroupLayout, Cgroups, MemoryVersion, OwnerKind};

use crate::cgroups::CgroupCollector;
use crate::env::Env;

fn root(kernel: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(kernel)
}

fn swept(kernel: &str) -> Cgroups {
    let mut collector = CgroupCollector::new(&Env::at(root(kernel)));
    for _ in 0..5 {
        collector.sweep(Duration::from_secs(10));
    }
    let Reading::Value(state) = collector.handle().newest(0) else {
        panic!("{kernel}: {:?}", collector.handle().newest(0));
    };
    Cgroups::clone(&state)
}

fn row<'a>(cgroups: &'a Cgroups, path: &str) -> &'a Cgroup {
    cgroups.rows.iter().find(|r| &*r.path == path).unwrap()
}

fn file(kernel: &str, cgroups: &Cgroups, path: &str) -> String {
    let host = format!("{}{path}", cgroups.mount);
    std::fs::read_to_string(root(kernel).join(host.trim_start_matches('/'))).unwrap()
}

/// What the recording script made on every host (tests/fixtures/README.md).
fn check_common(kernel: &str, cgroups: &Cgroups, usage: &str) {
    let ssh = row(cgroups, "/system.slice/ssh.service");
    assert_eq!(
        (&*ssh.owner.name, ssh.owner.kind),
        ("ssh.service", OwnerKind::Unit)
    );
    let procs = file(kernel, cgroups, "/system.slice/ssh.service/cgroup.procs");
    assert!(!procs.is_empty());
    assert_eq!(ssh.processes, Reading::Value(procs.lines().count() as u64));
    let used = file(
        kernel,
        cgroups,
        &format!("/system.slice/ssh.service/{usage}"),
    );
    assert_eq!(ssh.used_bytes, Reading::Value(used.trim().parse().unwrap()));
    assert!(ssh.read.get().unwrap().count >= 1);
    assert!(ssh.read_at_ns > 0);
    let slice = &cgroups.rows[ssh.parent.unwrap() as usize];
    assert_eq!((&*slice.path, slice.depth), ("/system.slice", 1));
    let container = cgroups
        .rows
        .iter()
        .find(|r| r.owner.kind == OwnerKind::Containerd);
    assert_eq!(
        &*container.unwrap().owner.name,
        "pod 0a1b2c3d/containerd 3f6c1e0f3a6f"
    );
    for (at, row) in cgroups.rows.iter().enumerate() {
        assert_eq!(row.parent.is_none(), at == 0);
        assert!(row.parent.is_none_or(|p| (p as usize) < at));
    }
    assert_eq!(cgroups.visible, cgroups.rows.len() as u64);
    assert_eq!(cgroups.sweep.unread, 0);
}

#[test]
fn v1_on_5_10() {
    let cgroups = swept("5.10");
    check_common("5.10", &cgroups, "memory.usage_in_bytes");
    assert_eq!(cgroups.layout, CgroupLayout::V1);
    assert_eq!(&*cgroups.mount, "/sys/fs/cgroup/memory");
    assert_eq!(cgroups.zombies, Reading::Value(16));
    assert!(cgroups.rows[0].used_bytes.get().is_some());
    // v1 does not say whose they are.
    assert!(row(&cgroups, "/system.slice").zombies.get().is_none());
}

#[test]
fn v2_on_6_1_and_6_12() {
    for kernel in ["6.1", "6.12"] {
        let cgroups = swept(kernel);
        check_common(kernel, &cgroups, "memory.current");
        assert_eq!(cgroups.layout, CgroupLayout::V2);
        assert_eq!(cgroups.zombies, Reading::Value(16));
        assert_eq!(row(&cgroups, "/system.slice").zombies, Reading::Value(10));
        assert_eq!(row(&cgroups, "/kubepods.slice").zombies, Reading::Value(6));
        // v2's root has no memory.current; it does have memory.stat.
        assert!(cgroups.rows[0].used_bytes.reason().is_some());
        assert!(cgroups.rows[0].read.get().is_some());
    }
}

#[test]
fn hybrid() {
    let hybrid = CgroupLayout::Hybrid {
        memory: MemoryVersion::V1,
    };
    let cgroups = swept("6.1-hybrid");
    check_common("6.1-hybrid", &cgroups, "memory.usage_in_bytes");
    assert_eq!((cgroups.layout, cgroups.zombies.get()), (hybrid, Some(16)));
    let cgroups = swept("6.18");
    check_common("6.18", &cgroups, "memory.usage_in_bytes");
    // A real host: zombies of its own beside the 16.
    assert!(cgroups.zombies.get().unwrap() >= 16);
    assert_eq!(cgroups.layout, hybrid);
}
