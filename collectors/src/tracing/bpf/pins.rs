//! Objects pinned in bpffs (Documentation/bpf/, kernel/bpf/inode.c).

use std::collections::HashMap;
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

/// Where objects are pinned, by their ids.
#[derive(Debug, Default)]
pub(super) struct Pins {
    pub(super) programs: HashMap<u32, Vec<Name>>,
    pub(super) links: HashMap<u32, Vec<Name>>,
    pub(super) maps: HashMap<u32, Vec<Name>>,
    /// What was not looked at, if anything.
    pub(super) beyond: Option<String>,
}

/// What is pinned where, in all bpffs mounts of this mount namespace. Symbolic links are not
/// followed, and no file is opened but through `BPF_OBJ_GET`: what is pinned may be an iterator,
/// which runs its program when read.
pub(super) fn walk(env: &Env, buf: &mut Vec<u8>) -> Pins {
    let mut found = Pins::default();
    let mut files = 0;
    'mounts: for mount in env.mounts.iter().filter(|m| m.fs == "bpf") {
        let mut folders = vec![(PathBuf::from(&mount.at), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() && depth < MAX_DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else if kind.is_dir() {
                    found.beyond = Some(format!("{MAX_DEPTH} folders deep in bpffs"));
                } else if kind.is_file() {
                    files += 1;
                    if files > MAX_FILES {
                        found.beyond = Some(format!("the first {MAX_FILES} pins"));
                        break 'mounts;
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
                    let pins = match held {
                        Some(Held::Program(id)) => found.programs.entry(id),
                        Some(Held::Link { link, .. }) => found.links.entry(link),
                        Some(Held::Map(id)) => found.maps.entry(id),
                        None => continue,
                    };
                    pins.or_default().push(path);
                }
            }
        }
    }
    for pins in (found.programs.values_mut())
        .chain(found.links.values_mut())
        .chain(found.maps.values_mut())
    {
        pins.sort_unstable();
    }
    found
}
