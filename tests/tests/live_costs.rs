//! What probes cost, on a real kernel: somebody else's program at a known rate, seen through our
//! windows and through the kernel's own statistics that are on all the time.
//!
//! The last tests are measurements, to be read and not to be passed: `cargo test -p stalltop-tests
//! --test live_costs -- --ignored --nocapture`, as root, on a quiet machine.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use stalltop_collectors::Env;
use stalltop_collectors::costs::once;
use stalltop_collectors::live::{Live, Options, Wants};
use stalltop_model::sample::{CostMethod, Costs, ProgramCost, Sample};
use stalltop_model::{Reading, Reason};
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::{info, load};
use stalltop_tests::flood::{Flood, Packets, in_own_network};
use stalltop_tests::{need, program, require, tool};

/// `bpf-holder` with these, until dropped.
struct Tool(tool::Tool);

impl Tool {
    fn start(arguments: &[&str]) -> Self {
        Self(tool::Tool::start(
            env!("CARGO_BIN_EXE_bpf-holder"),
            arguments,
        ))
    }

    /// The id of the newest program of that name: it was loaded a moment ago.
    fn program(&self, name: &str) -> u32 {
        let mut all = Vec::new();
        ids::all(Object::Program, &mut all).unwrap();
        let named = |id: &&u32| {
            ids::open(Object::Program, **id)
                .and_then(|fd| info::program(fd.as_fd()))
                .is_ok_and(|p| p.name == name)
        };
        *all.iter().rev().find(named).expect("its program is loaded")
    }
}

/// Renames its thread so often a second: `task:task_rename`, which hardly anybody else hits.
struct Renaming<'a> {
    stop: &'a AtomicBool,
}

impl<'a> Renaming<'a> {
    const PER_SECOND: u64 = 20_000;

    fn start(scope: &'a thread::Scope<'a, '_>, stop: &'a AtomicBool, done: &'a AtomicU64) -> Self {
        scope.spawn(move || {
            let started = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let due = started.elapsed().as_micros() as u64 * Self::PER_SECOND / 1_000_000;
                let behind = due.saturating_sub(done.load(Ordering::Relaxed));
                for _ in 0..behind {
                    rustix::thread::set_name(c"renamed").unwrap();
                }
                done.fetch_add(behind, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop }
    }
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(id: u32) -> OwnedFd {
    ids::open(Object::Program, id).unwrap()
}

/// Runs and nanoseconds so far.
fn counters(program: &OwnedFd) -> (u64, u64) {
    let counters = info::program_counters(program.as_fd()).unwrap();
    (counters.run_cnt, counters.run_time_ns)
}

fn of(costs: &Costs, id: u32) -> Option<&ProgramCost> {
    costs.programs.iter().find(|p| p.id == id)
}

#[test]
fn windows_agree_with_statistics_that_are_always_on() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracepoint("task:task_rename"));
    let tool = Tool::start(&["raw_tracepoint:task_rename"]);
    let id = tool.program("raw_tracepoint");
    // A pause of a virtual CPU within one of the timed runs is as long as thousands of them, and
    // weighs most where it falls between two windows.
    assert!((0..3).any(|_| windows_agree(id)), "in none of three rounds");
}

/// Whether six windows agree with statistics that are on all the time; panics where anything else
/// is not as it is to be.
fn windows_agree(id: u32) -> bool {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _renaming = Renaming::start(scope, &stop, &done);
        let mut live = Live::start(&Options {
            no_bpf: true,
            ..Options::default()
        });
        let mut sample = Sample::default();
        live.tick(&mut sample);
        assert_eq!(sample.costs.reason(), Some(&Reason::NotAsked));
        live.wants(Wants {
            costs: true,
            ..Wants::default()
        });
        // The same runs, timed by the same clock: what windows leave out is all that differs.
        let program = open(id);
        let always_on = load::enable_run_time_stats().unwrap();
        let (began, before) = (Instant::now(), counters(&program));
        let cost = loop {
            thread::sleep(Duration::from_millis(100));
            live.tick(&mut sample);
            let cost = sample.costs.value().and_then(|costs| of(costs, id));
            if let Some(cost) = cost.filter(|cost| cost.windows >= 6) {
                break cost.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(40), "{sample:?}");
        };
        let (now, seconds) = (counters(&program), began.elapsed().as_secs_f64());
        drop(always_on);
        let rate = (now.0 - before.0) as f64 / seconds;
        let ns = (now.1 - before.1) as f64 / (now.0 - before.0) as f64;
        eprintln!("always on: {rate:.0} runs/s of {ns:.1} ns; windows: {cost:?}");
        let mean = cost.ns_per_run.get().unwrap();
        assert!((cost.share - cost.runs_per_s * mean / 1e9).abs() < cost.share * 0.01);
        assert!(matches!(
            sample.costs.value().unwrap().method,
            Reading::Value(CostMethod::Windows { .. } | CostMethod::Sysctl)
        ));
        live.wants(Wants::default());
        live.tick(&mut sample);
        assert_eq!(sample.costs.reason(), Some(&Reason::NotAsked));
        let agrees = |windows: f64, deviation: Reading<f64>, always: f64| {
            (windows - always).abs() < always * 0.15 + deviation.get().unwrap() * 2.0
        };
        agrees(cost.runs_per_s, cost.runs_deviation, rate) && agrees(mean, cost.ns_deviation, ns)
    })
}

