//! Tools that we did not write, for the machines: Debian's packages, unpacked into a file system
//! that the machine mounts. In its memory they would take more room than all the rest: bpftrace
//! alone brings LLVM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{self, Apt};
use super::cache;

/// bpftrace; bpftool; perf; and of the bcc tools those that need no Python.
const PACKAGES: &[&str] = &["bpftrace", "bpftool", "linux-perf", "libbpf-tools"];

/// What is in the packages, but not to be run.
const LEFT_OUT: &[&str] = &[
    "usr/share",
    "usr/include",
    "usr/lib/python3",
    "usr/lib/perf-core",
];

/// The file system's image, from the cache or made now; `again` fetches today's packages.
///
/// # Errors
/// Where a package cannot be fetched, or e2fsprogs is missing.
pub(super) fn image(again: bool) -> Result<PathBuf> {
    let dir = cache::dir()?.join("tools");
    cache::once(&dir, again, |into| {
        let apt = Apt::host(&cache::dir()?.join("apt/host"))?;
        let packages = apt.closure(PACKAGES)?;
        eprintln!(
            "fetching {} and {} libraries",
            PACKAGES.join(", "),
            packages.len() - PACKAGES.len()
        );
        let root = into.join("root");
        fs::create_dir_all(&root)?;
        apt.unpack(&packages, &root)?;
        for path in LEFT_OUT {
            let _ = fs::remove_dir_all(root.join(path));
        }
        file_system(&root, &into.join("image"))?;
        fs::remove_dir_all(&root)?;
        Ok(())
    })?;
    Ok(dir.join("image"))
}

/// An ext4 image of a folder, made without root and without mounting it (mke2fs -d).
fn file_system(root: &Path, image: &Path) -> Result<()> {
    let used = apt::run(Command::new("du").args(["-s", "--block-size=1M"]).arg(root))?;
    let used: u64 = used
        .split_whitespace()
        .next()
        .and_then(|size| size.parse().ok())
        .with_context(|| format!("du: {used}"))?;
    let mut make = Command::new("mke2fs");
    make.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    make.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E"]);
    make.args(["root_owner=0:0", "-d"]).arg(root).arg(image);
    apt::run(make.arg(format!("{}M", used + used / 8 + 32))).map(drop)
}
