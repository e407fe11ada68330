//! What loading says and does where something is missing, on the running kernel.
#![expect(unsafe_code, reason = "gives up root on one thread")]

use std::process::{Command, Stdio};

use stalltop_probes::{
    Kind, Options, PROGRAMS, Probes, Spec, Step, Thresholds, own_tgid, resched_bits,
};
use stalltop_tests::{need, require};

fn failures(probes: &Probes) -> Vec<(&str, Step, Option<i32>, &str)> {
    probes
        .health()
        .iter()
        .filter_map(|health| {
            let failure = health.attached.as_ref().err()?;
            Some((
                health.spec.name,
                failure.step,
                failure.errno,
                failure.detail.as_str(),
            ))
        })
        .collect()
}

#[test]
fn without_btf_only_the_program_that_needs_it_is_missing() {
    require!(need::root());
    let empty = tempfile::tempdir().unwrap();
    let probes = Probes::load(&Options {
        root: empty.path().into(),
        ..Options::default()
    });
    let failures = failures(&probes);
    let [(name, step, errno, detail)] = failures[..] else {
        panic!("{failures:?}");
    };
    assert_eq!(
        (name, step, errno),
        ("sched_switch", Step::Btf, Some(libc::ENOENT))
    );
    assert!(detail.ends_with("sys/kernel/btf/vmlinux"), "{detail}");
    // sysfs is missing too: the CPUs are counted another way.
    assert!(probes.cpus().unwrap().possible() > 0);
    assert!(probes.is_attached("softirq_exit") && !probes.is_attached("sched_switch"));
}

/// `softirq_exit` where there is no such tracepoint: an older or another kernel.
static NO_EXIT: Spec = Spec {
    tracepoint: "stalltop_no_such_tracepoint",
    ..PROGRAMS[0]
};

#[test]
fn a_program_that_would_tell_half_the_truth_is_detached() {
    require!(need::root());
    assert_eq!(NO_EXIT.name, "softirq_exit");
    let mut programs: Vec<&'static Spec> = PROGRAMS.iter().collect();
    programs[0] = &NO_EXIT;
    let probes = Probes::load(&Options {
        programs,
        ..Options::default()
    });
    assert_eq!(
        failures(&probes),
        [
            (
                "softirq_exit",
                Step::Attach,
                Some(libc::ENOENT),
                "tracepoint stalltop_no_such_tracepoint"
            ),
            (
                "softirq_entry",
                Step::With,
                None,
                "softirq_exit is not attached"
            ),
            (
                "softirq_raise",
                Step::With,
                None,
                "softirq_entry is not attached"
            ),
        ]
    );
}

/// A program whose hook gives it no task pointers: the verifier must refuse it.
static REFUSED: Spec = Spec {
    kind: Kind::RawTp,
    ..PROGRAMS[5]
};

#[test]
fn the_verifiers_last_word_is_told() {
    require!(need::root());
    assert_eq!(REFUSED.name, "sched_switch");
    let probes = Probes::load(&Options {
        programs: vec![&REFUSED],
        ..Options::default()
    });
    let failures = failures(&probes);
    let [("sched_switch", Step::Load, Some(errno), detail)] = failures[..] else {
        panic!("{failures:?}");
    };
    assert!([libc::EACCES, libc::EINVAL].contains(&errno), "{errno}");
    assert!(detail.contains("invalid mem access"), "{detail}");
}

#[test]
fn without_privilege_every_program_says_so() {
    require!(need::root());
    let health = std::thread::spawn(|| {
        // SAFETY: the bare system call changes this thread's ids only, for its short rest.
        let rc = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(rc, 0);
        let probes = Probes::load(&Options::default());
        failures(&probes)
            .iter()
            .map(|&(name, _, errno, _)| (name.to_owned(), errno))
            .collect::<Vec<_>>()
    })
    .join()
    .unwrap();
    let expected: Vec<_> = PROGRAMS
        .iter()
        .filter(|spec| !spec.only_stalls)
        .map(|spec| (spec.name.to_owned(), Some(libc::EPERM)))
        .collect();
    assert_eq!(health, expected);
}

#[test]
fn dropping_the_probes_takes_everything_out_of_the_kernel() {
    use stalltop_probes::sys::ids::{self, Object};

    require!(need::root());
    let probes = Probes::load(&Options {
        thresholds: Some(Thresholds::default()),
        ..Options::default()
    });
    let ours: Vec<u32> = probes.program_ids().collect();
    assert_eq!(ours.len(), PROGRAMS.len());
    drop(probes);
    // The kernel frees a program after a grace period.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ours
        .iter()
        .any(|&id| ids::open(Object::Program, id).is_ok())
    {
        assert!(std::time::Instant::now() < deadline, "still loaded");
        std::thread::yield_now();
    }
}

/// Where [`the_number_in_a_pid_namespace`] says what it found.
const NUMBERS: &str = "STALLTOP_TEST_NUMBERS";

#[test]
fn our_number_is_the_hosts_in_a_pid_namespace_too() {
    require!(need::root());
    let unshare = require!(need::program("unshare"));
    assert_eq!(own_tgid(), Ok(std::process::id()));
    let dir = tempfile::tempdir().unwrap();
    let numbers = dir.path().join("numbers");
    let child = Command::new(unshare)
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_number_in_a_pid_namespace"])
        .env(NUMBERS, &numbers)
        .stdout(Stdio::null())
        .status();
    assert!(child.unwrap().success());
    let text = std::fs::read_to_string(numbers).unwrap();
    let (theirs, hosts) = text.split_once(' ').unwrap();
    let hosts: u32 = hosts.parse().unwrap();
    assert_eq!(theirs, "1");
    assert!(hosts > 1 && hosts != std::process::id(), "{text}");
}

/// Does nothing but where the test above starts it.
#[test]
fn the_number_in_a_pid_namespace() {
    if let Some(file) = std::env::var_os(NUMBERS) {
        let numbers = format!("{} {}", std::process::id(), own_tgid().unwrap());
        std::fs::write(file, numbers).unwrap();
    }
}

#[test]
fn the_kernel_shows_which_bit_asks_for_a_reschedule() {
    require!(need::root());
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let tells = symbols.contains(" __traceiter_sched_set_need_resched_tp\n");
    let bits = resched_bits();
    assert_eq!(bits.is_some(), tells, "{bits:?}");
    // One, or the two that are beside each other.
    let first = bits.map_or(0, u64::trailing_zeros);
    assert!(bits.is_none_or(|bits| bits >> first == 1 || bits >> first == 3));
    let probes = Probes::load(&Options {
        thresholds: Some(Thresholds::default()),
        ..Options::default()
    });
    assert_eq!(probes.no_resched(), None);
}
