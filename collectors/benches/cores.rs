//! What a tick costs in /proc mode: parsing each file, and the whole of it, at 2, 128 and
//! 1,024 CPUs. The inputs are generated as the kernel prints them.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stalltop_collectors::cores::{CoresCollector, interrupts, softirqs, softnet, stat};
use stalltop_collectors::{Collector, Env};
use stalltop_model::Reason;
use stalltop_model::sample::{Sample, Vector};

const CPUS: [u32; 3] = [2, 128, 1_024];
/// A network card and a few disks have a queue, and so an interrupt, per CPU.
const INTERRUPTS: u32 = 64;

fn header(cpus: u32) -> String {
    (0..cpus).fold(" ".repeat(10), |mut text, cpu| {
        let _ = write!(text, "{:>11}", format!("CPU{cpu}"));
        text
    })
}

fn softirqs_text(cpus: u32) -> String {
    let mut text = header(cpus);
    for (row, vector) in Vector::ALL.iter().enumerate() {
        let _ = write!(text, "\n{:>12}:", vector.as_str());
        for cpu in 0..cpus {
            let _ = write!(
                text,
                " {:>10}",
                (row as u32 * 7_919 + cpu) * 104_729 % 90_000_000
            );
        }
    }
    text + "\n"
}

fn interrupts_text(cpus: u32) -> String {
    let mut text = header(cpus);
    for row in 0..INTERRUPTS {
        let _ = write!(text, "\n{row:>4}:");
        for cpu in 0..cpus {
            let _ = write!(text, " {:>10}", if cpu == row { 81_238_123 } else { 0 });
        }
        let _ = write!(text, "  PCI-MSIX-0000:00:01.0  {row}-edge  nvme0q{row}");
    }
    text + "\n"
}

fn stat_text(cpus: u32) -> String {
    let mut text = "cpu  1 2 3 4 5 6 7 8 0 0\n".to_owned();
    for cpu in 0..cpus {
        let _ = writeln!(
            text,
            "cpu{cpu} {} 119 6292 188019 494 0 70 41 0 0",
            54_429 + cpu
        );
    }
    text + "intr 3789 67 9\nctxt 99\n"
}

fn softnet_text(cpus: u32) -> String {
    (0..cpus).fold(String::new(), |mut text, cpu| {
        let _ = write!(text, "{:08x} 00000000 00000011", 0x1d3_f2a0 + cpu);
        text += &" 00000000".repeat(9);
        let _ = writeln!(text, " {cpu:08x} 00000000 00000000");
        text
    })
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    group
        .sample_size(30)
        .measurement_time(Duration::from_secs(2));
    let (mut columns, mut sums) = (Vec::new(), Vec::new());
    for cpus in CPUS {
        let text = softirqs_text(cpus);
        group.bench_function(BenchmarkId::new("softirqs", cpus), |b| {
            b.iter(|| {
                softirqs::parse(black_box(text.as_bytes()), &mut columns, |_, _, n| {
                    _ = black_box(n);
                })
                .is_ok()
            });
        });
        let text = interrupts_text(cpus);
        group.bench_function(BenchmarkId::new("interrupts", cpus), |b| {
            b.iter(|| {
                interrupts::parse(black_box(text.as_bytes()), &mut columns, &mut sums).is_ok()
            });
        });
        let text = stat_text(cpus);
        group.bench_function(BenchmarkId::new("stat", cpus), |b| {
            b.iter(|| {
                stat::parse(black_box(text.as_bytes()), 10_000_000, |_, t| {
                    _ = black_box(t);
                })
                .is_ok()
            });
        });
        let text = softnet_text(cpus);
        group.bench_function(BenchmarkId::new("softnet_stat", cpus), |b| {
            b.iter(|| {
                softnet::parse(black_box(text.as_bytes()), |line| _ = black_box(line)).is_ok()
            });
        });
    }
    group.finish();
}

/// A host of many CPUs, written to `root`.
fn host(root: &Path, cpus: u32) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        let parent = path.parent().expect("a file in a folder");
        std::fs::create_dir_all(parent).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    let list = format!("0-{}\n", cpus - 1);
    put("sys/devices/system/cpu/present", &list);
    put("sys/devices/system/cpu/online", &list);
    put("proc/softirqs", &softirqs_text(cpus));
    put("proc/interrupts", &interrupts_text(cpus));
    put("proc/stat", &stat_text(cpus));
    put("proc/net/softnet_stat", &softnet_text(cpus));
    for cpu in 0..cpus {
        let pid = 10 + cpu * 6;
        put(&format!("proc/{pid}/comm"), &format!("ksoftirqd/{cpu}\n"));
        put(
            &format!("proc/{pid}/stat"),
            &format!("{pid} (ksoftirqd/{cpu}) S 2 0\n"),
        );
        put(&format!("proc/{pid}/schedstat"), "743812 2772864 17\n");
    }
}

fn collect(c: &mut Criterion) {
    let mut group = c.benchmark_group("collect");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    for cpus in CPUS {
        let dir = tempfile::tempdir().expect("a folder");
        host(dir.path(), cpus);
        let mut cores = CoresCollector::new(&Env::at(dir.path()), Duration::from_secs(86_400));
        cores.without_bpf(&Reason::NoBtf);
        let mut sample = Sample::default();
        group.bench_function(BenchmarkId::new("proc", cpus), |b| {
            b.iter(|| cores.collect(&mut sample).is_ok());
        });
        assert_eq!(sample.cpus.len(), cpus as usize);
    }
    group.finish();
}

criterion_group!(benches, parse, collect);
criterion_main!(benches);
