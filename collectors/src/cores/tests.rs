use std::path::{Path, PathBuf};

use proptest::prelude::*;
use stalltop_model::sample::{SOFTIRQS, Vector};

use super::*;
use crate::cpu_list;
use crate::host;
use stalltop_model::sample::Preemption;

const RECORDED: [&str; 7] = [
    "4.18-rhel8",
    "5.4-ubuntu20.04",
    "5.10",
    "6.1",
    "6.1-hybrid",
    "6.12",
    "6.18",
];

fn root(name: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    Path::new(fixtures).join(name)
}

fn text(name: &str, path: &str) -> String {
    std::fs::read_to_string(root(name).join(path)).unwrap()
}

fn collector(root: &Path) -> CoresCollector {
    // A day between ticks: no reading is over budget, however slow this machine is.
    let mut cores = CoresCollector::new(&Env::at(root), Duration::from_secs(86_400));
    cores.without_bpf(&Reason::NoBtf);
    cores
}

fn sample_of(root: &Path) -> Sample {
    let mut sample = Sample::default();
    collector(root).collect(&mut sample).unwrap();
    sample
}

/// The cells of a table headed `CPU0 CPU1 ...`, read the plain way.
fn table(text: &str, label: &str, cpu: u32) -> Option<u64> {
    let mut lines = text.lines();
    let name = format!("CPU{cpu}");
    let column = lines.next()?.split_whitespace().position(|c| c == name)?;
    let row = lines.find(|line| line.trim_start().starts_with(&format!("{label}:")))?;
    row.split_whitespace().nth(column + 1)?.parse().ok()
}

#[test]
fn every_recorded_kernel_is_read_to_the_last_cpu() {
    for name in RECORDED {
        let sample = sample_of(&root(name));
        let list =
            |file| cpu_list::cpus(text(name, &format!("sys/devices/system/cpu/{file}")).as_bytes());
        let numbers: Vec<u32> = sample.cpus.iter().map(|c| c.cpu).collect();
        assert_eq!(numbers, list("present"), "{name}");
        let online: Vec<u32> = sample
            .cpus
            .iter()
            .filter(|c| c.online)
            .map(|c| c.cpu)
            .collect();
        assert_eq!(online, list("online"), "{name}");
        assert_eq!(sample.cores.source, CoresSource::Proc);
        assert_eq!(sample.cores.bpf, Reading::Off(Reason::NoBtf));

        let softirqs = text(name, "proc/softirqs");
        let threads = threads_of(name);
        for cpu in &sample.cpus {
            for vector in Vector::ALL {
                let expected = table(&softirqs, vector.as_str(), cpu.cpu);
                let found = &cpu.softirqs[vector as usize];
                assert_eq!(
                    Some(found.count),
                    expected,
                    "{name} {} {}",
                    cpu.cpu,
                    vector.as_str()
                );
                assert_eq!(found.timing, Reading::Off(Reason::NoBtf));
            }
            assert_eq!(
                cpu.hardirq.count.value().is_some(),
                cpu.online,
                "{name} {}",
                cpu.cpu
            );
            assert_eq!(
                cpu.times.value().is_some(),
                cpu.online,
                "{name} {}",
                cpu.cpu
            );
            assert_eq!(
                cpu.softnet.value().is_some(),
                cpu.online,
                "{name} {}",
                cpu.cpu
            );
            let thread = threads.iter().find(|t| t.0 == cpu.cpu).unwrap();
            let found = cpu.ksoftirqd.get().unwrap();
            assert_eq!(
                (found.pid, found.run_ns, found.wait_ns, found.runs),
                thread.1,
                "{name}"
            );
        }
    }
}

/// CPU, and pid, run, wait and runs of each recorded `ksoftirqd`, found the plain way.
fn threads_of(name: &str) -> Vec<(u32, (u32, u64, u64, u64))> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root(name).join("proc"))
        .unwrap()
        .flatten()
    {
        let pid = entry.file_name().into_string().unwrap();
        let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if let Some(cpu) = read("comm").trim().strip_prefix("ksoftirqd/") {
            let times: Vec<u64> = read("schedstat")
                .split_whitespace()
                .map(|w| w.parse().unwrap())
                .collect();
            found.push((
                cpu.parse().unwrap(),
                (pid.parse().unwrap(), times[0], times[1], times[2]),
            ));
        }
    }
    found
}

