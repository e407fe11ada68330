use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use stalltop_model::sample::CostMethod;
use stalltop_probes::sys::info::{MapInfo, ProgramCounters};

use super::kernel::Kernel;
use super::*;

/// A kernel in which each program ran so often, for so long, between two readings.
#[derive(Default)]
struct Fake {
    programs: BTreeMap<u32, (ProgramCounters, u64, u64)>,
    maps: BTreeMap<u32, (Vec<u32>, MapInfo)>,
    flips: u32,
    refuses: Option<i32>,
}

impl Fake {
    fn put(&mut self, id: u32, load_time_ns: u64, runs: u64, ns: u64) {
        let counters = ProgramCounters {
            id,
            load_time_ns,
            recursion_misses: Some(0),
            ..ProgramCounters::default()
        };
        self.programs.insert(id, (counters, runs, ns));
    }
}

impl Kernel for &mut Fake {
    fn programs(&mut self, out: &mut Vec<u32>) -> io::Result<()> {
        out.clear();
        out.extend(self.programs.keys());
        Ok(())
    }

    fn counters(&mut self, program: u32) -> Option<ProgramCounters> {
        let (counters, runs, ns) = self.programs.get_mut(&program)?;
        let now = *counters;
        counters.run_cnt += *runs;
        counters.run_time_ns += *ns;
        counters.recursion_misses = counters.recursion_misses.map(|n| n + 10);
        counters.maps = self
            .maps
            .values()
            .filter(|(programs, _)| programs.contains(&program))
            .count() as u32;
        Some(now)
    }

    fn maps_of(&mut self, program: u32) -> Vec<u32> {
        let uses = |(_, (programs, _)): &(&u32, &(Vec<u32>, MapInfo))| programs.contains(&program);
        self.maps.iter().filter(uses).map(|(id, _)| *id).collect()
    }

    fn map(&mut self, map: u32) -> Option<MapInfo> {
        Some(self.maps.get(&map)?.1.clone())
    }

    fn enable(&mut self) -> io::Result<OwnedFd> {
        self.flips += 1;
        match self.refuses {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(File::open("/dev/null")?.into()),
        }
    }
}

fn host(statistics: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/sys/kernel/bpf_stats_enabled", statistics);
    write(
        "proc/stat",
        "cpu  100 0 50 900 3 1 2 0 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\n",
    );
    root
}

fn short(_: Duration) {
    std::thread::sleep(Duration::from_millis(2));
}

fn costs(meter: &Meter<&mut Fake>) -> Costs {
    meter.costs(&EventCosts::default())
}

fn env(root: &Path) -> Env {
    Env::at(root)
}

#[test]
fn a_window_flips_the_switch_once_and_extrapolates() {
    let root = host("0\n");
    let mut fake = Fake::default();
    fake.put(7, 1, 1_000, 80_000);
    fake.put(9, 1, 0, 0);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    for _ in 0..3 {
        meter.window(true, short);
    }
    let costs = costs(&meter);
    assert!(matches!(
        costs.method,
        Reading::Value(CostMethod::Windows { windows: 3, .. })
    ));
    let [busy, idle] = &costs.programs[..] else {
        panic!("{costs:?}");
    };
    assert_eq!((busy.id, busy.windows), (7, 3));
    assert_eq!(busy.ns_per_run.get(), Some(80.0));
    assert_eq!(busy.ns_deviation.get(), Some(0.0));
    assert!((busy.share - busy.runs_per_s * 80e-9).abs() < 1e-9);
    assert!(busy.runs_deviation.get().is_some());
    assert!(busy.misses_per_s.get().unwrap() > 0.0);
    assert_eq!((idle.runs_per_s, idle.share), (0.0, 0.0));
    assert!(matches!(
        idle.ns_per_run,
        Reading::Off(Reason::NotSampled { .. })
    ));
    drop(meter);
    assert_eq!(fake.flips, 3);
}

#[test]
fn where_the_sysctl_is_set_nothing_is_flipped() {
    let root = host("1\n");
    let mut fake = Fake::default();
    fake.put(7, 1, 1_000, 80_000);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    let mut rests = 0;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(2));
        meter.window(true, |time| {
            rests += 1;
            short(time);
        });
    }
    let costs = costs(&meter);
    assert_eq!(costs.method, Reading::Value(CostMethod::Sysctl));
    assert_eq!(costs.programs[0].windows, 3);
    assert_eq!(costs.programs[0].ns_per_run.get(), Some(80.0));
    drop(meter);
    assert_eq!(fake.flips, 0);
    // Only the first needed to wait: since then the windows touch.
    assert_eq!(rests, 1);
}

