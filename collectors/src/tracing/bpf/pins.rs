//! Objects pinned in bpffs (Documentation/bpf/, kernel/bpf/inode.c).

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use stalltop_model::Name;
use stalltop_probes::sys::ids;

use crate::Env;
use crate::tracing::holders::{Held, fdinfo};
use crate::tracing::instance::slurp;
use crate::tracing::text::name;

/// At most so many files are looked at: a tool gone wild must not hold stalltop up.
const MAX_FILES: usize = 10_000;

/// At most so many folders deep.
const MAX_DEPTH: usize = 16;

/// What is pinned where, in all bpffs mounts of this mount namespace. Symbolic links are not
/// followed, and no file is opened but through `BPF_OBJ_GET`: what is pinned may be an iterator,
/// which runs its program when read.
pub(super) fn walk(env: &Env, buf: &mut Vec<u8>) -> Vec<(Held, Name)> {
    let mut found = Vec::new();
    let mut files = 0;
    for mount in env.mounts.iter().filter(|m| m.fs == "bpf") {
        let mut folders = vec![(PathBuf::from(&mount.at), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() && depth < MAX_DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else if kind.is_file() {
                    files += 1;
                    if files > MAX_FILES {
                        return found;
                    }
                    let path = entry.path();
                    let held = CString::new(path.as_os_str().as_bytes())
                        .ok()
                        .and_then(|path| ids::pinned(&path).ok())
                        .and_then(|fd| {
                            let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
                            slurp(info.as_ref(), buf).ok().and_then(fdinfo)
                        });
                    let path = name(path.as_os_str().as_bytes());
                    found.extend(held.map(|held| (held, path)));
                }
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}
