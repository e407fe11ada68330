//! What the program adds up, read from shared memory.

use std::hint::spin_loop;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use stalltop_wire::BUCKETS;
use stalltop_wire::lock::{
    KEY_KIND_SHIFT, KindWaits as KindWords, LEVELS, LOCK_CPU_SIZE, LOCK_FRAMES, LockCpu, LockSlot,
    LockWait, RINGS, TABLE, WAITERS, Waiters, Window, kind,
};

use crate::sys::mapping::Mapping;
use crate::sys::monotonic_ns;

/// For how long a run of the program that goes on is awaited. Where it takes longer, its CPU is not
/// running: a machine's CPU that does not run either.
const PATIENCE: Duration = Duration::from_micros(50);
/// For how long at the least one waits after the windows were switched: until a run that read the
/// old one has made its first store visible.
const SETTLE: Duration = Duration::from_micros(1);

/// Waits, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many ended.
    pub count: u64,
    /// Their time together, ns.
    pub wait_ns: u64,
    /// The longest, ns.
    pub longest_ns: u64,
}

impl Waits {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.wait_ns += other.wait_ns;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

/// Waits for locks of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindWaits {
    /// All of them, exactly.
    pub waits: Waits,
    /// Of these, how many are in no [`LockWaits`]: more locks at once than the table has room for.
    pub overflow: u64,
    /// By duration: bucket `i` counts those of `[2^i, 2^(i+1))` ns.
    pub hist: [u64; BUCKETS],
}

/// Waits for one lock, of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockWaits {
    /// Address of the lock.
    pub lock: u64,
    /// One of [`kind`].
    pub kind: u64,
    /// Exactly.
    pub waits: Waits,
}

/// What became of the runs of the program, of all CPUs, since it was loaded.
///
/// Every beginning is accounted for, as soon as nothing changes any more (a reader sees the words
/// of CPUs that are at work): `begins = ends + repeats + begins_unpaired + full + waiting +
/// abandoned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockRuns {
    /// Runs for `contention_begin`: all that were not for the end.
    pub begins: u64,
    /// Runs for `contention_end` that ended a wait.
    pub ends: u64,
    /// Of `begins`, those of a wait that had begun already: a mutex tells of its beginning again
    /// when it stops spinning.
    pub repeats: u64,
    /// Runs for `contention_end` whose beginning was not seen: of a wait that began before we were
    /// attached or did not fit, or one of the two of a semaphore's, whose beginning looks like an
    /// end.
    pub ends_unpaired: u64,
    /// Of `begins`, those whose end was not seen.
    pub begins_unpaired: u64,
    /// Of `begins`, those for which there was no place: more tasks wait than there is room for.
    pub full: u64,
    /// Waits that last.
    pub waiting: u64,
    /// Waits that lasted when we were detached.
    pub abandoned: u64,
    /// Runs that did nothing, as they interrupted another one on their CPU: only where the kernel
    /// itself does not leave those out (before 6.1).
    pub nested: u64,
    /// Waits whose stack was kept.
    pub stacks: u64,
    /// Of these, those whose stack was taken when they had ended.
    pub at_end: u64,
}

/// What was added up in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockCounts {
    /// For how much of the window the tracer was attached, ns: what rates are divided by.
    pub measured_ns: u64,
    /// By [`kind`].
    pub kinds: [KindWaits; kind::COUNT],
    /// By lock and kind, the longest waits first.
    pub locks: Vec<LockWaits>,
    /// By CPU on which the wait ended, which for what spins is that on which it began.
    pub cpus: Vec<Waits>,
    /// Since the program was loaded.
    pub runs: LockRuns,
    /// CPUs whose window is not among these, as the program was running there all the while the
    /// windows were read: what they added up is in the next one.
    pub late: u32,
}

impl LockCounts {
    /// All waits.
    #[must_use]
    pub fn total(&self) -> Waits {
        let mut total = Waits::default();
        for kind in &self.kinds {
            total.add(&kind.waits);
        }
        total
    }
}

