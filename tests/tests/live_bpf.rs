//! bpf(2)'s answers about programs, maps and links of our own on the running kernel.
#![expect(
    unsafe_code,
    reason = "attaches programs of its own by raw system calls"
)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use stalltop_probes::btf::{Btf, VMLINUX};
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, LinkDetail};
use stalltop_probes::sys::query::{self, FdType};
use stalltop_probes::sys::{load, names};
use stalltop_probes::{Options, Probes};
use stalltop_tests::{need, require};

/// `r0 = 1; exit`.
const RETURN_ONE: [u8; 16] = [
    0xb7, 0, 0, 0, 1, 0, 0, 0, //
    0x95, 0, 0, 0, 0, 0, 0, 0,
];

fn load_trivial(kind: u32, name: &str) -> OwnedFd {
    let license = CString::new("Dual MIT/GPL").unwrap();
    load::load_program(
        &load::Program {
            name,
            kind,
            attach_type: 0,
            attach_btf_id: 0,
            license: &license,
            insns: &RETURN_ONE,
        },
        None,
    )
    .unwrap()
}

#[test]
fn our_programs_maps_and_links_are_found_and_named() {
    require!(need::root());
    let probes = Probes::load(&Options::default());
    let ours: Vec<u32> = probes.program_ids().collect();
    assert_eq!(ours.len(), probes.health().len(), "{:?}", probes.health());

    let mut programs = Vec::new();
    ids::all(Object::Program, &mut programs).unwrap();
    assert!(programs.is_sorted());
    for health in probes.health() {
        let id = *health.attached.as_ref().unwrap();
        assert!(programs.contains(&id));
        let fd = ids::open(Object::Program, id).unwrap();
        let program = info::program(fd.as_fd()).unwrap();
        assert_eq!(program.id, id);
        assert!(health.spec.name.starts_with(&program.name) && program.name.len() > 8);
        assert_ne!(program.tag, [0; 8]);
        assert_eq!(program.uid, 0);
        let kind = names::program_type(program.kind).unwrap();
        assert!(["raw_tracepoint", "tracing"].contains(&kind), "{kind}");
        assert!(program.jited_len > 0 && program.jited_ksyms > 0);
        // Told since 5.12. One that has just been attached has hardly been interrupted by its own hook.
        assert!(program.recursion_misses.is_none_or(|misses| misses < 100));
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64;
        let age = boot - program.load_time_ns;
        assert!(age < 60_000_000_000, "loaded {age} ns ago");
        let maps: Vec<_> = program
            .map_ids
            .iter()
            .map(|&id| info::map(ids::open(Object::Map, id).unwrap().as_fd()).unwrap())
            .collect();
        let cpus = maps.iter().find(|map| map.name == "CPUS").unwrap();
        assert_eq!(names::map_type(cpus.kind), Some("array"));
        assert_eq!(cpus.max_entries, probes.cpus().unwrap().possible());
    }

    let btf = std::fs::read(format!("/{VMLINUX}")).unwrap();
    let btf = Btf::parse(&btf).unwrap();
    let mut links = Vec::new();
    ids::all(Object::Link, &mut links).unwrap();
    let mut seen = Vec::new();
    for id in links {
        let Ok(fd) = ids::open(Object::Link, id) else {
            continue;
        };
        let link = info::link(fd.as_fd()).unwrap();
        let Some(health) = probes
            .health()
            .iter()
            .find(|health| health.attached == Ok(link.prog_id))
        else {
            continue;
        };
        seen.push(link.prog_id);
        match link.detail {
            LinkDetail::RawTracepoint { name } => assert_eq!(name, health.spec.tracepoint),
            LinkDetail::Tracing {
                attach_type,
                target_btf_id,
                ..
            } => {
                assert_eq!(names::attach_type(attach_type), Some("trace_raw_tp"));
                assert_eq!(btf.name(target_btf_id), Some("btf_trace_sched_switch"));
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort_unstable();
    let mut expected = ours.clone();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn a_perf_event_descriptor_tells_its_program_and_tracepoint() {
    require!(need::root());
    let tracing = require!(need::tracefs());
    let id = std::fs::read_to_string(tracing.join("events/sched/sched_process_hang/id")).unwrap();
    let program = load_trivial(5, "stalltop_test");
    let mut attr = [0_u8; 112];
    attr[..4].copy_from_slice(&2_u32.to_ne_bytes()); // PERF_TYPE_TRACEPOINT
    attr[4..8].copy_from_slice(&112_u32.to_ne_bytes());
    attr[8..16].copy_from_slice(&id.trim().parse::<u64>().unwrap().to_ne_bytes());
    // SAFETY: `attr` is a perf_event_attr of the size it says; the descriptor is new.
    let event = unsafe {
        let fd = libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 8);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    assert_eq!(
        query::task_fd(std::process::id(), event.as_raw_fd() as u32).unwrap(),
        None,
        "no program yet"
    );
    // SAFETY: PERF_EVENT_IOC_SET_BPF takes a program's descriptor.
    let rc = unsafe { libc::ioctl(event.as_raw_fd(), 0x4004_2408, program.as_raw_fd()) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    let found = query::task_fd(std::process::id(), event.as_raw_fd() as u32)
        .unwrap()
        .unwrap();
    assert_eq!(found.prog_id, info::program_id(program.as_fd()).unwrap());
    assert_eq!(found.fd_type, FdType::Tracepoint);
    assert_eq!(found.name, b"sched_process_hang");
    let plain = File::open("/proc/self/status").unwrap();
    assert_eq!(
        query::task_fd(std::process::id(), plain.as_raw_fd() as u32).unwrap(),
        None
    );
}

#[test]
fn a_network_namespace_tells_its_programs() {
    require!(need::root());
    // In a namespace of its own, on a thread of its own: nothing else is touched.
    std::thread::spawn(|| {
        // SAFETY: only this thread changes its namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        let target = netns.as_raw_fd() as u32;
        let mut found = vec![7];
        query::attached(target, 17, &mut found).unwrap();
        assert_eq!(found, [0; 0]);

        let program = load_trivial(22, "stalltop_test");
        // BPF_PROG_ATTACH: { target_fd, attach_bpf_fd, attach_type, attach_flags }; a flow
        // dissector goes to the caller's namespace.
        let request = [0_u32, program.as_raw_fd() as u32, 17, 0];
        // SAFETY: a request of the given size without pointers.
        let rc = unsafe { libc::syscall(libc::SYS_bpf, 8, request.as_ptr(), 16) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
        query::attached(target, 17, &mut found).unwrap();
        assert_eq!(found, [info::program_id(program.as_fd()).unwrap()]);
        assert_eq!(names::attach_type(17), Some("flow_dissector"));
    })
    .join()
    .unwrap();
}
