//! Memory cgroups on this host, as root: below a cgroup of our own, taken down again
//! however a test ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stalltop_collectors::Env;
use stalltop_collectors::cgroups::charged::measure;
use stalltop_collectors::cgroups::{CgroupCollector, Place};
use stalltop_model::Reading;
use stalltop_model::sample::{Cgroup, Cgroups, MemoryVersion};
use stalltop_tests::{need, require};

const BUDGET: Duration = Duration::from_millis(4);

/// A memory cgroup of our own and, for zombies, a folder on a tmpfs; both go with it.
struct Own {
    dir: PathBuf,
    /// The same as the collector names it.
    path: String,
    files: PathBuf,
}

impl Own {
    fn new(name: &str) -> Result<Self, String> {
        need::root()?;
        let place = Place::find(&Env::live()).map_err(|r| format!("needs memory cgroups: {r}"))?;
        let path = format!("/stalltop-{name}-{}", std::process::id());
        let own = Self {
            dir: PathBuf::from(format!("{}{path}", place.mount)),
            files: PathBuf::from(format!("/dev/shm{path}")),
            path,
        };
        fs::create_dir(&own.dir).map_err(|e| format!("needs {}: {e}", own.dir.display()))?;
        own.control(&own.dir, &place);
        Ok(own)
    }

    /// v2 has the controller only where the parent hands it down.
    fn control(&self, dir: &Path, place: &Place) {
        if place.version == MemoryVersion::V2 {
            fs::write(dir.join("cgroup.subtree_control"), "+memory").unwrap();
        }
    }

    /// 40 groups of 49.
    fn make_2000(&self) {
        let place = Place::find(&Env::live()).unwrap();
        for slice in 0..40 {
            let slice = self.dir.join(format!("s{slice}.slice"));
            fs::create_dir(&slice).unwrap();
            self.control(&slice, &place);
            for n in 0..49 {
                fs::create_dir(slice.join(format!("c{n}.service"))).unwrap();
            }
        }
    }

    fn is_below(&self, row: &Cgroup) -> bool {
        row.path.starts_with(&format!("{}/", self.path))
    }

    /// PLATFORM's recipe on tmpfs: the pages of a removed cgroup's files keep it charged.
    fn make_zombies(&self, count: u32) {
        fs::create_dir(&self.files).unwrap();
        let script = r#"
            home=$1; files=$2; n=0; page=$(printf '%04096d' 0)
            mkdir "$home/home"; back="$home/home/cgroup.procs"
            while [ $n -lt $3 ]; do
                mkdir "$home/z$n" && echo $$ >"$home/z$n/cgroup.procs" || exit 1
                printf %s "$page" >"$files/$n"
                echo $$ >"$back" && rmdir "$home/z$n" || exit 1
                n=$((n + 1))
            done"#;
        let made = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&self.dir)
            .arg(&self.files)
            .arg(count.to_string())
            .status()
            .unwrap();
        assert!(made.success());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            // A process that has just ended may be in the group for a moment.
            let until = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < until {
                std::thread::yield_now();
            }
        }
        remove(&self.dir);
        let _ = fs::remove_dir_all(&self.files);
    }
}

fn newest(collector: &CgroupCollector) -> Arc<Cgroups> {
    match collector.handle().newest(0) {
        Reading::Value(state) => state,
        Reading::Off(reason) => panic!("{reason}"),
    }
}

