//! A lock of the kernel that is held for as long as a test likes, and threads that wait for it.
//!
//! splice(2) from a socket into a pipe holds the pipe's mutex while it waits for the socket's data
//! (`splice_file_to_pipe`, fs/splice.c), and whoever writes to the pipe waits for the mutex.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

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
    /// Holds it from now on, or a moment later.
    ///
    /// # Errors
    /// There are no more threads or descriptors to be had.
    pub fn new() -> io::Result<Self> {
        let (here, mut there) = UnixStream::pair()?;
        let (read, write) = io::pipe()?;
        let mut into = File::from(OwnedFd::from(write.try_clone()?));
        let hold = move || {
            // The standard library splices where one end is a pipe. The other end of the pipe
            // stays open meanwhile, so that writing is no error.
            let _read = read;
            io::copy(&mut there, &mut into).map(|_| ())
        };
        Ok(Self {
            socket: Some(here),
            threads: vec![thread::Builder::new().name(HOLDER.into()).spawn(hold)?],
            pipe: File::from(OwnedFd::from(write)),
        })
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

impl Drop for HeldLock {
    fn drop(&mut self) {
        drop(self.socket.take());
        for thread in self.threads.drain(..) {
            // A failed one is told by what it printed.
            let _ = thread.join();
        }
    }
}
