//! Samples of non-maskable interrupts. No machine at hand has a counter that makes them: what is
//! decided from them is looked at with made-up ones.

use stalltop_model::sample::Sampling;

use super::*;

const PRINT: &str = "entry_SYSCALL_64_after_hwframe do_syscall_64 ksys_read vfs_read \
                     seq_read_iter pagetypeinfo_show";

/// Interrupts off from 100 to 110 ms, seen each millisecond by non-maskable samples of `cat`, and
/// by the tick as they are on again.
fn seen_inside() -> (StallEvent, Vec<StackSample>) {
    let off = StallEvent {
        start_ns: 104 * MS,
        earliest_ns: 100 * MS,
        pid_tgid: 42 << 32 | 42,
        ..event(kind::IRQS_OFF, 100 * MS, 110 * MS)
    };
    let mut samples: Vec<StackSample> = (96..110)
        .map(|ms| {
            let mut sample = sample(ms - 95, ms * MS + MS / 2, 42, "cat", PRINT);
            sample.flags |= flag::NMI | flag::SAMPLER;
            sample
        })
        .collect();
    samples.push(sample(
        15,
        110 * MS,
        42,
        "cat",
        &format!("{PRINT} _raw_spin_unlock_irq"),
    ));
    for sample in &mut samples {
        sample.on_cpu_ns = 50 * MS;
    }
    (off, samples)
}

#[test]
fn what_runs_while_interrupts_are_off_is_seen_from_inside() {
    let (off, samples) = seen_inside();
    let told = told(&off, &samples);
    let stall = &told.stall;
    assert_eq!((stall.pause, stall.sampling), (Pause::Held, Sampling::Nmi));
    // That such an interrupt came says nothing about others: the start is as uncertain as it was.
    assert_eq!((stall.least_ns, stall.most_ns), (6 * MS, 10 * MS));
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((&*culprit.comm, culprit.pid), ("cat", 42));
    let function = culprit.function.value().map(|f| &**f);
    assert_eq!(function, Some("pagetypeinfo_show"));
    assert!(culprit.samples.0 >= 8 && culprit.samples.0 == culprit.samples.1);
    // A lock that is let go at the end is not where most of the time went.
    assert!(culprit.lock.is_none() && !culprit.lock_suspected && !told.waits);
    assert!(culprit.share > 0.95, "{}", culprit.share);
    assert_eq!(stall.lost, 0);
}

#[test]
fn samples_from_inside_show_a_wait_for_a_lock_that_interrupts_off_would_hide() {
    let (off, mut samples) = seen_inside();
    for sample in &mut samples[4..14] {
        sample.stack.rotate_right(1);
        sample.stack[0] = at("native_queued_spin_lock_slowpath");
        sample.frames += 1;
    }
    let told = told(&off, &samples);
    let culprit = told.stall.culprit.value().unwrap();
    assert_eq!(
        culprit.lock.as_deref(),
        Some("native_queued_spin_lock_slowpath")
    );
    assert!(told.waits && !culprit.lock_suspected);
}

#[test]
fn a_few_samples_from_inside_go_before_the_late_one() {
    let (off, samples) = seen_inside();
    // All but one were lost: still the one from inside tells, not the late one.
    let few = [samples[3], samples[12], samples[14]];
    let stall = told(&off, &few).stall;
    assert_eq!((stall.pause, stall.sampling), (Pause::Held, Sampling::Nmi));
    let culprit = stall.culprit.value().unwrap();
    assert!(!culprit.lock_suspected);
    assert!(stall.lost >= 8, "{}", stall.lost);
    // Before the window alone they see nothing of it.
    let stall = told(&off, &[samples[3], samples[14]]).stall;
    assert_eq!(stall.sampling, Sampling::Tick);
    assert!(stall.culprit.value().unwrap().lock_suspected);
}

#[test]
fn samples_inside_a_handler_are_the_vectors_whoever_was_interrupted() {
    let handler = StallEvent {
        vector: 3,
        ..event(kind::HANDLER, 100 * MS, 110 * MS)
    };
    let samples: Vec<StackSample> = (100..110)
        .map(|ms| {
            let stack = "handle_softirqs net_rx_action nft_do_chain";
            let mut sample = sample(ms - 99, ms * MS + MS / 2, 42, "cat", stack);
            sample.flags |= flag::NMI | flag::SAMPLER | flag::IN_SOFTIRQ;
            sample.flags |= 3 << flag::VECTOR_SHIFT;
            sample
        })
        .collect();
    let stall = told(&handler, &samples).stall;
    assert_eq!(stall.sampling, Sampling::Nmi);
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((&*culprit.comm, culprit.pid), ("NET_RX", 0));
    assert_eq!(culprit.samples, (10, 10));
    assert_eq!(culprit.function.value().map(|f| &**f), Some("nft_do_chain"));
}
