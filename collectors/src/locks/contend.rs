//! Contends locks of our own, to see which waits the tracepoints show on this machine.
//!
//! A spinlock, a mutex and a rw_semaphore, each of an object that nobody else has: an eventfd's
//! wait queue (`eventfd_write`, fs/eventfd.c), a pipe (`pipe_write`, fs/pipe.c), the inode of a
//! file in memory (`shmem_file_write_iter`, mm/shmem.c). As many threads as there are CPUs, four
//! at most, for [`TIME`] each; less where it shows earlier.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{ioctl_fionbio, pwrite, read, write};
use stalltop_model::sample::LockKind;

/// For how long each lock is contended at most.
pub const TIME: Duration = Duration::from_millis(16);
/// How often it is looked whether a wait shows.
const LOOK: Duration = Duration::from_millis(2);
/// Threads at most.
const THREADS: usize = 4;
/// Written at once: the longer the lock is held, the likelier another one waits.
const BYTES: usize = 32 << 10;
/// A thread's stack: this process's memory may be locked.
const STACK: usize = 64 << 10;

/// What was contended, and whether waits for it show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The kind; of a rw_semaphore the writer's.
    pub kind: LockKind,
    /// Whether any wait of the kind, ours or another's, was shown meanwhile.
    pub shows: bool,
    /// How many threads contended.
    pub threads: usize,
}

/// Contends locks of three kinds, one after the other. `shown` gives how many waits of a kind
/// were shown so far. Where threads or objects are not to be had, the kind is left out.
pub fn contend(cpus: usize, mut shown: impl FnMut(LockKind) -> u64) -> Vec<Tried> {
    let threads = cpus.clamp(1, THREADS);
    if threads < 2 {
        return Vec::new();
    }
    let mut tried = Vec::new();
    for object in [Object::event(), Object::pipe(), Object::file()] {
        let Ok(object) = object else { continue };
        let kind = object.kind();
        let before = shown(kind);
        let stop = AtomicBool::new(false);
        let started = std::thread::scope(|scope| {
            let mut started = 0;
            for _ in 0..threads {
                let worker = std::thread::Builder::new()
                    .name("stalltop-try".into())
                    .stack_size(STACK);
                let work = || object.use_until(&stop);
                started += usize::from(worker.spawn_scoped(scope, work).is_ok());
            }
            let end = Instant::now() + TIME;
            while Instant::now() < end && shown(kind) == before {
                std::thread::sleep(LOOK);
            }
            stop.store(true, Ordering::Relaxed);
            started
        });
        if started >= 2 {
            tried.push(Tried {
                kind,
                shows: shown(kind) > before,
                threads: started,
            });
        }
    }
    tried
}

/// Something with a lock in the kernel.
enum Object {
    Event(OwnedFd),
    Pipe(OwnedFd, OwnedFd),
    File(OwnedFd),
}

impl Object {
    fn event() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self::Event(eventfd(0, flags)?))
    }

    fn pipe() -> io::Result<Self> {
        let (from, to) = std::io::pipe()?;
        ioctl_fionbio(&from, true)?;
        ioctl_fionbio(&to, true)?;
        Ok(Self::Pipe(from.into(), to.into()))
    }

    fn file() -> io::Result<Self> {
        Ok(Self::File(memfd_create(
            "stalltop-try",
            MemfdFlags::CLOEXEC,
        )?))
    }

    fn kind(&self) -> LockKind {
        match self {
            Self::Event(_) => LockKind::Spin,
            Self::Pipe(..) => LockKind::Mutex,
            Self::File(_) => LockKind::RwsemWrite,
        }
    }

    /// Takes the lock again and again. What the calls say does not matter: a full pipe is as
    /// good as an empty one.
    fn use_until(&self, stop: &AtomicBool) {
        let mut buf = vec![0u8; BYTES];
        let one = 1u64.to_ne_bytes();
        while !stop.load(Ordering::Relaxed) {
            match self {
                Self::Event(event) => {
                    for _ in 0..64 {
                        let _ = write(event, &one);
                    }
                }
                Self::Pipe(from, to) => {
                    let _ = write(to, &buf);
                    let _ = read(from, &mut buf);
                }
                Self::File(file) => {
                    let _ = pwrite(file, &buf, 0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_tried_and_what_shows_ends_early() {
        let mut calls = 0;
        let started = Instant::now();
        let tried = contend(2, |kind| {
            calls += 1;
            u64::from(kind == LockKind::Mutex) * calls
        });
        let kinds = [LockKind::Spin, LockKind::Mutex, LockKind::RwsemWrite];
        assert_eq!(tried.iter().map(|t| t.kind).collect::<Vec<_>>(), kinds);
        assert_eq!(
            tried.iter().map(|t| t.shows).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(tried.iter().all(|t| t.threads == 2));
        assert!(started.elapsed() >= 2 * TIME);
    }

    #[test]
    fn one_cpu_says_nothing() {
        assert!(contend(1, |_| 0).is_empty());
    }
}
