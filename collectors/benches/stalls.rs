//! From raw samples to a named culprit.
//!
//! `cargo bench -p stalltop-collectors --bench stalls`. The table has as many symbols as a
//! distribution's kernel; where this host shows its own, that one is read as well, which takes
//! the kernel's own time to print it.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use stalltop_collectors::stalls::attribute::{Context, Evidence, attribute};
use stalltop_collectors::stalls::kallsyms::{Symbols, Table, read};
use stalltop_probes::{StackSample, StallEvent, wire::stall};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const SIZE: u64 = 192;
const COUNT: u64 = 120_000;
/// Innermost last.
const STACK: &[&str] = &[
    "entry_SYSCALL_64_after_hwframe",
    "do_syscall_64",
    "__x64_sys_read",
    "ksys_read",
    "vfs_read",
    "seq_read_iter",
    "kernfs_seq_show",
    "cgroup_seqfile_show",
    "memory_stat_show",
    "memory_stat_format",
    "mem_cgroup_flush_stats",
    "cgroup_rstat_flush",
    "cgroup_rstat_flush_locked",
    "mem_cgroup_css_rstat_flush",
];

fn kallsyms() -> String {
    let mut text = String::new();
    for n in 0..COUNT {
        let address = TEXT + n * SIZE;
        let known = STACK.get((n / 1_000) as usize);
        match known.filter(|_| n % 1_000 == 0) {
            Some(name) => writeln!(text, "{address:016x} t {name}"),
            None => writeln!(text, "{address:016x} t some_function_of_n_{n:06}"),
        }
        .expect("a string");
    }
    text
}

fn window(samples: u64) -> (StallEvent, Vec<StackSample>) {
    let start = 1_000_000_000;
    let window = (0..samples)
        .map(|n| {
            let mut sample = StackSample {
                seq: n + 1,
                at_ns: start + n * 1_000_000,
                pid_tgid: 42 << 32 | 42,
                comm: [0x0000_7265_6461_6572, 0],
                flags: stall::flag::SAMPLER | stall::flag::REGS,
                frames: STACK.len() as u64,
                ..StackSample::ZERO
            };
            for frame in 0..STACK.len() as u64 {
                let function = STACK.len() as u64 - 1 - frame;
                // The innermost few differ from sample to sample.
                let within = if frame < 3 {
                    n * (frame + 3) % SIZE
                } else {
                    64
                };
                sample.stack[frame as usize] = TEXT + function * 1_000 * SIZE + within.max(1);
            }
            sample
        })
        .collect();
    let event = StallEvent {
        kind: stall::kind::PENDING,
        cpu: 1,
        vector: 3,
        start_ns: start,
        earliest_ns: start,
        end_ns: start + samples * 1_000_000,
        pid_tgid: 13,
        comm: [0; 2],
        next_pid: stall::NONE,
        sample: samples,
        sched: stall::NONE,
    };
    (event, window)
}

fn symbols(c: &mut Criterion) {
    let text = kallsyms();
    let mut group = c.benchmark_group("kallsyms");
    group.sample_size(20);
    group.bench_function("parse of 120,000", |b| {
        b.iter(|| Table::read(black_box(text.as_bytes())).expect("bytes"));
    });
    let path = Path::new("/proc/kallsyms");
    let restrict = Path::new("/proc/sys/kernel/kptr_restrict");
    if let Ok(table) = read(path, restrict, true) {
        println!(
            "this host: {} symbols, {} bytes",
            table.len(),
            table.bytes()
        );
        group.bench_function("read of this host's", |b| {
            b.iter(|| read(path, restrict, true));
        });
    }
    let table = Table::read(text.as_bytes()).expect("bytes");
    println!("120,000 symbols: {} bytes", table.bytes());
    group.bench_function("lookup", |b| {
        let mut n = 0;
        b.iter(|| {
            n = (n + 7_919) % COUNT;
            black_box(table.find(TEXT + n * SIZE + 100))
        });
    });
    group.finish();
}

fn understand(c: &mut Criterion) {
    let table = Table::read(kallsyms().as_bytes()).expect("bytes");
    let mut symbols = Symbols::of(table);
    let context = Context {
        tick_ns: 4_000_000,
        sampler_ns: 1_000_000,
        own_tgid: 1,
    };
    let mut group = c.benchmark_group("attribute");
    for count in [3, 200] {
        let (event, samples) = window(count);
        group.bench_function(format!("window of {count} samples"), |b| {
            b.iter(|| {
                let evidence = Evidence {
                    event: &event,
                    samples: &samples,
                    drained: None,
                };
                attribute(evidence, &mut symbols, &context)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, symbols, understand);
criterion_main!(benches);
