//! Finding cgroups, and counting zombies against them.
//!
//! A walk looks at every known directory's link count and lists only those that changed.
//! It finds what was made, and on v1 it is the count that `num_cgroups` is compared with.

use stalltop_model::Reading;
use stalltop_model::sample::MemoryVersion;

use super::files::{Dir, Files};
use super::parse;
use super::sweep::Sweeper;
use super::tree::{Id, ROOT};

/// A walk that took t is begun again after this many t: 0.1 % of one CPU.
const PAYBACK: u64 = 1000;
/// Walks in a row that may be unsettled before their count is taken all the same.
const UNSETTLED: u32 = 3;

/// A look at every directory, spread over sweeps if it must be.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Directories left to look at; the last one is next.
    left: Vec<Id>,
    going_on: bool,
    /// Whether every directory has been found once.
    pub(super) found_all: bool,
    due_ns: u64,
    took_ns: u64,
    /// `num_cgroups` when it began (v1).
    before: Option<u64>,
    /// The tree's shape when it began.
    generation: u64,
    /// Walks in a row during which the count or the tree changed.
    unsettled: u32,
    fresh: Vec<Id>,
}

impl Walk {
    /// Looks at one directory soon, whether a walk goes on or not.
    pub(super) fn look_at(&mut self, id: Id) {
        if self.left.last() != Some(&id) {
            self.left.push(id);
        }
    }
}

impl<F: Files> Sweeper<F> {
    /// Goes on with a walk, or begins one if it is time. `until_ns` is on the clock of
    /// [`Files::cpu_ns`].
    pub(super) fn walk(&mut self, until_ns: u64) {
        let start = self.files.cpu_ns();
        let mut now = start;
        if !self.walk.going_on && self.files.monotonic_ns() >= self.walk.due_ns {
            self.walk.going_on = true;
            self.walk.took_ns = 0;
            self.walk.generation = self.tree.generation();
            self.walk.before = self.num_cgroups();
            let order = self.tree.order();
            self.walk.left.extend(order.iter().rev());
        }
        while now < until_ns {
            let Some(id) = self.walk.left.pop() else {
                break;
            };
            if self.tree.is_alive(id) {
                self.look(id);
            }
            now = self.files.cpu_ns();
        }
        self.walk.took_ns += now - start;
        if self.walk.going_on && self.walk.left.is_empty() {
            self.walk.going_on = false;
            self.walk.found_all = true;
            self.finish_walk();
        }
    }

    /// The zombies of the host as of now, whatever it costs to count them.
    pub(super) fn zombies_now(&mut self) -> Reading<u64> {
        // One walk that finds, and as many as may be unsettled.
        for _ in 0..=UNSETTLED + 1 {
            self.walk.due_ns = 0;
            self.walk(u64::MAX);
            if self.walk.unsettled == 0 && self.walk.found_all {
                break;
            }
        }
        match (&self.root_fails, self.place.version) {
            (Some(reason), _) => return Reading::Off(reason.clone()),
            (None, MemoryVersion::V1) => {}
            (None, MemoryVersion::V2) => self.count_zombies_v2(),
        }
        self.zombies.clone()
    }

    /// Compares a directory with what was listed, and lists it if that no longer holds.
    fn look(&mut self, id: Id) {
        let dir = match self.files.enter(&self.tree.node(id).path) {
            Ok(dir) => dir,
            Err(e) => return self.cannot_enter(id, &e),
        };
        if id == ROOT {
            self.root_fails = None;
        }
        let node = self.tree.node_mut(id);
        if node.listed.is_some_and(|before| before.id != dir.id) {
            node.forget();
        }
        if node.listed == Some(dir) && dir.subdirs.is_some() {
            return;
        }
        if node.listed.is_none() && self.place.version == MemoryVersion::V2 && id != ROOT {
            let memory = self.files.has(c"memory.stat");
            if node.memory != memory {
                node.memory = memory;
                self.tree.changed();
            }
        }
        self.names.clear();
        if dir.subdirs != Some(0) {
            let names = &mut self.names;
            if let Err(e) = self.files.list(&mut |name| names.push(name)) {
                return self.cannot_enter(id, &e);
            }
        }
        self.names.sort();
        self.done.vanished += self
            .tree
            .set_children(id, &self.names, &mut self.walk.fresh);
        self.tree.node_mut(id).listed = Some(dir);
        self.walk.left.append(&mut self.walk.fresh);
    }

    /// A visit has entered a directory: does it still look as it did when listed?
    pub(super) fn notice(&mut self, id: Id, dir: Dir) {
        if id == ROOT {
            self.root_fails = None;
        }
        let listed = self.tree.node(id).listed;
        if listed.is_some_and(|before| before.id != dir.id) {
            self.tree.node_mut(id).forget();
        }
        if listed != Some(dir) {
            self.walk.look_at(id);
        }
    }

    fn finish_walk(&mut self) {
        let after = self.num_cgroups();
        let settled = self.walk.generation == self.tree.generation() && self.walk.before == after;
        if settled || self.walk.unsettled >= UNSETTLED {
            self.walk.unsettled = 0;
            self.walk.due_ns = self.files.monotonic_ns() + PAYBACK * self.walk.took_ns;
            if self.place.version == MemoryVersion::V1 {
                self.zombies = self.zombies_v1(after);
            }
        } else {
            self.walk.unsettled += 1;
        }
    }

    fn num_cgroups(&mut self) -> Option<u64> {
        if self.place.version == MemoryVersion::V2 {
            return None;
        }
        self.files.proc_cgroups(&mut self.buf).ok()?;
        parse::num_cgroups(&self.buf)
    }

    /// `num_cgroups` counts the hierarchy's root and the dying; directories are the rest.
    /// One made or removed between the two counts would be off by one: a walk during
    /// which either changed is not used, but for hosts on which that never ends.
    fn zombies_v1(&self, num_cgroups: Option<u64>) -> Reading<u64> {
        if !self.place.whole {
            return Reading::Off(self.known.partial.clone());
        }
        match num_cgroups {
            Some(num) => Reading::Value(num.saturating_sub(self.tree.known())),
            None => Reading::Off(self.known.no_count.clone()),
        }
    }

    /// v2's root counts for the whole host; a container's root only for what is below it.
    pub(super) fn count_zombies_v2(&mut self) {
        if !self.place.whole {
            self.zombies = Reading::Off(self.known.partial.clone());
            return;
        }
        let read = self
            .files
            .enter(&self.tree.node(ROOT).path)
            .and_then(|_| self.files.read(c"cgroup.stat", &mut self.buf));
        self.zombies = match read {
            Ok(()) => self.parsed(ROOT, "cgroup.stat", parse::dying),
            Err(e) => Reading::Off(self.reason(ROOT, "cgroup.stat", &e)),
        };
    }
}
