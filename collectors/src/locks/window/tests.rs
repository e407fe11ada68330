use proptest::prelude::*;

use super::*;
use crate::stalls::kallsyms::Table;

const TEXT: &str = "\
ffffffff81000000 t bpf_trace_run2
ffffffff81001000 t __traceiter_contention_begin
ffffffff81002000 t native_queued_spin_lock_slowpath
ffffffff81003000 t _raw_spin_lock
ffffffff81004000 t alloc_fd
ffffffff81005000 t file_close_fd
ffffffff81006000 t __mutex_lock.constprop.0
ffffffff81007000 t pipe_write
ffffffff81008000 t \x1b[2Jevil
";
const LOCK: u64 = 0xffff_8880_1234_5678;
const LONG: u64 = 20_000;

fn at(function: u64) -> u64 {
    0xffff_ffff_8100_0010 + function * 0x1000
}

fn wait(kind: u64, functions: &[u64], ns: u64, pid: u64, owner: u64) -> LockWait {
    let mut wait = LockWait {
        seq: 1,
        lock: LOCK,
        begin_ns: 1_000,
        end_ns: 1_000 + ns,
        what: kind | if ns < LONG { what::SAMPLED } else { 0 },
        frames: functions.len() as u64,
        owner,
        pid_tgid: pid << 32 | pid,
        comm: [u64::from_ne_bytes(*b"worker\0\0"), 0],
        ..LockWait::ZERO
    };
    for (frame, function) in wait.stack.iter_mut().zip(functions) {
        *frame = at(*function);
    }
    wait
}

struct Counted {
    counts: LockCounts,
    stacks: Vec<LockWait>,
}

fn counted(kind: u64, count: u64, wait_ns: u64, stacks: Vec<LockWait>) -> Counted {
    let mut counts = LockCounts::default();
    let waits = probes::Waits {
        count,
        wait_ns,
        longest_ns: wait_ns,
    };
    counts.kinds[kind as usize].waits = waits;
    counts.kinds[kind as usize].hist[10] = count;
    counts.locks.push(probes::LockWaits {
        lock: LOCK,
        kind,
        waits,
    });
    counts.cpus = vec![probes::Waits::default(), waits];
    Counted { counts, stacks }
}

fn filled(counted: &Counted) -> Locks {
    filled_with(counted, LONG)
}

fn filled_with(counted: &Counted, long_ns: u64) -> Locks {
    let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
    let mut out = Locks::default();
    let mut unnamed = |_| Reading::Off(Reason::NotAsked);
    let mut naming = Naming::default();
    naming.add(&counted.stacks, long_ns, u64::MAX, &mut symbols);
    let counts = &counted.counts;
    naming.finish(counts, long_ns, &mut symbols, &mut unnamed, &mut out);
    out
}

fn names(stack: &LockStack) -> Vec<&str> {
    stack.frames.iter().map(|f| &**f).collect()
}

#[test]
fn short_waits_are_shared_out_by_their_samples() {
    let alloc = [0, 1, 2, 3, 4];
    let close = [0, 1, 2, 3, 5];
    let mut stacks = vec![wait(kind::SPIN, &alloc, 900, 7, 0); 3];
    stacks.push(wait(kind::SPIN, &close, 100, 7, 0));
    stacks.push(wait(kind::SPIN, &close, 50_000, 7, 0));
    // 401 waits of 90 us: one of 50, so that 400 of 40 us are left.
    let out = filled(&counted(kind::SPIN, 401, 90_000, stacks));
    let [first, second] = &out.stacks[..] else {
        panic!("{out:?}");
    };
    let expected = [
        "native_queued_spin_lock_slowpath",
        "_raw_spin_lock",
        "file_close_fd",
    ];
    assert_eq!(names(first), expected);
    assert_eq!((first.waits.count, first.waits.wait_ns), (101, 60_000));
    assert_eq!(
        (first.long.count, first.long.wait_ns, first.sampled),
        (1, 50_000, 1)
    );
    assert_eq!((second.waits.count, second.waits.wait_ns), (300, 30_000));
    assert_eq!(second.waits.longest_ns, 900);
    assert_eq!((&*first.comm, first.tgid, first.lock), ("worker", 7, LOCK));
    assert_eq!(out.unseen, Waits::default());
    // The lock is called by the one whose wait was longest.
    assert_eq!(out.locks[0].name, Reading::Value("of file_close_fd".into()));
    assert_eq!(
        (out.locks[0].address, out.locks[0].kind),
        (LOCK, LockKind::Spin)
    );
    assert_eq!(out.rest, Waits::default());
    assert_eq!(out.kinds[0].hist.len(), 11);
    assert_eq!(out.cpus[0].0, 1);
}

#[test]
fn waits_without_a_stack_are_unseen() {
    let out = filled(&counted(kind::MUTEX, 10, 5_000, Vec::new()));
    assert!(out.stacks.is_empty());
    assert_eq!((out.unseen.count, out.unseen.wait_ns), (10, 5_000));
    assert_eq!(out.locks[0].name, Reading::Off(Reason::NotAsked));
}

#[test]
fn what_was_lost_is_not_given_to_the_short_ones() {
    let stack = wait(kind::MUTEX, &[6, 7], 1_500, 7, 0);
    let mut counted = counted(kind::MUTEX, 12, 10_000_000, vec![stack]);
    let hist = &mut counted.counts.kinds[kind::MUTEX as usize].hist;
    (hist[10], hist[22]) = (10, 2);
    let out = filled(&counted);
    assert_eq!(
        (out.stacks[0].waits.count, out.stacks[0].waits.wait_ns),
        (10, 20_480)
    );
    assert_eq!(out.unseen.count, 2);
    assert_eq!(out.unseen.wait_ns, 10_000_000 - 20_480);
}

#[test]
fn what_ended_after_the_window_is_of_the_next() {
    let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
    let mut naming = Naming::default();
    let mut unnamed = |_| Reading::Off(Reason::NotAsked);
    let stack = wait(kind::MUTEX, &[6, 7], 30_000, 7, 0);
    naming.add(&[stack], LONG, stack.end_ns - 1, &mut symbols);
    let mut windows = [(); 2].map(|()| Locks::default());
    for (out, n) in windows.iter_mut().zip([0, 1]) {
        let counts = counted(kind::MUTEX, n, n * 30_000, Vec::new()).counts;
        naming.finish(&counts, LONG, &mut symbols, &mut unnamed, out);
    }
    let [first, second] = windows;
    assert!(first.stacks.is_empty());
    assert_eq!(second.stacks[0].long.count, 1);
}

#[test]
fn owners_are_counted() {
    let stack = [6, 7];
    let owned = [41, 42, 42, 0].map(|owner| wait(kind::MUTEX, &stack, 30_000, 7, owner));
    let out = filled(&counted(kind::MUTEX, 4, 120_000, owned.to_vec()));
    let owners: Vec<_> = out.stacks[0]
        .owners
        .iter()
        .map(|o| (o.pid, o.count))
        .collect();
    assert_eq!(owners, [(42, 2), (41, 1)]);
}

#[test]
fn stacks_of_several_locks_have_none() {
    let mut other = wait(kind::MUTEX, &[6, 7], 30_000, 7, 0);
    other.lock += 64;
    let out = filled(&counted(
        kind::MUTEX,
        2,
        60_000,
        vec![wait(kind::MUTEX, &[6, 7], 30_000, 7, 0), other],
    ));
    assert_eq!((out.stacks.len(), out.stacks[0].lock), (1, 0));
    assert_eq!(out.stacks[0].name, Reading::Value("of pipe_write".into()));
}

#[test]
fn many_locks_are_cut_and_added_up() {
    let mut counted = counted(kind::SPIN, 1_000, 1_000_000, Vec::new());
    counted.counts.locks.clear();
    for n in 0..500u64 {
        counted.counts.locks.push(probes::LockWaits {
            lock: LOCK + n * 64,
            kind: n % 12,
            waits: probes::Waits {
                count: 2,
                wait_ns: 2_000,
                longest_ns: 1_500,
            },
        });
    }
    let out = filled(&counted);
    assert_eq!(out.locks.len(), MAX_LOCKS);
    assert_eq!(out.rest.count, 1_000 - 2 * MAX_LOCKS as u64);
}

proptest! {
    #[test]
    fn anything_adds_up(
        what in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..80),
        count: u64,
        wait_ns: u64,
        long_ns: u64,
    ) {
        let stacks = what.iter().map(|(what, begin, end, frames, address)| LockWait {
            what: *what & 0x7ff,
            begin_ns: *begin,
            end_ns: *end,
            frames: *frames % 60,
            lock: *address,
            owner: *frames,
            pid_tgid: *address,
            comm: [*begin, *end],
            stack: [*address; LOCK_FRAMES],
            ..LockWait::ZERO
        });
        let out = filled_with(&counted(kind::SPIN, count, wait_ns, stacks.collect()), long_ns);
        prop_assert!(out.stacks.len() <= MAX_STACKS);
        prop_assert!(out.unseen.count <= count);
    }
}
