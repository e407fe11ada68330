//! What our programs cost, dispatch and interrupts included: the same load with nothing attached,
//! with programs that do nothing, and with ours, in turns of a fraction of a second.
//!
//! - per softirq, under a flood of packets;
//! - per switch of tasks, with two threads that wake each other;
//! - of a CPU that does nothing but look at the clock: the tick's program, and the sampler, most of
//!   whose cost is its interrupt.
//!
//! Time is the CPU time of this process, which softirqs and interrupts are charged to: what others do
//! on this machine is left out, but for its caches.
//!
//! Called by `cargo xtask bench probes`. The differences are taken within a round, so that drift
//! of the machine cancels, and the median is printed, so that a disturbed round does not matter.
//! Beside it, for a machine that is never quiet, the difference of the best tenths of the windows.

use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use stalltop_probes::{Kind, Options, PROGRAMS, Probes, Spec, Thresholds};
use stalltop_tests::flood::{Flood, Packets, in_own_network, pin};

/// One set of programs to be compared.
struct Mode {
    name: &'static str,
    programs: Vec<&'static Spec>,
    /// Whether stalls are looked for.
    stalls: bool,
    /// Whether the sampler runs on the CPU.
    sampler: bool,
    /// The most it may cost, in the load's unit.
    limit: Option<f64>,
    samples: Vec<f64>,
}

impl Mode {
    fn new(name: &'static str, programs: Vec<&'static Spec>) -> Self {
        Self {
            name,
            programs,
            stalls: false,
            sampler: false,
            limit: None,
            samples: Vec::new(),
        }
    }

    fn stalls(mut self) -> Self {
        self.stalls = true;
        self
    }

    fn sampler(mut self) -> Self {
        self.sampler = true;
        self
    }

    fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What a load costs is told in this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Nanoseconds of each event.
    Nanoseconds,
    /// Percent of a CPU.
    Percent,
}

fn ours(names: &[&str]) -> Vec<&'static Spec> {
    PROGRAMS
        .iter()
        .filter(|spec| names.contains(&spec.name))
        .collect()
}

const fn nothing(name: &'static str, tracepoint: &'static str) -> Spec {
    Spec {
        name,
        tracepoint,
        kind: Kind::RawTp,
        measures: "nothing",
        needs: "",
        with: &[],
        replaced_by: "",
        only_stalls: false,
    }
}

static EMPTY: [Spec; 3] = [
    nothing("empty_exit", "softirq_exit"),
    nothing("empty_entry", "softirq_entry"),
    nothing("empty_raise", "softirq_raise"),
];

fn softirq_modes() -> Vec<Mode> {
    let all = || ours(&["softirq_exit", "softirq_entry", "softirq_raise"]);
    vec![
        Mode::new("base, nothing attached", Vec::new()),
        Mode::new("2 empty programs: exit, entry", EMPTY[..2].iter().collect()),
        Mode::new("3 empty programs: and raise", EMPTY.iter().collect()),
        Mode::new(
            "ours: exit, entry",
            ours(&["softirq_exit", "softirq_entry"]),
        )
        .limit(150.0),
        Mode::new("ours: exit, entry, raise, delays", all()).limit(230.0),
        Mode::new("the same, and stalls", all())
            .stalls()
            .limit(230.0),
    ]
}

fn switch_modes() -> Vec<Mode> {
    let ours = || ours(&["sched_switch"]);
    vec![
        Mode::new("base, nothing attached", Vec::new()),
        Mode::new("ours: sched_switch", ours()),
        Mode::new("the same, and stalls", ours()).stalls(),
    ]
}

fn interrupt_modes() -> Vec<Mode> {
    let all = || PROGRAMS.iter().collect::<Vec<_>>();
    vec![
        Mode::new("base, nothing attached", Vec::new()),
        Mode::new("everything always on", all()).stalls().limit(0.5),
        Mode::new("and the sampler", all())
            .stalls()
            .sampler()
            .limit(2.5),
    ]
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Some(Ok(seconds)), Some(Ok(cpu)), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: probes-bench SECONDS CPU");
        return ExitCode::FAILURE;
    };
    match in_own_network(Some(cpu as usize), || {
        run(Duration::from_secs(seconds) / 3, cpu as u32)
    }) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(e)) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("a network namespace of our own: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration, cpu: u32) -> Result<(), String> {
    // Others' time on this CPU is no cost of ours.
    rustix::process::setpriority_process(None, -20).map_err(|e| e.to_string())?;
    let flood = Flood::open(Packets::Unknown).map_err(|e| e.to_string())?;
    let send = |time| {
        let (sent, used) = used(|| flood.send_for(time));
        Ok(used / sent?.packets.max(1) as f64)
    };
    let window = Duration::from_millis(40);
    let (modes, rounds) = compare(softirq_modes(), cpu, time, window, send)?;
    print("nanoseconds per softirq", Unit::Nanoseconds, &modes, rounds);

    let mut pair = Pair::new(cpu).map_err(|e| e.to_string())?;
    let (modes, rounds) = compare(switch_modes(), cpu, time, window, |time| pair.switch(time))?;
    drop(pair);
    print(
        "nanoseconds per switch of tasks",
        Unit::Nanoseconds,
        &modes,
        rounds,
    );

    let window = Duration::from_millis(150);
    let (modes, rounds) = compare(interrupt_modes(), cpu, time, window, |time| {
        Ok(interrupts(time))
    })?;
    print("% of a CPU in interrupts", Unit::Percent, &modes, rounds);
    Ok(())
}