#[test]
fn an_audit_says_what_a_program_costs_and_sums_by_holder() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracepoint("task:task_rename"));
    let tool = Tool::start(&["raw_tracepoint:task_rename", "tracepoint:task:task_rename"]);
    let id = tool.program("raw_tracepoint");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (text, json) = thread::scope(|scope| {
        let _renaming = Renaming::start(scope, &stop, &done);
        let audit = |arguments: &[&str]| {
            let built = program::stalltop();
            let output = Command::new(built).arg("audit").args(arguments).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        (audit(&[]), audit(&["--json"]))
    });
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let costs = json["costs"]["programs"].as_array().unwrap();
    let cost = costs.iter().find(|p| p["id"] == id).unwrap();
    assert!(cost["runs_per_s"].as_f64().unwrap() > 1_000.0, "{cost}");
    assert!(cost["ns_per_run"].as_f64().unwrap() > 1.0, "{cost}");
    let holder = format!("bpf-holder[{}]", tool.0.pid());
    let line = text
        .lines()
        .find(|l| l.starts_with("  ") && l.trim_start().starts_with(&holder))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("2 programs, "), "{line}");
    assert!(line.ends_with(" % of one CPU"), "{line}");
}

/// Statistics end with the process, however it ends: they hang on its descriptor.
#[test]
fn a_killed_stalltop_leaves_no_statistics_on() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracepoint("task:task_rename"));
    let sysctl = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
    require!(if sysctl.trim() == "0" {
        Ok(())
    } else {
        Err("needs kernel.bpf_stats_enabled=0")
    });
    let tool = Tool::start(&["raw_tracepoint:task_rename"]);
    let program = open(tool.program("raw_tracepoint"));
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _renaming = Renaming::start(scope, &stop, &done);
        let mut stalltop = Command::new(program::stalltop())
            .args(["stream", "--no-bpf", "--tick", "100ms"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = stalltop.id();
        let moves = |wait: Duration| {
            let before = counters(&program);
            thread::sleep(wait);
            counters(&program) != before
        };
        let holds = || {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            fds.flatten().any(|fd| {
                fs::read_link(fd.path())
                    .is_ok_and(|to| to.to_string_lossy() == "anon_inode:bpf-stats")
            })
        };
        // Killed within a window of its own: others on this host may have theirs.
        let until = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < until, "no window");
            thread::sleep(Duration::from_millis(2));
        }
        stalltop.kill().unwrap();
        stalltop.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        // Others' windows are short: between them the counters stand still.
        while moves(Duration::from_millis(250)) {
            assert!(Instant::now() < until, "the counters still run");
        }
    });
}

/// CPU time of this thread, ns.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Somebody's programs on every packet's way.
const ON_PACKETS: [&str; 4] = [
    "raw_tracepoint:netif_rx",
    "raw_tracepoint:softirq_entry",
    "raw_tracepoint:softirq_exit",
    "raw_tracepoint:netif_receive_skb",
];

/// What statistics cost of a packet while they are on, and so in windows: their part of the time,
/// and the switch.
#[test]
#[ignore = "a measurement"]
fn what_statistics_cost_of_a_packet() {
    let _alone = need::alone();
    let _tool = Tool::start(&ON_PACKETS);
    let (off, on, flips) = in_own_network(Some(0), || {
        let flood = Flood::open(Packets::Unknown).unwrap();
        let ns_per_packet = || {
            let before = cpu();
            let sent = flood.send_for(Duration::from_millis(100)).unwrap();
            (cpu() - before) / sent.packets as f64
        };
        let (mut off, mut more, mut flips) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..150 {
            let without = ns_per_packet();
            let before = cpu();
            let on = load::enable_run_time_stats().unwrap();
            let enabled = cpu() - before;
            let with = ns_per_packet();
            let before = cpu();
            drop(on);
            flips.push(enabled + cpu() - before);
            more.push(with - (without + ns_per_packet()) / 2.0);
            off.push(without);
        }
        (median(&mut off), median(&mut more), median(&mut flips))
    })
    .unwrap();
    eprintln!(
        "a packet: {off:.0} ns, with statistics {on:.1} ns more ({:.1} %); both flips {:.0} us of CPU",
        on / off * 100.0,
        flips / 1e3
    );
}

