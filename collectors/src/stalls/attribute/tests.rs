mod nmi;
mod pause;
mod property;

use stalltop_model::sample::Pause;
use stalltop_probes::wire::stall::NONE;

use super::*;
use crate::stalls::kallsyms::Table;

const MS: u64 = 1_000_000;
const CONTEXT: Context = Context {
    tick_ns: 4 * MS,
    sampler_ns: MS,
    own_tgid: 1,
};

/// Functions of the stacks below, each 4 kB apart.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const FUNCTIONS: &[&str] = &[
    "entry_SYSCALL_64_after_hwframe",
    "do_syscall_64",
    "ksys_read",
    "vfs_read",
    "seq_read_iter",
    "cgroup_seqfile_show",
    "memory_stat_show",
    "cgroup_rstat_flush",
    "handle_softirqs",
    "net_rx_action",
    "nft_do_chain",
    "_raw_spin_unlock_irq",
    "pagetypeinfo_show",
    "hrtimer_interrupt",
    "asm_sysvec_apic_timer_interrupt",
    "irq_exit_rcu",
    "native_queued_spin_lock_slowpath",
    "_etext",
];

fn symbols() -> Symbols {
    let rows = FUNCTIONS.iter().enumerate();
    let text: String = rows
        .map(|(n, name)| format!("{:x} T {name}\n", TEXT + n as u64 * 4096))
        .collect();
    Symbols::of(Table::read(text.as_bytes()).unwrap())
}

fn at(function: &str) -> u64 {
    let n = FUNCTIONS.iter().position(|f| *f == function).unwrap();
    TEXT + n as u64 * 4096 + 16
}

fn words(comm: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    bytes[..comm.len()].copy_from_slice(comm.as_bytes());
    [
        u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
        u64::from_ne_bytes(bytes[8..].try_into().unwrap()),
    ]
}

/// A sample in the kernel, its stack outermost first.
fn sample(seq: u64, at_ns: u64, pid: u32, comm: &str, stack: &str) -> StackSample {
    let mut sample = StackSample {
        seq,
        at_ns,
        pid_tgid: u64::from(pid) << 32 | u64::from(pid),
        comm: words(comm),
        flags: flag::REGS,
        steal_ns: 0,
        ..StackSample::ZERO
    };
    for (n, function) in stack.split_whitespace().rev().enumerate() {
        sample.stack[n] = at(function);
        sample.frames = n as u64 + 1;
    }
    sample
}

fn event(kind: u64, start_ns: u64, end_ns: u64) -> StallEvent {
    StallEvent {
        kind,
        cpu: 3,
        vector: NONE,
        start_ns,
        earliest_ns: start_ns,
        end_ns,
        pid_tgid: 77 << 32 | 77,
        comm: words("at the end"),
        next_pid: NONE,
        sample: 0,
        sched: NONE,
    }
}

fn told(event: &StallEvent, samples: &[StackSample]) -> Told {
    let evidence = Evidence {
        event,
        samples,
        drained: None,
    };
    attribute(evidence, &mut symbols(), &CONTEXT).unwrap()
}

const READ: &str = "entry_SYSCALL_64_after_hwframe do_syscall_64 ksys_read vfs_read \
                    seq_read_iter cgroup_seqfile_show memory_stat_show cgroup_rstat_flush";

#[test]
fn a_first_stall_is_named_by_its_two_tick_samples() {
    let pending = StallEvent {
        vector: 3,
        ..event(kind::PENDING, 100 * MS, 109 * MS)
    };
    let mut samples = [
        sample(1, 98 * MS, 9, "other", ""),
        sample(2, 102 * MS, 42, "cadvisor", READ),
        sample(3, 106 * MS, 42, "cadvisor", READ),
        sample(4, 110 * MS, 13, "ksoftirqd/3", ""),
    ];
    for s in &mut samples[1..3] {
        s.on_cpu_ns = 99 * MS;
    }
    samples[3].on_cpu_ns = 108 * MS + MS / 2;
    let stall = told(&pending, &samples).stall;
    assert_eq!((stall.delay_ns, stall.cpu), (9 * MS, 3));
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (42, "cadvisor"));
    assert_eq!(culprit.syscall.as_deref(), Some("read"));
    assert_eq!(&**culprit.function.value().unwrap(), "memory_stat_show");
    assert_eq!(culprit.samples, (2, 2));
    assert!(
        (culprit.share - 8.5 / 9.0).abs() < 0.01,
        "{}",
        culprit.share
    );
}

