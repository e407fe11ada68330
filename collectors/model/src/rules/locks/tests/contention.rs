//! The finding `lock-contention`.

use super::*;

#[test]
fn a_wait_that_does_not_end_is_told() {
    let mut made = Made::new();
    let lasting = |made: &Made, seconds: u64| Lasting {
        kind: LockKind::RwsemWrite,
        address: 0xffff_8880_0000_1000,
        name: Reading::Value("of vm_mmap_pgoff".into()),
        threads: 3,
        since_ns: (made.second - seconds) * made::S,
        pid: 4_711,
        tgid: 4_700,
        comm: "proxy".into(),
        frames: made::names(&["rwsem_down_write_slowpath", "down_write", "vm_mmap_pgoff"]),
        owner: Some(LockOwner {
            pid: 4_712,
            comm: "pager".into(),
            count: 1,
            frames: made::names(&["handle_userfault"]),
        }),
    };
    made.now.lasting = vec![lasting(&made, 0)];
    made.ticks(4);
    assert!(found(&made, "lock-contention").is_none());
    made.ticks(6);
    let finding = found(&made, "lock-contention").unwrap();
    assert_eq!(
        finding.sentence,
        "proxy[4711] has waited 10.0 s for rwsem:W of vm_mmap_pgoff, and 2 more threads wait for it"
    );
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.evidence.contains(
            &"held by pager[4712] when that wait began, which is now in handle_userfault"
                .to_owned()
        ),
        "{finding:?}"
    );
    made.now.lasting.clear();
    made.tick();
    assert!(found(&made, "lock-contention").is_none());
}

#[test]
fn contention_without_probes_is_told_with_who_waits_where() {
    let mut made = Made::new();
    let mut waits = made::stack(LockKind::Spin, 2_100, EPOLL);
    waits.name = Reading::Value("of ep_send_events".into());
    let mut other = made::stack(LockKind::Spin, 100, EPOLL);
    (other.comm, other.tgid) = ("worker".into(), 5_000);
    made.now.stacks = Some(vec![waits, other]);
    made.ticks(12);
    assert_eq!(ids(&made), ["lock-contention"]);
    let finding = found(&made, "lock-contention").unwrap();
    assert_eq!(
        finding.sentence,
        "lock contention: 2.2 s/s of spinning, 100 % for spinlock of ep_send_events in \
         ep_send_events by proxy and 1 more, 4 CPUs"
    );
    assert_eq!(
        (finding.severity, finding.incident, finding.action),
        (Severity::Critical, "", "")
    );
    // Sleeping holds up tasks, not CPUs: it takes more to be told.
    let mutex = &["schedule", "__mutex_lock", "pipe_write", "vfs_write"];
    made.now.stacks = Some(vec![made::stack(LockKind::Mutex, 1_500, mutex)]);
    made.ticks(12);
    assert_eq!(ids(&made), [] as [&str; 0]);
    made.now.stacks = Some(vec![made::stack(LockKind::Mutex, 2_500, mutex)]);
    made.ticks(12);
    let finding = found(&made, "lock-contention").unwrap();
    assert_eq!(
        finding.sentence,
        "lock contention: 2.5 s/s of waiting, 100 % for a mutex in pipe_write by proxy, 4 CPUs"
    );
}

#[test]
fn without_tracepoints_contention_is_told_by_samples() {
    let mut made = Made::new();
    made.now.stacks = None;
    made.now.share = Some(share(vec![sampled(EPOLL, false, 96)]));
    made.ticks(6);
    let finding = found(&made, "lock-contention").unwrap();
    assert_eq!(
        finding.sentence,
        "lock contention: 12 % of busy CPUs' time in lock slow paths, by samples; 100 % in \
         ep_send_events by proxy, 4 CPUs"
    );
    assert_eq!(finding.confidence, Confidence::Medium);
    let reopened = &["_raw_spin_unlock_irqrestore", "ep_poll_callback"];
    made.now.share = Some(share(vec![
        sampled(reopened, true, 240),
        sampled(&["_raw_spin_unlock_irq", "virtqueue_kick"], true, 40),
    ]));
    made.ticks(12);
    let finding = found(&made, "lock-contention").unwrap();
    assert_eq!(
        finding.sentence,
        "interrupts off, lock suspected: 30 % of busy CPUs' time, by samples in ep_poll_callback \
         by proxy, 4 CPUs"
    );
    assert_eq!(finding.confidence, Confidence::Low);
    // Where the tracepoints see, they are asked.
    made.now.stacks = Some(Vec::new());
    made.ticks(12);
    assert_eq!(ids(&made), [] as [&str; 0]);
}
