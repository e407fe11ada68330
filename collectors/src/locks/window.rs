//! One window: from what the kernel side added up to rows with names.
//!
//! Sums by kind, lock and CPU are exact. Stacks are those of long waits, each of them, and of
//! every n-th wait: what the long ones leave of a kind's waits and time is given to the stacks of
//! its short ones by how often each was sampled. (To scale the *time* of samples is wrong: the
//! few long waits among them would count n times. Measured: 641 ms for 2,858.)

use std::collections::HashMap;

use stalltop_model::sample::{Lock, LockKind, LockOwner, LockStack, LockWaits, Locks, Waits};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::wire::BUCKETS;
use stalltop_probes::wire::lock::{LOCK_FRAMES, LockWait, kind, what};
use stalltop_probes::{self as probes, LockCounts};

use super::names::{Code, Stacks};
use crate::stalls::attribute::{comm, ids};
use crate::stalls::kallsyms::Symbols;
use crate::stalls::stack;

/// Most locks and stacks of a window; the rest is added up.
pub const MAX_LOCKS: usize = 128;
/// As above.
pub const MAX_STACKS: usize = 192;
/// Most distinct stacks and waiters of a window while it is added up.
const MAX_DISTINCT: usize = 4096;
/// Most owners of a stack.
const MAX_OWNERS: usize = 4;

const _: () = assert!(kind::COUNT == LockKind::COUNT);

/// Adds waits with stacks up as they come, and makes a window of them.
#[derive(Default)]
pub struct Naming {
    stacks: Stacks,
    rows: Vec<Row>,
    /// Where in `rows` a kind, stack and process is.
    known: HashMap<(usize, usize, u32), usize>,
    /// Of each lock its longest wait and that one's stack.
    called: HashMap<u64, (u64, usize)>,
    /// What locks without a name of their own were called in earlier windows: a lock keeps its
    /// name, whoever waits longest for it next.
    callers: HashMap<u64, Name>,
    kinds: [Seen; LockKind::COUNT],
    /// Waits that ended after the window.
    later: Vec<LockWait>,
}

/// The waits of one kind that have a stack.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    long: Waits,
    /// Short ones.
    sampled: u64,
}

/// A stack of one process, while the window is added up.
struct Row {
    kind: usize,
    number: usize,
    tgid: u32,
    comm: [u64; 2],
    /// The lock; 0 where there were several.
    lock: u64,
    long: Waits,
    /// Short ones among the samples, and the longest of them.
    sampled: u64,
    longest_ns: u64,
    owners: Vec<(u32, u64)>,
    waits: Waits,
}

impl Naming {
    /// Says where the program lies that takes the stacks: it is left out of them.
    pub fn recorded_by(&mut self, code: Code) {
        self.stacks.recorded_by(code);
    }

    /// Adds waits with stacks. Those of `long_ns` and more are long; those that ended after
    /// `until_ns` (`CLOCK_MONOTONIC`) are kept for the next window.
    pub fn add(&mut self, waits: &[LockWait], long_ns: u64, until_ns: u64, symbols: &mut Symbols) {
        if self.rows.is_empty() {
            self.stacks.refresh(symbols);
        }
        for wait in waits {
            if wait.end_ns > until_ns {
                if self.later.len() < MAX_DISTINCT {
                    self.later.push(*wait);
                }
                continue;
            }
            let kind = (wait.what & what::KIND_MASK) as usize;
            let Some(seen) = self.kinds.get_mut(kind) else {
                continue;
            };
            let ns = wait.end_ns.saturating_sub(wait.begin_ns);
            let long = ns >= long_ns;
            if long {
                seen.long.add(&one(ns));
            } else if wait.what & what::SAMPLED != 0 {
                seen.sampled += 1;
            } else {
                // It was long when it ended, and that was changed meanwhile.
                continue;
            }
            let addresses = addresses(wait);
            if addresses.is_empty() {
                continue;
            }
            let number = self.stacks.number(addresses, false, symbols);
            if self.called.len() < MAX_DISTINCT || self.called.contains_key(&wait.lock) {
                let longest = self.called.entry(wait.lock).or_insert((ns, number));
                if ns > longest.0 {
                    *longest = (ns, number);
                }
            }
            let (_, tgid) = ids(wait.pid_tgid);
            let key = (kind, number, tgid);
            let at = match self.known.get(&key) {
                Some(at) => *at,
                None if self.rows.len() == MAX_DISTINCT => continue,
                None => {
                    self.known.insert(key, self.rows.len());
                    self.rows.push(Row::new(key, wait));
                    self.rows.len() - 1
                }
            };
            self.rows[at].add(wait, ns, long);
        }
    }