/// The mapped tables of all CPUs.
#[derive(Debug)]
pub(super) struct Tables {
    cpus: Mapping,
    tables: Mapping,
    /// Slots of each table.
    slots: usize,
    waiters: Mapping,
    /// What user space keeps of each CPU.
    kept: Vec<Kept>,
    abandoned: u64,
    /// Ends that came while only that tracepoint was attached.
    early: u64,
    attached: Option<Instant>,
    /// Of the window, before `attached`.
    measured: Duration,
}

/// What user space keeps of one CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    epoch: u64,
    /// Runs that had begun when the windows were switched.
    entered: u64,
    /// The window switched away from has not been read.
    late: bool,
}

impl Tables {
    /// `tables` has two tables of a power of two of slots for each of the `possible` CPUs.
    pub(super) fn new(cpus: Mapping, tables: Mapping, waiters: Mapping, possible: u32) -> Self {
        Self {
            cpus,
            slots: tables.len() / size_of::<LockSlot>() / 2 / (possible as usize).max(1),
            tables,
            waiters,
            kept: vec![Kept::default(); possible as usize],
            abandoned: 0,
            early: 0,
            attached: None,
            measured: Duration::ZERO,
        }
    }

    fn get(&self, cpu: usize, offset: usize) -> u64 {
        self.cpus.get(cpu * LOCK_CPU_SIZE + offset)
    }

    fn set(&self, cpu: usize, offset: usize, value: u64) {
        let word = self.cpus.word(cpu * LOCK_CPU_SIZE + offset);
        word.store(value, Ordering::Relaxed);
    }

    /// Takes a word of a CPU that the program does not write now, and leaves 0.
    fn take(&self, cpu: usize, offset: usize) -> u64 {
        take(&self.cpus, cpu * LOCK_CPU_SIZE + offset)
    }

    /// Where a CPU's slot of a lock is in the tables.
    fn slot(&self, cpu: usize, window: usize, slot: usize) -> usize {
        ((cpu * 2 + window) * self.slots + slot) * size_of::<LockSlot>()
    }

    fn sum(&self, offset: usize) -> u64 {
        (0..self.kept.len()).map(|cpu| self.get(cpu, offset)).sum()
    }

    /// Number of the newest wait of one of that CPU's rings.
    pub(super) fn newest(&self, cpu: usize, ring: usize) -> u64 {
        self.get(cpu, offset_of!(LockCpu, stacks) + ring * size_of::<u64>())
    }

    fn depth(&self, cpu: usize) -> u64 {
        let depth = self.get(cpu, offset_of!(LockCpu, depth));
        depth.min(LEVELS as u64)
    }

    fn key(at: usize) -> usize {
        offset_of!(Waiters, keys) + at * size_of::<u64>()
    }

    /// Waits that last.
    fn waiting(&self) -> u64 {
        let spinning: u64 = (0..self.kept.len()).map(|cpu| self.depth(cpu)).sum();
        let sleeping = (0..WAITERS).filter(|&at| self.waiters.get(Self::key(at)) != 0);
        spinning + sleeping.count() as u64
    }

    /// Adds the waits of sleeping kinds that last, and began between the program's attachment and
    /// `until_ns`. One that ends, or whose place another one takes meanwhile, is left out.
    pub(super) fn lasting(&self, until_ns: u64, out: &mut Vec<LockWait>) {
        const LOCK: usize = offset_of!(LockWait, lock);
        const BEGIN: usize = offset_of!(LockWait, begin_ns);
        let since_ns = self.get(0, offset_of!(LockCpu, since_ns));
        for at in 0..WAITERS {
            let key = || self.waiters.word(Self::key(at)).load(Ordering::Acquire);
            let held = key();
            if held == 0 {
                continue;
            }
            let wait = offset_of!(Waiters, waits) + at * size_of::<LockWait>();
            let begin_ns = self.waiters.get(wait + BEGIN);
            if begin_ns < since_ns || begin_ns > until_ns {
                continue;
            }
            fence(Ordering::Acquire);
            let mut words = [0; size_of::<LockWait>() / size_of::<u64>()];
            for (word, to) in words.iter_mut().enumerate() {
                *to = self.waiters.get(wait + word * size_of::<u64>());
            }
            fence(Ordering::Acquire);
            let same = self.waiters.get(wait + BEGIN) == begin_ns && key() == held;
            if same && words[LOCK / size_of::<u64>()] != 0 {
                out.push(self::wait(&words));
            }
        }
    }

