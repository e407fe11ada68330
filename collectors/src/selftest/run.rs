//! The self-test itself: starts the processes that make trouble, watches the host as `stalltop`
//! does, and judges what it saw.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use stalltop_model::sample::{Host, Stall, StallKind, StallWatch};
use stalltop_model::{Frame, Reading, Sample};

use super::child::Child;
use super::inject::{self, Injected, Order};
use super::keeper;
use super::plan::{self, Injector};
use super::score::{self, Promise, Score, Second};
use super::trace::Span;
use super::zombies::{self, Reads};
use crate::live::{Live, Options};
use crate::stalls::{Ask, Asked, SampleMode};

/// From when on a stall is one, in the self-test.
pub const THRESHOLD: Duration = Duration::from_millis(5);
/// Locked while a self-test runs.
const LOCK: &str = "/run/stalltop/selftest.lock";
/// How often what was detected is taken.
const EVERY: Duration = Duration::from_millis(100);
/// How long the programs may take to attach, and to settle once they are.
const ATTACH: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_millis(500);
/// How long after the last injection something may be told of it.
const AFTER: Duration = Duration::from_secs(1);
/// What a child may take beyond its plan, for its preparations and a busy CPU.
const BEYOND: Duration = Duration::from_secs(20);

/// How stalltop looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Always-on programs alone, as before the first stall on a CPU.
    Tick,
    /// With the 1 kHz sampler on.
    Sampler,
}

impl Mode {
    /// Both, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Tick, Self::Sampler];

    /// What is promised of it.
    pub const fn promise(self) -> Promise {
        match self {
            Self::Tick => Promise::TICK,
            Self::Sampler => Promise::SAMPLER,
        }
    }

    /// How far a delay may be off that is not within a tenth: a tick, or 1 ms.
    const fn tolerance_ns(self, tick_ns: u64) -> u64 {
        match self {
            Self::Tick => tick_ns,
            Self::Sampler => 1_000_000,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Test {
    /// The program that takes `selftest --inject` and `selftest --keep`: this one.
    pub program: PathBuf,
    /// On which CPU.
    pub cpu: u32,
    /// Injections of each class, injector and mode.
    pub count: u32,
    /// Of lengths and gaps.
    pub seed: u64,
    /// What kinds of trouble.
    pub injectors: Vec<Injector>,
    /// How stalltop looks.
    pub modes: Vec<Mode>,
    /// Whether zombie cgroups are made.
    pub zombies: bool,
}

impl Test {
    /// How long it takes at most, about: without what a busy host adds.
    pub fn length(&self) -> Duration {
        let plan = Duration::from_nanos(plan::length_ns(&plan::plan(
            self.seed,
            self.count,
            u64::MAX,
        )));
        let injector = plan + AFTER + Duration::from_secs(1);
        let mode = injector * self.injectors.len() as u32 + Duration::from_secs(2);
        mode * self.modes.len() as u32 + Duration::from_secs(if self.zombies { 8 } else { 0 })
    }

    /// The longest that the CPU is held in one go.
    pub const fn longest(&self) -> Duration {
        Duration::from_nanos(plan::Class::Long.range().1)
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Facts about the host.
    pub host: Host,
    /// On which CPU.
    pub cpu: u32,
    /// Injections of each class.
    pub count: u32,
    /// Of lengths and gaps.
    pub seed: u64,
    /// Between two ticks of the scheduler, ns.
    pub tick_ns: u64,
    /// `/proc/loadavg` before and after.
    pub load: [String; 2],
    /// Whether the kernel's own trace was read, or why not.
    pub trace: Tried<()>,
    /// Each mode and injector.
    pub results: Vec<Outcome>,
    /// The zombies, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zombies: Option<Tried<Zombies>>,
}

impl Report {
    /// Whether all promises held, and everything could be tried.
    pub fn holds(&self) -> bool {
        self.results.iter().all(Outcome::holds)
            && self.zombies.as_ref().is_none_or(|tried| match tried {
                Tried::Ok(zombies) => zombies.holds(),
                Tried::NotTried(_) => false,
            })
    }
}

/// What could be tried, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried<T, E = String> {
    /// It went as far as this.
    Ok(T),
    /// It could not be tried.
    NotTried(E),
}

impl<T> From<io::Result<T>> for Tried<T> {
    fn from(result: io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::NotTried(error.to_string()),
        }
    }
}

/// One injector in one mode.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How stalltop looked.
    pub mode: Mode,
    /// What was injected.
    pub injector: Injector,
    /// How it went, or why it could not be tried.
    pub judged: Tried<Judged>,
}

impl Outcome {
    fn holds(&self) -> bool {
        matches!(&self.judged, Tried::Ok(judged) if judged.broken.is_empty())
    }
}

/// What one injector's run showed.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The figures.
    pub score: Score,
    /// What the kernel's own trace says.
    pub second: Second,
    /// Events that stalltop lost meanwhile, or left out to keep within its budget.
    pub lost: u64,
    /// Which promises do not hold, in words.
    pub broken: Vec<String>,
}

