use proptest::prelude::*;

use super::*;

const MEMINFO: &[u8] = b"MemTotal:        4021532 kB\nMemFree:          313344 kB\nMemAvailable:    3421664 kB\nBuffers:               0 kB\n";
const PSI: &[u8] = b"some avg10=2.80 avg60=1.22 avg300=5.46 total=82883145\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";

#[test]
fn what_the_kernel_prints() {
    assert_eq!(parse_uptime(b"1234.56 99.00\n"), Some(1_234_560_000_000));
    let load = parse_loadavg(b"0.03 12.50 0.47 1/234 5678\n").unwrap();
    assert_eq!(load.averages, [0.03, 12.5, 0.47]);
    assert_eq!(load.tasks, [1, 234]);
    assert_eq!(
        parse_meminfo(MEMINFO),
        Some(Memory {
            total: 4_021_532 * 1024,
            available: 3_421_664 * 1024
        })
    );
    let some = parse_pressure(PSI, b"some").unwrap();
    assert_eq!(
        (some.avg10, some.avg60, some.total_us),
        (2.8, 1.22, 82_883_145)
    );
    assert_eq!(parse_pressure(PSI, b"full").unwrap().total_us, 7);
}

#[test]
fn what_it_does_not_print_is_refused() {
    assert_eq!(parse_uptime(b"12.x"), None);
    assert_eq!(parse_uptime(b"99999999999999999.00 1"), None);
    assert_eq!(parse_loadavg(b"0.03 NaN 0.47 1/234 5678\n"), None);
    assert_eq!(parse_loadavg(b""), None);
    assert_eq!(
        parse_meminfo(b"MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n"),
        None
    );
    assert_eq!(parse_pressure(b"some avg10=1.0\n", b"some"), None);
    assert_eq!(parse_pressure(PSI, b"irq"), None);
}

fn host(release: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("proc/sys/kernel/osrelease", release);
    for (path, text) in files {
        put(path, text);
    }
    let env = Env::at(dir.path());
    (dir, env)
}

fn pressure(env: &Env) -> stalltop_model::sample::Pressure {
    let mut sample = Sample::default();
    let _ = SystemCollector::new(env).collect(&mut sample);
    sample.system.pressure
}

#[test]
fn a_missing_pressure_file_names_its_cure() {
    let psi = std::str::from_utf8(PSI).unwrap();
    let (_dir, env) = host(
        "6.1.0-13-amd64",
        &[("boot/config-6.1.0-13-amd64", "CONFIG_PSI=y\n")],
    );
    let reason = pressure(&env).cpu.reason().cloned().unwrap();
    assert_eq!(
        &*reason.fix(),
        "add psi=1 to the kernel command line and reboot"
    );

    let (_dir, env) = host(
        "6.1.0",
        &[("boot/config-6.1.0", "# CONFIG_PSI is not set\n")],
    );
    assert_eq!(
        pressure(&env).io,
        Reading::Off(Reason::NotBuilt {
            config: "CONFIG_PSI".into()
        })
    );

    // RHEL 8 has PSI, carried back and off by default; a plain 4.18 does not.
    let (_dir, env) = host(
        "4.18.0-513.el8.x86_64",
        &[("boot/config-4.18.0-513.el8.x86_64", "CONFIG_PSI=y\n")],
    );
    assert!(matches!(
        pressure(&env).cpu,
        Reading::Off(Reason::NotBooted { .. })
    ));
    let (_dir, env) = host("4.18.0", &[]);
    assert!(matches!(
        pressure(&env).cpu,
        Reading::Off(Reason::KernelTooOld { .. })
    ));

    let (_dir, env) = host(
        "5.10.0",
        &[("proc/pressure/cpu", psi), ("proc/pressure/memory", psi)],
    );
    let found = pressure(&env);
    assert_eq!(found.cpu.value().unwrap().total_us, 82_883_145);
    assert!(
        matches!(&found.irq, Reading::Off(Reason::KernelTooOld { need, .. }) if &**need == "6.1")
    );
}

#[test]
fn every_recorded_kernel_is_understood() {
    let fixtures = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    for name in [
        "4.18-rhel8",
        "5.4-ubuntu20.04",
        "5.10",
        "6.1",
        "6.12",
        "6.18",
    ] {
        let mut sample = Sample::default();
        let env = Env::at(fixtures.join(name));
        SystemCollector::new(&env).collect(&mut sample).unwrap();
        let system = &sample.system;
        assert!(system.uptime_ns.value().is_some(), "{name}");
        assert!(system.load.value().is_some(), "{name}");
        assert!(
            system.memory_available.get() <= system.memory_total.get(),
            "{name}"
        );
        let booted = env.path("/proc/pressure/cpu").exists();
        assert_eq!(system.pressure.cpu.value().is_some(), booted, "{name}");
        if name == "4.18-rhel8" {
            let reason = system.pressure.cpu.reason().unwrap();
            assert!(matches!(reason, Reason::NotBooted { .. }), "{reason}");
        }
    }
}

proptest! {
    #[test]
    fn parsers_never_panic(bytes: Vec<u8>) {
        let _ = parse_uptime(&bytes);
        let _ = parse_loadavg(&bytes);
        let _ = parse_meminfo(&bytes);
        let _ = parse_pressure(&bytes, b"some");
    }

    #[test]
    fn nor_on_damaged_files(at: usize, byte: u8, cut: usize) {
        for text in [MEMINFO, PSI, b"1234.56 99.00\n", b"0.03 12.50 0.47 1/234 5678\n"] {
            let mut bytes = text.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut % (text.len() + 1));
            let _ = parse_uptime(&bytes);
            let _ = parse_loadavg(&bytes);
            let _ = parse_meminfo(&bytes);
            let _ = parse_pressure(&bytes, b"some");
        }
    }
}
