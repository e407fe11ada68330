//! The sum of some windows.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Window, per_s};
use crate::sample::{
    LockKind, LockOwner, LockShare, LockStack, LockWaits, Locks, ShareStack, Waits,
};
use crate::{Name, Reading};

/// Everything that waited in a stretch of time. Lists are sorted, the longest waits (or the
/// most samples) first; what is equal stands in the order of its name, so that it stays put.
#[derive(Clone, Debug)]
pub struct Over<'a> {
    /// How many windows were added up.
    pub windows: u32,
    /// `CLOCK_BOOTTIME` of the first one's beginning, ns.
    pub from_ns: u64,
    /// `CLOCK_BOOTTIME` of the last one's end, ns.
    pub to_ns: u64,
    /// Their length together, ns.
    pub span_ns: u64,
    /// For how much of it contention was watched, ns: what rates are divided by.
    pub measured_ns: u64,
    /// All waits; exact.
    pub total: Waits,
    /// By kind; exact.
    pub kinds: Vec<LockWaits>,
    /// By lock and kind; exact.
    pub locks: Vec<LockSum<'a>>,
    /// Waits of locks that are not listed.
    pub rest: Waits,
    /// By CPU; exact.
    pub cpus: Vec<(u32, Waits)>,
    /// By kind, lock, call stack and waiting process.
    pub stacks: Vec<StackSum<'a>>,
    /// What of the waits the stacks do not show.
    pub unseen: Waits,
    /// By waiting process: the sum of its stacks.
    pub waiters: Vec<WaiterSum<'a>>,
    /// Samples in lock slow paths; why there are none, by the newest window.
    pub share: Reading<ShareSum<'a>>,
}

/// Waits for one lock.
#[derive(Clone, Debug)]
pub struct LockSum<'a> {
    /// Its kind and the way it was taken.
    pub kind: LockKind,
    /// Its address; 0 where addresses are hidden.
    pub address: u64,
    /// What it is called, or why it has no name.
    pub name: &'a Reading<Name>,
    /// Exact.
    pub waits: Waits,
}

/// Waits with one call stack, of one process.
#[derive(Clone, Debug)]
pub struct StackSum<'a> {
    /// Kind, lock, frames, programs and process: as the newest window has them.
    pub stack: &'a LockStack,
    /// Waits that the stack stands for.
    pub waits: Waits,
    /// Of these, long ones: exact.
    pub long: Waits,
    /// Samples of short waits that it rests on.
    pub sampled: u64,
    /// Who was seen holding the lock, the most often seen first.
    pub owners: Vec<(&'a LockOwner, u64)>,
}

/// Waits of one process.
#[derive(Clone, Debug)]
pub struct WaiterSum<'a> {
    /// Process id.
    pub tgid: u32,
    /// Comm of a waiter.
    pub comm: &'a Name,
    /// Waits of all its stacks.
    pub waits: Waits,
    /// Its stacks, as positions in [`Over::stacks`], the longest waits first.
    pub stacks: Vec<usize>,
}

/// Samples in lock slow paths.
#[derive(Clone, Debug, Default)]
pub struct ShareSum<'a> {
    /// Where samples come from.
    pub source: &'a str,
    /// Whether that sees inside interrupts-off sections.
    pub nmi: bool,
    /// Samples of CPUs that were not idle.
    pub samples: u64,
    /// Of these, in the kernel.
    pub kernel: u64,
    /// Of these, in a lock's slow path.
    pub in_lock: u64,
    /// Taken as interrupts came back on: a lock is suspected.
    pub suspected: u64,
    /// By stack and process.
    pub stacks: Vec<ShareStackSum<'a>>,
    /// By CPU: samples, in lock slow paths, suspected.
    pub cpus: Vec<(u32, u64, u64, u64)>,
}

/// Samples with one stack, of one process.
#[derive(Clone, Debug)]
pub struct ShareStackSum<'a> {
    /// Function, frames, programs and process.
    pub stack: &'a ShareStack,
    /// How many.
    pub samples: u64,
}

/// What makes two locks one: kind and address. A name is no part of it, as it may be that of
/// whoever waited longest in a window; only where addresses are hidden it is all there is.
type LockKey<'a> = (LockKind, u64, Option<&'a str>);
fn lock_key(kind: LockKind, address: u64, name: &Reading<Name>) -> LockKey<'_> {
    let name = name.value().filter(|_| address == 0);
    (kind, address, name.map(|n| &**n))
}

/// What makes two stacks one: kind, lock, process, frames.
type StackKey<'a> = (LockKind, u64, u32, &'a [Name]);
/// The same for samples: function, whether only suspected, process, frames.
type ShareKey<'a> = (&'a str, bool, u32, &'a [Name]);