    /// From when on a wait is long.
    pub(super) fn set_long_ns(&mut self, long_ns: u64) {
        for cpu in 0..self.kept.len() {
            self.set(cpu, offset_of!(LockCpu, long_ns), long_ns);
        }
    }

    /// As if a run lasted on that CPU.
    #[cfg(test)]
    pub(super) fn set_busy(&self, cpu: usize, busy: u64) {
        self.set(cpu, offset_of!(LockCpu, busy), busy);
    }

    /// Forgets the waits that lasted when the program was detached. To be called before it is
    /// attached; a run that is still going on then, is told by the time that it measured nothing of
    /// now.
    pub(super) fn start(&mut self) {
        self.abandoned += self.waiting();
        let since = monotonic_ns();
        for cpu in 0..self.kept.len() {
            self.set(cpu, offset_of!(LockCpu, since_ns), since);
            self.set(cpu, offset_of!(LockCpu, depth), 0);
        }
        for at in 0..WAITERS {
            self.waiters.word(Self::key(at)).store(0, Ordering::Relaxed);
        }
        self.early = self.early.wrapping_sub(self.unpaired());
    }

    fn unpaired(&self) -> u64 {
        self.sum(offset_of!(LockCpu, ends_unpaired))
    }

    /// Both tracepoints are attached.
    pub(super) fn started(&mut self) {
        self.early = self.early.wrapping_add(self.unpaired());
        self.attached = Some(Instant::now());
    }

    /// The program is detached.
    pub(super) fn stopped(&mut self) {
        if let Some(since) = self.attached.take() {
            self.measured += since.elapsed();
        }
    }

    /// Switches the windows of all CPUs and reads those switched away from.
    pub(super) fn read(&mut self, out: &mut LockCounts) {
        out.kinds = Default::default();
        out.locks.clear();
        out.cpus.clear();
        out.cpus.resize(self.kept.len(), Waits::default());
        out.late = 0;

        for cpu in 0..self.kept.len() {
            if !self.kept[cpu].late {
                self.kept[cpu].epoch += 1;
                let epoch = self.kept[cpu].epoch;
                self.set(cpu, offset_of!(LockCpu, epoch), epoch);
            }
        }
        fence(Ordering::SeqCst);
        let switched = Instant::now();
        out.measured_ns = self.measured(switched);
        while switched.elapsed() < SETTLE {
            spin_loop();
        }
        for cpu in 0..self.kept.len() {
            self.kept[cpu].entered = self.get(cpu, offset_of!(LockCpu, entered));
        }
        for cpu in 0..self.kept.len() {
            self.kept[cpu].late = !self.is_over(cpu, switched);
            if self.kept[cpu].late {
                out.late += 1;
            } else {
                self.drain(cpu, out);
            }
        }
        merge(&mut out.locks);
        out.runs = self.runs();
    }

