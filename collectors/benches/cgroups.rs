//! One warm sweep over a tree of memory cgroups: plain files that look like a v1 host.
//!
//! `cargo bench -p stalltop-collectors --bench cgroups`. Plain files cost less to read
//! than the kernel's counters: this shows what our own part grows to.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use stalltop_collectors::Env;
use stalltop_collectors::cgroups::CgroupCollector;

const STAT: &str = "cache 4096\nrss 8192\ntotal_cache 4096\ntotal_rss 8192\n";

fn host(root: &Path, count: usize) {
    let mount = "/sys/fs/cgroup/memory";
    let put = |path: &str, text: &str| {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("folder");
        fs::write(path, text).expect("file");
    };
    put(
        "/proc/self/mountinfo",
        &format!("1 0 0:1 / {mount} rw - cgroup cgroup rw,memory\n"),
    );
    put("/proc/cgroups", &format!("memory\t4\t{}\t1\n", count + 1));
    let mut dirs = vec![mount.to_owned()];
    dirs.extend((0..count).map(|n| match n % 50 {
        0 => format!("{mount}/s{}.slice", n / 50),
        _ => format!("{mount}/s{}.slice/c{n}.service", n / 50),
    }));
    for dir in dirs {
        put(&format!("{dir}/memory.stat"), STAT);
        put(&format!("{dir}/memory.usage_in_bytes"), "12288\n");
        put(&format!("{dir}/cgroup.procs"), "1\n");
    }
}

fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("cgroups");
    for count in [100, 2_000] {
        let root = tempfile::tempdir().expect("a folder");
        host(root.path(), count);
        let mut collector = CgroupCollector::new(&Env::at(root.path()));
        let handle = collector.handle();
        // Warm when all are found and read.
        let warm = |handle: &stalltop_collectors::cgroups::CgroupHandle| {
            let state = handle.newest(0);
            state
                .value()
                .is_some_and(|s| s.visible > count as u64 && s.sweep.unread == 0)
        };
        while !warm(&handle) {
            collector.sweep(Duration::from_millis(4));
        }
        group.bench_function(format!("sweep of {count}"), |b| {
            // More than it needs: a fifth of the rows, whatever that takes.
            b.iter(|| collector.sweep(Duration::from_secs(1)));
        });
        group.bench_function(format!("newest of {count}"), |b| {
            b.iter(|| black_box(handle.newest(0)));
        });
    }
    group.finish();
}

criterion_group!(benches, sweep);
criterion_main!(benches);