/// What a stretch of flood took of this thread's CPU time.
#[derive(Clone, Copy)]
struct Slice {
    /// When it ended.
    end: Instant,
    cpu_ns: f64,
    packets: f64,
}

impl Slice {
    fn ns(&self) -> f64 {
        self.cpu_ns / self.packets
    }
}

/// Floods for a period of windows, in slices of 5 ms.
fn slices(flood: &Flood, time: Duration) -> Vec<Slice> {
    let until = Instant::now() + time;
    let mut slices = Vec::new();
    while Instant::now() < until {
        let before = cpu();
        let sent = flood.send_for(Duration::from_millis(5)).unwrap();
        slices.push(Slice {
            end: Instant::now(),
            cpu_ns: cpu() - before,
            packets: sent.packets as f64,
        });
    }
    slices
}

fn mean(slices: &[Slice]) -> f64 {
    let sum = |of: fn(&Slice) -> f64| slices.iter().map(of).sum::<f64>();
    sum(|slice| slice.cpu_ns) / sum(|slice| slice.packets)
}

/// Statistics off, in windows as stalltop takes them, and always on, in turns: how much dearer a
/// packet is with windows, by how much it is with statistics that are always on.
///
/// Each round is a period of each. A window's own cost is found against the slices around it, as a
/// packet's cost drifts by more than a window's part of it from one period to the next, and for
/// the time that it lasted, however much of the CPU this thread had meanwhile; the plain comparison
/// of whole periods is printed as well. The flips are another thread's, their CPU time is added.
#[test]
#[ignore = "a measurement"]
fn what_windows_cost_of_what_always_on_statistics_do() {
    let _alone = need::alone();
    const ROUNDS: usize = 40;
    const WINDOW: Duration = Duration::from_millis(100);
    // From one window's beginning to the next one's, on average.
    const PERIOD: Duration = Duration::from_millis(2_500);
    const AROUND: Duration = Duration::from_millis(300);
    require!(need::root());
    let _tool = Tool::start(&ON_PACKETS);
    let (mut ratios, mut plain, mut always, mut flips) = (vec![], vec![], vec![], vec![]);
    in_own_network(Some(0), || {
        let flood = Flood::open(Packets::Unknown).unwrap();
        for round in 0..ROUNDS {
            let (mut off, mut windows, mut on) = (0.0, 0.0, 0.0);
            let (mut dearer, mut flipped) = (f64::NAN, f64::NAN);
            for arm in 0..3 {
                // Each is first, second and third as often as the others.
                match (arm + round) % 3 {
                    0 => off = mean(&slices(&flood, PERIOD)),
                    1 => {
                        let (slices, from, to, flips) = thread::scope(|scope| {
                            let window = scope.spawn(|| {
                                thread::sleep((PERIOD - WINDOW) / 2);
                                let (before, from) = (cpu(), Instant::now());
                                let on = load::enable_run_time_stats().unwrap();
                                thread::sleep(WINDOW);
                                drop(on);
                                (from, Instant::now(), cpu() - before)
                            });
                            let slices = slices(&flood, PERIOD);
                            let (from, to, flips) = window.join().unwrap();
                            (slices, from, to, flips)
                        });
                        // Also what comes after: caches that the patched code left cold.
                        let after = to + WINDOW / 2;
                        let within = |s: &&Slice| s.end > from && s.end < after;
                        let near = |s: &&Slice| s.end > from - AROUND && s.end < to + AROUND;
                        let (inside, around): (Vec<_>, Vec<_>) =
                            slices.iter().filter(near).partition(within);
                        let mut around: Vec<_> = around.into_iter().map(Slice::ns).collect();
                        let usual = median(&mut around);
                        let inside: Vec<_> = inside.into_iter().copied().collect();
                        if !inside.is_empty() {
                            let time = (after - from).div_duration_f64(PERIOD);
                            flipped = flips / PERIOD.as_nanos() as f64;
                            dearer = (mean(&inside) / usual - 1.0) * time + flipped;
                        }
                        windows = mean(&slices);
                    }
                    _ => {
                        let statistics = load::enable_run_time_stats().unwrap();
                        on = mean(&slices(&flood, PERIOD));
                        drop(statistics);
                    }
                }
            }
            let share = (on - off) / off;
            always.push(share);
            plain.push((windows - off) / (on - off));
            // In some the thread had no CPU while the window lasted.
            if dearer.is_finite() {
                flips.push(flipped);
                ratios.push(dearer);
            }
        }
    })
    .unwrap();
    let (windows, always) = (median(&mut ratios), median(&mut always));
    let quartiles = |values: &[f64]| (values[values.len() / 4], values[values.len() * 3 / 4]);
    let (least, most) = quartiles(&ratios);
    println!(
        "always on {:.1} % of a packet; windows {:.3} % (quartiles {:.3} and {:.3}), of which flips {:.3} %: 1/{:.1}",
        always * 100.0,
        windows * 100.0,
        least * 100.0,
        most * 100.0,
        median(&mut flips) * 100.0,
        always / windows
    );
    let part = median(&mut plain);
    let (least, most) = quartiles(&plain);
    println!("whole periods compared: {part:.3} of it (quartiles {least:.3} and {most:.3})");
}

