//! One turn after another over all cgroups, under a budget of time.
//!
//! Two kinds of work share the budget. *Looking* enters a directory and compares its
//! link count with what was listed: 1.5 us a directory, against 15 us for listing it.
//! *Visiting* reads memory.stat, the usage, the processes and (v2) the zombies: about 9 us.
//!
//! A read longer than [`SLOW_NS`] is paid back [`PAYBACK`]-fold: the cgroup waits that
//! long, and so do all others known to be slow; together slow reads then take no more
//! than 1 / [`PAYBACK`] of one CPU. Reads that turn out to be slow cannot be foreseen:
//! once they owe [`SURPRISES_NS`], cgroups that are not known to be slow wait as well.
//! The root's read owes nothing to the others: its cost says nothing about theirs.
//!
//! What it costs to publish a state with all its rows is paid from the budget too, half of it
//! at most: with 20,000 cgroups of which some come and go, states come less often instead.

use std::sync::Arc;

use stalltop_model::sample::{MemoryVersion, Sweep};
use stalltop_model::{Reading, Reason};

use super::files::Files;
use super::locate::Place;
use super::shared::Shared;
use super::tree::{Id, Names, ROOT, Tree};
use super::walk::Walk;

/// A read longer than this is slow, ns.
pub(super) const SLOW_NS: u64 = 5_000_000;
/// How many times its own length a slow read is not repeated.
pub(super) const PAYBACK: u64 = 200;
/// Time that unforeseen slow reads may take before everything waits, ns.
const SURPRISES_NS: u64 = 2_000_000_000;
/// Cgroups visited in one sweep: all up to this many, from there on a share of them.
const VISITS: usize = 32;
/// How many times its budget a sweep may take in all, waits included.
const LONGEST: u64 = 25;
/// The share: a turn takes about this many sweeps.
const TURN: usize = 5;

/// The state of the rotation.
#[derive(Debug)]
pub(super) struct Sweeper<F> {
    pub(super) files: F,
    pub(super) place: Place,
    pub(super) tree: Tree,
    pub(super) done: Sweep,
    /// All zombies of the host.
    pub(super) zombies: Reading<u64>,
    /// Memory cgroup directories.
    pub(super) visible: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) walk: Walk,
    pub(super) names: Names,
    pub(super) buf: Vec<u8>,
    pub(super) known: Known,
    /// Why the root cannot be read; then nothing can.
    pub(super) root_fails: Option<Reason>,
    /// Where the rotation goes on, in the tree's order.
    cursor: usize,
    /// `CLOCK_MONOTONIC` until which known slow cgroups wait, ns.
    slow_until_ns: u64,
    /// Time over budget in earlier sweeps, taken off the next ones, ns.
    owed_ns: u64,
    /// Time that published states took and that is not paid yet, ns.
    published_ns: u64,
    /// Whether a person's request was served since the last state.
    answered: bool,
}

/// Reasons that are given again and again: built once.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) v1_zombies: Reason,
    pub(super) root_usage: Reason,
    pub(super) partial: Reason,
    pub(super) no_count: Reason,
}

impl Known {
    fn new(version: MemoryVersion) -> Self {
        let untold = |what: &str| Reason::KernelDoesNotSay { what: what.into() };
        Self {
            v1_zombies: untold("the zombies of one subtree on cgroup v1, only their total"),
            root_usage: untold("the memory use of cgroup v2's root"),
            no_count: Reason::NoFile {
                path: "memory in /proc/cgroups".into(),
            },
            partial: untold(match version {
                MemoryVersion::V1 => "the host's zombies inside a container's view of cgroup v1",
                MemoryVersion::V2 => "the host's zombies inside a container's view of cgroup v2",
            }),
        }
    }
}

impl<F: Files> Sweeper<F> {
    pub(super) fn new(files: F, place: Place, shared: Arc<Shared>) -> Self {
        Self {
            files,
            known: Known::new(place.version),
            place,
            tree: Tree::new(),
            done: Sweep::default(),
            zombies: Reading::default(),
            visible: 1,
            shared,
            walk: Walk::default(),
            names: Names::default(),
            buf: Vec::with_capacity(16 * 1024),
            root_fails: None,
            cursor: 0,
            slow_until_ns: 0,
            owed_ns: 0,
            published_ns: 0,
            answered: false,
        }
    }