/// Does something; what it gave, and the CPU time of this process that it took, ns.
fn used<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let now = || {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let before = now();
    let result = work();
    (result, now() - before)
}

/// Measures every mode in turn, for that long.
fn compare(
    mut modes: Vec<Mode>,
    cpu: u32,
    time: Duration,
    window: Duration,
    mut measure: impl FnMut(Duration) -> io::Result<f64>,
) -> Result<(Vec<Mode>, usize), String> {
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < time {
        // Every mode takes every place in turn: none always follows the same one.
        let count = modes.len();
        for i in 0..count {
            let mode = &mut modes[(i + rounds) % count];
            let mut probes = Probes::load(&Options {
                programs: mode.programs.clone(),
                thresholds: mode.stalls.then(Thresholds::default),
                ..Options::default()
            });
            for health in probes.health() {
                if let Err(failure) = &health.attached {
                    return Err(format!("{}: {failure}", health.spec.name));
                }
            }
            let mut stalls = probes.take_stalls();
            if let (true, Some(stalls)) = (mode.sampler, &mut stalls) {
                stalls.sampler().start(cpu).map_err(|e| e.to_string())?;
            }
            let mut measure = |time| measure(time).map_err(|e| e.to_string());
            measure(window / 8)?;
            mode.samples.push(measure(window)?);
        }
        rounds += 1;
    }
    Ok((modes, rounds))
}

/// Two threads on one CPU, each of which sleeps until the other one wakes it.
struct Pair {
    to: PipeWriter,
    from: PipeReader,
}

impl Pair {
    fn new(cpu: u32) -> io::Result<Self> {
        let (mut its_from, to) = pipe()?;
        let (from, mut its_to) = pipe()?;
        // Ends when our end of its pipe is closed.
        std::thread::spawn(move || {
            let mut byte = [0];
            let _ = pin(cpu as usize);
            while its_from.read_exact(&mut byte).is_ok() && its_to.write_all(&byte).is_ok() {}
        });
        Ok(Self { to, from })
    }

    /// Nanoseconds per switch; each round trip is two.
    fn switch(&mut self, time: Duration) -> io::Result<f64> {
        let started = Instant::now();
        let mut switches = 0.0;
        let mut byte = [0];
        let (result, used) = used(|| -> io::Result<()> {
            while started.elapsed() < time {
                for _ in 0..16 {
                    self.to.write_all(&byte)?;
                    self.from.read_exact(&mut byte)?;
                    switches += 2.0;
                }
            }
            Ok(())
        });
        result.map(|()| used / switches)
    }
}

/// How much of the CPU interrupts take from who does nothing but look at the clock, percent: the
/// sum of the times between two looks that are longer than a look. Longer than [`PREEMPTED`] and
/// somebody else had the CPU.
fn interrupts(time: Duration) -> f64 {
    let (mut lost, mut all) = (Duration::ZERO, Duration::ZERO);
    let started = Instant::now();
    let mut last = started;
    while last - started < time {
        let now = Instant::now();
        let gap = now - last;
        last = now;
        if gap >= PREEMPTED {
            continue;
        }
        all += gap;
        if gap >= LOOK {
            lost += gap;
        }
    }
    100.0 * lost.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Longer than two looks at the clock in a row, shorter than any interrupt.
const LOOK: Duration = Duration::from_nanos(800);
/// Longer than a timer interrupt.
const PREEMPTED: Duration = Duration::from_micros(300);

fn print(what: &str, unit: Unit, modes: &[Mode], rounds: usize) {
    let base = &modes[0].samples;
    let over = match unit {
        Unit::Nanoseconds => "over base, ns",
        Unit::Percent => "over base, %",
    };
    println!("{rounds} rounds; {what}, median of the rounds (quartiles)");
    println!("{:<34} {:>8}   {over:<28}   best tenth", "", "total");
    let best = |samples: &[f64]| {
        let mut samples = samples.to_vec();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 10).copied().unwrap_or(f64::NAN)
    };
    let cost = |with: f64, without: f64| with - without;
    for mode in modes {
        let mut total = mode.samples.clone();
        let pairs = mode.samples.iter().zip(base);
        let mut over: Vec<f64> = pairs.map(|(a, b)| cost(*a, *b)).collect();
        let [_, total, _] = quartiles(&mut total);
        print!("{:<34} {total:>8.2}", mode.name);
        if !mode.programs.is_empty() {
            let [low, median, high] = quartiles(&mut over);
            let spread = format!("({low:.2} to {high:.2})");
            let best = cost(best(&mode.samples), best(base));
            print!("   {median:>7.2}  {spread:<22} {best:>8.2}");
            if let Some(limit) = mode.limit {
                let verdict = if median <= limit { "within" } else { "OVER" };
                print!("  {verdict} {limit}");
            }
        }
        println!();
    }
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        values
            .get(values.len() * quarter / 4)
            .copied()
            .unwrap_or(f64::NAN)
    })
}