/// What was seen of zombie cgroups.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Zombies {
    /// Made.
    pub made: u32,
    /// How many more stalltop counted than before.
    pub counted: u64,
    /// What the process that read memory statistics measured of itself.
    pub reads: Reads,
    /// The longest read of a memory.stat that stalltop itself timed meanwhile, ns.
    pub timed_ns: u64,
}

impl Zombies {
    /// Whether at least nine of ten were counted: others come and go meanwhile.
    fn holds(&self) -> bool {
        self.counted * 10 >= u64::from(self.made) * 9 && self.reads.count > 0
    }
}

/// What the test is at.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The programs are being attached.
    Attaching(Mode),
    /// Trouble is being made: so much of so much.
    Injecting(Mode, Injector, u32, u32),
    /// Zombie cgroups are being made and read.
    Zombies,
}

/// Runs a test. To be called on the main thread, which outlives it.
///
/// # Errors
/// What keeps it from running at all. What only one injector lacks is in the report.
pub fn run(test: &Test, mut step: impl FnMut(Step)) -> io::Result<Report> {
    let _alone = alone()?;
    let mut keeper = start_keeper(test)?;
    let before = load();
    let mut traced = Vec::new();
    let mut told: Option<(Host, u64)> = None;
    let mut zombies = None;
    let mut runs = Vec::new();
    for mode in &test.modes {
        step(Step::Attaching(*mode));
        let mut watcher = Watcher::start(*mode)?;
        told.get_or_insert_with(|| ((**watcher.live.host()).clone(), watcher.watch.tick_ns));
        for injector in &test.injectors {
            let run = watcher.inject(test, *injector, &mut |done, of| {
                step(Step::Injecting(*mode, *injector, done, of));
            });
            runs.push((*mode, *injector, watcher.watch.tick_ns, run));
        }
        if test.zombies && zombies.is_none() {
            step(Step::Zombies);
            zombies = Some(Tried::from(watcher.zombies(test)));
        }
    }
    let mut trace = Tried::Ok(());
    for line in keeper.let_go()? {
        match line {
            keeper::Line::Ready => {}
            keeper::Line::Off(why) => trace = Tried::NotTried(why),
            keeper::Line::Span(span) => traced.push(span),
        }
    }
    let mut results = Vec::new();
    for (mode, injector, tick_ns, run) in runs {
        let judged = run.map(|run| judge(test, mode, injector, tick_ns, &run, &traced));
        results.push(Outcome {
            mode,
            injector,
            judged: judged.into(),
        });
    }
    let (host, tick_ns) = told.unwrap_or_default();
    Ok(Report {
        host,
        cpu: test.cpu,
        count: test.count,
        seed: test.seed,
        tick_ns,
        load: [before, load()],
        trace,
        results,
        zombies,
    })
}

