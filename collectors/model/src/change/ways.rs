//! How a holder is stopped other than by a signal, from what its cgroup's path tells.

use super::shell_word;
use crate::name::unescape;
use crate::printable;
use crate::sample::{Owner, OwnerKind};

/// One way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The command, for a person to run: safe to paste, whatever the names are.
    pub command: String,
    /// What it does besides.
    pub consequence: String,
}

/// A unit as systemd calls it: its name is shown without the escapes (systemd-escape(1)) that it
/// has in the path of its cgroup.
pub fn unit(owner: &Owner) -> &str {
    let shown = owner.name.rsplit('/').next().unwrap_or_default();
    let mut folders = owner.cgroup.rsplit('/');
    let escaped = folders.find(|folder| folder.contains(r"\x") && unescape(folder) == shown);
    escaped.unwrap_or(shown)
}

/// The way that fits an owner; `None` where only the process itself can be stopped.
pub fn of(owner: &Owner) -> Option<Way> {
    // From the host inwards: `pod 2f6e1c9a`, `containerd 3f2a9c1b7d44`.
    let parts: Vec<&str> = owner.name.split('/').collect();
    // Containers are told by the runtime's word and an id, wherever in the name.
    let of_runtime = |word: &str| {
        let id = parts.iter().rev().find_map(|p| p.strip_prefix(word))?;
        id.split(' ').next().map(shell_word)
    };
    let pod = parts.iter().find_map(|p| p.strip_prefix("pod "));
    let container = match owner.kind {
        OwnerKind::Docker => of_runtime("docker ").map(|id| ("docker stop", id)),
        OwnerKind::Podman => of_runtime("podman ").map(|id| ("podman stop", id)),
        OwnerKind::Containerd => of_runtime("containerd ").map(|id| ("crictl stop", id)),
        OwnerKind::CriO => of_runtime("cri-o ").map(|id| ("crictl stop", id)),
        OwnerKind::Container if pod.is_some() => {
            of_runtime("container ").map(|id| ("crictl stop", id))
        }
        OwnerKind::Lxc => of_runtime("lxc ").map(|id| ("lxc-stop", id)),
        OwnerKind::Machine => of_runtime("machine ").map(|id| ("machinectl poweroff", id)),
        _ => None,
    };
    if let Some((command, id)) = container {
        let consequence = match pod {
            Some(pod) => format!(
                "the kubelet starts it again: for good, delete what runs pod {pod} (kubectl get \
                 pods -A, uid {pod}...; a DaemonSet more likely than not)",
                pod = printable(pod)
            ),
            None => "stops all of the container; its restart policy may start it again".into(),
        };
        return Some(Way {
            command: format!("{command} {id}"),
            consequence,
        });
    }
    if owner.kind != OwnerKind::Unit {
        return None;
    }
    // A unit inside a container is its systemd's, which does not listen here.
    if parts.len() > 1 && !parts[0].starts_with("user ") {
        return None;
    }
    let command = match parts[0].strip_prefix("user ") {
        Some(uid) if parts.len() > 1 => format!(
            "systemctl --user {} stop {}",
            shell_word(&format!("--machine={uid}@")),
            shell_word(unit(owner))
        ),
        _ => format!("systemctl stop {}", shell_word(unit(owner))),
    };
    Some(Way {
        command,
        consequence: "stops all of the unit, and systemd leaves it so until somebody starts it"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, cgroup: &str) -> Option<String> {
        let owner = Owner {
            kind: OwnerKind::Unit,
            name: name.into(),
            cgroup: cgroup.into(),
        };
        of(&owner).map(|way| way.command)
    }

    #[test]
    fn what_is_to_be_pasted_is_quoted() {
        assert_eq!(
            command("a;rm -rf x.service", "/").unwrap(),
            "systemctl stop 'a;rm -rf x.service'"
        );
        assert_eq!(
            command("user 1;id/a\n.service", "/").unwrap(),
            r"systemctl --user '--machine=1;id@' stop $'a\n.service'"
        );
    }

    #[test]
    fn a_unit_is_named_as_systemd_does() {
        assert_eq!(
            command(
                "fsck@dev-disk-by-uuid-6b.service",
                r"/system.slice/system-fsck.slice/fsck@dev-disk-by\x2duuid-6b.service"
            )
            .unwrap(),
            r"systemctl stop 'fsck@dev-disk-by\x2duuid-6b.service'"
        );
    }
}
