use proptest::prelude::*;

use super::*;

fn any_sample() -> impl Strategy<Value = StackSample> {
    let near = 90 * MS..130 * MS;
    let time = prop_oneof![8 => near, 1 => Just(0), 1 => any::<u64>()];
    let address = prop_oneof![TEXT..TEXT + 20 * 4096, any::<u64>()];
    (
        (
            0u64..40,
            time.clone(),
            0u64..4,
            time.clone(),
            any::<[u64; 2]>(),
        ),
        (any::<u64>(), any::<u64>(), any::<u64>()),
        prop_oneof![0u64..60, Just(NONE), any::<u64>()],
        proptest::collection::vec(address, 0..FRAMES_IN_TEST),
    )
        .prop_map(
            |((seq, at_ns, pid, on_cpu_ns, comm), (steal_ns, code, flags), frames, stack)| {
                let mut sample = StackSample {
                    seq,
                    at_ns,
                    pid_tgid: pid,
                    comm,
                    on_cpu_ns,
                    steal_ns,
                    code,
                    flags,
                    frames,
                    ip: stack.first().copied().unwrap_or(0),
                    ..StackSample::ZERO
                };
                sample.stack[..stack.len()].copy_from_slice(&stack);
                sample
            },
        )
}

const FRAMES_IN_TEST: usize = 20;

proptest! {
    #[test]
    fn nothing_the_kernel_writes_panics(
        samples in proptest::collection::vec(any_sample(), 0..40),
        kind in 0u64..9,
        vector in prop_oneof![0u64..12, Just(NONE)],
        start in prop_oneof![8 => 95 * MS..125 * MS, 1 => any::<u64>()],
        earliest in prop_oneof![8 => 95 * MS..125 * MS, 1 => any::<u64>()],
        end in prop_oneof![8 => 95 * MS..125 * MS, 1 => any::<u64>()],
        pid in 0u64..4,
    ) {
        let event = StallEvent {
            vector,
            pid_tgid: pid,
            earliest_ns: earliest,
            ..super::event(kind, start, end)
        };
        let evidence = Evidence { event: &event, samples: &samples, drained: Some(&event) };
        let Some(told) = attribute(evidence, &mut symbols(), &CONTEXT) else {
            prop_assert_eq!(kind_of(&event), None);
            return Ok(());
        };
        let stall = told.stall;
        prop_assert!(stall.least_ns <= stall.delay_ns && stall.delay_ns <= stall.most_ns);
        let weights: u64 = stall.timeline.iter().map(|s| s.weight_ns).sum();
        prop_assert!(weights <= stall.delay_ns);
        for seen in &stall.timeline {
            prop_assert!(seen.stack.is_none_or(|at| (at as usize) < stall.stacks.len()));
        }
        if let Reading::Value(culprit) = &stall.culprit {
            prop_assert!((0.0..=1.0).contains(&culprit.share));
            prop_assert!(culprit.samples.0 <= culprit.samples.1);
        }
    }
}