/// Two self-tests at once would find each other's stalls: the lock is gone with its holder.
fn alone() -> io::Result<File> {
    let at = Path::new(LOCK);
    if let Some(dir) = at.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(format!(
            "another self-test is running on this host (it holds {LOCK})"
        ))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn start_keeper(test: &Test) -> io::Result<Child<keeper::Line>> {
    let arguments = [
        "--keep".to_owned(),
        std::process::id().to_string(),
        "--cpu".to_owned(),
        test.cpu.to_string(),
    ];
    Child::start_apart(&test.program, &arguments)
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// What one child injected and what was told meanwhile.
struct Made {
    pid: u32,
    injected: Vec<Injected>,
    rows: Vec<Stall>,
    lost: u64,
}

fn judge(
    test: &Test,
    mode: Mode,
    injector: Injector,
    tick_ns: u64,
    made: &Made,
    traced: &[Span],
) -> Judged {
    let score = score::score(&score::Run {
        injector,
        cpu: test.cpu,
        pid: made.pid,
        injected: &made.injected,
        rows: &made.rows,
        tolerance_ns: mode.tolerance_ns(tick_ns),
    });
    Judged {
        lost: made.lost,
        broken: mode.promise().broken_by(&score),
        second: score::second(injector, made.pid, &made.injected, traced),
        score,
    }
}

/// stalltop, as it looks at the host.
struct Watcher {
    live: Live,
    sample: Sample,
    watch: StallWatch,
    frames: Vec<Frame>,
}

impl Watcher {
    fn start(mode: Mode) -> io::Result<Self> {
        let options = Options {
            tick: EVERY,
            read_only: true,
            stalls: Asked {
                all: Some(Ask::From(THRESHOLD)),
                kinds: [Some(Ask::From(THRESHOLD)); StallKind::ALL.len()],
                words: "--stall 5ms,real-time=5ms".to_owned(),
            },
            sample: match mode {
                Mode::Tick => SampleMode::Off,
                Mode::Sampler => SampleMode::Always,
            },
            ..Options::default()
        };
        let mut watcher = Self {
            live: Live::start(&options),
            sample: Sample::default(),
            watch: StallWatch::default(),
            frames: Vec::new(),
        };
        let until = Instant::now() + ATTACH;
        loop {
            watcher.tick();
            match &watcher.sample.stalls {
                Reading::Value(watch) => {
                    watcher.watch = watch.clone();
                    break;
                }
                Reading::Off(reason) if Instant::now() > until => {
                    return Err(io::Error::other(format!(
                        "stalls are not watched: {reason}"
                    )));
                }
                Reading::Off(_) => {}
            }
        }
        watcher.look_for(SETTLE);
        Ok(watcher)
    }

    /// One tick, and the time until the next.
    fn tick(&mut self) {
        self.live.tick(&mut self.sample);
        self.live.stalls(&mut self.frames);
        std::thread::sleep(EVERY);
    }

    fn look_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tick();
        }
    }

    fn inject(
        &mut self,
        test: &Test,
        injector: Injector,
        progress: &mut impl FnMut(u32, u32),
    ) -> io::Result<Made> {
        for kind in injector.kinds() {
            if let Reading::Off(reason) = &self.watch.kinds[*kind as usize] {
                return Err(io::Error::other(format!("not watched: {reason}")));
            }
        }
        let order = Order {
            injector,
            cpu: test.cpu,
            count: test.count,
            seed: test.seed,
        };
        let plan = order.plan();
        let until = Instant::now() + Duration::from_nanos(plan::length_ns(&plan)) * 2 + BEYOND;
        self.frames.clear();
        let mut child: Child<inject::Line> = Child::start(&test.program, &arguments(&order))?;
        let mut made = Made {
            pid: 0,
            injected: Vec::new(),
            rows: Vec::new(),
            lost: 0,
        };
        let before = self.lost();
        let status = loop {
            let ended = child.ended()?;
            self.tick();
            for line in child.lines() {
                match line {
                    inject::Line::Ready { pid } => made.pid = pid,
                    inject::Line::Injected(injected) => made.injected.push(injected),
                }
            }
            progress(made.injected.len() as u32, plan.len() as u32);
            match ended {
                Some(status) => break status,
                None if Instant::now() > until => {
                    return Err(io::Error::other("it took too long and was ended"));
                }
                None => {}
            }
        };
        if !status.success() {
            return Err(io::Error::other(child.complaint()));
        }
        self.look_for(AFTER);
        made.lost = self.lost().saturating_sub(before);
        made.rows = self
            .frames
            .drain(..)
            .filter_map(|frame| match frame {
                Frame::Stall(stall) => Some(*stall),
                _ => None,
            })
            .collect();
        Ok(made)
    }

    /// Events that were not told, since the start.
    fn lost(&self) -> u64 {
        self.sample.stalls.value().map_or(0, |watch| watch.lost)
    }

    fn zombies(&mut self, test: &Test) -> io::Result<Zombies> {
        let before = self.count_zombies()?;
        let arguments = ["--zombies".to_owned(), std::process::id().to_string()];
        let mut child: Child<zombies::Line> = Child::start(&test.program, &arguments)?;
        let until = Instant::now() + BEYOND;
        let mut seen = Zombies {
            made: 0,
            counted: 0,
            reads: Reads::default(),
            timed_ns: 0,
        };
        loop {
            let ended = child.ended()?;
            self.tick();
            for line in child.lines() {
                match line {
                    zombies::Line::Made { zombies } => seen.made = zombies,
                    zombies::Line::Read(reads) => seen.reads = reads,
                }
            }
            if seen.made > 0 && seen.reads.count == 0 {
                let now = self.count_zombies()?;
                seen.counted = seen.counted.max(now.saturating_sub(before));
                seen.timed_ns = seen.timed_ns.max(self.longest_read());
            }
            match ended {
                Some(status) if status.success() => return Ok(seen),
                Some(_) => return Err(io::Error::other(child.complaint())),
                None if Instant::now() > until => {
                    return Err(io::Error::other("it took too long and was ended"));
                }
                None => {}
            }
        }
    }

    /// Zombies now; waits for the first sweep.
    fn count_zombies(&mut self) -> io::Result<u64> {
        let until = Instant::now() + ATTACH;
        loop {
            let zombies = match &self.sample.cgroups {
                Reading::Value(cgroups) => cgroups.zombies.clone(),
                Reading::Off(reason) => Reading::Off(reason.clone()),
            };
            match zombies {
                Reading::Value(zombies) => return Ok(zombies),
                Reading::Off(reason) if Instant::now() > until => {
                    return Err(io::Error::other(reason.to_string()));
                }
                Reading::Off(_) => self.tick(),
            }
        }
    }

    fn longest_read(&self) -> u64 {
        let cgroups = self.sample.cgroups.value();
        let rows = cgroups.iter().flat_map(|cgroups| &cgroups.rows);
        rows.filter_map(|row| row.read.value().map(|read| read.longest_ns))
            .max()
            .unwrap_or(0)
    }
}

/// An order as a command line has it.
fn arguments(order: &Order) -> [String; 8] {
    [
        "--inject".to_owned(),
        order.injector.as_str().to_owned(),
        "--cpu".to_owned(),
        order.cpu.to_string(),
        "--count".to_owned(),
        order.count.to_string(),
        "--seed".to_owned(),
        order.seed.to_string(),
    ]
}

/// The program that runs, for its children.
///
/// # Errors
/// `ENOENT` without a procfs.
pub fn this_program() -> io::Result<PathBuf> {
    // By its inode: also where the file was replaced or removed meanwhile.
    let link = Path::new("/proc/self/exe");
    link.read_link()
        .map(|target| if target.exists() { target } else { link.into() })
}