/// Sweeps until `done`; a number of sweeps is the limit, not a time.
fn sweep_until(collector: &mut CgroupCollector, done: impl Fn(&Cgroups) -> bool) -> Arc<Cgroups> {
    for _ in 0..2_000 {
        collector.sweep(BUDGET);
        let state = newest(collector);
        if done(&state) {
            return state;
        }
    }
    let state = newest(collector);
    panic!("{:?}, {} rows", state.sweep, state.rows.len());
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn two_thousand_under_a_budget() {
    let own = require!(Own::new("many"));
    own.make_2000();
    let mut collector = CgroupCollector::new(&Env::live());
    collector.sweep(BUDGET);
    let before = open_descriptors();
    let all_read = |state: &Cgroups| {
        let ours = state.rows.iter().filter(|row| own.is_below(row));
        ours.filter(|row| row.read_at_ns > 0).count() == 2_000
    };
    let state = sweep_until(&mut collector, all_read);
    // Nothing is kept open (other tests of this process may hold a few).
    assert!(open_descriptors() < before + 50);

    for row in state.rows.iter().filter(|row| own.is_below(row)) {
        assert!(
            row.read
                .get()
                .is_some_and(|read| read.count > 0 && read.last_ns > 0)
        );
        assert!(row.used_bytes.get().is_some());
        assert_eq!(row.processes, Reading::Value(0));
        let parent = &state.rows[row.parent.unwrap() as usize];
        assert_eq!(row.depth, parent.depth + 1);
        assert!(row.path.starts_with(&*parent.path));
        assert_eq!(&*row.owner.name, row.path.rsplit('/').next().unwrap());
    }
    let known = BTreeSet::from_iter(state.rows.iter().map(|row| row.path.clone()));
    assert_eq!(known.len(), state.rows.len());

    // Warm: no sweep reads more than a fifth of them, and all get their turn.
    let share = state.rows.len() as u64 / 5 + 100;
    let mut reads = state.sweep.reads;
    for _ in 0..20 {
        collector.sweep(BUDGET);
        let now = newest(&collector).sweep.reads;
        assert!(now - reads <= share, "{now} {reads}");
        reads = now;
    }
    let read_again = |state: &Cgroups| {
        let ours = state.rows.iter().filter(|row| own.is_below(row));
        ours.filter(|row| {
            row.read
                .get()
                .is_some_and(|read| read.count > 1 || row.backed_off)
        })
        .count()
            == 2_000
    };
    sweep_until(&mut collector, read_again);
}

#[test]
fn one_vanishes_between_listing_and_reading() {
    let own = require!(Own::new("gone"));
    let (stays, goes) = (own.dir.join("stays"), own.dir.join("goes"));
    fs::create_dir(&stays).unwrap();
    fs::create_dir(&goes).unwrap();
    let mut collector = CgroupCollector::new(&Env::live());
    let of = |state: &Cgroups, name: &str| {
        let path = format!("{}/{name}", own.path);
        state.rows.iter().find(|row| *row.path == path).cloned()
    };
    let read = |state: &Cgroups, name: &str| of(state, name).is_some_and(|row| row.read_at_ns > 0);
    sweep_until(&mut collector, |s| read(s, "stays") && read(s, "goes"));
    fs::remove_dir(&goes).unwrap();
    // The next thing that is done with it is a read: nobody has told the collector.
    collector
        .handle()
        .read_now(format!("{}/goes", own.path).into());
    let vanished = newest(&collector).sweep.vanished;
    collector.sweep(BUDGET);
    let state = newest(&collector);
    assert!(of(&state, "goes").is_none() && read(&state, "stays"));
    assert!(state.sweep.vanished > vanished);

    // Made anew, it is found again and starts from nothing.
    fs::create_dir(&goes).unwrap();
    let state = sweep_until(&mut collector, |s| read(s, "goes"));
    assert!(of(&state, "goes").is_some());
}

#[test]
fn a_request_is_read_at_the_next_sweep() {
    let own = require!(Own::new("now"));
    let mut collector = CgroupCollector::new(&Env::live());
    let row = |state: &Cgroups| state.rows.iter().find(|r| *r.path == *own.path).cloned();
    let before = sweep_until(&mut collector, |s| row(s).is_some_and(|r| r.read_at_ns > 0));
    let count = |state: &Cgroups| row(state).unwrap().read.get().unwrap().count;
    collector.handle().read_now(own.path.as_str().into());
    assert!(collector.handle().has_requests());
    // No budget at all: a request does not need one.
    collector.sweep(Duration::ZERO);
    assert_eq!(count(&newest(&collector)), count(&before) + 1);
    assert!(!collector.handle().has_requests());
}

#[test]
fn a_thousand_zombies_come_and_go() {
    let own = require!(Own::new("zombies"));
    require!(need::path("/dev/shm"));
    let zombies = || measure(&Env::live(), None).zombies.get().unwrap();
    let before = zombies();
    own.make_zombies(1_000);
    let mut collector = CgroupCollector::new(&Env::live());
    // Others on this host make and lose zombies too: a tenth is left to them.
    sweep_until(&mut collector, |s| {
        s.zombies.get().is_some_and(|n| n >= before + 900)
    });
    let with = zombies();
    assert!(with >= before + 900, "{before} {with}");
    fs::remove_dir_all(&own.files).unwrap();
    // The kernel frees them in its own time.
    let until = Instant::now() + Duration::from_secs(60);
    let mut after = zombies();
    while after + 900 > with && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        after = zombies();
    }
    assert!(after + 900 <= with, "{before} {with} {after}");
    sweep_until(&mut collector, |s| {
        s.zombies.get().is_some_and(|n| n + 900 <= with)
    });
}
