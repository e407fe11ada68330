use proptest::prelude::*;
use stalltop_model::change::ways;
use stalltop_model::sample::OwnerKind::{self, *};

use super::{of_cgroup_path, of_proc_cgroup};

/// 64 hexadecimal digits, and others of the kind.
const A: &str = "3f2a9c1b7d44e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819";
const B: &str = "9b1c2d3e4f5061728394a5b6c7d8e9f00112233445566778899aabbccddeeff0";

fn check(cases: &[(&str, OwnerKind, &str)]) {
    for (path, kind, name) in cases {
        let path = path.replace("{A}", A).replace("{B}", B);
        let owner = of_cgroup_path(&path);
        assert_eq!((owner.kind, &*owner.name), (*kind, *name), "{path}");
        assert_eq!(*owner.cgroup, *path);
    }
}

#[test]
fn systemd() {
    check(&[
        ("/", Root, "/"),
        ("", Root, "/"),
        ("/init.scope", Unit, "init.scope"),
        ("/system.slice", Slice, "system.slice"),
        ("/system.slice/netdata.service", Unit, "netdata.service"),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            Unit,
            "getty@tty1.service",
        ),
        (
            "/system.slice/system-systemd\\x2dfsck.slice/systemd-fsck@dev-disk-by\\x2duuid-6b.service",
            Unit,
            "systemd-fsck@dev-disk-by-uuid-6b.service",
        ),
        ("/dev-hugepages.mount", Unit, "dev-hugepages.mount"),
        ("/system.slice/docker.socket", Unit, "docker.socket"),
        (
            "/system.slice/docker-prune.service",
            Unit,
            "docker-prune.service",
        ),
        ("/system.slice/dev-dm\\x2d1.swap", Unit, "dev-dm-1.swap"),
        ("/system.slice/gone.service (deleted)", Unit, "gone.service"),
        (
            "/system.slice/varnish.service/worker-1",
            Unit,
            "varnish.service/worker-1",
        ),
        ("/system.slice/_cpu.service", Unit, "cpu.service"),
        ("/user.slice", Slice, "user.slice"),
        ("/user.slice/user-1000.slice", Slice, "user-1000.slice"),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            Session,
            "user 1000/session 3",
        ),
        (
            "/user.slice/user-0.slice/session-c12.scope",
            Session,
            "user 0/session c12",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service",
            Unit,
            "user@1000.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            Unit,
            "user 1000/init.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-2812.scope",
            Unit,
            "user 1000/app-gnome-firefox-2812.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice",
            Slice,
            "user 1000/app.slice",
        ),
    ]);
}

#[test]
fn docker() {
    check(&[
        ("/docker", Slice, "docker"),
        ("/docker/{A}", Docker, "docker 3f2a9c1b7d44"),
        (
            "/system.slice/docker-{A}.scope",
            Docker,
            "docker 3f2a9c1b7d44",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
            Docker,
            "user 1000/docker 3f2a9c1b7d44",
        ),
        (
            "/docker/{A}/docker/{B}",
            Docker,
            "docker 3f2a9c1b7d44/docker 9b1c2d3e4f50",
        ),
        (
            "/docker/{A}/system.slice/nginx.service",
            Unit,
            "docker 3f2a9c1b7d44/nginx.service",
        ),
        (
            "/docker/{A}/supervisor",
            Docker,
            "docker 3f2a9c1b7d44/supervisor",
        ),
        ("/system.slice:docker:{A}", Docker, "docker 3f2a9c1b7d44"),
        ("/actions_job/{A}", Container, "container 3f2a9c1b7d44"),
        ("/docker/buildx", Other, "docker/buildx"),
    ]);
}