impl<'a> Over<'a> {
    /// Adds windows up.
    pub(super) fn new(windows: &(impl DoubleEndedIterator<Item = &'a Window> + Clone)) -> Self {
        let mut out = Self {
            windows: 0,
            from_ns: 0,
            to_ns: 0,
            span_ns: 0,
            measured_ns: 0,
            total: Waits::default(),
            kinds: Vec::new(),
            locks: Vec::new(),
            rest: Waits::default(),
            cpus: Vec::new(),
            stacks: Vec::new(),
            unseen: Waits::default(),
            waiters: Vec::new(),
            share: Reading::default(),
        };
        for window in windows.clone() {
            let locks = &*window.locks;
            if out.windows == 0 {
                out.from_ns = window.from_ns();
            }
            out.windows += 1;
            out.to_ns = locks.at_ns;
            out.span_ns = out.span_ns.saturating_add(locks.span_ns);
            out.measured_ns = out.measured_ns.saturating_add(locks.measured_ns);
            out.rest.add(&locks.rest);
            out.unseen.add(&locks.unseen);
            out.add_kinds(locks);
        }
        // The newest first: what is equal is shown as it was seen last.
        let all = || windows.clone().rev().map(|w| &*w.locks);
        out.add_locks(all());
        out.add_cpus(all());
        out.add_stacks(all());
        out.add_waiters();
        out.share = share(all());
        out
    }

    fn add_kinds(&mut self, locks: &Locks) {
        for of in &locks.kinds {
            self.total.add(&of.waits);
            let at = self.kinds.iter().position(|k| k.kind == of.kind);
            let kind = match at.and_then(|at| self.kinds.get_mut(at)) {
                Some(kind) => kind,
                None => {
                    self.kinds.push(LockWaits {
                        kind: of.kind,
                        ..LockWaits::default()
                    });
                    let last = self.kinds.len() - 1;
                    &mut self.kinds[last]
                }
            };
            kind.waits.add(&of.waits);
            if kind.hist.len() < of.hist.len() {
                kind.hist.resize(of.hist.len(), 0);
            }
            for (sum, n) in kind.hist.iter_mut().zip(&of.hist) {
                *sum = sum.saturating_add(*n);
            }
        }
        self.kinds
            .sort_by_key(|k| (Reverse((k.waits.wait_ns, k.waits.count)), k.kind));
    }

    fn add_locks(&mut self, all: impl Iterator<Item = &'a Locks>) {
        let mut at: HashMap<LockKey<'a>, usize> = HashMap::new();
        for lock in all.flat_map(|l| &l.locks) {
            match at.entry(lock_key(lock.kind, lock.address, &lock.name)) {
                Entry::Occupied(entry) => {
                    let sum = &mut self.locks[*entry.get()];
                    sum.waits.add(&lock.waits);
                    if sum.name.value().is_none() {
                        sum.name = &lock.name;
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(self.locks.len());
                    self.locks.push(LockSum {
                        kind: lock.kind,
                        address: lock.address,
                        name: &lock.name,
                        waits: lock.waits,
                    });
                }
            }
        }
        self.locks.sort_by(|a, b| {
            most(&b.waits)
                .cmp(&most(&a.waits))
                .then_with(|| a.key().cmp(&b.key()))
        });
    }

    fn add_cpus(&mut self, all: impl Iterator<Item = &'a Locks>) {
        let mut cpus: HashMap<u32, Waits> = HashMap::new();
        for (cpu, waits) in all.flat_map(|l| &l.cpus) {
            cpus.entry(*cpu).or_default().add(waits);
        }
        self.cpus = cpus.into_iter().collect();
        self.cpus
            .sort_by_key(|(cpu, waits)| (Reverse(most(waits)), *cpu));
    }

    fn add_stacks(&mut self, all: impl Iterator<Item = &'a Locks>) {
        let mut at: HashMap<StackKey<'a>, usize> = HashMap::new();
        for stack in all.flat_map(|l| &l.stacks) {
            let key = (stack.kind, stack.lock, stack.tgid, &stack.frames[..]);
            let sum = match at.entry(key) {
                Entry::Occupied(entry) => &mut self.stacks[*entry.get()],
                Entry::Vacant(entry) => {
                    entry.insert(self.stacks.len());
                    self.stacks.push(StackSum {
                        stack,
                        waits: Waits::default(),
                        long: Waits::default(),
                        sampled: 0,
                        owners: Vec::new(),
                    });
                    let last = self.stacks.len() - 1;
                    &mut self.stacks[last]
                }
            };
            sum.waits.add(&stack.waits);
            sum.long.add(&stack.long);
            sum.sampled = sum.sampled.saturating_add(stack.sampled);
            for owner in &stack.owners {
                let same = |(o, _): &&mut (&LockOwner, u64)| {
                    o.pid == owner.pid && o.comm == owner.comm && o.frames == owner.frames
                };
                match sum.owners.iter_mut().find(same) {
                    Some((_, count)) => *count = count.saturating_add(owner.count),
                    None => sum.owners.push((owner, owner.count)),
                }
            }
        }
        for sum in &mut self.stacks {
            sum.owners
                .sort_by_key(|(owner, count)| (Reverse(*count), owner.pid));
        }
        self.stacks.sort_by(|a, b| {
            let key = |s: &StackSum<'a>| (s.stack.tgid, s.stack.kind, s.stack.lock);
            most(&b.waits)
                .cmp(&most(&a.waits))
                .then_with(|| a.stack.frames.cmp(&b.stack.frames))
                .then_with(|| key(a).cmp(&key(b)))
        });
    }

    fn add_waiters(&mut self) {
        let mut at: HashMap<u32, usize> = HashMap::new();
        for (i, sum) in self.stacks.iter().enumerate() {
            let position = *at.entry(sum.stack.tgid).or_insert_with(|| {
                self.waiters.push(WaiterSum {
                    tgid: sum.stack.tgid,
                    comm: &sum.stack.comm,
                    waits: Waits::default(),
                    stacks: Vec::new(),
                });
                self.waiters.len() - 1
            });
            if let Some(waiter) = self.waiters.get_mut(position) {
                waiter.waits.add(&sum.waits);
                waiter.stacks.push(i);
            }
        }
        self.waiters
            .sort_by_key(|w| (Reverse(most(&w.waits)), w.tgid));
    }

    /// Seconds of waiting per second; `None` where contention was not watched.
    pub fn wait_per_s(&self, waits: &Waits) -> Option<f64> {
        per_s(waits.wait_ns, self.measured_ns)
    }

    /// Waits a second; `None` where contention was not watched.
    pub fn per_s(&self, waits: &Waits) -> Option<f64> {
        per_s(waits.count, self.measured_ns).map(|per_ns| per_ns * 1e9)
    }

    /// The stacks that waited for a lock, the longest waits first. Those of several locks that
    /// were merged are of none.
    pub fn stacks_of<'b>(&'b self, lock: &LockSum<'a>) -> impl Iterator<Item = &'b StackSum<'a>> {
        let (kind, address, name) = lock.key();
        self.stacks.iter().filter(move |s| {
            s.stack.kind == kind
                && s.stack.lock == address
                && (address != 0 || s.stack.name.value().map(|n| &**n) == name)
        })
    }
}

impl<'a> LockSum<'a> {
    fn key(&self) -> LockKey<'a> {
        lock_key(self.kind, self.address, self.name)
    }
}

