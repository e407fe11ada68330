//! A tree of cgroups in memory, with a clock that only moves when something costs time.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;

use stalltop_model::sample::{CgroupLayout, MemoryVersion};

use crate::cgroups::Place;
use crate::cgroups::files::{Dir, Files};
use crate::cgroups::shared::Shared;
use crate::cgroups::sweep::Sweeper;

/// What entering a directory or reading a file costs, ns.
pub(crate) const CHEAP: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Fake {
    dirs: BTreeMap<String, FakeDir>,
    current: String,
    now: u64,
    /// Of `now`, what the thread waited for a CPU.
    preempted: u64,
    /// How long it waits for a CPU whenever it enters a directory.
    pub(crate) preempt_ns: u64,
    made: u64,
    /// Dying cgroups.
    pub(crate) dying: u64,
    /// Reads of memory.stat: when begun, which.
    pub(crate) reads: Vec<(u64, String)>,
    /// Directories listed so far.
    pub(crate) listings: u64,
    /// Removed at the next read of `/proc/cgroups`, after it.
    pub(crate) remove_after_count: Vec<String>,
}

#[derive(Debug)]
struct FakeDir {
    id: u64,
    stat_ns: u64,
    procs: u64,
    subdirs: u32,
    /// Whether the memory controller is on.
    memory: bool,
}

impl Fake {
    pub(crate) fn make(&mut self, path: &str, stat_ns: u64) {
        self.made += 1;
        let dir = FakeDir {
            id: self.made,
            stat_ns,
            procs: 1,
            subdirs: 0,
            memory: true,
        };
        if let Some(parent) = self.parent(path) {
            parent.subdirs += 1;
        }
        self.dirs.insert(path.to_owned(), dir);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.dirs.remove(path).unwrap();
        self.parent(path).unwrap().subdirs -= 1;
    }

    fn parent(&mut self, path: &str) -> Option<&mut FakeDir> {
        let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
        (path != ".").then(|| self.dirs.get_mut(parent))?
    }

    pub(crate) fn set_cost(&mut self, path: &str, stat_ns: u64) {
        self.dirs.get_mut(path).unwrap().stat_ns = stat_ns;
    }

    pub(crate) fn set_memory(&mut self, path: &str, memory: bool) {
        self.dirs.get_mut(path).unwrap().memory = memory;
    }

    pub(crate) fn set_procs(&mut self, path: &str, procs: u64) {
        self.dirs.get_mut(path).unwrap().procs = procs;
    }

    pub(crate) fn sleep(&mut self, ns: u64) {
        self.now += ns;
    }

    fn dir(&self) -> io::Result<&FakeDir> {
        self.dirs.get(&self.current).ok_or_else(gone)
    }

    fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.dirs.keys().filter_map(move |known| {
            let name = match path {
                "." => (known != ".").then_some(known.as_str())?,
                _ => known.strip_prefix(path)?.strip_prefix('/')?,
            };
            (!name.contains('/')).then_some(name)
        })
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Files for Fake {
    fn enter(&mut self, path: &CStr) -> io::Result<Dir> {
        self.now += CHEAP + self.preempt_ns;
        self.preempted += self.preempt_ns;
        path.to_str().unwrap().clone_into(&mut self.current);
        let dir = self.dir()?;
        Ok(Dir {
            id: dir.id,
            subdirs: Some(dir.subdirs),
        })
    }

    fn read(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<()> {
        self.time(name, buf).map(|_| ())
    }

    fn time(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<u64> {
        let dir = self.dir()?;
        let (text, took) = match name.to_bytes() {
            b"memory.stat" | b"memory.current" if !dir.memory => return Err(gone()),
            b"cgroup.stat" => (format!("nr_dying_descendants {}\n", self.dying), CHEAP),
            b"memory.current" => ("8192\n".to_owned(), CHEAP),
            b"memory.stat" => ("cache 4096\n".to_owned(), dir.stat_ns),
            b"memory.usage_in_bytes" => ("8192\n".to_owned(), CHEAP),
            b"cgroup.procs" => ("1\n".repeat(dir.procs as usize), CHEAP * dir.procs),
            _ => return Err(gone()),
        };
        if name == c"memory.stat" {
            self.reads.push((self.now, self.current.clone()));
        }
        text.as_bytes().clone_into(buf);
        self.now += took;
        Ok(took)
    }

    fn has(&mut self, _: &CStr) -> bool {
        self.dir().is_ok_and(|dir| dir.memory)
    }

    fn list(&mut self, each: &mut dyn FnMut(&CStr)) -> io::Result<()> {
        self.now += CHEAP;
        self.listings += 1;
        self.dir()?;
        // Not in order, as the kernel's hash order is not.
        let mut names: Vec<&str> = self.children(&self.current).collect();
        names.reverse();
        for name in names {
            each(&CString::new(name).unwrap());
        }
        Ok(())
    }

    fn proc_cgroups(&mut self, buf: &mut Vec<u8>) -> io::Result<()> {
        let num = self.dirs.len() as u64 + self.dying;
        *buf =
            format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t{num}\t1\n").into();
        for path in std::mem::take(&mut self.remove_after_count) {
            self.remove(&path);
        }
        Ok(())
    }

    fn monotonic_ns(&self) -> u64 {
        self.now
    }

    fn cpu_ns(&self) -> u64 {
        self.now - self.preempted
    }

    fn boottime_ns(&self) -> u64 {
        // The host has slept before.
        self.now + 1_000_000_000_000
    }
}

/// A v1 sweeper over a fake tree with a root and what `build` makes.
pub(crate) fn sweeper(build: impl FnOnce(&mut Fake)) -> Sweeper<Fake> {
    sweeper_of(MemoryVersion::V1, true, build)
}

/// The same of either version; of a part of the hierarchy where it is not `whole`.
pub(crate) fn sweeper_of(
    version: MemoryVersion,
    whole: bool,
    build: impl FnOnce(&mut Fake),
) -> Sweeper<Fake> {
    let mut files = Fake {
        now: 1_000_000_000,
        preempted: 0,
        preempt_ns: 0,
        ..Fake::default()
    };
    files.make(".", CHEAP);
    build(&mut files);
    let place = Place {
        layout: match version {
            MemoryVersion::V1 => CgroupLayout::V1,
            MemoryVersion::V2 => CgroupLayout::V2,
        },
        version,
        mount: "/sys/fs/cgroup/memory".into(),
        whole,
    };
    Sweeper::new(files, place, Arc::new(Shared::default()))
}

/// One tick of a second: a sweep of 4 ms, then sleep. Gives what the sweep took, ns.
pub(crate) fn tick(sweeper: &mut Sweeper<Fake>) -> u64 {
    let start = sweeper.files.monotonic_ns();
    sweeper.sweep(4_000_000);
    // As for a state.
    sweeper.count();
    let took = sweeper.files.monotonic_ns() - start;
    sweeper.files.sleep(1_000_000_000u64.saturating_sub(took));
    took
}
