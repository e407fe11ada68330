//! Stalls of this host, from the kernel to a line of `stalltop stream`: a child of the test holds
//! a CPU in the kernel, for a while that it measures itself, and the stream names it.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stalltop_collectors::selftest::inject::{self, Injected, Line, Order};
use stalltop_collectors::selftest::plan::Injector;
use stalltop_model::Frame;
use stalltop_model::recording::{Player, Recording};
use stalltop_model::sample::{Pause, Stall, StallKind};
use stalltop_tests::program::stalltop;
use stalltop_tests::stalls::on;
use stalltop_tests::{need, require};

/// Says to a process of this test program that it is the child, and what it is to do.
const CHILD: &str = "STALLTOP_TEST_INJECT";
/// How much of what was injected may be missing: the timer that wakes the second task may be
/// late, and without the sampler the start of a hold is known to a tick.
const TICK_NS: u64 = 10_000_000;

/// A process that ends with the test, whatever becomes of that.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> (Process, Lines<BufReader<ChildStdout>>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    (Process(child), out.lines())
}

/// The child's part: does nothing where the test program runs by itself.
#[test]
fn injects() {
    let Ok(order) = std::env::var(CHILD) else {
        return;
    };
    let words: Vec<&str> = order.split(' ').collect();
    let order = Order {
        injector: Injector::from_name(words[0]).expect("an injector"),
        cpu: words[1].parse().expect("a CPU"),
        count: words[2].parse().expect("a count"),
        seed: 7,
    };
    inject::run(&order, &mut std::io::stdout()).expect("trouble");
}

/// Makes trouble; gives the process id and what came about.
fn trouble(injector: Injector, cpu: u32, count: u32) -> (u32, Vec<Injected>) {
    let this = std::env::current_exe().expect("this program");
    let order = format!("{} {cpu} {count}", injector.as_str());
    let mut command = Command::new(this);
    command.args(["--exact", "injects", "--nocapture"]);
    let (_process, lines) = spawn(command.env(CHILD, order));
    let (mut pid, mut injected) = (0, Vec::new());
    // Between them stands what the test program itself prints.
    for line in lines.map_while(Result::ok) {
        let json = line.find('{').map_or("", |at| &line[at..]);
        match serde_json::from_str(json) {
            Ok(Line::Ready { pid: its }) => pid = its,
            Ok(Line::Injected(one)) => injected.push(one),
            Err(_) => {}
        }
    }
    assert!(pid > 0 && !injected.is_empty(), "no trouble was made");
    (pid, injected)
}

fn last_cpu() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("sysfs");
    let last = online.trim().rsplit([',', '-']).next();
    last.and_then(|cpu| cpu.parse().ok()).expect("a CPU")
}

/// Starts `stream` and waits until it tells of that kind, and from when on.
fn stream(
    stall: &str,
    sample: &str,
    kind: StallKind,
    from_ns: u64,
) -> Option<(Process, impl Iterator<Item = String>)> {
    let mut command = Command::new(stalltop());
    command.args(["stream", "--stall", stall, "--tick", "100ms"]);
    let (process, lines) = spawn(command.args(["--sample", sample]));
    let mut lines = lines.map(|line| line.expect("a line of JSON"));
    let watch = lines
        .by_ref()
        .filter_map(|line| {
            let frame: Value = serde_json::from_str(&line).expect("JSON");
            let watch = frame.get("stalls")?.clone();
            // Programs are loaded in the background.
            (frame["type"] == "sample" && watch.get("kinds").is_some()).then_some(watch)
        })
        .next()?;
    let chosen = watch["chosen"].as_str().expect("text");
    assert!(chosen.starts_with(&format!("--stall {stall}")), "{chosen}");
    let from = &watch["kinds"][kind as usize];
    let works = match from.as_u64() {
        Some(ns) if ns == from_ns => Ok(()),
        _ => Err(format!("needs stalls of kind {}: {from}", kind.as_str())),
    };
    need::or_skip(works)?;
    Some((process, lines))
}

