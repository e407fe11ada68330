//! The one place where bytes go to the kernel.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use stalltop_model::change::{ChangeError, OpenMode, Write};

use crate::Env;

use super::journal::Journal;
use super::process;
use super::target::{self, Target};

/// Leave to change a host. Only [`crate::live::Live`] gives one: a replay or a read-only
/// session has no way to come by it.
#[derive(Clone, Debug)]
pub struct Writer {
    root: PathBuf,
    journal: PathBuf,
}

impl Writer {
    /// For [`crate::live::Live::writer`].
    pub(crate) fn new(env: &Env, journal: Option<&Path>) -> Self {
        Self {
            root: env.root().to_owned(),
            journal: Journal::path_for(env, journal),
        }
    }

    /// The journal that changes are written down in.
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// The host as it is now: mounts may have changed since the last look.
    pub(super) fn env(&self) -> Env {
        Env::at(&self.root)
    }

    /// Checks that a write is one of those that stalltop makes. A journal may have been
    /// tampered with, so what it asks to put back is checked the same way.
    pub(super) fn check(env: &Env, write: &Write) -> Result<Target, ChangeError> {
        let refused = |why: &str| ChangeError::Refused {
            command: write.command().into(),
            why: why.into(),
        };
        let target = target::classify(env, &write.path)
            .ok_or_else(|| refused("not a file that stalltop writes (or not mounted any more)"))?;
        if target == Target::MountPoint
            && write.mode == OpenMode::Mount
            && target::mount_point(&write.value) != Some(&*write.path)
        {
            return Err(refused("not where this file system belongs"));
        }
        if !target.takes(write.mode, &write.value) {
            return Err(refused("not a value that stalltop writes there"));
        }
        Ok(target)
    }

    /// Makes one write, which [`Writer::check`] has let through.
    pub(super) fn write(&self, env: &Env, write: &Write) -> Result<(), ChangeError> {
        self.try_write(env, write)
            .map_err(|e| ChangeError::Refused {
                command: write.command().into(),
                why: why(&e).into(),
            })
    }

    fn try_write(&self, env: &Env, write: &Write) -> io::Result<()> {
        let path = env.path(&write.path);
        let mut options = OpenOptions::new();
        match write.mode {
            OpenMode::Plain => options.write(true),
            OpenMode::Truncate => options.write(true).truncate(true),
            OpenMode::Append => options.append(true),
            OpenMode::Mount => {
                let fs: &str = &write.value;
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                return Ok(rustix::mount::mount(fs, &path, fs, flags, None)?);
            }
            OpenMode::Unmount => {
                return Ok(rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW)?);
            }
            OpenMode::Signal => return process::send(env, write),
        };
        let mut file = options
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)?;
        // In one write(2): tracefs takes each write as a whole command.
        let line = format!("{}\n", write.value);
        let written = loop {
            match file.write(line.as_bytes()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if written != line.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("only {written} of {} bytes were taken", line.len()),
            ));
        }
        Ok(())
    }
}

/// An error's text, with what it means for the files written here.
fn why(e: &io::Error) -> String {
    let hint = match e.raw_os_error() {
        Some(libc::EBUSY) => "; something still uses it",
        Some(libc::EACCES) => "; run as root",
        Some(libc::EPERM) => "; run as root, or lockdown refuses it (stalltop doctor tells)",
        Some(libc::ENOENT | libc::ESRCH) => "; it is gone",
        Some(libc::ENOSYS) => {
            "; signals go to a descriptor of the process, which Linux 5.3 brought"
        }
        _ => "",
    };
    format!("{e}{hint}")
}