#[test]
fn an_offline_cpu_says_so_and_keeps_its_softirqs() {
    let sample = sample_of(&root("6.12"));
    let cpu = &sample.cpus[2];
    assert!(!cpu.online);
    assert_eq!(cpu.times, Reading::Off(Reason::CpuOffline { cpu: 2 }));
    assert!(cpu.softirqs[Vector::Timer as usize].count > 0);
    assert_eq!(
        &*cpu.times.reason().unwrap().fix(),
        "echo 1 > /sys/devices/system/cpu/cpu2/online"
    );
    // softnet_stat skips it: the third line is of CPU 3, as its own column says.
    let lines = text("6.12", "proc/net/softnet_stat");
    let third = u64::from_str_radix(lines.lines().nth(2).unwrap().split(' ').next().unwrap(), 16);
    assert_eq!(
        sample.cpus[3].softnet.get().unwrap().processed,
        third.unwrap()
    );
    // So are the columns of /proc/interrupts.
    let sum: u64 = text("6.12", "proc/interrupts")
        .lines()
        .skip(1)
        .filter(|l| !l.starts_with("ERR") && !l.starts_with("MIS"))
        .map(|l| l.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sample.cpus[3].hardirq.count, Reading::Value(sum));
}

#[test]
fn old_kernels_do_not_print_the_backlog() {
    for (name, known) in [
        ("4.18-rhel8", false),
        ("5.4-ubuntu20.04", false),
        ("5.10", true),
        ("6.18", true),
    ] {
        let sample = sample_of(&root(name));
        for (cpu, line) in sample
            .cpus
            .iter()
            .zip(text(name, "proc/net/softnet_stat").lines())
        {
            let softnet = cpu.softnet.get().unwrap();
            let column = |i: usize| {
                u64::from_str_radix(line.split_whitespace().nth(i).unwrap(), 16).unwrap()
            };
            assert_eq!(softnet.backlog_known, known, "{name}");
            assert_eq!(
                (softnet.processed, softnet.dropped, softnet.time_squeeze),
                (column(0), column(1), column(2))
            );
        }
    }
}

#[test]
fn the_recorded_hosts_preempt_as_configured() {
    for (name, preemption, hz) in [
        ("4.18-rhel8", Preemption::Voluntary, 1000),
        ("5.4-ubuntu20.04", Preemption::Voluntary, 250),
    ] {
        let host = host::gather(&Env::at(root(name)));
        assert_eq!(host.preemption, Reading::Value(preemption), "{name}");
        assert_eq!(host.hz, Reading::Value(hz), "{name}");
    }
    for name in RECORDED {
        let host = host::gather(&Env::at(root(name)));
        assert_eq!(
            host.topology.len(),
            sample_of(&root(name)).cpus.len(),
            "{name}"
        );
        assert!(host.possible_cpus as usize >= host.topology.len(), "{name}");
    }
}

/// A host to change between ticks.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(present: &str, online: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.put("sys/devices/system/cpu/present", present);
        tree.put("sys/devices/system/cpu/online", online);
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn thread(&self, pid: u32, comm: &str, parent: u32) {
        self.put(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.put(
            &format!("proc/{pid}/stat"),
            &format!("{pid} ({comm}) S {parent} 0 0 0 -1\n"),
        );
        self.put(
            &format!("proc/{pid}/schedstat"),
            &format!("{pid}000 {pid}00 {pid}\n"),
        );
    }
}

