//! A lock of the kernel that is held for as long as a test likes, and threads that wait for it.
//!
//! splice(2) from a socket into a pipe holds the pipe's mutex while it waits for the socket's data
//! (`splice_file_to_pipe`, fs/splice.c), and whoever writes to the pipe waits for the mutex.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{Pid, gettid};

/// Comm of the thread that holds the lock.
pub const HOLDER: &str = "lock-holder";
/// Comm of those that wait for it.
pub const WAITER: &str = "lock-waiter";

/// A pipe's mutex that is held. Dropping it lets it go.
pub struct HeldLock {
    /// Its end is the end of the splice.
    socket: Option<UnixStream>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    pipe: File,
}

impl HeldLock {
    /// Holds it from now on.
    ///
    /// # Errors
    /// There are no more threads or descriptors to be had, or the thread does not come to hold it.
    pub fn new() -> io::Result<Self> {
        let (here, mut there) = UnixStream::pair()?;
        let (read, write) = io::pipe()?;
        let mut into = File::from(OwnedFd::from(write.try_clone()?));
        let (told, holder) = mpsc::channel();
        let hold = move || {
            told.send(gettid()).map_err(io::Error::other)?;
            // The standard library splices where one end is a pipe. The other end of the pipe
            // stays open meanwhile, so that writing is no error.
            let _read = read;
            io::copy(&mut there, &mut into).map(|_| ())
        };
        let held = Self {
            socket: Some(here),
            threads: vec![thread::Builder::new().name(HOLDER.into()).spawn(hold)?],
            pipe: File::from(OwnedFd::from(write)),
        };
        sleeps_in_splice(holder.recv().map_err(io::Error::other)?)?;
        Ok(held)
    }

    /// Lets another thread wait for it.
    ///
    /// # Errors
    /// There are no more threads or descriptors to be had.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut pipe = self.pipe.try_clone()?;
        let wait = move || match pipe.write(&[0]) {
            // The holder and its end of the pipe may be gone by then.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map(|_| ()),
        };
        let waiter = thread::Builder::new().name(WAITER.into()).spawn(wait)?;
        self.threads.push(waiter);
        Ok(())
    }
}

/// Waits until a thread of this process sleeps in splice(2): nobody else wants the mutex, so it
/// has it and waits for data.
fn sleeps_in_splice(thread: Pid) -> io::Result<()> {
    let file = format!("/proc/self/task/{thread}/syscall");
    let splice = libc::SYS_splice.to_string();
    let deadline = Instant::now() + Duration::from_secs(20);
    // "running", or the number of the system call and its arguments (proc_pid_syscall,
    // fs/proc/base.c).
    while fs::read_to_string(&file)?.split(' ').next() != Some(&splice) {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        drop(self.socket.take());
        for thread in self.threads.drain(..) {
            // A failed one is told by what it printed.
            let _ = thread.join();
        }
    }
}
