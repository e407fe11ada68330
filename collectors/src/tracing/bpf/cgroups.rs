//! Programs attached to cgroups, and paths of cgroups from their ids.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use stalltop_model::sample::Attachment;
use stalltop_probes::sys::{names, query};

use crate::Env;

/// At most so many cgroups are looked at.
const MAX_CGROUPS: usize = 20_000;

/// Attach types by program type (kernel/bpf/syscall.c, `attach_type_to_prog_type`).
const BY_PROGRAM: [(&str, &[u32]); 8] = [
    ("cgroup_skb", &[0, 1]),
    ("cgroup_sock", &[2, 12, 13, 34]),
    ("sock_ops", &[3]),
    ("cgroup_device", &[6]),
    (
        "cgroup_sock_addr",
        &[
            8, 9, 10, 11, 14, 15, 19, 20, 29, 30, 31, 32, 49, 50, 51, 52, 53,
        ],
    ),
    ("cgroup_sysctl", &[18]),
    ("cgroup_sockopt", &[21, 22]),
    ("lsm", &[43]),
];

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Paths (below the mount) by id: a cgroup's id is its folder's inode number.
    pub(super) paths: HashMap<u64, String>,
    /// Programs and where they are attached.
    pub(super) attached: Vec<(u32, Attachment)>,
    /// What was not looked at, if anything.
    pub(super) beyond: Option<String>,
}

/// Attach types that can hold programs of these types.
pub(super) fn attach_types<'k>(kinds: impl Iterator<Item = &'k str>) -> Vec<u32> {
    let mut types: Vec<u32> = kinds
        .filter_map(|kind| BY_PROGRAM.iter().find(|(of, _)| *of == kind))
        .flat_map(|(_, types)| types.iter().copied())
        .collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// Walks the cgroup2 tree and asks each cgroup for its own programs of `types`.
///
/// Taken only where a program or a link needs it, and with the descriptors' scan, whose schedule
/// counts its time.
pub(super) fn walk(env: &Env, types: &[u32]) -> Found {
    let mut found = Found::default();
    let Some(mount) = env.mount_of("cgroup2") else {
        return found;
    };
    let root = env.path(mount);
    let mut folders = vec![root.clone()];
    // Types that this kernel does not know answer EINVAL everywhere: asked once.
    let mut types = types.to_vec();
    let mut ids = Vec::new();
    while let Some(folder) = folders.pop() {
        if found.paths.len() >= MAX_CGROUPS {
            found.beyond = Some(format!("the first {MAX_CGROUPS} cgroups"));
            break;
        }
        // Removed since it was listed.
        let Ok(dir) = File::open(&folder) else {
            continue;
        };
        let Ok(metadata) = dir.metadata() else {
            continue;
        };
        let path = below(&folder, &root);
        types.retain(
            |&kind| match query::attached(dir.as_raw_fd() as u32, kind, &mut ids) {
                Ok(()) => {
                    found.attached.extend(ids.iter().map(|&id| {
                        let attachment = Attachment {
                            kind: names::attach_type(kind).unwrap_or("cgroup").into(),
                            target: path.as_str().into(),
                            link: None,
                        };
                        (id, attachment)
                    }));
                    true
                }
                Err(e) => e.raw_os_error() != Some(libc::EINVAL),
            },
        );
        found.paths.insert(metadata.ino(), path);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// A cgroup's path as /proc/PID/cgroup has it.
fn below(folder: &std::path::Path, root: &PathBuf) -> String {
    let rest = folder.strip_prefix(root).unwrap_or(folder);
    format!("/{}", rest.to_string_lossy())
}