/// How windows of 100 ms every 2 s agree with ten seconds of statistics, under a steady flood.
#[test]
#[ignore = "a measurement"]
fn how_windows_agree_over_ten_seconds() {
    let _alone = need::alone();
    let tool = Tool::start(&ON_PACKETS[3..]);
    let id = tool.program("raw_tracepoint");
    in_own_network(Some(0), || {
        let flood = Flood::open(Packets::Unknown).unwrap();
        let mut live = Live::start(&Options {
            no_bpf: true,
            ..Options::default()
        });
        let program = open(id);
        let mut sample = Sample::default();
        for _ in 0..6 {
            live.wants(Wants {
                costs: true,
                ..Wants::default()
            });
            live.rescan();
            flood.send_for(Duration::from_secs(10)).unwrap();
            live.tick(&mut sample);
            let cost = of(sample.costs.value().unwrap(), id).unwrap().clone();
            live.wants(Wants::default());
            thread::sleep(Duration::from_millis(200));
            let on = load::enable_run_time_stats().unwrap();
            let (began, before) = (Instant::now(), counters(&program));
            flood.send_for(Duration::from_secs(10)).unwrap();
            let (now, seconds) = (counters(&program), began.elapsed().as_secs_f64());
            drop(on);
            let rate = (now.0 - before.0) as f64 / seconds;
            let ns = (now.1 - before.1) as f64 / (now.0 - before.0) as f64;
            let mean = cost.ns_per_run.get().unwrap();
            eprintln!(
                "always on {ns:.2} ns, {rate:.0}/s; windows {mean:.2} ns (±{:.2}), {:.0}/s: {:+.1} %, {:+.1} %",
                cost.ns_deviation.get().unwrap_or(f64::NAN),
                cost.runs_per_s,
                (mean / ns - 1.0) * 100.0,
                (cost.runs_per_s / rate - 1.0) * 100.0,
            );
        }
    })
    .unwrap();
}

/// What the walks of a window cost with a thousand programs on the host.
#[test]
#[ignore = "a measurement"]
fn what_windows_of_a_thousand_programs_cost() {
    let _alone = need::alone();
    let many = ["raw_tracepoint:sched_process_hang"; 250];
    let _tools: Vec<_> = (0..4).map(|_| Tool::start(&many)).collect();
    let mut live = Live::start(&Options {
        no_bpf: true,
        ..Options::default()
    });
    live.wants(Wants {
        costs: true,
        ..Wants::default()
    });
    let mut sample = Sample::default();
    let time = || -> u64 {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let named = tasks.filter(|t| {
            fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "stalltop-costs")
        });
        named
            .map(|t| {
                let text = fs::read_to_string(t.path().join("schedstat")).unwrap();
                text.split_whitespace()
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    };
    let mut last = (0, time());
    for _ in 0..400 {
        thread::sleep(Duration::from_millis(50));
        live.tick(&mut sample);
        let Some(costs) = sample.costs.value() else {
            continue;
        };
        if costs.at_ns != last.0 {
            let now = time();
            eprintln!(
                "{} programs, {} maps: {} us of CPU for a window",
                costs.programs.len(),
                costs.maps.len(),
                (now - last.1) / 1_000
            );
            last = (costs.at_ns, now);
        }
    }
}

#[test]
fn without_privilege_or_programs_nothing_is_invented() {
    // A recorded root has no kernel: the reason is given, and no figure.
    let root = tempfile::tempdir().unwrap();
    let (_, costs) = once(&Env::at(root.path()), 3);
    assert_eq!(costs.method, Reading::Off(Reason::NotRecorded));
    assert_eq!(costs.programs, []);
    assert_eq!(costs.dynamic, []);
}
