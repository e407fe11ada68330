//! Opens recordings, and says what is wrong with those that are none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use stalltop_model::recording::{Recording, RecordingError};

use crate::commands::Usage;

/// How many bytes tell a zstd file.
const MAGIC_LEN: u64 = 4;

/// Reads and indexes a recording; `progress` is told the share done, 0 to 1.
pub(crate) fn open(file: &Path, progress: impl FnMut(f32)) -> anyhow::Result<Recording> {
    let data = read(file).map_err(|e| Usage(format!("{}: {e}", file.display())))?;
    Ok(Recording::open(data, progress).map_err(|e| bad(file, &e))?)
}

/// Whether there is a file that may be a recording, without reading it.
pub(crate) fn check(file: &Path) -> anyhow::Result<()> {
    open_file(file)
        .map(drop)
        .map_err(|e| Usage(format!("{}: {e}", file.display())).into())
}

/// Opens a regular file. What else may have the name is not waited for: to open a FIFO takes until
/// somebody writes to it.
fn open_file(file: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(file)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("a recording is a regular file"));
    }
    Ok(file)
}

/// Reads a file whole, but of one that is no recording only the beginning.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_file(file)?;
    let mut data = Vec::new();
    file.by_ref().take(MAGIC_LEN).read_to_end(&mut data)?;
    if Recording::may_be(&data) {
        file.read_to_end(&mut data)?;
    }
    Ok(data)
}

/// The one line about a bad recording.
pub(crate) fn bad(file: &Path, error: &RecordingError) -> Usage {
    Usage(format!("{}: {error}", file.display()))
}
