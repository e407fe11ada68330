//! Where the host keeps its memory cgroups: v1, v2 or both.

use std::ffi::CStr;

use stalltop_model::Reason;
use stalltop_model::sample::{CgroupLayout, MemoryVersion};

use crate::env::Env;
use crate::file;

/// The memory hierarchy of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How the host mounts cgroups.
    pub layout: CgroupLayout,
    /// Which version owns the memory controller.
    pub version: MemoryVersion,
    /// Mount point, as the host names it.
    pub mount: String,
    /// Whether the mount shows the whole hierarchy, rather than what a container's
    /// cgroup namespace or bind mount leaves of it.
    pub whole: bool,
}

/// The inode of the initial cgroup namespace (include/linux/proc_ns.h, `PROC_CGROUP_INIT_INO`).
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

impl Place {
    /// Finds the memory controller: a v1 mount with the option `memory`, else a v2 mount
    /// whose `cgroup.controllers` names it.
    ///
    /// # Errors
    /// Why this host has no memory cgroups to be read.
    pub fn find(env: &Env) -> Result<Self, Reason> {
        let v1 = |m: &&crate::env::Mount| m.fs == "cgroup";
        let any_v1 = env.mounts.iter().any(|m| v1(&m));
        let memory_v1 = env
            .mounts
            .iter()
            .filter(v1)
            .find(|m| m.options.iter().any(|o| o == "memory"));
        let v2 = env.mounts.iter().find(|m| m.fs == "cgroup2");
        let (version, mount) = match (memory_v1, v2) {
            (Some(mount), _) => (MemoryVersion::V1, &mount.at),
            (None, Some(mount)) => {
                let controllers =
                    file::read_text(&env.path(&format!("{}/cgroup.controllers", mount.at)))?;
                if !controllers.split_whitespace().any(|c| c == "memory") {
                    return Err(no_controller(env));
                }
                (MemoryVersion::V2, &mount.at)
            }
            (None, None) => {
                return Err(Reason::NotMounted {
                    fs: "cgroup2".into(),
                    at: "/sys/fs/cgroup".into(),
                });
            }
        };
        let layout = match (any_v1, v2.is_some()) {
            (true, true) => CgroupLayout::Hybrid { memory: version },
            (true, false) => CgroupLayout::V1,
            (false, _) => CgroupLayout::V2,
        };
        Ok(Self {
            layout,
            version,
            whole: is_whole(env, mount),
            mount: mount.clone(),
        })
    }

    /// The file with the bytes charged to a cgroup.
    pub(super) fn usage_file(&self) -> &'static CStr {
        match self.version {
            MemoryVersion::V1 => c"memory.usage_in_bytes",
            MemoryVersion::V2 => c"memory.current",
        }
    }
}

/// Built without the controller, or switched off by `cgroup_disable=memory`.
fn no_controller(env: &Env) -> Reason {
    let listed = file::read(&env.path("/proc/cgroups")).is_ok_and(|text| {
        file::lines(&text).any(|line| file::words(line).next() == Some(b"memory"))
    });
    if listed {
        Reason::NotBooted {
            what: "the memory controller of cgroups".into(),
            parameter: "cgroup_enable=memory".into(),
        }
    } else {
        Reason::NotBuilt {
            config: "CONFIG_MEMCG".into(),
        }
    }
}

fn is_whole(env: &Env, mount: &str) -> bool {
    let initial = std::fs::read_link(env.path("/proc/self/ns/cgroup"))
        .map_or(true, |to| to.as_os_str() == INITIAL_NAMESPACE);
    let mountinfo = file::read(&env.path("/proc/self/mountinfo")).unwrap_or_default();
    // The fourth field is the directory of the file system that forms the mount's root.
    let root = file::lines(&mountinfo).find_map(|line| {
        let mut fields = file::words(line);
        let root = fields.nth(3)?;
        (fields.next()? == mount.as_bytes()).then_some(root)
    });
    initial && root.is_none_or(|root| root == b"/")
}
