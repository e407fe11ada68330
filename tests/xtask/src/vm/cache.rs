//! Where fetched packages are kept, and the lock that makes two fetches at once one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of everything that was fetched: `$XDG_CACHE_HOME/stalltop/vm`, or below `~/.cache`.
pub(crate) fn dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache"),
    };
    let dir = base.join("stalltop/vm");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// Holds off other fetches into the same cache until the file is dropped.
pub(crate) fn lock() -> Result<File> {
    let path = dir()?.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Fills `dir` with `fill` unless it is there already: the work is done in a folder beside it,
/// which is renamed at the end, so a fetch cut short leaves nothing that looks whole.
pub(crate) fn once(dir: &Path, again: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.is_dir() && !again {
        return Ok(());
    }
    let mut part = dir.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    remove(part)?;
    fs::create_dir_all(part).with_context(|| format!("create {}", part.display()))?;
    fill(part)?;
    remove(dir)?;
    fs::rename(part, dir).with_context(|| format!("rename {} to {}", part.display(), dir.display()))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
