use super::*;
use crate::sample::{LockOwner, LockWaits};
use crate::{Reading, Reason};

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

fn waits(count: u64, wait_ms: u64, longest_ms: u64) -> Waits {
    Waits {
        count,
        wait_ns: wait_ms * MS,
        longest_ns: longest_ms * MS,
    }
}

fn stack(lock: u64, tgid: u32, frames: &[&str], count: u64, wait_ms: u64) -> LockStack {
    LockStack {
        kind: LockKind::Mutex,
        lock,
        name: Reading::Value("epmutex".into()),
        frames: frames.iter().map(|f| Name::from(*f)).collect(),
        programs: Vec::new(),
        tgid,
        comm: format!("task{tgid}").into(),
        waits: waits(count, wait_ms, 1),
        long: Waits::default(),
        sampled: count,
        owners: vec![LockOwner {
            pid: 9,
            comm: "owner".into(),
            count,
            frames: Vec::new(),
        }],
    }
}

/// A window of a second that ends at second `at`.
fn window(number: u64, at: u64, wait_ms: u64) -> Locks {
    Locks {
        window: number,
        at_ns: at * S,
        span_ns: S,
        measured_ns: S,
        kinds: vec![LockWaits {
            kind: LockKind::Mutex,
            waits: waits(10, wait_ms, 5),
            hist: vec![0, 10],
        }],
        locks: vec![Lock {
            kind: LockKind::Mutex,
            address: 0x10,
            name: Reading::Value("epmutex".into()),
            waits: waits(10, wait_ms, 5),
        }],
        cpus: vec![(0, waits(7, wait_ms, 5)), (1, waits(3, 0, 1))],
        stacks: vec![
            stack(0x10, 1, &["a", "b", "c"], 4, wait_ms / 2),
            stack(0x10, 2, &["a", "b", "d"], 6, wait_ms - wait_ms / 2),
        ],
        ..Locks::default()
    }
}

fn sample(locks: Locks) -> Sample {
    Sample {
        at_ns: locks.at_ns + 300 * MS,
        wall_ns: 1_700_000_000 * S + locks.at_ns + 300 * MS,
        locks: Reading::Value(Arc::new(locks)),
        ..Sample::default()
    }
}

fn with(windows: impl IntoIterator<Item = Locks>) -> LocksModel {
    let mut model = LocksModel::default();
    for window in windows {
        model.advance(&sample(window));
    }
    model
}

#[test]
fn each_window_is_taken_once() {
    let mut model = LocksModel::default();
    for (number, at) in [(1, 10), (1, 10), (2, 11), (2, 11), (2, 11)] {
        model.advance(&sample(window(number, at, 100)));
    }
    assert_eq!(model.windows().len(), 2);
    assert_eq!(model.over(0, u64::MAX).total, waits(20, 200, 5));
    let newest = model.newest().unwrap();
    assert_eq!(newest.locks.window, 2);
    // The time of day of its end, not of the sample that brought it.
    assert_eq!(newest.wall_ns, 1_700_000_011 * S);
}

#[test]
fn what_is_not_measured_brings_no_window() {
    let mut model = with([window(1, 10, 100)]);
    model.advance(&Sample {
        at_ns: 20 * S,
        locks: Reading::Off(Reason::NotAsked),
        ..Sample::default()
    });
    model.advance(&sample(Locks::default()));
    assert_eq!(model.windows().len(), 1);
    let unmeasured = with([Locks {
        measured_ns: 0,
        ..window(1, 10, 0)
    }]);
    let over = unmeasured.over(0, u64::MAX);
    assert_eq!(over.wait_per_s(&over.total), None);
    assert_eq!(over.per_s(&over.total), None);
    assert_eq!(unmeasured.rate(0, u64::MAX), None);
    assert_eq!(unmeasured.history().next().unwrap().wait_per_s(), None);
}

#[test]
fn an_earlier_point_of_a_recording_begins_anew() {
    let model = with([window(5, 10, 100), window(6, 11, 100), window(3, 8, 700)]);
    assert_eq!(model.windows().len(), 1);
    assert_eq!(model.history().len(), 1);
    // Another start of stalltop whose windows happen to go on in number.
    let model = with([window(5, 10, 100), window(6, 4, 700)]);
    assert_eq!(model.newest().unwrap().locks.at_ns, 4 * S);
    assert_eq!(model.windows().len(), 1);
}

