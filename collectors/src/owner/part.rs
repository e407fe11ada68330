//! One component of a cgroup path.

use stalltop_model::name::unescape;
use stalltop_model::sample::OwnerKind;

/// How much a component says about who is in there, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Only groups others: a slice, `docker`, `kubepods/burstable`.
    Group,
    /// Not recognised: the name itself, below whatever was recognised before it.
    Tail,
    /// A person's slice or service manager.
    User,
    /// A unit of systemd.
    Unit,
    /// A container, pod or machine.
    Tenant,
}

/// One recognised component.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) class: Class,
    pub(super) kind: OwnerKind,
    /// What it adds to the name.
    pub(super) label: String,
    /// The name where nothing else is known.
    pub(super) alone: Option<String>,
}

impl Part {
    fn new(class: Class, kind: OwnerKind, label: impl Into<String>) -> Self {
        Self {
            class,
            kind,
            label: label.into(),
            alone: None,
        }
    }

    fn tenant(kind: OwnerKind, label: impl Into<String>) -> Self {
        Self::new(Class::Tenant, kind, label)
    }
}

/// Reads one component; `before` is the one that holds it.
pub(super) fn read(component: &str, before: &str) -> Part {
    tenant(component, before)
        .or_else(|| systemd(component))
        .unwrap_or_else(|| match component {
            "docker" | "lxc" | "lxc.payload" | "lxc.monitor" | "libpod_parent" | "kubepods"
            | "burstable" | "besteffort" | "ecs" | "garden" | "machine" => {
                Part::new(Class::Group, OwnerKind::Slice, component)
            }
            _ => Part::new(Class::Tail, OwnerKind::Other, component),
        })
}

/// A container named by its runtime and id, as in `docker-ID.scope` or `SLICE:docker:ID`.
/// `None` if the id is not one, so that units such as `docker-prune.service` stay units.
pub(super) fn runtime_and_id(runtime: &str, id: &str) -> Option<Part> {
    let known = match runtime {
        "docker" => Some((OwnerKind::Docker, "docker", "")),
        "cri-containerd" => Some((OwnerKind::Containerd, "containerd", "")),
        "nerdctl" => Some((OwnerKind::Containerd, "nerdctl", "")),
        "crio" => Some((OwnerKind::CriO, "cri-o", "")),
        "crio-conmon" => Some((OwnerKind::CriO, "cri-o", " (conmon)")),
        "libpod" | "libpod-payload" => Some((OwnerKind::Podman, "podman", "")),
        "libpod-conmon" => Some((OwnerKind::Podman, "podman", " (conmon)")),
        _ => None,
    };
    let (kind, label, role) = match known {
        Some(known) if is_hex(id, 12..=64) => known,
        None if is_hex(id, 64..=64) && !runtime.is_empty() => (OwnerKind::Container, runtime, ""),
        _ => return None,
    };
    Some(Part::tenant(kind, format!("{label} {}{role}", short(id))))
}

/// Containers, pods and machines.
fn tenant(component: &str, before: &str) -> Option<Part> {
    let unit = component.strip_suffix(".scope");
    let bare = unit.unwrap_or(component);
    if let Some((runtime, id)) = bare.rsplit_once('-')
        && let Some(part) = runtime_and_id(runtime, id)
    {
        return Some(part);
    }
    if let Some(part) = pod(component) {
        return Some(part);
    }
    if let Some(name) = unit.and_then(|u| u.strip_prefix("machine-")) {
        let name = unescape(name);
        return Some(Part::tenant(OwnerKind::Machine, format!("machine {name}")));
    }
    if let Some(name) = component
        .strip_prefix("systemd-nspawn@")
        .and_then(|c| c.strip_suffix(".service"))
    {
        let name = unescape(name);
        return Some(Part::tenant(OwnerKind::Machine, format!("machine {name}")));
    }
    for (prefix, role) in [("lxc.payload.", ""), ("lxc.monitor.", " (monitor)")] {
        if let Some(name) = component.strip_prefix(prefix).filter(|n| !n.is_empty()) {
            return Some(Part::tenant(OwnerKind::Lxc, format!("lxc {name}{role}")));
        }
    }
    match before {
        "lxc" | "lxc.payload" => Some(Part::tenant(OwnerKind::Lxc, format!("lxc {component}"))),
        "lxc.monitor" => Some(Part::tenant(
            OwnerKind::Lxc,
            format!("lxc {component} (monitor)"),
        )),
        "garden" => Some(Part::tenant(
            OwnerKind::Container,
            format!("garden {component}"),
        )),
        "ecs" if is_hex(component, 32..=32) || uid(component).is_some() => {
            Some(ecs_task(component))
        }
        "machine" if component.ends_with(".libvirt-qemu") => Some(Part::tenant(
            OwnerKind::Machine,
            format!("machine {}", component.trim_end_matches(".libvirt-qemu")),
        )),
        "docker" if is_hex(component, 64..=64) => Some(Part::tenant(
            OwnerKind::Docker,
            format!("docker {}", short(component)),
        )),
        "libpod_parent" if is_hex(component, 64..=64) => Some(podman_pod(component)),
        _ if is_hex(component, 64..=64) => Some(Part::tenant(
            OwnerKind::Container,
            format!("container {}", short(component)),
        )),
        // Fargate: /ecs/TASK/TASK-NUMBER.
        _ => {
            let (task, number) = component.split_once('-')?;
            (before == task && is_hex(task, 32..=32) && is_decimal(number)).then(|| {
                Part::tenant(
                    OwnerKind::Container,
                    format!("container {}-{number}", short(task)),
                )
            })
        }
    }
}

