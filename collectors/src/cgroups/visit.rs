//! Reading one cgroup.

use std::io;

use stalltop_model::sample::{MemoryVersion, ReadTiming};
use stalltop_model::{Reading, Reason};

use super::files::Files;
use super::parse;
use super::sweep::{PAYBACK, Sweeper};
use super::tree::{Id, ROOT};

/// A count of processes that took longer than this is paid back as well, ns: with
/// thousands of them it costs more than all the rest of a visit.
const MANY_PROCESSES_NS: u64 = 100_000;

impl<F: Files> Sweeper<F> {
    /// Reads one cgroup's files; gives what the read of memory.stat took, ns. One that
    /// vanished meanwhile is taken out of the tree.
    pub(super) fn visit(&mut self, id: Id) -> u64 {
        match self.files.enter(&self.tree.node(id).path) {
            Ok(dir) => self.notice(id, dir),
            Err(e) => {
                self.cannot_enter(id, &e);
                return 0;
            }
        }
        let Some(took) = self.time_memory_stat(id) else {
            return 0;
        };
        let used = match self.files.read(self.place.usage_file(), &mut self.buf) {
            Ok(()) => self.parsed(id, "memory usage", parse::single),
            // mm/memcontrol.c, `memory_files`: "current" is CFTYPE_NOT_ON_ROOT.
            Err(_) if id == ROOT && self.place.version == MemoryVersion::V2 => {
                Reading::Off(self.known.root_usage.clone())
            }
            Err(e) => Reading::Off(self.reason(id, "memory usage", &e)),
        };
        let zombies = match self.place.version {
            MemoryVersion::V1 => Reading::Off(self.known.v1_zombies.clone()),
            MemoryVersion::V2 => match self.files.read(c"cgroup.stat", &mut self.buf) {
                Ok(()) => self.parsed(id, "cgroup.stat", parse::dying),
                Err(e) => Reading::Off(self.reason(id, "cgroup.stat", &e)),
            },
        };
        self.count_processes(id);
        let at = self.files.boottime_ns();
        let node = self.tree.node_mut(id);
        node.used = used;
        node.zombies = zombies;
        node.read_at_ns = at;
        took
    }

    /// Gives the time of the read, ns; `None` if this is no memory cgroup any more.
    fn time_memory_stat(&mut self, id: Id) -> Option<u64> {
        match self.files.time(c"memory.stat", &mut self.buf) {
            Ok(took) => {
                self.done.reads += 1;
                self.done.read_ns += took;
                let node = self.tree.node_mut(id);
                node.timing = Reading::Value(advance(node.timing.get(), took));
                if !node.memory {
                    node.memory = true;
                    self.tree.changed();
                }
                Some(took)
            }
            Err(e) => {
                // Removed since it was entered, or without the file?
                if let Err(gone) = self.files.enter(&self.tree.node(id).path) {
                    self.cannot_enter(id, &gone);
                    return None;
                }
                // On v2 the controller may be off in a subtree (cgroup.subtree_control).
                if self.place.version == MemoryVersion::V2 && id != ROOT && is_gone(&e) {
                    if self.tree.node(id).memory {
                        self.tree.node_mut(id).memory = false;
                        self.tree.changed();
                    }
                    return None;
                }
                let reason = self.reason(id, "memory.stat", &e);
                self.tree.node_mut(id).timing = Reading::Off(reason);
                Some(0)
            }
        }
    }

    fn count_processes(&mut self, id: Id) {
        let start = self.files.monotonic_ns();
        if self.tree.node(id).processes_due_ns > start {
            return;
        }
        let processes = match self.files.read(c"cgroup.procs", &mut self.buf) {
            Ok(()) => Reading::Value(parse::processes(&self.buf)),
            Err(e) => Reading::Off(self.reason(id, "cgroup.procs", &e)),
        };
        let end = self.files.monotonic_ns();
        let took = end - start;
        let node = self.tree.node_mut(id);
        node.processes = processes;
        if took > MANY_PROCESSES_NS {
            node.processes_due_ns = end + PAYBACK * took;
        }
    }

    /// A directory that cannot be entered: vanished (which is normal), or refused.
    pub(super) fn cannot_enter(&mut self, id: Id, error: &io::Error) {
        if id == ROOT {
            self.root_fails = Some(Reason::from_io(&self.place.mount, error));
        } else if is_gone(error) {
            self.done.vanished += 1;
            // Its parent has lost a child, and may have got another one.
            let parent = self.tree.node(id).parent;
            self.tree.detach(id);
            if let Some(parent) = parent {
                self.walk.look_at(parent);
            }
        } else {
            let reason = self.reason(id, "", error);
            let at = self.files.boottime_ns();
            let node = self.tree.node_mut(id);
            node.timing = Reading::Off(reason.clone());
            node.used = Reading::Off(reason.clone());
            node.processes = Reading::Off(reason.clone());
            node.zombies = Reading::Off(reason);
            node.read_at_ns = at;
        }
    }

    pub(super) fn parsed(
        &self,
        id: Id,
        file: &str,
        parse: fn(&[u8]) -> Option<u64>,
    ) -> Reading<u64> {
        match parse(&self.buf) {
            Some(value) => Reading::Value(value),
            None => Reading::Off(Reason::parse(&self.host_path(id, file), &self.buf)),
        }
    }

    pub(super) fn reason(&self, id: Id, file: &str, error: &io::Error) -> Reason {
        Reason::from_io(&self.host_path(id, file), error)
    }

    fn host_path(&self, id: Id, file: &str) -> String {
        let name = self.tree.node(id).name.trim_end_matches('/');
        format!("{}{name}/{file}", self.place.mount)
    }
}

/// What the kernel says of a cgroup that has been removed: no such file, or, for a file
/// opened before, no such device (fs/kernfs/file.c, `kernfs_get_active`).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Adds a read to what is known of earlier ones.
pub(super) fn advance(before: Option<ReadTiming>, took: u64) -> ReadTiming {
    let Some(before) = before else {
        return ReadTiming {
            last_ns: took,
            longest_ns: took,
            smoothed_ns: took,
            count: 1,
        };
    };
    ReadTiming {
        last_ns: took,
        longest_ns: before.longest_ns.max(took),
        smoothed_ns: before.smoothed_ns - before.smoothed_ns / 8 + took / 8,
        count: before.count + 1,
    }
}
