use super::*;

#[test]
fn paused_held_or_either_in_this_order() {
    let pause = |change: &dyn Fn(&mut [StackSample; 3])| {
        let (event, mut samples) = irqs_off();
        change(&mut samples);
        told(&event, &samples).stall.pause
    };
    let user = |samples: &mut [StackSample; 3]| {
        samples[1].flags |= flag::USER;
        samples[1].frames = 0;
    };
    let plain = |samples: &mut [StackSample; 3]| {
        let other = sample(2, 109 * MS, 42, "cat", READ);
        samples[1] = other;
    };
    assert_eq!(pause(&|_| {}), Pause::Held);
    // (1) The steal clock shows it one sample later, before anything else is looked at.
    assert_eq!(pause(&|s| s[2].steal_ns = 4 * MS), Pause::Paused);
    assert_eq!(pause(&|s| s[2].steal_ns = 3 * MS), Pause::Held);
    // A steal of before does not count.
    assert_eq!(
        pause(&|s| s.iter_mut().for_each(|s| s.steal_ns = 90 * MS)),
        Pause::Held
    );
    assert_eq!(
        pause(&|s| s.iter_mut().for_each(|s| s.steal_ns = NONE)),
        Pause::Held
    );
    // (2) User space is never without interrupts.
    assert_eq!(pause(&user), Pause::Paused);
    // (3) By the function, or by the instruction.
    assert_eq!(pause(&plain), Pause::Either);
    if cfg!(target_arch = "x86_64") {
        let sti = |s: &mut [StackSample; 3]| {
            plain(s);
            s[1].code = u64::from_ne_bytes([0x48, 0x89, 0xe5, 0x90, 0x90, 0x0f, 0x1f, 0xfb]);
        };
        assert_eq!(pause(&sti), Pause::Held);
    }
    // (4) Idle code always lets them in.
    assert_eq!(
        pause(&|s| s[1] = sample(2, 109 * MS, 0, "swapper/3", LATE)),
        Pause::Either
    );
    // A non-maskable sample saw the kernel run.
    assert_eq!(
        pause(&|s| {
            s[0] = sample(1, 106 * MS, 42, "cat", READ);
            s[0].flags |= flag::NMI;
            plain(s);
        }),
        Pause::Held
    );
}

#[test]
fn a_pause_inside_another_stall_is_seen_too() {
    let resched = StallEvent {
        pid_tgid: 42 << 32 | 42,
        ..event(kind::RESCHED, 100 * MS, 130 * MS)
    };
    let mut samples = [
        sample(1, 99 * MS, 42, "cat", READ),
        sample(2, 129 * MS, 42, "cat", READ),
        sample(3, 133 * MS, 42, "cat", READ),
    ];
    assert_eq!(told(&resched, &samples).stall.pause, Pause::Either);
    samples[1].flags |= flag::USER;
    assert_eq!(told(&resched, &samples).stall.pause, Pause::Paused);
    // Samples that were lost are no pause.
    samples[1].seq = 7;
    samples[2].seq = 8;
    assert_eq!(told(&resched, &samples).stall.pause, Pause::Held);
}
