//! What deriving the model from one more sample costs at 2, 128 and 1,024 CPUs.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stalltop_model::Reading;
use stalltop_model::model::Model;
use stalltop_model::sample::CoresSource;
use stalltop_model::sample::{CpuSample, CpuTimes, Ksoftirqd, Sample, SoftirqTiming};

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

criterion_group!(benches, advance);
criterion_main!(benches);
