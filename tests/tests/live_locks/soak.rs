//! All of stalltop's probes on, for minutes, on a host that is kept busy.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stalltop_model::Frame;
use stalltop_model::sample::{LockTracer as Tracing, Locks, Sample};
use stalltop_probes::{LockCounts, Waits};
use stalltop_tests::{need, program, require};

use super::{Load, add, descriptors, locked_map, pipe, settled, tracer};

/// All threads map and unmap memory of one address space: a rw_semaphore, `mm_struct.mmap_lock`.
fn mappings() {
    // Blocks of more than 32 MB are mapped one by one, whatever was freed before (mallopt(3)).
    let mut block = vec![0_u8; 40 << 20];
    for page in block.chunks_mut(4096).take(16) {
        page[0] = 1;
    }
    std::hint::black_box(&block);
}

/// A `stalltop stream` with all of ours on, and what its lines said so far.
struct Stream {
    child: Child,
    frames: u64,
    /// The longest time between two samples.
    gap: Duration,
    last: Option<Instant>,
    window: u64,
    /// Windows that no sample has: two ended within a tick.
    skipped: u64,
    /// Waits of all windows.
    waits: Waits,
    measured_ns: u64,
    newest: Locks,
    stalls: u64,
    lost: u64,
    /// Resident memory, kB: one figure a sample, the newest last.
    resident: VecDeque<u64>,
}

impl Stream {
    fn start() -> (Self, BufReader<std::process::ChildStdout>) {
        let given = std::env::var_os("STALLTOP_PROGRAM").map(PathBuf::from);
        let program = given.unwrap_or_else(|| program::stalltop().to_owned());
        let mut child = Command::new(program)
            .args(["stream", "--sample", "always", "--locks", "always"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let this = Self {
            child,
            frames: 0,
            gap: Duration::ZERO,
            last: None,
            window: 0,
            skipped: 0,
            waits: Waits::default(),
            measured_ns: 0,
            newest: Locks::default(),
            stalls: 0,
            lost: 0,
            resident: VecDeque::new(),
        };
        (this, out)
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Sample(sample) => self.sample(&sample),
            Frame::Stall(_) => self.stalls += 1,
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.gap = self.gap.max(now - last);
        }
        self.frames += 1;
        self.lost = sample.stalls.value().map_or(0, |stalls| stalls.lost);
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().trim().trim_end_matches(" kB");
        self.resident.push_back(resident.parse().unwrap());
        let Some(locks) = sample
            .locks
            .value()
            .filter(|locks| locks.window > self.window)
        else {
            return;
        };
        if self.window > 0 {
            self.skipped += locks.window - self.window - 1;
        }
        assert_eq!(locks.watch.tracer.value(), Some(&Tracing::Always));
        self.window = locks.window;
        self.measured_ns += locks.measured_ns;
        for kind in &locks.kinds {
            self.waits.count += kind.waits.count;
            self.waits.wait_ns += kind.waits.wait_ns;
            self.waits.longest_ns = self.waits.longest_ns.max(kind.waits.longest_ns);
        }
        self.newest = (**locks).clone();
    }

    /// Mean resident memory of a minute's samples from `at` on, kB.
    fn resident(&self, at: usize) -> u64 {
        let minute: Vec<_> = self.resident.iter().skip(at).take(60).collect();
        minute.iter().copied().sum::<u64>() / minute.len().max(1) as u64
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of ours on, for STALLTOP_SOAK seconds (600 where that is not set), while threads wait for
/// locks of four kinds: every wait that begins is accounted for, by a tracer of our own and
/// by the program's; it neither stops nor grows. STALLTOP_PROGRAM names another build of it.
#[test]
#[ignore = "takes ten minutes: cargo xtask soak"]
fn a_soak_loses_nothing() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    let time = std::env::var("STALLTOP_SOAK").map_or(600, |text| text.parse().unwrap());
    let time = Duration::from_secs(time);
    let (mut stream, out) = Stream::start();
    tracer.attach().unwrap();
    let loads = [
        Load::start(2, descriptors),
        Load::start(2, pipe()),
        Load::start(2, mappings),
        Load::start(2, locked_map()),
    ];
    let started = Instant::now();
    let (mut counts, mut total, mut stacks) = (LockCounts::default(), Waits::default(), Vec::new());
    let mut lost = 0;
    for line in out.lines() {
        stream.take(Frame::parse(line.unwrap().as_bytes()).unwrap());
        tracer.read(&mut counts);
        add(&mut total, &counts);
        stacks.clear();
        lost += tracer.stacks(&mut stacks);
        if started.elapsed() > time {
            break;
        }
    }
    assert!(started.elapsed() > time, "it ended by itself");
    drop(loads);
    let runs = settled(&mut tracer, &mut counts, &mut total);
    let missed = tracer.counters().unwrap().recursion_misses;
    let (first, last) = (
        stream.resident(60),
        stream.resident(stream.resident.len() - 60),
    );
    let watch = &stream.newest.watch;
    println!(
        "{:.0} s, {} samples, {:?} apart at most; {} stalls told, {} lost\n\
         our own tracer: {runs:?}, {total:?}, {missed:?} left out by the kernel, {lost} stacks overwritten\n\
         the stream: {:?} in {} windows of {:.1} s together, {} not shown; unpaired {}, overflowed {}, missed {:?}\n\
         resident: {first} kB in the second minute, {last} kB in the last one",
        started.elapsed().as_secs_f64(),
        stream.frames,
        stream.gap,
        stream.stalls,
        stream.lost,
        stream.waits,
        stream.window,
        stream.measured_ns as f64 / 1e9,
        stream.skipped,
        watch.unpaired,
        watch.overflowed,
        watch.missed,
    );
    assert_eq!(runs.ends, total.count);
    assert_eq!(runs.begins_unpaired, 0, "{runs:?}");
    assert!(stream.gap < Duration::from_secs(30), "it stood still");
    // Ends of waits that began before we were attached or had no place, or of semaphores.
    assert!(
        watch.unpaired <= runs.ends_unpaired + runs.full + 100,
        "{}: {runs:?}",
        watch.unpaired
    );
    // The two began at different times, and the kernel leaves out runs within runs.
    let apart = stream.waits.count.abs_diff(total.count) as f64;
    assert!(apart < total.count as f64 * 0.02, "{apart} waits apart");
    assert!(last < first + first / 4, "it grows");
}