#[test]
fn a_stretch_is_the_sum_of_its_windows() {
    let model = with((1..=20).map(|n| window(n, 100 + n, n * 10)));
    let ends = |from, to| -> Vec<u64> {
        let of = model.between(from, to);
        of.map(|w| w.locks.window).collect()
    };
    assert_eq!(ends(102 * S, 104 * S), [3, 4]);
    // By their middles: stretches that follow each other share none and leave none out.
    assert_eq!(ends(102 * S + 400 * MS, 104 * S + 400 * MS), [3, 4]);
    assert_eq!(ends(102 * S + 600 * MS, 104 * S + 600 * MS), [4, 5]);
    // Shorter than a window: the one around it.
    assert_eq!(ends(102 * S + 600 * MS, 102 * S + 700 * MS), [3]);
    assert_eq!(ends(90 * S, 91 * S), [] as [u64; 0]);
    assert_eq!(ends(200 * S, 300 * S), [] as [u64; 0]);
    assert_eq!(ends(104 * S, 102 * S), [] as [u64; 0]);
    let (from, to) = model.stretch(u64::MAX);
    assert_eq!((from, to), (110 * S, 120 * S));
    let over = model.over(from, to);
    assert_eq!(over.windows, 10);
    assert_eq!((over.from_ns, over.to_ns), (110 * S, 120 * S));
    assert_eq!(over.total.count, 100);
    let rate = over.wait_per_s(&over.total).unwrap();
    assert!((rate - 0.155).abs() < 1e-9, "{rate}");
    assert_eq!(over.per_s(&over.total), Some(10.0));
}

#[test]
fn stacks_locks_cpus_and_waiters_add_up() {
    let model = with([window(1, 10, 100), window(2, 11, 300)]);
    let over = model.over(0, u64::MAX);
    assert_eq!(over.kinds[0].hist, [0, 20]);
    assert_eq!(over.locks.len(), 1);
    assert_eq!(over.locks[0].waits, waits(20, 400, 5));
    assert_eq!(over.cpus, [(0, waits(14, 400, 5)), (1, waits(6, 0, 1))]);
    assert_eq!(over.stacks.len(), 2);
    // The more waits first where the time is equal.
    assert_eq!(over.stacks[0].stack.tgid, 2);
    assert_eq!(over.stacks[0].waits, waits(12, 200, 1));
    assert_eq!(over.stacks[0].owners[0].1, 12);
    assert_eq!(over.stacks[1].sampled, 8);
    assert_eq!(over.waiters[1].waits, waits(8, 200, 1));
    assert_eq!(over.waiters[1].stacks, [1]);
    assert_eq!(over.stacks_of(&over.locks[0]).count(), 2);
}

#[test]
fn without_addresses_locks_are_one_by_kind_and_name() {
    let hidden = |number: u64, name: Reading<Name>| {
        let mut window = window(number, number + 10, 100);
        window.locks[0].address = 0;
        window.locks[0].name = name;
        window
    };
    let none = || Reading::Off(Reason::NotAsked);
    let model = with([
        hidden(1, none()),
        hidden(2, none()),
        hidden(3, Reading::Value("a".into())),
    ]);
    let over = model.over(0, u64::MAX);
    assert_eq!(over.locks.len(), 2);
    assert_eq!(over.locks[0].waits.count, 20);
}

#[test]
fn samples_add_up_and_are_never_waits() {
    let share = |samples, in_lock, suspected| LockShare {
        source: "1 kHz cpu-clock".into(),
        samples,
        kernel: samples,
        in_lock,
        suspected,
        stacks: vec![ShareStack {
            function: "native_queued_spin_lock_slowpath".into(),
            suspected: false,
            frames: vec!["native_queued_spin_lock_slowpath".into()],
            programs: Vec::new(),
            tgid: 7,
            comm: "x".into(),
            samples: in_lock,
        }],
        cpus: vec![(3, samples, in_lock, suspected)],
        ..LockShare::default()
    };
    let with_share = |number: u64, share: Reading<LockShare>| Locks {
        window: number,
        at_ns: (10 + number) * S,
        span_ns: S,
        share,
        ..Locks::default()
    };
    let model = with([
        with_share(1, Reading::Value(share(100, 40, 10))),
        with_share(2, Reading::Off(Reason::NotAsked)),
        with_share(3, Reading::Value(share(100, 20, 0))),
    ]);
    let over = model.over(0, u64::MAX);
    assert_eq!(over.total, Waits::default());
    let sum = over.share.value().unwrap();
    assert_eq!((sum.samples, sum.in_lock, sum.suspected), (200, 60, 10));
    assert_eq!(sum.stacks.len(), 1);
    assert_eq!(sum.stacks[0].samples, 60);
    assert_eq!(sum.cpus, [(3, 200, 60, 10)]);
    let point = model.history().next().unwrap();
    assert_eq!(point.share.unwrap().suspected, 10);
    let none = with([with_share(1, Reading::Off(Reason::NotAsked))]);
    let over = none.over(0, u64::MAX);
    assert_eq!(over.share.reason(), Some(&Reason::NotAsked));
}

