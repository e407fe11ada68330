use stalltop_model::sample::{CpuTopology, Preemption};

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            tree.put(path, text);
        }
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn host(&self) -> Host {
        gather(&Env::at(self.0.path()))
    }
}

fn preemption_of(version: &str, more: &[(&str, &str)]) -> Reading<Preemption> {
    let tree = Tree::new(&[
        ("proc/sys/kernel/osrelease", "6.18.1"),
        (
            "proc/version",
            &format!("Linux version 6.18.1 (a@b) (gcc) {version}"),
        ),
    ]);
    for (path, text) in more {
        tree.put(path, text);
    }
    tree.host().preemption
}

#[test]
fn this_host_is_known() {
    let host = gather(&Env::live());
    assert!(!host.release.is_empty());
    assert!(host.possible_cpus >= 1);
    assert!(host.possible_cpus as usize >= host.topology.len());
    assert!(
        host.hz.get().is_some_and(|hz| (24..=10_000).contains(&hz)),
        "{:?}",
        host.hz
    );
}

#[test]
fn preemption_from_the_best_source() {
    let config = |text| [("boot/config-6.18.1", text)];
    let value = Reading::Value;
    assert_eq!(
        preemption_of("#1 SMP PREEMPT_RT Debian", &[]),
        value(Preemption::Rt)
    );
    assert_eq!(
        preemption_of("#1 SMP PREEMPT_DYNAMIC x", &[]),
        value(Preemption::Dynamic)
    );
    assert_eq!(
        preemption_of(
            "#1 SMP PREEMPT_DYNAMIC x",
            &config("CONFIG_PREEMPT_NONE=y\n")
        ),
        value(Preemption::None)
    );
    assert_eq!(
        preemption_of(
            "#1 SMP PREEMPT_DYNAMIC x",
            &[("proc/cmdline", "quiet preempt=full")]
        ),
        value(Preemption::Full)
    );
    assert_eq!(
        preemption_of("#1 SMP x", &config("CONFIG_PREEMPT_VOLUNTARY=y\n")),
        value(Preemption::Voluntary)
    );
    assert!(preemption_of("#1 SMP x", &[]).value().is_none());
    assert_eq!(
        preemption_of(
            "#1 SMP PREEMPT_DYNAMIC x",
            &[
                (
                    "proc/self/mountinfo",
                    "9 1 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n"
                ),
                (
                    "sys/kernel/debug/sched/preempt",
                    "none voluntary full (lazy)\n"
                ),
            ]
        ),
        value(Preemption::Lazy)
    );
}

#[test]
fn topology_of_two_nodes_with_an_offline_cpu() {
    let tree = Tree::new(&[
        ("sys/devices/system/cpu/present", "0-3\n"),
        ("sys/devices/system/cpu/possible", "0-7\n"),
        ("sys/devices/system/node/online", "0-1\n"),
        ("sys/devices/system/node/node0/cpulist", "0,2\n"),
        ("sys/devices/system/node/node1/cpulist", "1\n"),
    ]);
    for (cpu, core, package, llc) in [
        (0, "0", "0", "0,2"),
        (1, "0", "1", "1"),
        (2, "4", "0", "0,2"),
    ] {
        let dir = format!("sys/devices/system/cpu/cpu{cpu}");
        tree.put(&format!("{dir}/topology/core_id"), core);
        tree.put(&format!("{dir}/topology/physical_package_id"), package);
        tree.put(
            &format!("{dir}/cache/index0/shared_cpu_list"),
            &cpu.to_string(),
        );
        tree.put(&format!("{dir}/cache/index3/shared_cpu_list"), llc);
    }
    let host = tree.host();
    assert_eq!(host.possible_cpus, 8);
    let at = |cpu, core, llc, package, node| CpuTopology {
        cpu,
        core,
        llc,
        package,
        node,
    };
    assert_eq!(
        host.topology,
        [
            at(0, 0, 0, 0, 0),
            at(1, 0, 1, 1, 1),
            at(2, 4, 0, 0, 0),
            at(3, 3, 3, 0, 0)
        ]
    );
}

#[test]
fn a_virtual_machine_shows() {
    let tree = Tree::new(&[(
        "proc/cpuinfo",
        "processor\t: 0\nflags\t\t: fpu vme hypervisor sse\n",
    )]);
    assert_eq!(tree.host().virtual_machine, Reading::Value(true));
    let tree = Tree::new(&[("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme\n")]);
    assert_eq!(tree.host().virtual_machine, Reading::Value(false));
    let tree = Tree::new(&[("sys/class/dmi/id/sys_vendor", "QEMU\n")]);
    assert_eq!(tree.host().virtual_machine, Reading::Value(true));
    assert!(Tree::new(&[]).host().virtual_machine.value().is_none());
}

#[test]
fn facts_that_are_missing_say_so() {
    let tree = Tree::new(&[
        ("proc/sys/kernel/osrelease", "5.10.0"),
        ("sys/devices/system/cpu/nohz_full", "(null)\n"),
    ]);
    let host = tree.host();
    assert_eq!(host.nohz_full, Reading::Value("".into()));
    assert!(
        host.hz
            .reason()
            .unwrap()
            .to_string()
            .ends_with("/boot/config-5.10.0 does not exist")
    );
    assert!(host.preemption.reason().is_some());
}