/// The stalls of that kind on that CPU: all that come within the time, or until there are `enough`.
fn told(
    lines: impl Iterator<Item = String>,
    cpu: u32,
    kind: StallKind,
    time: Duration,
    enough: impl Fn(&[Stall]) -> bool,
) -> Vec<Stall> {
    let deadline = Instant::now() + time;
    let mut stalls = Vec::new();
    for line in lines {
        if let Frame::Stall(stall) = Frame::parse(line.as_bytes()).expect("a frame")
            && stall.cpu == cpu
            && stall.kind == kind
        {
            stalls.push(*stall);
        }
        if enough(&stalls) || Instant::now() > deadline {
            break;
        }
    }
    stalls
}

/// Runs `stream`, makes trouble, and gives the child's id, what it injected, and the stalls of
/// the kind on its CPU.
fn streamed(injector: Injector, sample: &str) -> Option<(u32, Vec<Injected>, Vec<Stall>)> {
    let kind = injector.kinds()[0];
    let (_process, lines) = stream("5ms", sample, kind, 5_000_000)?;
    let cpu = last_cpu();
    let (pid, injected) = trouble(injector, cpu, 3);
    // What was injected last is told well within this time; what was paused, perhaps not at all.
    let stalls = told(lines, cpu, kind, Duration::from_secs(15), |stalls| {
        let told = |injected: &Injected| row(stalls, injected).is_some_and(|s| whole(s, injected));
        injected.iter().all(told)
    });
    Some((pid, injected, stalls))
}

/// How much of what was injected a row is about, ns.
fn overlap(stall: &Stall, injected: &Injected) -> u64 {
    let from = stall.at_ns.saturating_sub(stall.delay_ns);
    let to = stall.at_ns.min(injected.end_ns);
    to.saturating_sub(from.max(injected.begin_ns))
}

/// The row of what was injected: the one that overlaps it most.
fn row<'a>(stalls: &'a [Stall], injected: &Injected) -> Option<&'a Stall> {
    let overlaps = stalls.iter().filter(|s| overlap(s, injected) > 0);
    overlaps.max_by_key(|s| overlap(s, injected))
}

/// Whether a row is about all of what was injected.
fn whole(stall: &Stall, injected: &Injected) -> bool {
    stall.most_ns + TICK_NS >= injected.duration_ns()
}

fn names_the_process(injector: Injector, sample: &str) {
    let Some((pid, injected, stalls)) = streamed(injector, sample) else {
        return;
    };
    let mut right = 0;
    for injected in &injected {
        let Some(stall) = row(&stalls, injected) else {
            continue;
        };
        if !whole(stall, injected) {
            // Only a pause in the middle makes two rows of one, or one that is not certain.
            let rows = stalls.iter().filter(|s| overlap(s, injected) > 0).count();
            let paused = rows > 1 || stall.pause != Pause::Held;
            assert!(paused, "{injected:?}: {stall:?}");
            continue;
        }
        let Some(culprit) = stall.culprit.value() else {
            continue;
        };
        let function = culprit.function.value().map_or("", |name| name);
        let known = injector.functions().iter().any(|f| function.contains(f));
        if culprit.tgid == pid && known {
            assert_eq!(&*culprit.comm, injector.comm());
            assert!(!stall.ours && stall.wall_ns > 0 && stall.id > 0);
            assert!(culprit.cgroup.value().is_some() || culprit.cgroup.reason().is_some());
            right += 1;
        }
    }
    // A shared machine may pause a virtual CPU in the middle of one; never in all of them.
    assert!(
        right > 0,
        "none of {injected:#?} by {pid} is named in {stalls:#?}"
    );
}

#[test]
fn a_task_that_keeps_the_cpu_is_named() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    names_the_process(Injector::NoResched, "auto");
}

#[test]
fn a_task_that_keeps_interrupts_off_is_named() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    names_the_process(Injector::IrqsOff, "always");
}