    /// Ends the window: fills all of `out` that comes from the tracepoints. `static_name` names
    /// locks that are variables of the kernel; owners are told by their ids alone.
    pub fn finish(
        &mut self,
        counts: &LockCounts,
        long_ns: u64,
        symbols: &mut Symbols,
        static_name: &mut dyn FnMut(u64) -> Reading<Name>,
        out: &mut Locks,
    ) {
        let mut rows = std::mem::take(&mut self.rows);
        share_out(counts, long_ns, &self.kinds, &mut rows);
        rows.retain(|row| row.waits.count > 0);
        rows.sort_by_key(|row| {
            let waits = std::cmp::Reverse((row.waits.wait_ns, row.waits.count));
            (waits, row.kind, row.number, row.tgid)
        });
        rows.truncate(MAX_STACKS);

        let mut total = Waits::default();
        for (of, kind) in counts.kinds.iter().zip(LockKind::ALL) {
            let waits = waits(&of.waits);
            if waits.count > 0 {
                total.add(&waits);
                out.kinds.push(LockWaits {
                    kind,
                    waits,
                    hist: hist(&of.hist),
                });
            }
        }
        // Addresses are used again, for other locks: nothing is remembered for good.
        if self.callers.len() >= MAX_DISTINCT {
            self.callers.clear();
        }
        let callers = &mut self.callers;
        let mut name = |lock: u64| {
            let why = match static_name(lock) {
                Reading::Value(name) => return Reading::Value(name),
                Reading::Off(why) => why,
            };
            if let Some(name) = callers.get(&lock) {
                return Reading::Value(Name::clone(name));
            }
            let site = self
                .called
                .get(&lock)
                .and_then(|(_, number)| stack::site(&self.stacks.get(*number).frames));
            let Some(site) = site else {
                return Reading::Off(why);
            };
            let name: Name = format!("of {site}").into();
            callers.insert(lock, Name::clone(&name));
            Reading::Value(name)
        };
        out.locks = locks(counts, &mut name);
        out.rest = left(&total, out.locks.iter().map(|lock| &lock.waits));
        let cpus = (0..).zip(&counts.cpus).filter(|(_, of)| of.count > 0);
        out.cpus = cpus.map(|(cpu, of)| (cpu, waits(of))).collect();
        for row in rows {
            let named = self.stacks.get(row.number);
            let of_several = || match stack::site(&named.frames) {
                Some(site) => Reading::Value(format!("of {site}").into()),
                None => Reading::Off(Reason::NotSampled {
                    what: "a caller that tells whose lock it is".into(),
                }),
            };
            out.stacks.push(LockStack {
                kind: LockKind::ALL[row.kind],
                lock: row.lock,
                name: if row.lock == 0 {
                    of_several()
                } else {
                    name(row.lock)
                },
                frames: named.frames.clone(),
                programs: named.programs.clone(),
                tgid: row.tgid,
                comm: comm(row.comm),
                waits: row.waits,
                long: row.long,
                sampled: row.sampled,
                owners: owners(row.owners),
            });
        }
        out.unseen = left(&total, out.stacks.iter().map(|stack| &stack.waits));

        self.known.clear();
        self.called.clear();
        self.kinds = Default::default();
        let later = std::mem::take(&mut self.later);
        self.add(&later, long_ns, u64::MAX, symbols);
    }
}

fn waits(of: &probes::Waits) -> Waits {
    Waits {
        count: of.count,
        wait_ns: of.wait_ns,
        longest_ns: of.longest_ns,
    }
}

impl Row {
    fn new((kind, number, tgid): (usize, usize, u32), wait: &LockWait) -> Self {
        Self {
            kind,
            number,
            tgid,
            comm: wait.comm,
            lock: wait.lock,
            long: Waits::default(),
            sampled: 0,
            longest_ns: 0,
            owners: Vec::new(),
            waits: Waits::default(),
        }
    }

    fn add(&mut self, wait: &LockWait, ns: u64, long: bool) {
        if self.lock != wait.lock {
            self.lock = 0;
        }
        if long {
            self.long.add(&one(ns));
        } else {
            self.sampled += 1;
            self.longest_ns = self.longest_ns.max(ns);
        }
        let owner = u32::try_from(wait.owner).unwrap_or(0);
        if owner != 0 {
            let known = self.owners.iter().position(|(pid, _)| *pid == owner);
            match known {
                Some(at) => self.owners[at].1 += 1,
                None if self.owners.len() < 4 * MAX_OWNERS => self.owners.push((owner, 1)),
                None => {}
            }
        }
    }
}

