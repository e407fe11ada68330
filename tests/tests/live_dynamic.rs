//! Dynamic events on a real kernel: switched, removed, made again. Each test has its own.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use stalltop_model::change::{ChangeError, Outcome};
use stalltop_tests::change::{Bench, kill_at, killed_child, off, on, remove};
use stalltop_tests::instance::Instance;
use stalltop_tests::{need, require};

/// A dynamic event of a test's own, removed when the test ends.
struct OwnEvent {
    tracefs: PathBuf,
    item: String,
}

impl OwnEvent {
    /// `KIND:GROUP/NAME DEFINITION`, in a group of this process.
    fn new(tracefs: &Path, kind: char, name: &str, definition: &str) -> Self {
        let own = Self {
            tracefs: tracefs.to_owned(),
            item: format!("stalltop_{}/{name}", std::process::id()),
        };
        own.command(&format!("{kind}:{} {definition}", own.item))
            .unwrap();
        own
    }

    fn command(&self, line: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .append(true)
            .open(self.tracefs.join("dynamic_events"))?
            .write_all(format!("{line}\n").as_bytes())
    }

    fn selector(&self) -> String {
        self.item.replacen('/', ":", 1)
    }

    /// A file of the event in an instance.
    fn file(&self, file: &str) -> String {
        format!("events/{}/{file}", self.item)
    }

    /// Its line in `dynamic_events`; empty if it is not there.
    fn definition(&self) -> String {
        let all = fs::read_to_string(self.tracefs.join("dynamic_events")).unwrap();
        let mine = all
            .lines()
            .find(|l| l.contains(&format!(":{} ", self.item)));
        mine.unwrap_or_default().to_owned()
    }
}

impl Drop for OwnEvent {
    fn drop(&mut self) {
        // It may be in any of a change's states.
        let _ = fs::write(self.tracefs.join(self.file("enable")), "0\n");
        if let Err(e) = self.command(&format!("-:{}", self.item))
            && e.kind() != io::ErrorKind::NotFound
        {
            eprintln!("left behind: {}: {e}", self.item);
        }
    }
}

/// What uprobes of these tests sit on: an instruction. (A uprobe puts its breakpoint into every
/// mapping of the file, data included, so at a made-up offset it would break the program.)
#[inline(never)]
extern "C" fn probed() {
    std::hint::black_box(());
}

/// `FILE:OFFSET` of [`probed`] in this test.
fn place() -> String {
    let address = probed as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let offset = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let (from, to) = (hex(from)?, hex(to)?);
        let offset = hex(words.nth(1)?)?;
        (from..to)
            .contains(&address)
            .then(|| address - from + offset)
    });
    let exe = std::env::current_exe().unwrap();
    format!("{}:{:#x}", exe.display(), offset.unwrap())
}

/// See [`kill_at`].
#[test]
fn child_that_is_killed() {
    killed_child();
}

/// Removing takes off, triggers, filter and definition, one by one, and undo puts each back:
/// also when both are killed at every point in between.
#[test]
fn a_removed_dynamic_event_comes_back_as_it_was() {
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let event = OwnEvent::new(&tracefs, 'p', "removed", &format!("{} arg=%ax", place()));
    let (one, two) = (
        Instance::new(&tracefs, "removed1").unwrap(),
        Instance::new(&tracefs, "removed2").unwrap(),
    );
    let (enable, filter, trigger) = (
        event.file("enable"),
        event.file("filter"),
        event.file("trigger"),
    );
    one.write(&filter, "arg == 4711");
    one.append(&trigger, "traceoff:7 if arg == 1").unwrap();
    one.append(&trigger, "stacktrace").unwrap();
    one.write(&enable, "1");
    two.write(&filter, "arg == 42");
    two.write(&enable, "1");
    let state = || {
        let of = |i: &Instance| [&enable, &filter, &trigger].map(|f| i.read(f));
        (event.definition(), of(&one), of(&two))
    };
    let before = state();
    assert_eq!(before.1[0], "1*");
    let bench = Bench::new();
    let plan = bench.plan(&remove(&event.selector())).unwrap();
    // Two triggers, two filters, two switches, and the event itself.
    assert_eq!(plan.writes.len(), 7);
    bench.apply(&plan).unwrap();
    assert_eq!(event.definition(), "");
    let hint = bench.plan(&off(&event.selector())).unwrap_err().to_string();
    assert!(
        hint.contains("stalltop removed it; `stalltop undo 1` brings it back"),
        "{hint}"
    );
    bench.undo();
    assert_eq!(state(), before);

    for point in 0..=plan.writes.len() {
        let bench = Bench::new();
        let journal = bench.writer.journal().to_str().unwrap();
        kill_at(point, &format!("remove {journal} {}", event.selector()));
        for undo_point in [0, 1, point / 2, point] {
            kill_at(undo_point, &format!("undo {journal}"));
        }
        bench.undo();
        assert_eq!(state(), before, "killed after {point} writes");
    }
}

