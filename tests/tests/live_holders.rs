//! What it costs to find who holds probes, with 2,000 processes that hold nothing.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::time::{ClockId, clock_gettime};
use stalltop_collectors::Env;
use stalltop_collectors::tracing::TracingCollector;
use stalltop_model::Reason;
use stalltop_probes::Descriptors;
use stalltop_tests::{need, require, tool};

/// Processes that sleep, each with `fds` descriptors beside the three of every process.
struct Sleepers(Vec<Child>);

impl Sleepers {
    fn new(count: usize, fds: usize) -> Self {
        let inherited: Vec<_> = (0..fds).map(|_| File::open("/dev/null").unwrap()).collect();
        for file in &inherited {
            fcntl_setfd(file, FdFlags::empty()).unwrap();
        }
        let mut this = Self(Vec::new());
        for _ in 0..count {
            let mut sleep = Command::new("sleep");
            // Should this test be killed, they end by themselves.
            sleep.arg("120").stdin(Stdio::null());
            this.0.push(sleep.spawn().unwrap());
        }
        this
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Processes and their descriptors.
fn there_are() -> (usize, usize) {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let descriptors = processes.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some(fs::read_dir(entry.path().join("fd")).ok()?.count())
    });
    descriptors.fold((0, 0), |(n, sum), fds| (n + 1, sum + fds))
}

/// The figures in collectors/src/tracing/holders.rs: `cargo test -p stalltop-tests --test
/// live_holders -- --ignored --nocapture`, as root. A whole look at what traces is timed with the
/// iterator and with /proc, which differ in nothing else, and the iterator alone.
#[test]
#[ignore = "a measurement"]
fn iterator_and_proc_side_by_side() {
    const ROUNDS: usize = 21;
    require!(need::root());
    let env = Env::live();
    let mut with = TracingCollector::new(&env);
    let mut without = TracingCollector::new(&env).without_bpf(Reason::SwitchedOff {
        option: "--no-bpf".into(),
    });
    let mut alone = Descriptors::load(Path::new("/")).unwrap();
    let (mut out, tracefs) = (Vec::new(), need::tracefs().unwrap());
    for (sleepers, fds) in [(0, 0), (2_000, 25)] {
        let _sleepers = Sleepers::new(sleepers, fds);
        let mut took: [Vec<Duration>; 3] = Default::default();
        // In turns: what else goes on here meets all of them.
        for _ in 0..ROUNDS {
            let mut time = |i: usize, work: &mut dyn FnMut()| {
                let from = Instant::now();
                work();
                took[i].push(from.elapsed());
            };
            time(0, &mut || drop(with.scan_all()));
            time(1, &mut || drop(without.scan_all()));
            time(2, &mut || {
                assert!(alone.scan(Some(&tracefs), &mut out).unwrap());
            });
        }
        let (processes, descriptors) = there_are();
        println!("{processes} processes with {descriptors} descriptors: best, median");
        for (took, how) in (took.iter_mut()).zip(["with it", "with /proc", "it alone"]) {
            took.sort_unstable();
            println!("  {how:<10} {:>10.1?} {:>10.1?}", took[0], took[ROUNDS / 2]);
        }
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Seconds of a measurement.
const SECONDS: u32 = 30;

fn holder(what: &str) -> tool::Tool {
    tool::Tool::start(env!("CARGO_BIN_EXE_bpf-holder"), &[what])
}

/// CPU time of so many seconds, a round each, and of the longest round; with `churn` a program comes
/// or goes each second.
fn rounds(collector: &mut TracingCollector, seconds: u32, churn: bool) -> (Duration, Duration) {
    let (mut all, mut longest, mut held) = (Duration::ZERO, Duration::ZERO, None);
    for second in 0..seconds {
        if churn {
            held = None;
        }
        if churn && second % 2 == 0 {
            held = Some(holder("raw_tracepoint:task_rename"));
        }
        let before = cpu();
        collector.scan();
        let took = cpu() - before;
        (all, longest) = (all + took, longest.max(took));
        std::thread::sleep(Duration::from_secs(1));
    }
    drop(held);
    (all, longest)
}

/// What 5,000 programs cost whoever looks at the pane Tracing.
#[test]
#[ignore = "a measurement"]
fn five_thousand_programs_cost_what_the_schedule_says() {
    require!(need::root());
    require!(need::tracepoint("task:task_rename"));
    let tool = holder("many_programs:5000");
    let mut collector = TracingCollector::new(&Env::live());
    collector.want(true);
    rounds(&mut collector, 5, false);
    for churn in [false, true] {
        let (all, longest) = rounds(&mut collector, SECONDS, churn);
        let ms = all.as_secs_f64() * 1e3 / f64::from(SECONDS);
        println!("churn {churn}: {ms:.2} ms a second, {longest:?} at most for a round");
    }
    drop(tool);
}

/// What 2,000 processes cost whoever looks at the pane Tracing: its rounds with them and without, as
/// the host is, and as programs come and go each second. And how soon a new program has its holder.
#[test]
#[ignore = "a measurement"]
fn holders_of_two_thousand_processes_cost_two_milliseconds_a_second() {
    require!(need::root());
    require!(need::tracepoint("task:task_rename"));
    let mut collector = TracingCollector::new(&Env::live());
    collector.want(true);
    // The first look comes with the walk over all events.
    rounds(&mut collector, 5, false);
    let without = [false, true].map(|churn| rounds(&mut collector, SECONDS, churn));
    let sleepers = Sleepers::new(2_000, 25);
    for (churn, (without, _)) in [false, true].into_iter().zip(without) {
        let (with, longest) = rounds(&mut collector, SECONDS, churn);
        let name = if churn {
            "a program comes or goes each second"
        } else {
            "nothing comes or goes"
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(SECONDS);
        let (with_ms, without_ms) = (ms(with), ms(without));
        println!(
            "{name}: {with_ms:.2} ms a second with them, {without_ms:.2} without, \
             {longest:?} at most for a round"
        );
        // Three looks may be owed at the end.
        let most = Duration::from_millis(2) * SECONDS + longest * 3;
        assert!(with.saturating_sub(without) <= most, "{name}");
    }
    // A program that comes now has its holder at once.
    rounds(&mut collector, 40, false);
    let tool = holder("raw_tracepoint:task_rename");
    let come = Instant::now();
    let pid = tool.pid();
    let found = loop {
        let state = collector.scan();
        let bpf = state.bpf.value().unwrap();
        let holds = |p: &stalltop_model::sample::BpfProgram| p.holders.iter().any(|h| h.pid == pid);
        if bpf.programs.iter().any(holds) {
            break come.elapsed();
        }
        assert!(come.elapsed() < Duration::from_secs(5), "no holder");
        std::thread::sleep(Duration::from_millis(10));
    };
    println!("a new program's holder is known after {found:?}");
    drop(sleepers);
}