    /// Works for about `budget_ns`; what is not done is done next time. A read that
    /// hangs cannot be cut short: [`Shared`] tells since when it goes on.
    pub(super) fn sweep(&mut self, budget_ns: u64) {
        let start = self.files.cpu_ns();
        let budget_ns = budget_ns - pay(&mut self.owed_ns, budget_ns);
        let budget_ns = budget_ns - pay(&mut self.published_ns, budget_ns / 2);
        // A look or a count can hang as well as a read.
        self.shared.newest.reading(self.files.boottime_ns());
        let mut slow = self.requested();
        // Nothing can be visited before it is found.
        let share = if self.walk.found_all { 2 } else { 1 };
        self.walk(start + budget_ns / share);
        self.shared.newest.reading(self.files.boottime_ns());
        if self.place.version == MemoryVersion::V2 {
            self.count_zombies_v2();
        }
        slow += self.rotate(start + budget_ns, LONGEST * budget_ns);
        // Slow reads are paid back in their own way.
        let spent = (self.files.cpu_ns() - start).saturating_sub(slow);
        self.owed_ns += spent.saturating_sub(budget_ns);
        self.shared.newest.reading(0);
    }

    /// Whether a state may be published: all before it are paid for, or a person waits for it.
    pub(super) fn may_publish(&self) -> bool {
        self.published_ns == 0 || self.answered
    }

    /// Notes that a state was published, and what that took, ns.
    pub(super) fn published(&mut self, cost_ns: u64) {
        self.published_ns += cost_ns;
        self.answered = false;
    }

    /// A person's requests: ahead of everything, and of every back-off.
    fn requested(&mut self) -> u64 {
        let mut slow = 0;
        while let Some(name) = self.shared.next_request() {
            if let Some(id) = self.tree.find(&name) {
                slow += self.timed_visit(id);
                self.answered = true;
            }
        }
        slow
    }

    /// Visits until `until_ns` on the clock of [`Files::cpu_ns`], and for `longest_ns` at the
    /// most: reads that sleep cost no CPU, but others wait for this thread.
    fn rotate(&mut self, until_ns: u64, longest_ns: u64) -> u64 {
        let start = self.files.monotonic_ns();
        let mut slow = 0;
        let mut left = self.tree.order().len().div_ceil(TURN).max(VISITS);
        for _ in 0..self.tree.order().len() {
            if left == 0 || self.files.cpu_ns() >= until_ns {
                break;
            }
            let now = self.files.monotonic_ns();
            if now - start > longest_ns {
                break;
            }
            let order = self.tree.order();
            self.cursor %= order.len();
            let id = order[self.cursor];
            self.cursor += 1;
            if self.may_visit(id, now) {
                slow += self.timed_visit(id);
                left -= 1;
            }
        }
        slow
    }

    fn may_visit(&self, id: Id, now: u64) -> bool {
        let node = self.tree.node(id);
        let wait = self.slow_until_ns.saturating_sub(now);
        node.due_ns <= now
            && match node.slow {
                _ if id == ROOT => true,
                true => wait == 0,
                false => wait <= SURPRISES_NS * PAYBACK,
            }
    }

    /// Reads one cgroup; gives the time taken if that was slow, else 0.
    fn timed_visit(&mut self, id: Id) -> u64 {
        self.shared.newest.reading(self.files.boottime_ns());
        let took = self.visit(id);
        let end = self.files.monotonic_ns();
        let slow = took > SLOW_NS;
        if self.tree.is_alive(id) {
            let node = self.tree.node_mut(id);
            node.slow = slow;
            if slow {
                node.due_ns = end + PAYBACK * took;
            }
        }
        if !slow {
            return 0;
        }
        if id != ROOT {
            self.slow_until_ns = self.slow_until_ns.max(end) + PAYBACK * took;
        }
        took
    }

    /// Whether every cgroup has been found and, if that may be, read once.
    pub(super) fn is_warm(&self) -> bool {
        self.walk.found_all && (self.done.unread == 0 || self.slow_until_ns > 0)
    }

    /// Counts for the next state.
    pub(super) fn count(&mut self) {
        (self.done.unread, self.done.backed_off, self.visible) = (0, 0, 0);
        for node in self.tree.alive().filter(|n| n.memory) {
            self.done.unread += u64::from(node.read_at_ns == 0);
            self.done.backed_off += u64::from(node.slow);
            self.visible += 1;
        }
    }
}

/// Pays what is owed from a budget as far as that goes; gives what was paid.
fn pay(owed_ns: &mut u64, budget_ns: u64) -> u64 {
    let paid = (*owed_ns).min(budget_ns);
    *owed_ns -= paid;
    paid
}
