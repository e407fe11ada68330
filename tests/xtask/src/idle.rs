//! `cargo xtask bench idle`: what stalltop costs a quiet host, from outside.
//!
//! Two measures of the same thing. The kernel's accounting of the process (`/proc/PID/stat`)
//! leaves out what the probes cost others. A burner pinned to each CPU counts how much less
//! it gets done while stalltop runs: that holds everything, but drowns in the noise of a
//! shared machine, so its spread is printed with it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long stalltop may take to attach and fill its screen before it is measured.
const WARM_UP: Duration = Duration::from_secs(5);

/// Measures `program` for `accounted`, then `pairs` times with and without it for `phase`.
pub(crate) fn run(program: &Path, accounted: Duration, pairs: u32, phase: Duration) -> Result<()> {
    let screen = Screen::start(program)?;
    thread::sleep(WARM_UP);
    let (before, start) = (screen.cpu_ticks()?, Instant::now());
    thread::sleep(accounted);
    let (after, took) = (screen.cpu_ticks()?, start.elapsed());
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    let share = (after - before) as f64 / ticks_per_s / took.as_secs_f64();
    println!(
        "by the kernel's accounting, {:.0} s, user and system:",
        took.as_secs_f64()
    );
    println!("  {:.3} % of one CPU; {}", share * 100.0, screen.memory()?);
    drop(screen);

    let burner = Burner::start()?;
    let mut losses = Vec::new();
    for pair in 0..pairs {
        let work = |with: bool| -> Result<f64> {
            let screen = with.then(|| Screen::start(program)).transpose()?;
            if screen.is_some() {
                thread::sleep(WARM_UP);
            }
            Ok(burner.per_second(phase))
        };
        // In turns, so that a drift of the machine does not favour one of them.
        let (without, with) = if pair % 2 == 0 {
            let without = work(false)?;
            (without, work(true)?)
        } else {
            let with = work(true)?;
            (work(false)?, with)
        };
        losses.push((without - with) / without * 100.0 * burner.cpus as f64);
    }
    losses.sort_by(f64::total_cmp);
    let quantile = |q: f64| losses[((losses.len() - 1) as f64 * q).round() as usize];
    println!(
        "by a burner on each of {} CPUs, {pairs} pairs of {} s:",
        burner.cpus,
        phase.as_secs()
    );
    println!(
        "  {:.2} % of one CPU lost (median; quartiles {:.2} and {:.2})",
        quantile(0.5),
        quantile(0.25),
        quantile(0.75),
    );
    Ok(())
}

/// stalltop on a terminal that nobody looks at.
struct Screen {
    child: Child,
}

impl Screen {
    fn start(program: &Path) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("open a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let side = || -> Result<File> {
            let path = name.to_str().context("the terminal's name")?;
            Ok(File::options().read(true).write(true).open(path)?)
        };
        let slave = side()?;
        let size = rustix::termios::Winsize {
            ws_row: 36,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size)?;
        let child = Command::new(program)
            .args(["--read-only"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(side()?))
            .stdout(Stdio::from(slave))
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        drain(master);
        Ok(Self { child })
    }

    /// User and system time so far, in clock ticks (proc_pid_stat(5), fields 14 and 15).
    fn cpu_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let rest = stat.rsplit_once(')').context("no command in stat")?.1;
        let fields: Vec<u64> = rest.split(' ').filter_map(|f| f.parse().ok()).collect();
        // The state is no number: utime is the eleventh that is one.
        ensure!(fields.len() > 11, "stat is short");
        Ok(fields[10] + fields[11])
    }

    fn memory(&self) -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let lines = status
            .lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"));
        let words = lines.flat_map(str::split_whitespace).collect::<Vec<_>>();
        Ok(words.join(" "))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // SIGTERM: it gives the terminal back and leaves.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Reads what the screen prints until it is gone.
fn drain(master: OwnedFd) {
    thread::spawn(move || {
        let mut master = File::from(master);
        let mut buf = [0; 64 * 1024];
        while let Ok(1..) = master.read(&mut buf) {}
    });
}

/// One busy thread a CPU, counting.
struct Burner {
    counts: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    cpus: usize,
}

impl Burner {
    fn start() -> Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        let stop = Arc::new(AtomicBool::new(false));
        let mut counts = Vec::new();
        for cpu in 0..cpus {
            let count = Arc::new(AtomicU64::new(0));
            counts.push(Arc::clone(&count));
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu);
                // An unpinned burner only adds to the spread.
                let _ = sched_setaffinity(None, &set);
                let mut x = 1u64;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..1_000 {
                        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005) + 1);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { counts, stop, cpus })
    }

    /// Loops a second, all CPUs, over `time`.
    fn per_second(&self, time: Duration) -> f64 {
        let sum = || {
            self.counts
                .iter()
                .map(|c| c.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        let (before, start) = (sum(), Instant::now());
        thread::sleep(time);
        (sum() - before) as f64 / start.elapsed().as_secs_f64()
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
