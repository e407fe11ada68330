//! Who a cgroup belongs to, as a person would name it, from its path alone.
//!
//! The shapes are those of systemd.special(7) and systemd's `cg_path_decode_unit`,
//! runc's cgroup drivers (`cgroupfs` and `systemd`), the kubelet's
//! `pkg/kubelet/cm/pod_container_manager_linux.go`, podman's `libpod`, LXC's
//! `lxc.cgroup.dir`, and ECS, garden and libvirt as recorded in the tests.
//! A path is read from its root to its leaf; what the leaf adds is kept, what only
//! leads to it (slices, the runtime's own unit) is dropped.

mod part;
#[cfg(test)]
mod tests;

use stalltop_model::sample::{Owner, OwnerKind};

use crate::file;
use part::{Class, Part};

/// Names the owner of a cgroup path (below the mount, as `/proc/PID/cgroup` prints it).
///
/// Any text is taken: an unknown or hostile path names itself. The kernel's
/// ` (deleted)` after a removed cgroup's path is not part of the name.
pub fn of_cgroup_path(path: &str) -> Owner {
    Chain::read(path).owner(path)
}

/// Names the owner of a process from its `/proc/PID/cgroup` (cgroups(7)): one line on
/// a v2 host, one per hierarchy on v1 and hybrid hosts.
///
/// The line that says most is taken: a container rather than a unit rather than a bare
/// path; among equals the memory hierarchy, then the unified one, then systemd's.
/// Text without a single understandable line gives the root.
pub fn of_proc_cgroup(text: &[u8]) -> Owner {
    file::lines(text)
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line);
            let (hierarchy, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let chain = Chain::read(path);
            let preference = match controllers {
                _ if controllers.split(',').any(|c| c == "memory") => 3,
                "" if hierarchy == "0" => 2,
                "name=systemd" => 1,
                _ => 0,
            };
            Some(((chain.says(), preference), chain.owner(path)))
        })
        // max_by_key takes the last of equals; the first line is as good, so no matter.
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, owner)| owner)
        .unwrap_or_default()
}

/// The recognised parts of a path, from the root to the leaf.
#[derive(Default)]
struct Chain {
    parts: Vec<Part>,
}

impl Chain {
    fn read(path: &str) -> Self {
        let mut chain = Self::default();
        let mut before = "";
        let live = path.strip_suffix(" (deleted)").unwrap_or(path);
        for component in live.split('/') {
            if matches!(component, "" | "." | "..") {
                continue;
            }
            // garden sorts its containers by whether they keep to their CPU entitlement.
            if before == "garden" && matches!(component, "good" | "bad") {
                continue;
            }
            // runc's systemd-style path under the cgroupfs driver: SLICE:RUNTIME:ID.
            if let [slice, runtime, id] = component.splitn(3, ':').collect::<Vec<_>>()[..]
                && let Some(part) = part::runtime_and_id(runtime, id)
            {
                if !slice.is_empty() {
                    chain.push(part::read(slice, before));
                }
                chain.push(part);
            } else if !chain.is_filler(component) {
                chain.push(part::read(component, before));
            }
            before = component;
        }
        chain
    }

    /// Folders that a runtime makes inside its container's cgroup for the payload.
    fn is_filler(&self, component: &str) -> bool {
        matches!(component, "container" | "payload" | "ns")
            && self.parts.last().is_some_and(|p| p.class == Class::Tenant)
    }

    fn push(&mut self, part: Part) {
        let keeps = |before: &Part| match (before.class, part.class) {
            (_, Class::Tail) | (Class::Tenant, _) => true,
            // `podman run --cgroups=split` (Quadlet): the unit is what a person knows.
            (Class::Unit, Class::Tenant) => {
                part.kind == OwnerKind::Podman && before.label.ends_with(".service")
            }
            (Class::Unit, _) => true,
            (Class::User, class) => class != Class::User,
            (Class::Group | Class::Tail, _) => false,
        };
        while self.parts.last().is_some_and(|before| !keeps(before)) {
            self.parts.pop();
        }
        self.parts.push(part);
    }

    /// How much the chain tells a person; larger is more.
    fn says(&self) -> (u8, usize) {
        let class = self.parts.iter().map(|part| match part.class {
            Class::Tenant => 4,
            Class::Unit => 3,
            Class::User => 2,
            Class::Group | Class::Tail => 1,
        });
        (class.max().unwrap_or(0), self.parts.len())
    }

    fn owner(self, path: &str) -> Owner {
        let Some(last) = self.parts.last() else {
            return Owner {
                cgroup: path.into(),
                ..Owner::default()
            };
        };
        let known = self.parts.iter().rev().find(|p| p.class != Class::Tail);
        let kind = match known {
            // A folder below a slice or a user is neither of the two.
            Some(p) if last.class == Class::Tail && p.class < Class::Unit => OwnerKind::Other,
            Some(p) => p.kind,
            None => OwnerKind::Other,
        };
        let name = if let [Part { alone: Some(a), .. }] = &self.parts[..] {
            a.clone()
        } else {
            let labels: Vec<&str> = self.parts.iter().map(|p| p.label.as_str()).collect();
            labels.join("/")
        };
        Owner {
            kind,
            name: name.into(),
            cgroup: path.into(),
        }
    }
}
