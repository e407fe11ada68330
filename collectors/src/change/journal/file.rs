//! The journal's file: owned by us, closed to others, locked, flushed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, accessat, flock};
use rustix::io::Errno;
use stalltop_model::change::ChangeError;
use stalltop_model::printable;

/// How long another instance's lock is waited for.
const WAIT: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(20);
/// A journal larger than this is not read: something else is wrong.
const MAX: u64 = 256 << 20;

const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;

/// An error about the journal at `path`.
pub(super) fn error(path: &Path, why: &str) -> ChangeError {
    ChangeError::Journal {
        path: path.to_string_lossy().into(),
        why: why.into(),
    }
}

fn io_error(path: &Path, what: &str, e: &io::Error) -> ChangeError {
    let hint = match e.raw_os_error() {
        Some(libc::ELOOP) => " (it is a symbolic link, which is not followed)",
        Some(libc::EACCES | libc::EPERM) => " (run as root)",
        Some(libc::ENOSPC | libc::EROFS) => " (nothing is changed without it: --journal FILE)",
        _ => "",
    };
    error(path, &format!("{what}: {e}{hint}"))
}

/// Reads the file; one that does not exist is empty.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ChangeError> {
    trusted_folder(path)?;
    match OpenOptions::new().read(true).custom_flags(FLAGS).open(path) {
        Ok(mut file) => {
            trusted(path, &file)?;
            contents(path, &mut file)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_error(path, "cannot be opened", &e)),
    }
}

fn contents(path: &Path, file: &mut File) -> Result<Vec<u8>, ChangeError> {
    let mut bytes = Vec::new();
    file.take(MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| io_error(path, "cannot be read", &e))?;
    if bytes.len() as u64 > MAX {
        return Err(error(path, "larger than any journal; is it one?"));
    }
    Ok(bytes)
}

/// What a journal says is written to the kernel: nobody else may have written it.
fn trusted(path: &Path, file: &File) -> Result<(), ChangeError> {
    let meta = file
        .metadata()
        .map_err(|e| io_error(path, "cannot be examined", &e))?;
    let why = if !meta.is_file() {
        "not a regular file".to_owned()
    } else if meta.uid() != rustix::process::geteuid().as_raw() && meta.uid() != 0 {
        format!("belongs to uid {}: not trusted", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!(
            "others may write it (mode {:o}): not trusted",
            meta.mode() & 0o777
        )
    } else if meta.nlink() > 1 {
        "has a second name (hard link): not trusted".to_owned()
    } else {
        return Ok(());
    };
    Err(error(path, &why))
}

/// In a folder that anybody may write to, or that somebody else's link leads to, a journal could be
/// put, taken away or led elsewhere by others. A folder that is still to be made is no such one.
fn trusted_folder(path: &Path) -> Result<(), ChangeError> {
    let folder = folder(path);
    let Ok(name) = folder.symlink_metadata() else {
        return Ok(());
    };
    let ours = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw();
    if name.is_symlink() && !ours(name.uid()) {
        let why = format!("its folder is a symbolic link of uid {}", name.uid());
        return Err(error(path, &format!("{why}: not trusted")));
    }
    let Ok(meta) = folder.metadata() else {
        return Ok(());
    };
    // In a sticky one, such as /tmp, nobody can rename or remove what is another's.
    if meta.mode() & 0o002 != 0 && meta.mode() & 0o1000 == 0 {
        let why = format!(
            "anybody may write its folder (mode {:o})",
            meta.mode() & 0o7777
        );
        return Err(error(path, &format!("{why}: not trusted")));
    }
    Ok(())
}

/// The file, open and locked.
pub(super) struct LockedFile {
    path: PathBuf,
    file: File,
}

impl LockedFile {
    /// Opens or creates the file (mode 0600) and its folder (mode 0700), and takes the lock.
    pub(super) fn open(path: &Path) -> Result<Self, ChangeError> {
        trusted_folder(path)?;
        let file = match Self::open_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_folder(path)?;
                Self::open_file(path)
            }
            other => other,
        }
        .map_err(|e| io_error(path, "cannot be opened", &e))?;
        trusted(path, &file)?;
        lock(path, &file)?;
        let locked = Self {
            path: path.to_owned(),
            file,
        };
        // The file's name must be on disk as well as its contents.
        locked.sync_folder()?;
        Ok(locked)
    }

    fn open_file(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(FLAGS)
            .open(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of it.
    pub(super) fn contents(&mut self) -> Result<Vec<u8>, ChangeError> {
        contents(&self.path, &mut self.file)
    }

    /// Appends in one write and flushes to disk.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ChangeError> {
        self.file
            .write_all(bytes)
            .and_then(|()| self.file.sync_all())
            .map_err(|e| io_error(&self.path, "cannot be written", &e))
    }

    fn sync_folder(&self) -> Result<(), ChangeError> {
        File::open(folder(&self.path))
            .and_then(|dir| dir.sync_all())
            .map_err(|e| io_error(&self.path, "its folder cannot be flushed", &e))
    }
}

/// Whether the file could be opened for writing, or made: its folder, or the one above where
/// that is still to be made, is looked at.
pub(super) fn may_write(path: &Path) -> Result<(), ChangeError> {
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if exists(path) {
        return OpenOptions::new()
            .append(true)
            .custom_flags(FLAGS)
            .open(path)
            .map(drop)
            .map_err(|e| io_error(path, "cannot be opened", &e));
    }
    let place = match folder(path) {
        there if exists(there) => there,
        to_come => folder(to_come),
    };
    match accessat(
        CWD,
        place,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    ) {
        // Running set-user-ID on a kernel that cannot tell: the write itself will.
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(e) => Err(io_error(path, "cannot be made", &e.into())),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn make_folder(path: &Path) -> Result<(), ChangeError> {
    let folder = folder(path);
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(e),
        })
        .map_err(|e| io_error(path, "its folder cannot be made", &e))
}

fn lock(path: &Path, file: &File) -> Result<(), ChangeError> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if started.elapsed() < WAIT => {
                std::thread::sleep(AGAIN);
            }
            Err(Errno::WOULDBLOCK) => {
                let who = holder(file).unwrap_or_else(|| "another stalltop".to_owned());
                return Err(error(
                    path,
                    &format!("{who} is changing this host right now; try again when it is done"),
                ));
            }
            Err(e) => return Err(io_error(path, "cannot be locked", &e.into())),
        }
    }
}

/// The process that holds the lock, as `comm[pid]`, from /proc/locks (proc_locks(5)):
/// `1: FLOCK  ADVISORY  WRITE 4711 00:1a:2693 0 EOF`.
fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid: u32 = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let pid = words.nth(2)?;
        let at = words.next()?.rsplit_once(':')?.1;
        (kind == "FLOCK" && at.parse() == Ok(inode)).then(|| pid.parse().ok())?
    })?;
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm = String::from_utf8_lossy(&comm);
    Some(format!("{}[{pid}]", printable(comm.trim())))
}