    /// For how much of the window that ends now the program was attached.
    fn measured(&mut self, now: Instant) -> u64 {
        let mut measured = std::mem::take(&mut self.measured);
        if let Some(since) = &mut self.attached {
            measured += now.saturating_duration_since(*since);
            *since = now;
        }
        u64::try_from(measured.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the runs are over that may still write the window switched away from.
    fn is_over(&self, cpu: usize, switched: Instant) -> bool {
        loop {
            let left = self
                .cpus
                .word(cpu * LOCK_CPU_SIZE + offset_of!(LockCpu, left));
            if left.load(Ordering::Acquire) >= self.kept[cpu].entered {
                return true;
            }
            if switched.elapsed() > PATIENCE {
                return false;
            }
            spin_loop();
        }
    }

    /// Reads and empties the window of that CPU which the program does not write now.
    fn drain(&self, cpu: usize, out: &mut LockCounts) {
        let used = ((self.kept[cpu].epoch & 1) ^ 1) as usize;
        let window = offset_of!(LockCpu, windows) + used * size_of::<Window>();
        for (nr, kind) in out.kinds.iter_mut().enumerate() {
            let at = window + offset_of!(Window, kinds) + nr * size_of::<KindWords>();
            let waits = Waits {
                count: self.take(cpu, at + offset_of!(KindWords, count)),
                wait_ns: self.take(cpu, at + offset_of!(KindWords, wait_ns)),
                longest_ns: self.take(cpu, at + offset_of!(KindWords, longest_ns)),
            };
            if waits.count == 0 {
                continue;
            }
            kind.waits.add(&waits);
            out.cpus[cpu].add(&waits);
            kind.overflow += self.take(cpu, at + offset_of!(KindWords, overflow));
            for (i, bucket) in kind.hist.iter_mut().enumerate() {
                let word = offset_of!(KindWords, hist) + i * size_of::<u64>();
                *bucket += self.take(cpu, at + word);
            }
        }
        for word in 0..self.slots.min(TABLE) / 64 {
            let at = window + offset_of!(Window, used) + word * size_of::<u64>();
            let mut bits = self.take(cpu, at);
            while bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let at = self.slot(cpu, used, slot);
                let take = |field| take(&self.tables, at + field);
                let key = take(offset_of!(LockSlot, key));
                out.locks.push(LockWaits {
                    lock: key | 0xff << KEY_KIND_SHIFT,
                    kind: key >> KEY_KIND_SHIFT,
                    waits: Waits {
                        count: take(offset_of!(LockSlot, count)),
                        wait_ns: take(offset_of!(LockSlot, wait_ns)),
                        longest_ns: take(offset_of!(LockSlot, longest_ns)),
                    },
                });
            }
        }
    }

    fn runs(&self) -> LockRuns {
        let runs = self.sum(offset_of!(LockCpu, entered));
        let ends = self.sum(offset_of!(LockCpu, ends));
        let stacks = (0..self.kept.len())
            .flat_map(|cpu| (0..RINGS).map(move |ring| self.newest(cpu, ring)))
            .sum();
        LockRuns {
            begins: runs.saturating_sub(ends + self.unpaired()),
            ends,
            repeats: self.sum(offset_of!(LockCpu, repeats)),
            ends_unpaired: self.unpaired().wrapping_sub(self.early),
            begins_unpaired: self.sum(offset_of!(LockCpu, begins_unpaired)),
            full: self.sum(offset_of!(LockCpu, full)),
            waiting: self.waiting(),
            abandoned: self.abandoned,
            nested: self.sum(offset_of!(LockCpu, nested)),
            stacks,
            at_end: self.sum(offset_of!(LockCpu, at_end)),
        }
    }
}

/// Takes a word that the program does not write now, and leaves 0.
fn take(map: &Mapping, offset: usize) -> u64 {
    let value = map.get(offset);
    if value != 0 {
        map.word(offset).store(0, Ordering::Relaxed);
    }
    value
}

/// Adds up the entries of the same lock and kind, in place, and sorts them: the longest waits first.
fn merge(locks: &mut Vec<LockWaits>) {
    locks.sort_unstable_by_key(|lock| (lock.lock, lock.kind));
    locks.dedup_by(|other, first| {
        let same = (other.lock, other.kind) == (first.lock, first.kind);
        if same {
            first.waits.add(&other.waits);
        }
        same
    });
    locks
        .sort_unstable_by_key(|lock| (std::cmp::Reverse(lock.waits.wait_ns), lock.lock, lock.kind));
}

/// An entry of the ring of stacks.
pub(super) fn wait(words: &[u64; size_of::<LockWait>() / size_of::<u64>()]) -> LockWait {
    const STACK: usize = offset_of!(LockWait, stack) / size_of::<u64>();
    let [
        seq,
        lock,
        begin_ns,
        end_ns,
        what,
        frames,
        owner,
        cpu,
        pid_tgid,
        comm0,
        comm1,
        ..,
    ] = *words;
    let frames = frames.min(LOCK_FRAMES as u64);
    let mut stack = [0; LOCK_FRAMES];
    // What follows is of an earlier wait in the same place.
    stack[..frames as usize].copy_from_slice(&words[STACK..STACK + frames as usize]);
    LockWait {
        seq,
        lock,
        begin_ns,
        end_ns,
        what,
        frames,
        owner,
        cpu,
        pid_tgid,
        comm: [comm0, comm1],
        pad: 0,
        stack,
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "plays the program on memory of its own")]
mod tests;