#[test]
fn the_rate_is_of_whole_windows_with_its_noise() {
    let model =
        with((1..=10).map(|n| window(n, 100 + n, if n > 5 { 0 } else { 100 * (n % 2 + 1) })));
    // A change at 105.5 s: the window from 105 to 106 is neither before nor after.
    let before = model.rate(0, 105 * S + 500 * MS).unwrap();
    assert_eq!((before.windows, before.waits.wait_ns), (5, 800 * MS));
    assert!((before.wait_per_s - 0.16).abs() < 1e-9);
    assert!(
        (before.deviation - 0.0548).abs() < 1e-4,
        "{}",
        before.deviation
    );
    let after = model.rate(105 * S + 500 * MS, u64::MAX).unwrap();
    assert_eq!((after.windows, after.waits.wait_ns), (4, 0));
    assert_eq!((after.wait_per_s, after.deviation), (0.0, 0.0));
    assert_eq!(after.per_s, 10.0);
    assert_eq!(model.rate(105 * S + 100 * MS, 105 * S + 900 * MS), None);
}

#[test]
fn memory_is_bounded() {
    let big = |number: u64| {
        let mut window = window(number, number, 1);
        window.stacks = (0..2_000)
            .map(|i| stack(i, i as u32, &["f"; 60], 1, 1))
            .collect();
        window
    };
    let model = with((1..=100).map(big));
    assert!(model.bytes() <= BYTES, "{}", model.bytes());
    assert!(model.windows().len() < 20);
    assert_eq!(model.history().len(), 100);
    let model = with((1..=2_000).map(|n| window(n, n, 1)));
    assert_eq!(model.windows().len(), KEPT);
    assert_eq!(model.history().len(), POINTS);
    assert_eq!(
        model.bytes(),
        model.windows().map(|w| w.bytes).sum::<usize>()
    );
    // One window may be larger than everything: it is shown nevertheless.
    let mut huge = big(1);
    huge.stacks = (0..20_000).map(|i| stack(i, 1, &["f"; 60], 1, 1)).collect();
    assert_eq!(with([huge]).windows().len(), 1);
}

#[test]
fn absurd_figures_do_not_overflow() {
    let absurd = |number: u64| {
        let most = Waits {
            count: u64::MAX,
            wait_ns: u64::MAX,
            longest_ns: u64::MAX,
        };
        let mut window = window(number, number, 1);
        window.at_ns = u64::MAX - 10 + number;
        window.span_ns = u64::MAX;
        window.measured_ns = u64::MAX;
        window.kinds[0].waits = most;
        window.kinds[0].hist = vec![u64::MAX; 70];
        window.stacks[0].waits = most;
        window.stacks[0].owners[0].count = u64::MAX;
        window.share = Reading::Value(LockShare {
            samples: u64::MAX,
            in_lock: u64::MAX,
            cpus: vec![(0, u64::MAX, u64::MAX, u64::MAX)],
            ..LockShare::default()
        });
        window
    };
    let mut model = LocksModel::default();
    for number in 1..4 {
        model.advance(&Sample {
            locks: Reading::Value(Arc::new(absurd(number))),
            ..Sample::default()
        });
    }
    let over = model.over(0, u64::MAX);
    assert_eq!(over.total.count, u64::MAX);
    assert!(model.rate(0, u64::MAX).is_some());
}

#[test]
fn a_lock_is_one_by_its_address_whatever_it_was_called() {
    let mut other = window(2, 2, 30);
    other.locks[0].name = Reading::Value("of alloc_fd".into());
    let mut nameless = window(3, 3, 20);
    nameless.locks[0].name = Reading::Off(Reason::NotAsked);
    let model = with([window(1, 1, 10), other, nameless]);
    let over = model.over(0, u64::MAX);
    let [lock] = &over.locks[..] else {
        panic!("{:?}", over.locks);
    };
    assert_eq!(lock.waits, waits(30, 60, 5));
    assert_eq!(lock.name.value().map(|n| &**n), Some("of alloc_fd"));
}
