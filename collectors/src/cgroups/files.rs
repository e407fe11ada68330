//! The file system as a sweep needs it: enter a directory, read files in it, list it.
//!
//! Nothing is kept open but the mount's root. Measured with 2,000 cgroups on 6.18:
//! entering costs 1.2 us, a read of memory.stat 3.8 us opened anew against 2.7 us
//! through a kept descriptor. A kept one holds a page of kernel memory each (the
//! seq_file buffer: 8.4 MB for 2,000, seen in SUnreclaim, not in our RSS) and counts
//! against RLIMIT_NOFILE; the 1 us it would save is not worth that.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::ThreadId;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::time::ClockId;

use crate::file;

/// What entering a directory tells about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dir {
    /// Its inode: a cgroup that is removed and made again is another one.
    pub(super) id: u64,
    /// Its subdirectories, by its link count (fs/kernfs/inode.c, `kernfs_refresh_inode`);
    /// `None` on a file system that does not count them.
    pub(super) subdirs: Option<u32>,
}

/// Access to the tree, and the clocks. Tests put another one in its place.
pub(super) trait Files {
    /// Makes the directory `path` (relative to the mount) the current one.
    fn enter(&mut self, path: &CStr) -> io::Result<Dir>;
    /// Reads a file of the current directory whole.
    fn read(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<()>;
    /// The same; gives the time of the read alone, ns: what the kernel worked and slept,
    /// not what this thread, ready to go on, waited for a CPU.
    fn time(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<u64>;
    /// Whether the current directory holds a file.
    fn has(&mut self, name: &CStr) -> bool;
    /// Calls `each` with the name of every subdirectory of the current directory.
    fn list(&mut self, each: &mut dyn FnMut(&CStr)) -> io::Result<()>;
    /// Reads `/proc/cgroups`.
    fn proc_cgroups(&mut self, buf: &mut Vec<u8>) -> io::Result<()>;
    /// `CLOCK_MONOTONIC`, ns: when something is due.
    fn monotonic_ns(&self) -> u64;
    /// What this thread has used of a CPU, ns: what the budget counts. On a host that is
    /// short of CPU, time spent waiting for one costs nobody anything.
    fn cpu_ns(&self) -> u64;
    /// `CLOCK_BOOTTIME`, ns: stamps.
    fn boottime_ns(&self) -> u64;
}

/// The real file system.
#[derive(Debug)]
pub(super) struct Kernel {
    mount: OwnedFd,
    current: Option<OwnedFd>,
    cgroups: Option<File>,
    own: OwnDelay,
    entries: Vec<MaybeUninit<u8>>,
}

impl Kernel {
    pub(super) fn open(mount: &Path, proc_cgroups: &Path) -> io::Result<Self> {
        Ok(Self {
            mount: rustix::fs::open(mount, DIRECTORY, Mode::empty())?,
            current: None,
            cgroups: File::open(proc_cgroups).ok(),
            own: OwnDelay::default(),
            entries: vec![MaybeUninit::uninit(); 16 * 1024],
        })
    }

    fn open_file(&self, name: &CStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.current()?, name, flags, Mode::empty())?;
        Ok(File::from(file))
    }

    fn current(&self) -> io::Result<&OwnedFd> {
        self.current
            .as_ref()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A read shorter than this is not looked at for waits for a CPU, ns.
const PREEMPTED_NS: u64 = 1_000_000;
/// What is left of a read at least, ns.
const SHORTEST_NS: u64 = 1_000;

/// How long this thread has been ready to run but had no CPU: the second number of its
/// schedstat (Documentation/scheduler/sched-stats.rst). On a busy host a read of 30 us
/// has been seen to take 70 ms for no other reason.
#[derive(Debug, Default)]
struct OwnDelay {
    schedstat: Option<(ThreadId, Option<File>)>,
    buf: Vec<u8>,
}

impl OwnDelay {
    /// Since the thread's start, ns; 0 where the kernel does not tell.
    fn delay_ns(&mut self) -> u64 {
        let thread = std::thread::current().id();
        if self.schedstat.as_ref().is_none_or(|(of, _)| *of != thread) {
            // Resolved when opened: it is one thread's file from then on.
            let file = File::open("/proc/thread-self/schedstat").ok();
            self.schedstat = Some((thread, file));
        }
        let Some((_, Some(file))) = &self.schedstat else {
            return 0;
        };
        file::read_from_start(file, &mut self.buf)
            .ok()
            .and_then(|()| run_delay(&self.buf))
            .unwrap_or(0)
    }
}

/// `RUN_NS DELAY_NS SLICES`.
pub(super) fn run_delay(schedstat: &[u8]) -> Option<u64> {
    let delay = file::words(schedstat).nth(1)?;
    file::number(delay).map(|(ns, _)| ns)
}

const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Files for Kernel {
    fn enter(&mut self, path: &CStr) -> io::Result<Dir> {
        self.current = None;
        let dir = rustix::fs::openat(&self.mount, path, DIRECTORY, Mode::empty())?;
        let stat = rustix::fs::fstat(&dir)?;
        self.current = Some(dir);
        #[expect(
            clippy::useless_conversion,
            reason = "the width of st_nlink depends on the architecture"
        )]
        let links = u64::from(stat.st_nlink);
        Ok(Dir {
            id: stat.st_ino,
            // `.` and the parent's entry; file systems that do not count have 1 or less.
            subdirs: links.checked_sub(2).and_then(|n| u32::try_from(n).ok()),
        })
    }

    fn read(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<()> {
        file::read_from_start(&self.open_file(name)?, buf)
    }

    fn time(&mut self, name: &CStr, buf: &mut Vec<u8>) -> io::Result<u64> {
        let file = self.open_file(name)?;
        let delay = self.own.delay_ns();
        let start = self.monotonic_ns();
        file::read_from_start(&file, buf)?;
        let took = self.monotonic_ns().saturating_sub(start);
        if took < PREEMPTED_NS {
            return Ok(took);
        }
        // The clocks are read at slightly different moments: never less than a short read.
        let waited = self.own.delay_ns().saturating_sub(delay);
        Ok(took.saturating_sub(waited).max(SHORTEST_NS.min(took)))
    }

    fn has(&mut self, name: &CStr) -> bool {
        self.current().is_ok_and(|dir| {
            rustix::fs::accessat(dir, name, Access::EXISTS, AtFlags::empty()).is_ok()
        })
    }

    fn list(&mut self, each: &mut dyn FnMut(&CStr)) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(self.current()?, c".", flags, Mode::empty())?;
        let mut entries = RawDir::new(&dir, &mut self.entries);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let is_dir = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                kind => kind == FileType::Directory,
            };
            if is_dir && !matches!(name.to_bytes(), b"." | b"..") {
                each(name);
            }
        }
        Ok(())
    }

    fn proc_cgroups(&mut self, buf: &mut Vec<u8>) -> io::Result<()> {
        let file = self
            .cgroups
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        file::read_from_start(file, buf)
    }

    fn monotonic_ns(&self) -> u64 {
        crate::own::nanoseconds(ClockId::Monotonic)
    }

    fn cpu_ns(&self) -> u64 {
        crate::own::nanoseconds(ClockId::ThreadCPUTime)
    }

    fn boottime_ns(&self) -> u64 {
        crate::own::nanoseconds(ClockId::Boottime)
    }
}