#[test]
fn cpus_that_come_and_go() {
    let tree = Tree::new("0-1\n", "0\n");
    let rest = " 0 0 0 0 0 0 0 0\n";
    tree.put(
        "proc/softirqs",
        "    CPU0 CPU1 CPU2 CPU3\nNET_RX: 7 0 0 0\nNEWER: 1 1 1 1\n",
    );
    tree.put("proc/stat", &format!("cpu 1 0{rest}cpu0 3 0{rest}intr 1\n"));
    tree.put("proc/net/softnet_stat", "00000005 0 0 0 0 0 0 0 0 0 0\n");
    tree.thread(14, "ksoftirqd/0", 2);
    tree.thread(900, "ksoftirqd/1", 1);
    let mut cores = collector(tree.0.path());
    let mut sample = Sample::default();
    cores.collect(&mut sample).unwrap();
    assert_eq!(sample.cpus.len(), 2);
    assert_eq!(sample.cpus[0].ksoftirqd.get().unwrap().pid, 14);
    assert_eq!(
        sample.cpus[1].ksoftirqd.value(),
        None,
        "an impostor has another parent"
    );
    assert!(sample.cpus[1].times.value().is_none());
    assert!(
        sample.cpus[0]
            .hardirq
            .count
            .reason()
            .is_some_and(|r| matches!(r, Reason::NoFile { .. }))
    );

    // CPU 1 comes online for the first time: its thread appears, and is found.
    tree.put("sys/devices/system/cpu/online", "0-1\n");
    tree.put(
        "proc/softirqs",
        "    CPU0 CPU1 CPU2 CPU3\nNET_RX: 8 3 0 0\n",
    );
    tree.put(
        "proc/stat",
        &format!("cpu 1 0{rest}cpu0 4 0{rest}cpu1 9 0{rest}"),
    );
    tree.put(
        "proc/net/softnet_stat",
        "00000006 0 0 0 0 0 0 0 0 0 0\n00000002 0 0 0 0 0 0 0 0 0 0\n",
    );
    tree.thread(31, "ksoftirqd/1", 2);
    for _ in 0..40 {
        cores.collect(&mut sample).unwrap();
    }
    assert_eq!(sample.cpus[1].ksoftirqd.get().unwrap().pid, 31);
    assert_eq!(sample.cpus[1].softirqs[Vector::NetRx as usize].count, 3);
    assert_eq!(sample.cpus[1].times.get().unwrap().user_ns, 9 * 10_000_000);
    assert_eq!(sample.cpus[1].softnet.get().unwrap().processed, 2);

    // And goes: what it counted stays.
    tree.put("sys/devices/system/cpu/online", "1\n");
    tree.put("proc/stat", &format!("cpu 1 0{rest}cpu1 12 0{rest}"));
    tree.put("proc/net/softnet_stat", "00000004 0 0 0 0 0 0 0 0 0 0\n");
    cores.collect(&mut sample).unwrap();
    assert_eq!(
        (sample.cpus[0].online, sample.cpus[1].online),
        (false, true)
    );
    assert_eq!(sample.cpus[0].times.get().unwrap().user_ns, 4 * 10_000_000);
    assert_eq!(sample.cpus[0].softnet.get().unwrap().processed, 6);
    assert_eq!(sample.cpus[1].softnet.get().unwrap().processed, 4);

    // A CPU is plugged in.
    tree.put("sys/devices/system/cpu/present", "0-1,3\n");
    cores.collect(&mut sample).unwrap();
    assert_eq!(
        sample.cpus.iter().map(|c| c.cpu).collect::<Vec<_>>(),
        [0, 1, 3]
    );
}

#[test]
fn counts_that_cannot_be_read_are_not_zero() {
    let tree = Tree::new("0-1\n", "0-1\n");
    tree.put("proc/stat", "cpu0 1 0 0 0\n");
    let mut sample = Sample::default();
    let mut cores = collector(tree.0.path());
    assert!(matches!(
        cores.collect(&mut sample),
        Err(Reason::NoFile { .. })
    ));
    assert!(sample.cpus.is_empty());
    tree.put("proc/softirqs", "CPU0 CPU1\nTIMER: 1 x\n");
    assert!(
        matches!(cores.collect(&mut sample), Err(Reason::Parse { near, .. }) if &*near == "TIMER: 1 x")
    );
}

#[test]
fn without_sysfs_proc_names_the_cpus() {
    let tree = Tree(tempfile::tempdir().unwrap());
    tree.put("proc/softirqs", "   CPU0 CPU1\nTIMER: 1 2\n");
    tree.put("proc/stat", "cpu 1 0\ncpu1 1 0 0 0\n");
    let sample = sample_of(tree.0.path());
    assert_eq!(
        sample
            .cpus
            .iter()
            .map(|c| (c.cpu, c.online))
            .collect::<Vec<_>>(),
        [(0, false), (1, true)]
    );
}