/// What lists are sorted by.
fn most(waits: &Waits) -> (u64, u64) {
    (waits.wait_ns, waits.count)
}

fn share<'a>(all: impl Iterator<Item = &'a Locks>) -> Reading<ShareSum<'a>> {
    let mut out: Option<ShareSum<'a>> = None;
    let mut none = None;
    let mut at: HashMap<ShareKey<'a>, usize> = HashMap::new();
    let mut cpus: HashMap<u32, (u64, u64, u64)> = HashMap::new();
    for locks in all {
        let share: &'a LockShare = match locks.share.as_ref() {
            Ok(share) => share,
            Err(reason) => {
                none.get_or_insert(reason);
                continue;
            }
        };
        let sum = out.get_or_insert_with(|| ShareSum {
            source: &share.source,
            nmi: share.nmi,
            ..ShareSum::default()
        });
        sum.samples = sum.samples.saturating_add(share.samples);
        sum.kernel = sum.kernel.saturating_add(share.kernel);
        sum.in_lock = sum.in_lock.saturating_add(share.in_lock);
        sum.suspected = sum.suspected.saturating_add(share.suspected);
        for stack in &share.stacks {
            let key = (
                &*stack.function,
                stack.suspected,
                stack.tgid,
                &stack.frames[..],
            );
            match at.entry(key) {
                Entry::Occupied(entry) => {
                    let sum = &mut sum.stacks[*entry.get()].samples;
                    *sum = sum.saturating_add(stack.samples);
                }
                Entry::Vacant(entry) => {
                    entry.insert(sum.stacks.len());
                    sum.stacks.push(ShareStackSum {
                        stack,
                        samples: stack.samples,
                    });
                }
            }
        }
        for (cpu, samples, in_lock, suspected) in &share.cpus {
            let of = cpus.entry(*cpu).or_default();
            of.0 = of.0.saturating_add(*samples);
            of.1 = of.1.saturating_add(*in_lock);
            of.2 = of.2.saturating_add(*suspected);
        }
    }
    let Some(mut sum) = out else {
        return none.map_or_else(Reading::default, |reason| Reading::Off(reason.clone()));
    };
    sum.stacks.sort_by(|a, b| {
        let key = |s: &ShareStackSum<'a>| (s.stack.suspected, s.stack.tgid);
        b.samples
            .cmp(&a.samples)
            .then_with(|| a.stack.frames.cmp(&b.stack.frames))
            .then_with(|| key(a).cmp(&key(b)))
    });
    sum.cpus = cpus
        .into_iter()
        .map(|(c, (n, l, s))| (c, n, l, s))
        .collect();
    sum.cpus
        .sort_by_key(|(cpu, _, in_lock, suspected)| (Reverse((*in_lock, *suspected)), *cpu));
    Reading::Value(sum)
}