const LATE: &str = "entry_SYSCALL_64_after_hwframe do_syscall_64 ksys_read vfs_read \
                    seq_read_iter pagetypeinfo_show _raw_spin_unlock_irq";
const PACKETS: &str = "do_syscall_64 vfs_read irq_exit_rcu handle_softirqs net_rx_action \
                       nft_do_chain";

/// Interrupts off in `cat`, pid 42, from 101 ms to 109 ms; the tick was due at 104 ms.
fn irqs_off() -> (StallEvent, [StackSample; 3]) {
    let mut event = event(kind::IRQS_OFF, 104 * MS, 109 * MS);
    event.earliest_ns = 90 * MS;
    event.pid_tgid = 42 << 32 | 42;
    event.comm = words("cat");
    event.sample = 2;
    let samples = [
        sample(1, 100 * MS, 42, "cat", READ),
        sample(2, 109 * MS, 42, "cat", LATE),
        sample(3, 112 * MS, 42, "cat", READ),
    ];
    (event, samples)
}

#[test]
fn interrupts_off_is_charged_to_where_they_were_let_in_again() {
    let (event, samples) = irqs_off();
    let told = told(&event, &samples);
    let stall = &told.stall;
    // Since a sample was taken at 100 ms it began after that, and by 104 ms it had begun.
    assert_eq!((stall.least_ns, stall.most_ns), (5 * MS, 9 * MS));
    assert_eq!(stall.delay_ns, 7 * MS);
    assert_eq!(stall.pause, Pause::Held);
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (42, "cat"));
    assert_eq!(&**culprit.function.value().unwrap(), "pagetypeinfo_show");
    assert_eq!(culprit.syscall.as_deref(), Some("read"));
    assert_eq!(culprit.lock.as_deref(), Some("_raw_spin_unlock_irq"));
    assert!(culprit.lock_suspected && !told.waits);
    assert_eq!(told.site.as_deref(), Some("pagetypeinfo_show"));
    assert_eq!((culprit.samples, culprit.share), ((1, 1), 1.0));
    assert_eq!(stall.lost, 0);
}

#[test]
fn a_task_that_was_switched_in_narrows_the_start() {
    let (event, mut samples) = irqs_off();
    samples[1].on_cpu_ns = 103 * MS;
    let stall = told(&event, &samples).stall;
    assert_eq!((stall.least_ns, stall.most_ns), (5 * MS, 6 * MS));
}

#[test]
fn interrupts_off_without_any_sample_still_names_the_task() {
    let (event, _) = irqs_off();
    let stall = told(&event, &[]).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (42, "cat"));
    assert_eq!(culprit.samples, (0, 0));
    assert!(matches!(
        culprit.function.reason(),
        Some(Reason::NotSampled { .. })
    ));
    assert_eq!(stall.pause, Pause::Either);
}

