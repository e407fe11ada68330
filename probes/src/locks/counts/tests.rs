use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::*;
use crate::sys::mapping::Access;

/// Tables of two CPUs over plain memory: the test plays the program.
fn tables() -> Tables {
    let memory = |len: usize| {
        // SAFETY: a new descriptor of an anonymous file, sized before it is mapped.
        let fd = unsafe {
            let fd = libc::memfd_create(c"locks".as_ptr(), 0);
            assert!(fd >= 0);
            assert_eq!(libc::ftruncate(fd, len as i64), 0);
            OwnedFd::from_raw_fd(fd)
        };
        Mapping::new(fd.as_fd(), 0, len, Access::ReadWrite).unwrap()
    };
    Tables::new(
        memory(2 * LOCK_CPU_SIZE),
        memory(2 * 2 * TABLE * size_of::<LockSlot>()),
        memory(size_of::<Waiters>()),
        2,
    )
}

fn bump(tables: &Tables, cpu: usize, offset: usize, by: u64) {
    tables.set(cpu, offset, tables.get(cpu, offset) + by);
}

const LOCK: u64 = 0xffff_8880_1234_5678;

/// A wait for `LOCK` that ends on that CPU, counted in that slot of the table.
fn end(tables: &Tables, cpu: usize, kind: u64, slot: usize, ns: u64) {
    let epoch = tables.get(cpu, offset_of!(LockCpu, epoch));
    let which = (epoch & 1) as usize;
    let window = offset_of!(LockCpu, windows) + which * size_of::<Window>();
    let waits = window + offset_of!(Window, kinds) + kind as usize * size_of::<KindWords>();
    bump(tables, cpu, waits + offset_of!(KindWords, count), 1);
    bump(tables, cpu, waits + offset_of!(KindWords, wait_ns), ns);
    tables.set(cpu, waits + offset_of!(KindWords, longest_ns), ns);
    let bucket = offset_of!(KindWords, hist) + stalltop_wire::bucket(ns) * 8;
    bump(tables, cpu, waits + bucket, 1);
    let at = tables.slot(cpu, which, slot);
    let key = LOCK & !(0xff << KEY_KIND_SHIFT) | kind << KEY_KIND_SHIFT;
    let set = |field, value| {
        let word = tables.tables.word(at + field);
        word.store(value, Ordering::Relaxed);
    };
    let get = |field| tables.tables.get(at + field);
    set(offset_of!(LockSlot, key), key);
    set(
        offset_of!(LockSlot, count),
        get(offset_of!(LockSlot, count)) + 1,
    );
    set(
        offset_of!(LockSlot, wait_ns),
        get(offset_of!(LockSlot, wait_ns)) + ns,
    );
    set(offset_of!(LockSlot, longest_ns), ns);
    let used = window + offset_of!(Window, used) + slot / 64 * 8;
    tables.set(cpu, used, tables.get(cpu, used) | 1 << (slot % 64));
}

#[test]
fn each_wait_is_in_one_window() {
    let mut tables = tables();
    let mut out = LockCounts::default();
    end(&tables, 0, kind::MUTEX, 3, 100);
    end(&tables, 1, kind::MUTEX, 900, 50);
    end(&tables, 1, kind::SPIN, 901, 5000);
    tables.read(&mut out);
    let mutex = Waits {
        count: 2,
        wait_ns: 150,
        longest_ns: 100,
    };
    let spin = Waits {
        count: 1,
        wait_ns: 5000,
        longest_ns: 5000,
    };
    let lock = |kind, waits| LockWaits {
        lock: LOCK,
        kind,
        waits,
    };
    assert_eq!(
        out.locks,
        [lock(kind::SPIN, spin), lock(kind::MUTEX, mutex)]
    );
    assert_eq!(out.kinds[kind::MUTEX as usize].waits, mutex);
    assert_eq!(out.kinds[kind::MUTEX as usize].hist[5..7], [1, 1]);
    assert_eq!((out.cpus[0].wait_ns, out.cpus[1].wait_ns), (100, 5050));
    assert_eq!(out.total().wait_ns, 5150);

    // The other window is empty, and so is this one when its turn comes again.
    for _ in 0..3 {
        tables.read(&mut out);
        assert!(out.locks.is_empty() && out.late == 0);
        assert_eq!(out.total(), Waits::default());
    }
    end(&tables, 0, kind::SPIN, 7, 30);
    tables.read(&mut out);
    assert_eq!((out.total().wait_ns, out.total().longest_ns), (30, 30));
}