#[test]
fn programs_come_and_go_and_their_ids_come_again() {
    let root = host("0\n");
    let mut fake = Fake::default();
    fake.put(7, 1, 1_000, 80_000);
    let mut programs = programs::Programs::default();
    let read = |fake: &mut Fake, id| programs::Read {
        at_ns: nanoseconds(ClockId::Boottime),
        counters: (&mut *fake).counters(id).unwrap(),
    };
    let span = programs::Span::Window(100_000_000);
    programs.begin(read(&mut fake, 7));
    programs.end(read(&mut fake, 7), span, 1.0);
    assert_eq!(programs.costs()[0].runs_per_s, 10_000.0);

    // Another program under the same id, within a window: neither's runs are the other's.
    programs.begin(read(&mut fake, 7));
    fake.put(7, 2, 5_000, 5_000);
    (&mut fake).counters(7);
    programs.end(read(&mut fake, 7), span, 1.0);
    assert_eq!(programs.costs(), []);
    programs.begin(read(&mut fake, 7));
    programs.end(read(&mut fake, 7), span, 1.0);
    let cost = &programs.costs()[0];
    assert_eq!((cost.windows, cost.ns_per_run.get()), (1, Some(1.0)));

    // Counters that go back.
    programs.begin(read(&mut fake, 7));
    fake.put(7, 2, 1, 1);
    programs.end(read(&mut fake, 7), span, 1.0);
    assert_eq!(programs.costs(), []);

    // Gone at the next walk; one that came within a window waits for the next.
    fake.put(8, 3, 10, 100);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    meter.window(true, short);
    let ids = |meter: &Meter<&mut Fake>| -> Vec<u32> {
        costs(meter).programs.iter().map(|p| p.id).collect()
    };
    assert_eq!(ids(&meter), [7, 8]);
    drop(meter);
    fake.programs.remove(&7);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    meter.window(true, short);
    assert_eq!(ids(&meter), [8]);
}

#[test]
fn a_refusal_is_told_and_leaves_no_old_figures() {
    let root = host("0\n");
    let mut fake = Fake {
        refuses: Some(libc::EPERM),
        ..Fake::default()
    };
    fake.put(7, 1, 1_000, 80_000);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    meter.window(true, short);
    let told = costs(&meter);
    assert_eq!(
        told.method,
        Reading::Off(Reason::NoCapability {
            need: "CAP_SYS_ADMIN".into()
        })
    );
    assert_eq!(told.programs, []);
    drop(meter);
    // Before 5.8 there is only the sysctl.
    fake.refuses = Some(libc::EINVAL);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    meter.window(true, short);
    assert!(matches!(
        costs(&meter).method,
        Reading::Off(Reason::Setting { .. })
    ));
}

#[test]
fn many_programs_take_turns() {
    let root = host("0\n");
    let mut fake = Fake::default();
    for id in 1..=2_500 {
        fake.put(id, 1, 10, 100);
    }
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    for (window, known) in [(1, 1_024), (2, 2_048), (3, 2_500)] {
        meter.window(true, short);
        assert_eq!(costs(&meter).programs.len(), known, "window {window}");
    }
}

#[test]
fn maps_are_told_with_the_programs_that_share_them() {
    let root = host("0\n");
    let mut fake = Fake::default();
    for id in [3, 5, 8] {
        fake.put(id, 1, 10, 100);
    }
    let map = |id, kind, name: &str| MapInfo {
        id,
        kind,
        name: name.into(),
        max_entries: 1_024,
        ..MapInfo::default()
    };
    fake.maps
        .insert(20, (vec![3, 8], map(20, 1, "tbl\x1b[31m")));
    fake.maps.insert(21, (vec![5], map(21, 6, "counts")));
    fake.maps.insert(22, (vec![], map(22, 1, "of nobody")));
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    // The counts of maps are known with the second reading.
    meter.window(true, short);
    meter.window(true, short);
    let told = costs(&meter);
    let maps: Vec<_> = told
        .maps
        .iter()
        .map(|m| (m.id, &*m.kind, &m.programs[..], m.contends))
        .collect();
    assert_eq!(
        maps,
        [
            (20, "hash", &[3, 8][..], true),
            (21, "percpu_array", &[5][..], false)
        ]
    );
    assert_eq!(told.maps_left_out, 0);
    drop(meter);
    fake.programs.remove(&5);
    let mut meter = Meter::with(&mut fake, &env(root.path()));
    meter.window(true, short);
    meter.window(true, short);
    assert_eq!(costs(&meter).maps.len(), 1);
}

#[test]
fn a_thread_that_failed_is_told_whatever_is_asked_then() {
    let shared = Arc::new(Shared::<State>::default());
    let theirs = Arc::clone(&shared);
    let failing = std::thread::spawn(move || {
        let _alive = Alive::new(|| theirs.end(&failed("what probes cost")));
        std::panic::resume_unwind(Box::new("no word of it on standard error"));
    });
    assert!(failing.join().is_err());
    let thread = CostThread { shared };
    let why = failed("what probes cost");
    let own = thread.own().unwrap();
    assert_eq!(own.drops, Reading::Off(why.clone()));
    assert_eq!(own.ns_per_run, Reading::Off(why.clone()));
    for wanted in [true, false, true] {
        thread.want(wanted);
        assert_eq!(thread.newest(), Some(Reading::Off(why.clone())));
    }
}