#[test]
fn a_long_handler_is_the_vectors_and_its_context_is_in_the_timeline() {
    let handler = StallEvent {
        vector: 3,
        ..event(kind::HANDLER, 100 * MS, 112 * MS)
    };
    let mut samples = [
        sample(1, 98 * MS, 42, "victim", READ),
        sample(2, 102 * MS, 42, "victim", PACKETS),
        sample(3, 106 * MS, 42, "victim", PACKETS),
        sample(4, 110 * MS, 42, "victim", PACKETS),
        sample(5, 114 * MS, 42, "victim", READ),
    ];
    for s in &mut samples[1..4] {
        s.flags |= flag::IN_SOFTIRQ | 3 << flag::VECTOR_SHIFT;
    }
    let stall = told(&handler, &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(culprit.vector, Some(Vector::NetRx));
    assert_eq!((culprit.pid, &*culprit.comm), (0, "NET_RX"));
    assert_eq!(&**culprit.function.value().unwrap(), "nft_do_chain");
    assert_eq!((culprit.samples, culprit.share), ((3, 3), 1.0));
    assert_eq!(culprit.syscall, None);
    let seen = &stall.timeline[1];
    assert_eq!((&*seen.comm, seen.vector), ("victim", Some(Vector::NetRx)));
    let stack = &stall.stacks[seen.stack.unwrap() as usize];
    assert_eq!(&**stack.last().unwrap(), "handle_softirqs");
    // Without a single sample the event itself says who.
    let stall = told(&handler, &[]).stall;
    assert_eq!(stall.culprit.value().unwrap().vector, Some(Vector::NetRx));
}

#[test]
fn time_inside_a_softirq_is_not_the_interrupted_tasks() {
    let pending = StallEvent {
        vector: 1,
        ..event(kind::PENDING, 100 * MS, 112 * MS)
    };
    let samples: Vec<_> = (0..13)
        .map(|n| {
            let mut s = sample(n + 1, (100 + n) * MS + 1, 42, "victim", READ);
            s.flags |= flag::SAMPLER;
            if n >= 3 {
                // The flag is lost at attach: the stack tells as well.
                s = sample(n + 1, (100 + n) * MS + 1, 42, "victim", PACKETS);
                s.flags |= flag::SAMPLER;
            }
            s
        })
        .collect();
    let stall = told(&pending, &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(culprit.vector, Some(Vector::NetRx));
    assert!((culprit.share - 0.79).abs() < 0.02, "{}", culprit.share);
    assert_eq!(culprit.samples, (9, 12));
    assert_eq!(stall.sampling, Sampling::Clock);
}

#[test]
fn a_task_that_does_not_leave_is_timed_from_when_it_was_asked_to() {
    let resched = StallEvent {
        pid_tgid: 42 << 32 | 42,
        earliest_ns: 100 * MS,
        next_pid: 50,
        ..event(kind::RESCHED, 108 * MS, 120 * MS)
    };
    let mut samples: Vec<_> = (0..6)
        .map(|n| sample(n + 1, (98 + n * 4) * MS, 42, "reader", READ))
        .collect();
    for s in &mut samples[2..] {
        s.flags |= flag::NEED_RESCHED;
    }
    samples.push(sample(7, 122 * MS, 50, "waiter", ""));
    let stall = told(&resched, &samples).stall;
    // Asked between the samples at 102 and 106 ms.
    assert_eq!((stall.least_ns, stall.most_ns), (14 * MS, 18 * MS));
    assert_eq!(stall.delay_ns, 16 * MS);
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (42, "reader"));
    assert_eq!(stall.waited.as_deref(), Some("waiter"));
}

#[test]
fn a_real_time_task_that_keeps_the_cpu_is_told_with_its_priority() {
    let kept = |policy: u64, prio: i32| StallEvent {
        pid_tgid: 42 << 32 | 43,
        comm: words("hog"),
        next_pid: 50,
        sched: policy << 32 | u64::from(prio as u32),
        ..event(kind::REAL_TIME, 100 * MS, 1_050 * MS)
    };
    // Ten seconds of the sampler later the ring holds the last of them only.
    let mut samples: Vec<_> = (0..100)
        .map(|n| {
            let mut s = sample(n + 700, (650 + n * 4) * MS, 43, "hog", "");
            s.pid_tgid = 42 << 32 | 43;
            s.flags |= flag::USER;
            s.frames = NONE;
            s.on_cpu_ns = 99 * MS;
            s
        })
        .collect();
    // A short visit to the kernel is not what it did.
    samples[9] = StackSample {
        on_cpu_ns: 99 * MS,
        ..sample(709, samples[9].at_ns, 43, "hog", READ)
    };
    samples.push(sample(800, 1_052 * MS, 50, "waiter", ""));
    let stall = told(&kept(1, 49), &samples).stall;
    assert_eq!(
        (stall.kind, stall.pause),
        (StallKind::RealTime, Pause::Held)
    );
    assert_eq!((stall.least_ns, stall.most_ns), (950 * MS, 950 * MS));
    assert_eq!(stall.waited.as_deref(), Some("waiter"));
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (43, "hog"));
    assert_eq!(culprit.function.reason(), Some(&Reason::UserSpace));
    assert!(culprit.share > 0.99, "{}", culprit.share);

    // Without a single sample the event itself says who; the kernel says how it is scheduled.
    for (policy, prio, says) in [
        (1, 49, "SCHED_FIFO 50"),
        (2, 98, "SCHED_RR 1"),
        (1, 0, "SCHED_FIFO 99"),
        (6, -1, "SCHED_DEADLINE"),
        (0, 60, "SCHED_OTHER 39"),
        (77, i32::MIN, "policy 77"),
    ] {
        let stall = told(&kept(policy, prio), &[]).stall;
        let culprit = stall.culprit.value().unwrap();
        assert_eq!((culprit.pid, culprit.tgid, &*culprit.comm), (43, 42, "hog"));
        assert_eq!(culprit.sched.as_ref().unwrap().to_string(), says);
    }
    // Softirqs on top of it are not its own, and have no policy.
    for s in &mut samples {
        s.flags = flag::REGS | flag::IN_SOFTIRQ | 3 << flag::VECTOR_SHIFT;
    }
    let stall = told(&kept(1, 49), &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(
        (culprit.vector, &culprit.sched),
        (Some(Vector::NetRx), &None)
    );
}

#[test]
fn who_ran_while_ksoftirqd_waited() {
    let waiting = event(kind::KSOFTIRQD, 100 * MS, 120 * MS);
    let samples: Vec<_> = (0..6)
        .map(|n| match n {
            0..4 => sample(n + 1, (98 + n * 4) * MS, 60, "spinner", READ),
            _ => sample(n + 1, (98 + n * 4) * MS, 61, "other", READ),
        })
        .collect();
    let stall = told(&waiting, &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(&*culprit.comm, "spinner");
    assert_eq!(culprit.samples, (3, 5));
    let weights: u64 = stall.timeline.iter().map(|s| s.weight_ns).sum();
    assert_eq!(weights, stall.delay_ns);
}

#[test]
fn user_space_has_no_kernel_function() {
    let pending = event(kind::PENDING, 100 * MS, 109 * MS);
    let mut samples = [
        sample(1, 102 * MS, 42, "burner", ""),
        sample(2, 106 * MS, 42, "burner", ""),
    ];
    for s in &mut samples {
        s.flags |= flag::USER;
        s.frames = NONE;
    }
    let stall = told(&pending, &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(culprit.function.reason(), Some(&Reason::UserSpace));
    assert!(stall.timeline.iter().all(|seen| seen.user));
}

#[test]
fn without_a_sample_nobody_is_blamed() {
    let pending = event(kind::PENDING, 100 * MS, 109 * MS);
    let stall = told(&pending, &[]).stall;
    assert_eq!(
        stall.culprit.reason().unwrap().to_string(),
        "this window was not sampled"
    );
    let drained = event(kind::DRAINED, 109 * MS, 111 * MS);
    let evidence = Evidence {
        event: &drained,
        samples: &[],
        drained: None,
    };
    assert_eq!(attribute(evidence, &mut symbols(), &CONTEXT), None);
}

#[test]
fn samples_beside_a_short_window_speak_for_it_where_they_can() {
    let pending = event(kind::PENDING, 101 * MS, 103 * MS);
    let mut samples = [
        sample(1, 100 * MS, 42, "cadvisor", READ),
        sample(2, 104 * MS, 42, "cadvisor", READ),
    ];
    for s in &mut samples {
        s.on_cpu_ns = 90 * MS;
    }
    let stall = told(&pending, &samples).stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, culprit.samples), (42, (0, 0)));
    assert_eq!(&**culprit.function.value().unwrap(), "memory_stat_show");
    // What came after it began after it, as far as anybody knows.
    samples[0] = sample(1, 60 * MS, 0, "swapper/3", "");
    samples[1] = sample(2, 104 * MS, 42, "cadvisor", PACKETS);
    samples[1].flags |= flag::IN_SOFTIRQ | 3 << flag::VECTOR_SHIFT;
    assert!(told(&pending, &samples).stall.culprit.value().is_none());
}

#[test]
fn who_drained_the_backlog_and_for_how_long() {
    let pending = event(kind::PENDING, 100 * MS, 109 * MS);
    let mut handler = event(kind::DRAINED, 109 * MS, 119 * MS);
    handler.pid_tgid = 13;
    handler.comm = words("ksoftirqd/3");
    let evidence = Evidence {
        event: &pending,
        samples: &[],
        drained: Some(&handler),
    };
    let stall = attribute(evidence, &mut symbols(), &CONTEXT).unwrap().stall;
    let drained = stall.drained.unwrap();
    assert_eq!(
        (&*drained.comm, drained.time_ns),
        ("ksoftirqd/3", Reading::Value(10 * MS))
    );
    // It has not ended yet: who entered it is known.
    let drained = told(&pending, &[]).stall.drained.unwrap();
    assert_eq!(&*drained.comm, "at the end");
    assert!(drained.time_ns.value().is_none());
}

#[test]
fn lost_samples_are_counted() {
    let pending = event(kind::PENDING, 100 * MS, 110 * MS);
    let samples = |seqs: [u64; 4]| {
        let times = [98 * MS, 102 * MS, 106 * MS, 114 * MS];
        let pairs = seqs.into_iter().zip(times);
        pairs
            .map(|(seq, at)| sample(seq, at, 42, "x", READ))
            .collect::<Vec<_>>()
    };
    let lost = |seqs| told(&pending, &samples(seqs)).stall.lost;
    assert_eq!(lost([1, 2, 3, 4]), 0);
    assert_eq!(lost([1, 2, 5, 6]), 2);
    // One that is being written.
    assert_eq!(lost([10, 0, 12, 13]), 1);
    // The ring no longer has the start: at 250 Hz two are missing before the one at 114 ms.
    let late = [sample(900, 109 * MS, 42, "x", READ)];
    assert_eq!(told(&pending, &late).stall.lost, 2);
    // The first one since the programs were attached lacks nothing.
    let first = [sample(1, 109 * MS, 42, "x", READ)];
    assert_eq!(told(&pending, &first).stall.lost, 0);
}

#[test]
fn our_own_stalls_are_marked() {
    let pending = event(kind::PENDING, 100 * MS, 109 * MS);
    let mut samples = [sample(1, 104 * MS, 1, "stalltop", READ)];
    assert!(told(&pending, &samples).stall.ours);
    samples[0].pid_tgid = 1;
    assert!(!told(&pending, &samples).stall.ours);
}

#[test]
fn a_long_timeline_is_thinned_out_and_keeps_its_weight() {
    let pending = event(kind::PENDING, 1_000 * MS, 4_000 * MS);
    let samples: Vec<_> = (0..3_200)
        .map(|n: u64| {
            let mut s = sample(n + 1, (900 + n) * MS, 42, "x", READ);
            s.flags |= flag::SAMPLER;
            // Many distinct stacks.
            s.stack[0] = TEXT + n % 100 * 16;
            s.stack[s.frames as usize] = TEXT + n % FUNCTIONS.len() as u64 * 4096 + 16;
            s.stack[1] = TEXT + (n / 16) % FUNCTIONS.len() as u64 * 4096 + 16;
            s.frames += 1;
            s
        })
        .collect();
    let stall = told(&pending, &samples).stall;
    assert!(
        stall.timeline.len() <= MAX_TIMELINE,
        "{}",
        stall.timeline.len()
    );
    assert_eq!(stall.stacks.len(), MAX_STACKS);
    let weights: u64 = stall.timeline.iter().map(|s| s.weight_ns).sum();
    assert_eq!(weights, stall.delay_ns);
    let stacks = stall.timeline.iter().filter_map(|seen| seen.stack);
    assert!(stacks.clone().count() > 0);
    assert!(stacks.into_iter().all(|at| (at as usize) < MAX_STACKS));
}

#[test]
fn hidden_symbols_leave_addresses_and_a_reason() {
    let mut symbols = Symbols::new(&crate::Env::at("/nonexistent"));
    let pending = event(kind::PENDING, 100 * MS, 109 * MS);
    let samples = [sample(1, 104 * MS, 42, "x", READ)];
    let evidence = Evidence {
        event: &pending,
        samples: &samples,
        drained: None,
    };
    let stall = attribute(evidence, &mut symbols, &CONTEXT).unwrap().stall;
    let culprit = stall.culprit.value().unwrap();
    assert_eq!(culprit.function.reason(), Some(&Reason::Starting));
    assert_eq!(
        &*stall.stacks[0][0],
        format!("0x{:016x}", at("cgroup_rstat_flush"))
    );
}