/// What the kernel refuses half-way is in the journal, and can be put back.
#[test]
fn a_change_that_fails_half_way_is_put_back() {
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let event = OwnEvent::new(&tracefs, 'p', "busy", &place());
    let own = Instance::new(&tracefs, "busy").unwrap();
    own.write(&event.file("enable"), "1");
    let bench = Bench::new();
    let plan = bench.plan(&remove(&event.selector())).unwrap();
    // Another instance begins to use the event once the plan is made: the kernel will
    // refuse to remove it.
    let other = Instance::new(&tracefs, "busy2").unwrap();
    other.write(&event.file("enable"), "1");
    let failure = bench.apply(&plan).unwrap_err();
    assert!(
        matches!(failure.error, ChangeError::Refused { .. }),
        "{failure}"
    );
    assert!(
        failure.to_string().contains("something still uses it"),
        "{failure}"
    );
    let entry = failure.entry.unwrap();
    assert!(matches!(entry.outcome, Outcome::Failed { written: 1, .. }));
    assert_eq!(own.read(&event.file("enable")), "0");
    bench.undo();
    assert_eq!(own.read(&event.file("enable")), "1");
}

/// An event that another event's trigger arms could not be removed: said beforehand.
#[test]
fn an_event_armed_from_elsewhere_is_named_with_its_trigger() {
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let event = OwnEvent::new(&tracefs, 'p', "armed", &place());
    let own = Instance::new(&tracefs, "armedby").unwrap();
    let arms = format!("enable_event:{}", event.selector());
    own.append(
        "events/sched/sched_process_exec/trigger",
        &format!("{arms} if pid == 1"),
    )
    .unwrap();
    let bench = Bench::new();
    let error = bench
        .plan(&remove(&event.selector()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("remove that trigger first"), "{error}");
    assert!(
        error.contains(&format!("echo '!{arms} if pid == 1' >> ")),
        "{error}"
    );
    own.append(
        "events/sched/sched_process_exec/trigger",
        &format!("!{arms}"),
    )
    .unwrap();
}

/// How often a kprobe event was hit (`kprobe_profile`).
fn hits(tracefs: &Path, event: &OwnEvent) -> u64 {
    let name = event.item.rsplit('/').next().unwrap();
    let text = fs::read_to_string(tracefs.join("kprobe_profile")).unwrap();
    let mut words = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .find(|w| w.first() == Some(&name))
        .unwrap();
    words.swap_remove(1).parse().unwrap()
}

/// Whether opening files hits the event: all of them, or none.
fn is_hit(tracefs: &Path, event: &OwnEvent) -> bool {
    let before = hits(tracefs, event);
    for _ in 0..100 {
        drop(fs::File::open("/proc/self/stat").unwrap());
    }
    let more = hits(tracefs, event) - before;
    // Others may open files as well, but where it is off nobody's are counted.
    assert!(more == 0 || more >= 100, "{more}");
    more > 0
}

/// kprobes: hits stop and come back, by event, by master switch, killed in between, removed.
/// Where the kernel has no kprobes this is left to the machines of `tests/vm.rs`.
#[test]
fn kprobes_stop_and_come_back() {
    require!(need::root());
    let tracefs = require!(need::tracefs());
    if !tracefs.join("kprobe_events").exists() {
        eprintln!("skipped here: no CONFIG_KPROBE_EVENTS; tests/vm.rs runs it elsewhere");
        return;
    }
    let master = require!(need::path("/sys/kernel/debug/kprobes/enabled"));
    let read_master = || fs::read_to_string(&master).unwrap().trim().to_owned();
    let event = OwnEvent::new(&tracefs, 'p', "open", "do_sys_openat2");
    let own = Instance::new(&tracefs, "kprobes").unwrap();
    own.write(&event.file("enable"), "1");
    let bench = Bench::new();
    assert!(is_hit(&tracefs, &event));
    assert_eq!(read_master(), "1");

    let selector = format!("{}/{}", own.name(), event.selector());
    bench.make(&off(&selector));
    assert!(!is_hit(&tracefs, &event));
    bench.undo();
    assert!(is_hit(&tracefs, &event));

    bench.make(&off("kprobes"));
    assert_eq!(read_master(), "0");
    assert!(!is_hit(&tracefs, &event));
    assert!(matches!(
        bench.plan(&off("kprobes")),
        Err(ChangeError::NothingToDo { .. })
    ));
    bench.make(&on("kprobes", false));
    assert!(is_hit(&tracefs, &event));

    for point in [0, 1] {
        let bench = Bench::new();
        let journal = bench.writer.journal().to_str().unwrap();
        kill_at(point, &format!("off {journal} kprobes"));
        assert_eq!(is_hit(&tracefs, &event), point == 0);
        bench.undo();
        assert_eq!(read_master(), "1");
        assert!(is_hit(&tracefs, &event));
    }

    let definition = event.definition();
    bench.make(&remove(&event.selector()));
    assert_eq!(event.definition(), "");
    bench.undo();
    assert_eq!(event.definition(), definition);
    assert!(is_hit(&tracefs, &event));
}
