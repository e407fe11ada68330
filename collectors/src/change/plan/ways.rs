//! How a holder is stopped other than by a signal, from what its cgroup's path tells.

use stalltop_model::change::shell_word;
use stalltop_model::printable;
use stalltop_model::sample::{Owner, OwnerKind};

use crate::{Env, file};

/// One way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The command, for a person to run.
    pub(super) command: String,
    /// What it does besides.
    pub(super) consequence: String,
}

/// The parts of an owner's name from the host inwards: `pod 2f6e1c9a`, `containerd 3f2a9c1b7d44`.
fn parts(owner: &Owner) -> Vec<String> {
    printable(&owner.name)
        .split('/')
        .map(str::to_owned)
        .collect()
}

/// The way that fits an owner; `None` where only the process itself can be stopped.
pub(super) fn of(owner: &Owner) -> Option<Way> {
    let parts = parts(owner);
    // Containers are told by the runtime's word and an id, wherever in the name.
    let of_runtime = |word: &str| {
        let id = parts.iter().rev().find_map(|p| p.strip_prefix(word))?;
        id.split(' ').next().map(shell_word)
    };
    let pod = parts.iter().find_map(|p| p.strip_prefix("pod "));
    let last = parts.last().map(String::as_str).unwrap_or_default();
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
                 pods -A, uid {pod}...; a DaemonSet more likely than not)"
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
            "systemctl --user --machine={uid}@ stop {}",
            shell_word(last)
        ),
        _ => format!("systemctl stop {}", shell_word(last)),
    };
    Some(Way {
        command,
        consequence: "stops all of the unit, and systemd leaves it so until somebody starts it"
            .into(),
    })
}

/// Where systemd looks for units, what counts most first (systemd.unit(5)).
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A service's `Restart=` and the file that has it; `None` where it has none, so that systemd
/// leaves it stopped, or is no service of this host.
pub(super) fn restart(env: &Env, owner: &Owner) -> Option<(String, String)> {
    let unit = owner.name.strip_suffix(".service")?;
    if owner.kind != OwnerKind::Unit || unit.contains(['/', '\0']) {
        return None;
    }
    let mut names = vec![format!("{unit}.service")];
    if let Some((template, _)) = unit.split_once('@') {
        names.push(format!("{template}@.service"));
    }
    // Drop-ins count more than the unit, and among them the last by name.
    let mut drop_ins: Vec<(String, String)> = Vec::new();
    for name in &names {
        for folder in UNITS {
            let folder = format!("{folder}/{name}.d");
            let entries = std::fs::read_dir(env.path(&folder));
            for entry in entries.into_iter().flatten().flatten() {
                if let Ok(file) = entry.file_name().into_string()
                    && file.ends_with(".conf")
                    && !drop_ins.iter().any(|(known, _)| *known == file)
                {
                    drop_ins.push((file.clone(), format!("{folder}/{file}")));
                }
            }
        }
    }
    drop_ins.sort();
    let unit = names
        .iter()
        .flat_map(|name| UNITS.map(|folder| format!("{folder}/{name}")))
        .find(|path| env.path(path).exists());
    let files = drop_ins.into_iter().rev().map(|(_, path)| path).chain(unit);
    let (value, path) = files
        .filter_map(|path| {
            let text = file::read_text(&env.path(&path)).ok()?;
            let last = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Restart="))
                .next_back()?;
            Some((last.trim().to_owned(), path))
        })
        .next()?;
    (!value.is_empty() && value != "no").then_some((value, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner;

    #[test]
    fn each_owner_has_its_command() {
        let id = "3f2a9c1b7d44aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for (path, command) in [
            (
                "/system.slice/netdata.service",
                Some("systemctl stop netdata.service".to_owned()),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service",
                Some("systemctl --user --machine=1000@ stop agent.service".to_owned()),
            ),
            (
                &format!("/docker/{id}/supervisor"),
                Some("docker stop 3f2a9c1b7d44".to_owned()),
            ),
            (&format!("/docker/{id}/system.slice/nginx.service"), None),
            ("/user.slice/user-0.slice/session-4.scope", None),
            ("/", None),
            (
                &format!("/kubepods/burstable/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4/{id}"),
                Some("crictl stop 3f2a9c1b7d44".to_owned()),
            ),
            (
                &format!(
                    "/kubepods.slice/kubepods-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice/cri-containerd-{id}.scope"
                ),
                Some("crictl stop 3f2a9c1b7d44".to_owned()),
            ),
        ] {
            let owner = owner::of_cgroup_path(path);
            assert_eq!(of(&owner).map(|w| w.command), command, "{path}: {owner:?}");
        }
        let hostile = Owner {
            kind: OwnerKind::Unit,
            name: "a;rm -rf x.service".into(),
            cgroup: "/".into(),
        };
        assert_eq!(
            of(&hostile).unwrap().command,
            "systemctl stop 'a;rm -rf x.service'"
        );
    }

    #[test]
    fn the_last_word_on_restarting_counts() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::at(dir.path());
        let owner = |name: &str| Owner {
            kind: OwnerKind::Unit,
            name: name.into(),
            cgroup: "/".into(),
        };
        let put = |path: &str, text: &str| {
            let path = env.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(restart(&env, &owner("a@1.service")), None);
        put(
            "/usr/lib/systemd/system/a@.service",
            "[Service]\nRestart=on-failure\n",
        );
        let found = || restart(&env, &owner("a@1.service")).map(|(value, _)| value);
        assert_eq!(found().as_deref(), Some("on-failure"));
        put(
            "/etc/systemd/system/a@1.service.d/10.conf",
            "[Service]\nRestart=always\n",
        );
        assert_eq!(found().as_deref(), Some("always"));
        put(
            "/run/systemd/system/a@.service.d/20.conf",
            "[Service]\n Restart=no\n",
        );
        assert_eq!(found(), None);
        assert_eq!(restart(&env, &owner("../../x.service")), None);
    }
}