#[test]
fn kubernetes() {
    check(&[
        ("/kubepods", Slice, "kubepods"),
        ("/kubepods/burstable", Slice, "burstable"),
        (
            "/kubepods.slice/kubepods-besteffort.slice",
            Slice,
            "kubepods-besteffort.slice",
        ),
        (
            "/kubepods/besteffort/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4",
            Pod,
            "pod 2f6e1c9a",
        ),
        (
            "/kubepods/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4/{A}",
            Container,
            "pod 2f6e1c9a/container 3f2a9c1b7d44",
        ),
        (
            "/kubepods/burstable/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4/crio-{A}",
            CriO,
            "pod 2f6e1c9a/cri-o 3f2a9c1b7d44",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice",
            Pod,
            "pod 2f6e1c9a",
        ),
        (
            "/kubepods.slice/kubepods-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice/cri-containerd-{A}.scope",
            Containerd,
            "pod 2f6e1c9a/containerd 3f2a9c1b7d44",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice/docker-{A}.scope",
            Docker,
            "pod 2f6e1c9a/docker 3f2a9c1b7d44",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice/crio-conmon-{A}.scope",
            CriO,
            "pod 2f6e1c9a/cri-o 3f2a9c1b7d44 (conmon)",
        ),
        // A static pod's uid is a bare hash.
        (
            "/kubepods/burstable/podb8b5a8ee0a0d61b2d6a4d1e7f0c9b8a7/{B}",
            Container,
            "pod b8b5a8ee/container 9b1c2d3e4f50",
        ),
        // containerd told to use cgroupfs while the kubelet uses systemd.
        (
            "/system.slice/containerd.service/kubepods-burstable-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice:cri-containerd:{A}",
            Containerd,
            "pod 2f6e1c9a/containerd 3f2a9c1b7d44",
        ),
        // k3s, rootless.
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/k3s-rootless.service/kubepods/besteffort/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4/{A}",
            Container,
            "user 1000/pod 2f6e1c9a/container 3f2a9c1b7d44",
        ),
        // kind: nodes are docker containers.
        (
            "/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod2f6e1c9a_0b1d_4e6f_8a7b_c9d0e1f2a3b4.slice/cri-containerd-{B}.scope",
            Containerd,
            "docker 3f2a9c1b7d44/pod 2f6e1c9a/containerd 9b1c2d3e4f50",
        ),
        (
            "/docker/{A}/kubelet/kubepods/burstable/pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4/{B}",
            Container,
            "docker 3f2a9c1b7d44/pod 2f6e1c9a/container 9b1c2d3e4f50",
        ),
        ("/kubepods/podium", Other, "kubepods/podium"),
    ]);
}

#[test]
fn podman() {
    check(&[
        (
            "/machine.slice/libpod-{A}.scope",
            Podman,
            "podman 3f2a9c1b7d44",
        ),
        (
            "/machine.slice/libpod-{A}.scope/container",
            Podman,
            "podman 3f2a9c1b7d44",
        ),
        (
            "/machine.slice/libpod-conmon-{A}.scope",
            Podman,
            "podman 3f2a9c1b7d44 (conmon)",
        ),
        ("/libpod_parent/libpod-{A}", Podman, "podman 3f2a9c1b7d44"),
        ("/libpod_parent", Slice, "libpod_parent"),
        (
            "/libpod_parent/{B}/libpod-{A}",
            Podman,
            "podman pod 9b1c2d3e4f50/podman 3f2a9c1b7d44",
        ),
        (
            "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
            Podman,
            "podman pod 9b1c2d3e4f50/podman 3f2a9c1b7d44",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            Podman,
            "user 1000/podman 3f2a9c1b7d44",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
            Podman,
            "user 1000/podman pod 9b1c2d3e4f50/podman 3f2a9c1b7d44",
        ),
        (
            "/system.slice/web.service/libpod-payload-{A}",
            Podman,
            "web.service/podman 3f2a9c1b7d44",
        ),
        (
            "/system.slice/nerdctl-{A}.scope",
            Containerd,
            "nerdctl 3f2a9c1b7d44",
        ),
    ]);
}

#[test]
fn machines_and_others() {
    check(&[
        ("/lxc/web", Lxc, "lxc web"),
        ("/lxc/101/ns", Lxc, "lxc 101"),
        (
            "/lxc/101/ns/system.slice/cron.service",
            Unit,
            "lxc 101/cron.service",
        ),
        ("/lxc.payload.web-01", Lxc, "lxc web-01"),
        ("/lxc.payload/web", Lxc, "lxc web"),
        ("/lxc.monitor.web", Lxc, "lxc web (monitor)"),
        ("/lxc.monitor/web", Lxc, "lxc web (monitor)"),
        (
            "/lxc.payload.proj_db/init.scope",
            Unit,
            "lxc proj_db/init.scope",
        ),
        (
            "/user.slice/user-1000.slice/session-2.scope/lxc.payload.u",
            Lxc,
            "user 1000/lxc u",
        ),
        (
            "/machine.slice/machine-debian\\x2dtest.scope",
            Machine,
            "machine debian-test",
        ),
        (
            "/machine.slice/systemd-nspawn@build.service/payload",
            Machine,
            "machine build",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            Machine,
            "machine qemu-1-vm/libvirt/emulator",
        ),
        (
            "/machine/qemu-2-vm.libvirt-qemu",
            Machine,
            "machine qemu-2-vm",
        ),
        (
            "/ecs/1f2e3d4c-0b1d-4e6f-8a7b-c9d0e1f2a3b4/{A}",
            Container,
            "ecs task 1f2e3d4c/container 3f2a9c1b7d44",
        ),
        (
            "/ecs/1f2e3d4c5b6a79880102030405060708/1f2e3d4c5b6a79880102030405060708-3057940393",
            Container,
            "ecs task 1f2e3d4c/container 1f2e3d4c5b6a-3057940393",
        ),
        (
            "/ecstasks.slice/ecstasks-1f2e3d4c5b6a79880102030405060708.slice/docker-{A}.scope",
            Docker,
            "ecs task 1f2e3d4c/docker 3f2a9c1b7d44",
        ),
        (
            "/system.slice/garden.service/garden/good/5a2d9f6c-1b7e-4a3c-6d5e-f0a1",
            Container,
            "garden 5a2d9f6c-1b7e-4a3c-6d5e-f0a1",
        ),
        (
            "/garden/5a2d9f6c-1b7e-4a3c-6d5e-f0a1",
            Container,
            "garden 5a2d9f6c-1b7e-4a3c-6d5e-f0a1",
        ),
        ("/garden/good", Slice, "garden"),
        ("/batch/job_17", Other, "batch/job_17"),
        ("/system.slice/odd", Other, "system.slice/odd"),
        // As seen from inside a cgroup namespace.
        ("/../../docker/{A}", Docker, "docker 3f2a9c1b7d44"),
    ]);
}