/// Says to a process of this test program that it is the real-time one, and its CPU.
const KEEPER: &str = "STALLTOP_TEST_KEEP_CPU";
/// How long it keeps the CPU at a time.
const KEPT: Duration = Duration::from_millis(250);

/// The real-time process's part: does nothing where the test program runs by itself.
#[test]
fn keeps() {
    let Ok(cpu) = std::env::var(KEEPER) else {
        return;
    };
    on(cpu.parse().expect("a CPU"), || {
        for _ in 0..3 {
            let begin = Instant::now();
            while begin.elapsed() < KEPT {
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

/// An ordinary task that wants a CPU for that long.
fn busy(cpu: u32, time: Duration) {
    on(cpu, || {
        let begin = Instant::now();
        while begin.elapsed() < time {
            std::hint::spin_loop();
        }
    });
}

#[test]
fn a_real_time_task_that_others_wait_for_is_named() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    require!(need::program("chrt"));
    let cpu = last_cpu();
    require!((cpu > 0).then_some(()).ok_or("needs a second CPU"));
    let kind = StallKind::RealTime;
    let Some((_stream, lines)) = stream("real-time=50ms", "auto", kind, 50_000_000) else {
        return;
    };
    let pid = std::thread::scope(|scope| {
        scope.spawn(|| busy(cpu, Duration::from_secs(3)));
        // Ended from another CPU, should it not end by itself.
        on(0, || {
            let this = std::env::current_exe().expect("this program");
            let mut command = Command::new("chrt");
            command.args(["--fifo", "7"]).arg(this);
            command.args(["--exact", "keeps", "--nocapture"]);
            // A test program that cannot say what it does ends at once: its output stays open.
            let (mut keeper, _output) = spawn(command.env(KEEPER, cpu.to_string()));
            let deadline = Instant::now() + Duration::from_secs(10);
            let status = loop {
                if let Some(status) = keeper.0.try_wait().expect("wait(2)") {
                    break status;
                }
                assert!(Instant::now() < deadline, "it does not end");
                std::thread::sleep(Duration::from_millis(50));
            };
            assert!(status.success(), "{status}");
            keeper.0.id()
        })
    });
    let is_its = |stall: &Stall| stall.culprit.value().is_some_and(|c| c.tgid == pid);
    let stalls = told(lines, cpu, kind, Duration::from_secs(15), |stalls| {
        stalls.iter().any(is_its)
    });
    let named = stalls.iter().filter_map(|stall| {
        let culprit = stall.culprit.value()?;
        (culprit.tgid == pid).then_some((stall, culprit))
    });
    let mut found = 0;
    for (stall, culprit) in named {
        assert_eq!(&*culprit.comm, "keeps");
        let sched = culprit.sched.as_ref().map(ToString::to_string);
        assert_eq!(sched.as_deref(), Some("SCHED_FIFO 7"));
        assert!(stall.waited.is_some() && !stall.ours, "{stall:?}");
        assert!(stall.most_ns >= 50_000_000, "{stall:?}");
        found += 1;
    }
    assert!(found > 0, "{pid} is not named in {stalls:#?}");
}

#[test]
fn ordinary_tasks_that_share_a_cpu_keep_it_from_nobody() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let (kind, cpu) = (StallKind::RealTime, last_cpu());
    let Some((_stream, lines)) = stream("handler=50ms", "off", kind, 100_000_000) else {
        return;
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| busy(cpu, Duration::from_secs(2)));
        }
    });
    let own = std::process::id();
    let stalls = told(lines, cpu, kind, Duration::from_secs(4), |_| false);
    let blamed = |s: &&Stall| s.culprit.value().is_some_and(|c| c.tgid == own);
    assert_eq!(stalls.iter().find(blamed), None);
}

/// All frames that are in a recording so far; none before its first line.
fn frames(file: &Path) -> Vec<Frame> {
    let Ok(recording) = Recording::open(std::fs::read(file).unwrap_or_default(), |_| ()) else {
        return Vec::new();
    };
    let mut player = Player::new(recording);
    std::iter::from_fn(|| player.next_frame().ok().flatten()).collect()
}