#[test]
fn a_window_that_is_still_written_is_read_the_next_time() {
    let mut tables = tables();
    let mut out = LockCounts::default();
    end(&tables, 0, kind::SPIN, 1, 40);
    end(&tables, 1, kind::SPIN, 1, 60);
    bump(&tables, 1, offset_of!(LockCpu, entered), 1);
    tables.read(&mut out);
    assert_eq!((out.late, out.total().wait_ns), (1, 40));
    // The run that goes on writes the window that it read from the epoch at its beginning.
    let epoch = tables.get(1, offset_of!(LockCpu, epoch));
    tables.set(1, offset_of!(LockCpu, epoch), epoch - 1);
    end(&tables, 1, kind::SPIN, 1, 70);
    tables.set(1, offset_of!(LockCpu, epoch), epoch);
    end(&tables, 1, kind::SPIN, 1, 1000);
    bump(&tables, 1, offset_of!(LockCpu, left), 1);
    tables.read(&mut out);
    assert_eq!((out.late, out.total().wait_ns), (0, 130));
    tables.read(&mut out);
    assert_eq!((out.late, out.total().wait_ns), (0, 1000));
}

#[test]
fn waits_that_last_when_it_is_detached_are_dropped() {
    let mut tables = tables();
    let mut out = LockCounts::default();
    tables.start();
    tables.started();
    bump(&tables, 0, offset_of!(LockCpu, entered), 3);
    bump(&tables, 0, offset_of!(LockCpu, depth), 1);
    let key = tables.waiters.word(Tables::key(77));
    key.store(5, Ordering::Relaxed);
    tables
        .waiters
        .word(Tables::key(78))
        .store(9, Ordering::Relaxed);
    tables.stopped();
    tables.read(&mut out);
    assert_eq!((out.runs.waiting, out.runs.abandoned), (3, 0));
    // Between the two links, an end whose beginning nobody could see.
    tables.start();
    bump(&tables, 1, offset_of!(LockCpu, ends_unpaired), 4);
    tables.started();
    bump(&tables, 1, offset_of!(LockCpu, ends_unpaired), 1);
    tables.read(&mut out);
    assert_eq!((out.runs.waiting, out.runs.abandoned), (0, 3));
    assert_eq!(out.runs.ends_unpaired, 1);
}

#[test]
fn waits_that_last_are_told_while_they_do() {
    let mut tables = tables();
    tables.start();
    tables.started();
    let since = tables.get(0, offset_of!(LockCpu, since_ns));
    let begin = |at: usize, key: u64, begin_ns: u64| {
        let wait = offset_of!(Waiters, waits) + at * size_of::<LockWait>();
        let words = [
            (Tables::key(at), key),
            (wait + offset_of!(LockWait, lock), LOCK),
            (wait + offset_of!(LockWait, begin_ns), begin_ns),
            (wait + offset_of!(LockWait, what), kind::RWSEM_WRITE),
            (wait + offset_of!(LockWait, pid_tgid), 7 << 32 | at as u64),
        ];
        for (word, value) in words {
            tables.waiters.word(word).store(value, Ordering::Relaxed);
        }
    };
    begin(0, 5, since + 10);
    // Not long enough, over, about to begin, and from before we were attached.
    begin(8, 5, since + 1_000);
    begin(9, 0, since + 10);
    begin(10, 5, 0);
    begin(11, 5, since - 1);
    begin(WAITERS - 1, 9, since);
    let mut out = Vec::new();
    tables.lasting(since + 100, &mut out);
    let told: Vec<(u64, u64)> = out.iter().map(|w| (w.pid_tgid & 0xffff, w.lock)).collect();
    assert_eq!(told, [(0, LOCK), (WAITERS as u64 - 1, LOCK)]);
    assert_eq!(out[0].begin_ns, since + 10);
}

#[test]
fn only_time_attached_is_measured() {
    let mut tables = tables();
    let mut out = LockCounts::default();
    tables.read(&mut out);
    assert_eq!(out.measured_ns, 0);
    tables.started();
    std::thread::sleep(Duration::from_millis(2));
    tables.stopped();
    tables.read(&mut out);
    assert!(out.measured_ns >= 2_000_000);
    tables.read(&mut out);
    assert_eq!(out.measured_ns, 0);
}

#[test]
fn a_wait_has_its_own_frames_only() {
    let mut words = [7; size_of::<LockWait>() / 8];
    words[5] = 2;
    let read = wait(&words);
    assert_eq!((read.frames, read.stack[..3].to_vec()), (2, vec![7, 7, 0]));
    words[5] = 1 << 40;
    assert_eq!(wait(&words).frames, LOCK_FRAMES as u64);
}
