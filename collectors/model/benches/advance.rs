//! What deriving the model from one more sample costs at 2, 128 and 1,024 CPUs, with as many stalls
//! as are kept, and what panes ask of those.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stalltop_model::model::Model;
use stalltop_model::model::stalls::{Filter, GroupBy};
use stalltop_model::sample::{
    CoresSource, CpuSample, CpuTimes, Culprit, Ksoftirqd, Sample, Seen, SoftirqTiming, Stall,
    StallWatch,
};
use stalltop_model::{Frame, Reading};

/// The sample of second `second` of a busy, healthy host.
fn fill(sample: &mut Sample, cpus: u32, second: u64) {
    sample.at_ns = second * 1_000_000_000;
    sample.cores.source = CoresSource::Bpf;
    sample.cores.bpf = Reading::Value(());
    sample.cpus.resize_with(cpus as usize, CpuSample::default);
    for (number, cpu) in (0..cpus).zip(&mut sample.cpus) {
        (cpu.cpu, cpu.online) = (number, true);
        for (vector, softirq) in (1..).zip(&mut cpu.softirqs) {
            softirq.count = second * 1_000 * vector;
            let mut timing = SoftirqTiming {
                time_ns: second * 2_000_000 * vector,
                max_ns: 90_000,
                tick_max_ns: 40_000,
                delay_count: softirq.count,
                delay_ns: second * 900_000 * vector,
                delay_max_ns: 200_000,
                tick_delay_max_ns: 60_000,
                ..SoftirqTiming::default()
            };
            timing.service.0[11] = softirq.count;
            timing.delay.0[10] = softirq.count;
            softirq.timing = Reading::Value(timing);
        }
        cpu.hardirq.count = Reading::Value(second * 300);
        cpu.hardirq.time_ns = Reading::Value(second * 900_000);
        cpu.ksoftirqd = Reading::Value(Ksoftirqd {
            pid: 14,
            run_ns: second * 5_000,
            runs: second,
            wait_ns: second * 900,
        });
        cpu.times = Reading::Value(CpuTimes {
            user_ns: second * 300_000_000,
            idle_ns: second * 700_000_000,
            ..CpuTimes::default()
        });
    }
}

fn advance(c: &mut Criterion) {
    let mut group = c.benchmark_group("advance");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    for cpus in [2, 128, 1_024] {
        let mut model = Model::new();
        let mut next = Sample::default();
        let mut second = 1;
        group.bench_function(BenchmarkId::new("cpus", cpus), |b| {
            b.iter_custom(|ticks| {
                let mut spent = Duration::ZERO;
                for _ in 0..ticks {
                    second += 1;
                    fill(&mut next, cpus, second);
                    let start = std::time::Instant::now();
                    model.advance(&mut next);
                    spent += start.elapsed();
                }
                spent
            });
        });
        assert!(model.samples() > 2);
    }
    group.finish();
}

/// As many stalls as are kept, `apart_ns` from each other, by three processes on eight CPUs; with
/// `reads`, every other one is of a process that reads statistics on a CPU of its own.
fn with_stalls(apart_ns: u64, reads: bool) -> Model {
    let mut model = Model::new();
    for id in 0..4_096 {
        let mut stall = Stall {
            id,
            at_ns: 1_000_000_000 + id * apart_ns,
            cpu: (id % 8) as u32,
            delay_ns: 12_000_000 + id,
            timeline: vec![Seen::default(); 12],
            ..Stall::default()
        };
        stall.culprit = Reading::Value(Culprit {
            comm: ["cadvisor", "nft", "sh"][id as usize % 3].into(),
            share: 0.9,
            ..Culprit::default()
        });
        if let (true, Some(culprit)) = (reads && id % 2 == 0, stall.culprit.value_mut()) {
            culprit.comm = "agent".into();
            culprit.function = Reading::Value("memcg_stat_show".into());
            // Each ends before the next one begins: as many holds.
            (stall.cpu, stall.delay_ns) = (8, 900_000);
        }
        model.apply(&mut Frame::Stall(Box::new(stall)));
    }
    model
}

fn stalls(c: &mut Criterion) {
    let mut group = c.benchmark_group("stalls");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    // One a second: 60 are in the window of the rules. A thousand a second: all of them are, and
    // in incident I2 many are reads of statistics.
    for (name, apart_ns, reads) in [
        ("an hour", 1_000_000_000, false),
        ("a storm", 1_000_000, false),
        ("a storm of reads", 1_000_000, true),
    ] {
        let mut model = with_stalls(apart_ns, reads);
        let last = 1_000_000_000 + 4_096 * apart_ns;
        let mut next = Sample::default();
        let mut tick = 0;
        group.bench_function(BenchmarkId::new("advance", name), |b| {
            b.iter_custom(|ticks| {
                let mut spent = Duration::ZERO;
                for _ in 0..ticks {
                    // The stalls stay where they are: time all but stands still.
                    tick += 1;
                    fill(&mut next, 8, 1);
                    next.at_ns = last + tick;
                    next.stalls = Reading::Value(StallWatch {
                        kinds: std::array::from_fn(|_| Reading::Value(10_000_000)),
                        ..StallWatch::default()
                    });
                    let start = std::time::Instant::now();
                    model.advance(&mut next);
                    spent += start.elapsed();
                }
                spent
            });
        });
        assert!(!model.findings().is_empty());
    }
    let model = with_stalls(1_000_000_000, false);
    let all = Filter::default();
    group.bench_function("groups", |b| {
        b.iter(|| model.stalls.groups(GroupBy::Culprit, &all, 0, u64::MAX));
    });
    group.bench_function("marks of 128 cpus", |b| {
        b.iter(|| {
            let marks = (0..128u32).flat_map(|cpu| (0..120u64).map(move |s| (cpu, s)));
            marks
                .filter_map(|(cpu, s)| {
                    let from = (4_000 - s) * 1_000_000_000;
                    model.stalls.mark(cpu, from, from + 1_000_000_000)
                })
                .count()
        });
    });
    group.bench_function("heat of a minute", |b| {
        let until = (4_000_000_000_000, 4_000_000_000_000);
        b.iter(|| model.stalls.heat(&all, until, 60, 50).most_ns());
    });
    group.finish();
}

criterion_group!(benches, advance, stalls);
criterion_main!(benches);