/// Looks into a recording that is being written until `found` finds what it looks for there.
fn wait_for<T>(file: &Path, found: impl Fn(&Frame) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = frames(file).iter().find_map(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "it is not in the recording");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_sampler_runs_where_it_was_asked_for() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let online = stalltop_collectors::cpu_list::cpus(online.as_bytes());
    for (when, expected) in [("always", &online[..]), ("off", &[])] {
        let mut command = Command::new(stalltop());
        command.args([
            "stream", "--tick", "50ms", "--stall", "10s", "--sample", when,
        ]);
        let (_process, lines) = spawn(&mut command);
        let deadline = Instant::now() + Duration::from_secs(20);
        let sampled = lines.map_while(Result::ok).find(|line| {
            assert!(Instant::now() < deadline, "{when}: {line}");
            match Frame::parse(line.as_bytes()).expect("a frame") {
                Frame::Sample(sample) => {
                    let watch = sample.stalls.value();
                    // The symbols are read after the sampler was switched.
                    watch.is_some_and(|w| w.symbols.value().is_some() && w.sampling == expected)
                }
                _ => false,
            }
        });
        assert!(sampled.is_some(), "{when}");
    }
}

#[test]
fn a_recording_holds_what_was_seen() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stalls");
    let mut command = Command::new(stalltop());
    command.args(["record", "--tick", "100ms", "--stall", "5ms"]);
    let (mut process, _) = spawn(command.arg(&file));
    let works = wait_for(&file, |frame| match frame {
        Frame::Sample(sample) => {
            let kinds = &sample.stalls.value()?.kinds;
            Some(kinds[StallKind::NoReschedule as usize].clone())
        }
        _ => None,
    });
    require!(works.as_ref().map_err(ToString::to_string));
    let (pid, _) = trouble(Injector::NoResched, last_cpu(), 3);
    let told = wait_for(&file, |frame| match frame {
        Frame::Stall(stall) => {
            let culprit = stall.culprit.value()?;
            (culprit.tgid == pid).then_some(stall.id)
        }
        _ => None,
    });
    assert!(told > 0);
    let id = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
    assert!(process.0.wait().expect("wait(2)").success());
    let ids: Vec<u64> = frames(&file)
        .iter()
        .filter_map(|frame| match frame {
            Frame::Stall(stall) => Some(stall.id),
            _ => None,
        })
        .collect();
    assert!(
        ids.contains(&told) && ids.is_sorted_by(|a, b| a < b),
        "{ids:?}"
    );
}

#[test]
fn a_host_without_probes_says_so_of_every_kind() {
    let _alone = need::alone();
    let mut command = Command::new(stalltop());
    command.args(["stream", "--no-bpf", "--tick", "50ms", "--for", "500ms"]);
    let (_process, lines) = spawn(command.args(["--stall", "handler=off"]));
    let samples = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let watch = samples.last().unwrap()["stalls"].clone();
    for kind in 0..StallKind::ALL.len() {
        let option = if kind == StallKind::SoftirqHandler as usize {
            "--stall handler=off"
        } else {
            "--no-bpf"
        };
        let why = format!("switched off by {option}");
        assert_eq!(watch["kinds"][kind]["off"]["reason"], why, "{watch}");
    }
    assert!(watch["sampling"].as_array().unwrap().is_empty());
}

#[test]
fn bad_times_are_bad_usage_in_one_line() {
    for (text, why) in [
        ("0ms", "a stall is 1ms to 10s long"),
        ("11s", "a stall is 1ms to 10s long"),
        ("hardirq=5ms", "no kind of stall is called hardirq"),
        ("handler=soon", "expected number"),
    ] {
        let output = Command::new(stalltop())
            .args(["stream", "--stall", text])
            .output();
        let output = output.expect("stalltop starts");
        assert_eq!(output.status.code(), Some(2), "{text}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(why), "{told}");
    }
}