#[test]
fn a_counter_of_the_kernel_wraps() {
    let tree = Tree::new("0\n", "0\n");
    let mut cores = collector(tree.0.path());
    let mut sample = Sample::default();
    for raw in [u32::MAX - 5, 10] {
        tree.put("proc/softirqs", &format!("CPU0\nNET_RX: {raw}\n"));
        tree.put(
            "proc/net/softnet_stat",
            &format!("{raw:08x} 0 0 0 0 0 0 0 0\n"),
        );
        tree.put(
            "proc/interrupts",
            &format!("CPU0\n1: {raw} x\nNMI: 5 Non-maskable\n"),
        );
        cores.collect(&mut sample).unwrap();
    }
    let cpu = &sample.cpus[0];
    assert_eq!(cpu.softirqs[Vector::NetRx as usize].count, 0x1_0000_000a);
    assert_eq!(cpu.softnet.get().unwrap().processed, 0x1_0000_000a);
    assert_eq!(cpu.hardirq.count, Reading::Value(0x1_0000_000f));
}

#[test]
fn a_slow_interrupts_file_is_left_alone() {
    let tree = Tree::new("0\n", "0\n");
    tree.put("proc/softirqs", "CPU0\nNET_RX: 1\n");
    tree.put("proc/interrupts", "CPU0\n1: 5 x\n");
    // No reading can take less than nothing.
    let mut cores = CoresCollector::new(&Env::at(tree.0.path()), Duration::ZERO);
    let mut sample = Sample::default();
    for _ in 0..3 {
        cores.collect(&mut sample).unwrap();
        assert_eq!(sample.cpus[0].hardirq.count, Reading::Value(5));
    }
    cores.collect(&mut sample).unwrap();
    assert!(matches!(
        sample.cpus[0].hardirq.count,
        Reading::Off(Reason::OverBudget { .. })
    ));
}

#[test]
fn context_switches_are_the_line_of_that_name() {
    let short =
        b"cpu  1 2\ncpu0 1 2\nintr 9 0 0\nctxt 1234567\nbtime 1\nprocesses 7\nsoftirq 3 1\n";
    assert_eq!(stat::switches(short), Some(1_234_567));
    for none in [&b""[..], b"cpu0 1 2\n", b"ctxt \n", b"ctxt x\n"] {
        assert_eq!(stat::switches(none), None);
    }
    for which in RECORDED {
        assert!(stat::switches(text(which, "proc/stat").as_bytes()).is_some());
    }
}

fn parse_all(bytes: &[u8]) {
    let (mut columns, mut sums) = (Vec::new(), Vec::new());
    let _ = softirqs::parse(bytes, &mut columns, |_, _, _| {});
    let _ = interrupts::parse(bytes, &mut columns, &mut sums);
    let _ = stat::parse(bytes, 10_000_000, |_, _| {});
    let _ = stat::switches(bytes);
    let _ = softnet::parse(bytes, |_| {});
    let _ = parse_schedstat(bytes);
    let _ = parse_ksoftirqd_stat(bytes);
}

proptest! {
    #[test]
    fn parsers_never_panic(bytes: Vec<u8>) {
        parse_all(&bytes);
    }

    #[test]
    fn nor_on_damaged_recordings(which in 0..RECORDED.len(), damage: Vec<(usize, u8)>, cut: usize) {
        for path in ["proc/softirqs", "proc/interrupts", "proc/stat", "proc/net/softnet_stat"] {
            let mut bytes = text(RECORDED[which], path).into_bytes();
            bytes.truncate(cut % (2 * bytes.len()).max(1));
            for (at, byte) in &damage {
                if let Some(target) = at.checked_rem(bytes.len()) {
                    bytes[target] = *byte;
                }
            }
            parse_all(&bytes);
        }
    }

    #[test]
    fn any_table_of_softirqs_comes_back(
        cells in proptest::collection::vec(any::<[u32; SOFTIRQS]>(), 1..40)
    ) {
        let mut text: String = (0..cells.len()).map(|cpu| format!("{:>11}", format!("CPU{cpu}"))).collect();
        for vector in Vector::ALL {
            text += &format!("\n{:>12}:", vector.as_str());
            text.extend(cells.iter().map(|c| format!(" {:>10}", c[vector as usize])));
        }
        let mut found = vec![[0; SOFTIRQS]; cells.len()];
        softirqs::parse(text.as_bytes(), &mut Vec::new(), |cpu, vector, count| {
            found[cpu as usize][vector as usize] = count;
        })
        .unwrap();
        prop_assert_eq!(found, cells);
    }
}
