use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn recorded(kernel: &str) -> Env {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(kernel);
    Env::at(root)
}

/// The value of `key` in a recorded file, found in another way than the parsers do.
fn recorded_value(kernel: &str, path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(recorded(kernel).path(path)).unwrap();
    let line = text
        .lines()
        .find(|l| l.split([' ', ':']).next() == Some(key));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn on_recorded_hosts() {
    for (kernel, stat, file, shmem) in [
        (
            "5.10",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_cache",
            "total_shmem",
        ),
        (
            "6.1-hybrid",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_cache",
            "total_shmem",
        ),
        ("6.1", "/sys/fs/cgroup/memory.stat", "file", "shmem"),
        ("6.12", "/sys/fs/cgroup/memory.stat", "file", "shmem"),
    ] {
        let worst: Name = "/system.slice/ssh.service".into();
        let state = measure(&recorded(kernel), Some(&worst));
        assert_eq!(state.zombies, Reading::Value(16), "{kernel}");
        assert!(state.root_read_ns.get().is_some());
        let shmem = recorded_value(kernel, stat, shmem);
        assert_eq!(state.shmem, Reading::Value(shmem), "{kernel}");
        let file = recorded_value(kernel, stat, file);
        assert_eq!(state.page_cache, Reading::Value(file - shmem), "{kernel}");
        let free = recorded_value(kernel, "/proc/meminfo", "MemFree");
        assert_eq!(state.free, Reading::Value(free * 1024));
        let slab = match kernel {
            "6.1" | "6.12" => recorded_value(kernel, stat, "slab_reclaimable"),
            _ => recorded_value(kernel, "/proc/meminfo", "SReclaimable") * 1024,
        };
        assert_eq!(state.slab, Reading::Value(slab), "{kernel}");
        let (path, read) = state.worst_read_ns.unwrap();
        assert!(path == worst && read.get().is_some());
    }
}

#[test]
fn a_cgroup_that_is_gone_has_no_time() {
    let gone: Name = "/nonexistent".into();
    let state = measure(&recorded("6.1"), Some(&gone));
    assert!(state.worst_read_ns.unwrap().1.reason().is_some());
    let nowhere = tempfile::tempdir().unwrap();
    let state = measure(&Env::at(nowhere.path()), None);
    assert!(state.zombies.reason().is_some() && state.free.reason().is_some());
}

fn with(zombies: u64, page_cache: u64, shmem: u64) -> CacheState {
    CacheState {
        zombies: Reading::Value(zombies),
        page_cache: Reading::Value(page_cache),
        shmem: Reading::Value(shmem),
        ..measure(&Env::at("/nonexistent"), None)
    }
}

#[test]
fn two_on_old_kernels_one_on_new_ones() {
    let state = with(4812, 1 << 30, 0);
    for (kernel, level) in [
        (KernelVersion(4, 9), 2),
        (KernelVersion(4, 18), 2),
        (KernelVersion(5, 10), 2),
        (KernelVersion(5, 15), 2),
        (KernelVersion(5, 16), 1),
        (KernelVersion(6, 1), 1),
        (KernelVersion(6, 18), 1),
        (KernelVersion(0, 0), 3),
    ] {
        let proposal = propose(kernel, &state);
        assert_eq!(proposal.level, level, "{kernel}");
        assert!(!proposal.why.contains("tmpfs") && !proposal.why.contains("no zombies"));
    }
    let tmpfs = propose(KernelVersion(6, 1), &with(1000, 10, 4_096_000));
    assert!(tmpfs.why.contains("stays until its files are removed"));
    assert!(
        propose(KernelVersion(6, 1), &with(0, 10, 0))
            .why
            .contains("no zombies now")
    );
}

#[test]
fn the_report_has_a_row_for_each_figure() {
    let mut before = with(4812, 1 << 30, 0);
    let mut after = with(3, 1 << 20, 0);
    assert_eq!(report(&before, &after).len(), 6);
    before.worst_read_ns = Some(("/a".into(), Reading::Value(153_000_000)));
    after.worst_read_ns = Some(("/a".into(), Reading::Value(40_000)));
    let rows = report(&before, &after);
    assert_eq!(
        (rows[0].before.get(), rows[0].after.get()),
        (Some(4812), Some(3))
    );
    assert_eq!(&*rows[2].what, "memory.stat read of /a");
    assert_eq!(rows[2].before.get(), Some(153_000_000));
}

proptest! {
    #[test]
    fn any_text_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300), key in "[A-Za-z]{0,9}") {
        meminfo_bytes(&bytes, &key);
        Charged::parse(MemoryVersion::V1, &bytes);
        Charged::parse(MemoryVersion::V2, &bytes);
    }
}