#[test]
fn hostile_names_survive_as_data() {
    for path in [
        "/system.slice/\\x1b\\x5b2J.service",
        "/a\x1b[2J\u{202e}/b",
        "/lxc/\x07",
        "/system.slice/\\xff.service",
        "/machine.slice/machine-.scope",
        "/:::",
        "/pod",
        "/.slice",
        "/_.service",
    ] {
        let owner = of_cgroup_path(path);
        assert_eq!(&*owner.cgroup, path);
        assert!(!owner.name.is_empty(), "{path:?}");
    }
    // An escape that hides a control character stays an escape.
    assert_eq!(
        &*of_cgroup_path("/system.slice/\\x1b\\x2d.service").name,
        "\\x1b\\x2d.service"
    );
    // é, as systemd-escape writes it.
    assert_eq!(
        &*of_cgroup_path("/system.slice/caf\\xc3\\xa9.service").name,
        "café.service"
    );
}

#[test]
fn the_best_line_of_proc_cgroup() {
    let v2 = of_proc_cgroup(b"0::/system.slice/netdata.service\n");
    assert_eq!((&*v2.name, v2.kind), ("netdata.service", Unit));

    let v1 = "12:pids:/docker/{A}\n11:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/system.slice/containerd.service\n";
    let v1 = of_proc_cgroup(v1.replace("{A}", A).as_bytes());
    assert_eq!((&*v1.name, v1.kind), ("docker 3f2a9c1b7d44", Docker));

    // The memory hierarchy knows less than systemd's: the session is what a person knows.
    let hybrid = of_proc_cgroup(
        b"4:memory:/user.slice\n1:name=systemd:/user.slice/user-1000.slice/session-3.scope\n0::/\n",
    );
    assert_eq!(&*hybrid.name, "user 1000/session 3");

    // A bare path beats the root; a v1 path may hold colons.
    let bare = of_proc_cgroup(b"9:name=systemd:/\n4:cpu,memory:/job:7/x\n0::/\n");
    assert_eq!((&*bare.name, bare.kind), ("job:7/x", Other));

    assert_eq!(of_proc_cgroup(b"").kind, Root);
    assert_eq!(of_proc_cgroup(b"\xff\xfe\n:\n::\n").kind, Root);
    assert_eq!(
        of_proc_cgroup(b"0::/system.slice/a.service (deleted)\n").kind,
        Unit
    );
}

proptest! {
    #[test]
    fn any_path_has_a_name(path in "\\PC{0,300}") {
        let owner = of_cgroup_path(&path);
        prop_assert_eq!(&*owner.cgroup, path.as_str());
        prop_assert!(!owner.name.is_empty());
    }

    /// Parts of real paths in any order and number: the reader never panics, and
    /// nothing but the root itself is called the root.
    #[test]
    fn parts_in_any_order(parts in prop::collection::vec(prop::sample::select(vec![
        "docker", "lxc", "lxc.payload", "kubepods", "burstable", "ecs", "garden", "machine",
        "user.slice", "user-1000.slice", "user@1000.service", "a.service", "session-3.scope",
        "machine-x.scope", "container", "payload", "ns", "libpod_parent", "x:y:z", "é", "\\x2d",
        "3f2a9c1b7d44e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819", "..",
        "libpod-3f2a9c1b7d44e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819.scope",
        "pod2f6e1c9a-0b1d-4e6f-8a7b-c9d0e1f2a3b4", "pod2f6e1c9é", "\\x", "\\xé",
    ]), 0..12)) {
        let path = format!("/{}", parts.join("/"));
        let owner = of_cgroup_path(&path);
        prop_assert_eq!(owner.kind == Root, parts.iter().all(|p| *p == ".."));
    }

    #[test]
    fn any_proc_cgroup_is_read(text in prop::collection::vec(any::<u8>(), 0..600)) {
        of_proc_cgroup(&text);
    }
}

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
        let owner = of_cgroup_path(path);
        assert_eq!(
            ways::of(&owner).map(|w| w.command),
            command,
            "{path}: {owner:?}"
        );
    }
}