fn one(ns: u64) -> Waits {
    Waits {
        count: 1,
        wait_ns: ns,
        longest_ns: ns,
    }
}

fn addresses(wait: &LockWait) -> &[u64] {
    let frames = usize::try_from(wait.frames).unwrap_or(0).min(LOCK_FRAMES);
    let stack = &wait.stack[..frames];
    let end = stack.iter().position(|address| *address == 0);
    &stack[..end.unwrap_or(frames)]
}

/// Gives each row its waits: the long ones as they are, and of the short ones of its kind the
/// part that its samples are of all samples.
fn share_out(counts: &LockCounts, long_ns: u64, kinds: &[Seen; LockKind::COUNT], rows: &mut [Row]) {
    for (kind, (of, seen)) in counts.kinds.iter().zip(kinds).enumerate() {
        // What the long ones leave is of the short ones, but for long ones that were not seen:
        // how many were short, and how long they were at most, the histogram tells.
        let (most, most_ns) = short(&of.hist, long_ns);
        let count = of.waits.count.saturating_sub(seen.long.count).min(most);
        let wait_ns = of.waits.wait_ns.saturating_sub(seen.long.wait_ns);
        let wait_ns = wait_ns.min(most_ns);
        let part = |of: u64, sampled: u64| -> u64 {
            let all = u128::from(seen.sampled.max(1));
            u64::try_from(u128::from(of) * u128::from(sampled) / all).unwrap_or(u64::MAX)
        };
        for row in rows.iter_mut().filter(|row| row.kind == kind) {
            row.waits = row.long;
            row.waits.add(&Waits {
                count: part(count, row.sampled),
                wait_ns: part(wait_ns, row.sampled),
                longest_ns: row.longest_ns,
            });
        }
    }
}

/// How many waits can have been shorter than `long_ns`, and how long together at most.
fn short(hist: &[u64; BUCKETS], long_ns: u64) -> (u64, u64) {
    let buckets = hist.iter().enumerate();
    let buckets = buckets.take_while(|(bucket, _)| 1u64 << bucket < long_ns.max(2));
    buckets.fold((0, 0), |(count, most): (u64, u64), (bucket, n)| {
        let longest = n.saturating_mul((2 << bucket).min(long_ns));
        (count.saturating_add(*n), most.saturating_add(longest))
    })
}

fn hist(buckets: &[u64; BUCKETS]) -> Vec<u64> {
    let used = buckets.iter().rposition(|n| *n > 0).map_or(0, |at| at + 1);
    buckets[..used].to_vec()
}

/// The locks, which come with the longest waits first.
fn locks(counts: &LockCounts, name: &mut dyn FnMut(u64) -> Reading<Name>) -> Vec<Lock> {
    let listed = counts.locks.iter().filter_map(|of| {
        let kind = *LockKind::ALL.get(usize::try_from(of.kind).ok()?)?;
        Some(Lock {
            kind,
            address: of.lock,
            name: name(of.lock),
            waits: waits(&of.waits),
        })
    });
    listed.take(MAX_LOCKS).collect()
}

/// What of `total` is not in `listed`.
fn left<'a>(total: &Waits, listed: impl Iterator<Item = &'a Waits>) -> Waits {
    let mut sum = Waits::default();
    listed.for_each(|waits| sum.add(waits));
    let count = total.count.saturating_sub(sum.count);
    Waits {
        count,
        wait_ns: total.wait_ns.saturating_sub(sum.wait_ns),
        // Of those listed one may have been as long: then it is not known.
        longest_ns: if count > 0 && total.longest_ns > sum.longest_ns {
            total.longest_ns
        } else {
            0
        },
    }
}

/// Owners, the one that was seen most often first; who they are is looked up elsewhere.
fn owners(mut seen: Vec<(u32, u64)>) -> Vec<LockOwner> {
    seen.sort_by_key(|(pid, count)| (std::cmp::Reverse(*count), *pid));
    let owner = |(pid, count)| LockOwner {
        pid,
        comm: Name::default(),
        count,
        frames: Vec::new(),
    };
    seen.into_iter().take(MAX_OWNERS).map(owner).collect()
}

#[cfg(test)]
mod tests;