/// Kubernetes, podman and ECS groups of containers.
fn pod(component: &str) -> Option<Part> {
    let slice = component.strip_suffix(".slice");
    if let Some(id) = slice
        .and_then(|s| s.rsplit_once("libpod_pod_"))
        .map(|(_, id)| id)
        && is_hex(id, 12..=64)
    {
        return Some(podman_pod(id));
    }
    if let Some(task) = slice.and_then(|s| s.strip_prefix("ecstasks-"))
        && is_hex(task, 32..=32)
    {
        return Some(ecs_task(task));
    }
    let id = match slice {
        // The kubelet may run below a slice of its own: kubelet-kubepods-...-podUID.slice.
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => component.strip_prefix("pod")?,
    };
    let uid = uid(id)?;
    Some(Part::tenant(OwnerKind::Pod, format!("pod {uid}")))
}

fn podman_pod(id: &str) -> Part {
    Part::tenant(OwnerKind::Podman, format!("podman pod {}", short(id)))
}

fn ecs_task(id: &str) -> Part {
    let id: String = id.chars().take(8).collect();
    Part::tenant(OwnerKind::Container, format!("ecs task {id}"))
}

/// The first eight digits of a pod's uid: a UUID, its dashes perhaps written as
/// underscores (systemd's driver), or the bare hash of a static pod.
fn uid(text: &str) -> Option<&str> {
    let uuid = || {
        let mut lengths = [8, 4, 4, 4, 12].into_iter();
        text.split(['-', '_'])
            .all(|group| lengths.next().is_some_and(|n| is_hex(group, n..=n)))
            && lengths.next().is_none()
    };
    (is_hex(text, 32..=32) || uuid()).then(|| text.get(..8))?
}

/// Units of systemd that have a cgroup: slices, services, scopes, sockets, mounts, swaps.
fn systemd(component: &str) -> Option<Part> {
    // systemd's cg_escape() puts `_` before a name that would clash with the kernel's files.
    let unit = component.strip_prefix('_').unwrap_or(component);
    let (stem, suffix) = unit.rsplit_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let user = match suffix {
        "slice" => stem.strip_prefix("user-"),
        "service" => stem.strip_prefix("user@"),
        _ => None,
    };
    if let Some(uid) = user.filter(|uid| is_decimal(uid)) {
        let mut part = Part::new(Class::User, OwnerKind::Slice, format!("user {uid}"));
        if suffix == "service" {
            part.kind = OwnerKind::Unit;
        }
        part.alone = Some(unit.to_owned());
        return Some(part);
    }
    match suffix {
        "slice" => Some(Part::new(Class::Group, OwnerKind::Slice, unescape(unit))),
        "scope" if stem.strip_prefix("session-").is_some_and(is_word) => Some(Part::new(
            Class::Unit,
            OwnerKind::Session,
            stem.replacen('-', " ", 1),
        )),
        "service" | "scope" | "socket" | "mount" | "swap" => {
            Some(Part::new(Class::Unit, OwnerKind::Unit, unescape(unit)))
        }
        _ => None,
    }
}

/// The first twelve digits, as the runtimes' own tools print ids.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn is_hex(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
