//! Checks of the programs that find stalls, on the running kernel: for the live tests and, in a
//! static binary, for machines with other kernels.
//!
//! Every check panics with what is wrong, and otherwise says what it saw. None asserts how long
//! anything took.

use std::fs;
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpid;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use stalltop_collectors::selftest::inject::{self, Line, Order};
use stalltop_collectors::selftest::plan::Injector;
use stalltop_probes::wire::stall::{NONE, flag, kind};
use stalltop_probes::{Options, PROGRAMS, Probes, StackSample, StallEvent, Stalls, Thresholds};

use crate::cores::now_ns;
use crate::flood::{Flood, Packets, in_own_network};

/// Every kind switched off.
pub const OFF: Thresholds = Thresholds {
    pending_ns: 0,
    handler_ns: 0,
    ksoftirqd_ns: 0,
    irqs_off_ns: 0,
    resched_ns: 0,
    real_time_ns: 0,
};

/// Loads all programs, those that only find stalls included.
///
/// # Panics
/// Where one is not attached, or lacks a part.
#[must_use]
pub fn load(thresholds: Thresholds) -> (Probes, Stalls) {
    let mut probes = Probes::load(&Options {
        thresholds: Some(thresholds),
        ..Options::default()
    });
    assert_eq!(probes.health().len(), PROGRAMS.len());
    for health in probes.health() {
        let name = health.spec.name;
        assert!(health.attached.is_ok(), "{name}: {:?}", health.attached);
        assert!(health.partial.is_none(), "{name}: {:?}", health.partial);
    }
    let stalls = probes.take_stalls().expect("programs tell of stalls");
    assert!(probes.take_stalls().is_none(), "there is one of it");
    (probes, stalls)
}

/// Runs something on one CPU, on a thread of its own.
///
/// # Panics
/// Where the CPU cannot be had.
pub fn on<T: Send>(cpu: u32, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut cpus = CpuSet::new();
            cpus.set(cpu as usize);
            sched_setaffinity(None, &cpus).expect("pin to a CPU");
            run()
        });
        thread.join().expect("the thread ends well")
    })
}

fn pid(word: u64) -> u32 {
    word as u32
}

fn tgid(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Makes system calls until they have taken that much of a CPU: a busy machine gives it late.
fn call(time: Duration) {
    let cpu_time = || {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
    };
    let until = cpu_time() + time;
    while cpu_time() < until {
        let _ = fs::read("/proc/self/stat");
    }
}

/// What a window of one busy CPU holds: this process at work in the kernel and out of it.
///
/// # Panics
/// Where samples are missing, out of order, or tell nonsense.
#[must_use]
pub fn samples_tell_who_runs(cpu: u32, time: Duration) -> String {
    let (mut probes, mut stalls) = load(OFF);
    let mut window = Vec::new();
    let from = now_ns();
    on(cpu, || call(time));
    let lost = stalls.window(cpu, from, u64::MAX, &mut window);
    let ticks = own(&window, from).len();
    check(&window, false);
    assert!(ticks >= 3, "the tick took {ticks} samples");

    stalls.sampler().start(cpu).expect("the sampler starts");
    assert!(stalls.sampler().running(cpu));
    let from = now_ns();
    on(cpu, || call(time));
    stalls.sampler().stop(cpu);
    assert!(!stalls.sampler().running(cpu));
    let newest = stalls.newest(cpu);
    let also_lost = stalls.window(cpu, from, u64::MAX, &mut window);
    let nmi = stalls.sampler().nmi();
    check(&window, nmi);
    let sampled = own(&window, from);
    let by_sampler = sampled.iter().filter(|s| s.flags & flag::SAMPLER != 0);
    let by_sampler = by_sampler.count();
    assert!(
        by_sampler > ticks || lost + also_lost > 0,
        "the sampler took {by_sampler} samples, the tick {ticks}"
    );
    let user = sampled.iter().filter(|s| s.flags & flag::USER != 0).count();
    let kernel = sampled.len() - user;
    assert!(kernel > 0, "never in the kernel");
    let cpus = probes.cpus_mut().expect("counters");
    let mut stats = stalltop_probes::CpuStats::default();
    assert!(cpus.read(cpu, 0, &mut stats));
    assert!(stats.events.hrtimer as usize >= ticks);
    assert!(stats.events.sample as usize >= by_sampler);
    assert!(stats.run_delay.count > 0, "nobody was switched in");
    format!(
        "{} at ticks, {} with the sampler ({user} in user space), {newest} in all, lost {lost} and \
         {also_lost}; run delay {} ns in {} waits",
        ticks,
        sampled.len(),
        stats.run_delay.delay_ns,
        stats.run_delay.count
    )
}

/// The samples of this process since then.
fn own(window: &[StackSample], from_ns: u64) -> Vec<&StackSample> {
    let own = getpid().as_raw_pid() as u32;
    let samples = window.iter();
    samples
        .filter(|s| tgid(s.pid_tgid) == own && s.at_ns >= from_ns)
        .collect()
}

/// What is true of every sample.
fn check(window: &[StackSample], nmi: bool) {
    for pair in window.windows(2) {
        assert!(pair[0].seq < pair[1].seq && pair[0].at_ns <= pair[1].at_ns);
    }
    for sample in window {
        assert_ne!(pid(sample.pid_tgid), 0, "the idle task is no culprit");
        assert!(sample.alive_ns <= sample.at_ns && sample.on_cpu_ns <= sample.at_ns);
        assert_ne!(sample.flags & flag::REGS, 0, "{sample:x?}");
        assert_eq!(sample.flags & flag::SKIP_MASK, 0);
        assert_eq!(
            sample.flags & flag::NMI != 0,
            nmi && sample.flags & flag::SAMPLER != 0
        );
        let comm = sample.comm[0].to_ne_bytes();
        assert_ne!(comm[0], 0, "{sample:x?}");
        if sample.flags & flag::USER != 0 {
            assert!(sample.frames == 0 || sample.frames == NONE, "{sample:x?}");
        } else if sample.frames != NONE {
            assert!(sample.ip >> 63 == 1, "{sample:x?}");
            assert_eq!(sample.stack[0], sample.ip, "{sample:x?}");
            assert_ne!(sample.code, 0, "{sample:x?}");
        }
    }
}

/// A CPU goes offline and comes back: its sampler is known to have stopped, and starts again.
///
/// # Panics
/// Where it is not, or tells so of one that runs.
#[must_use]
pub fn hotplug_stops_the_sampler(cpu: u32) -> String {
    const TIME: Duration = Duration::from_millis(300);
    let (mut probes, mut stalls) = load(OFF);
    let cpus = probes.cpus_mut().expect("counters");
    let mut runs = || {
        let mut stats = stalltop_probes::CpuStats::default();
        assert!(cpus.read(cpu, 0, &mut stats));
        stats.events.sample
    };
    let set_online = |online: &str| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::write(path, online).expect("a CPU that can be taken offline");
    };
    stalls.sampler().start(cpu).expect("the sampler starts");
    on(cpu, || call(TIME));
    let (first, sampler) = (runs(), stalls.sampler());
    assert!(first > 0 && !sampler.has_stopped(cpu));

    set_online("0");
    assert!(!sampler.has_stopped(cpu), "nothing runs there");
    set_online("1");
    let away = runs();
    on(cpu, || call(TIME));
    assert_eq!(runs(), away, "it came back by itself");
    assert!(sampler.running(cpu) && sampler.has_stopped(cpu));

    sampler.stop(cpu);
    assert!(!sampler.has_stopped(cpu));
    sampler.start(cpu).expect("the sampler starts again");
    on(cpu, || call(TIME));
    assert!(runs() > away && !sampler.has_stopped(cpu));
    format!("{first} samples, then {}", runs() - away)
}

/// All events so far.
pub fn drain(stalls: &mut Stalls) -> Vec<StallEvent> {
    std::iter::from_fn(|| stalls.next()).collect()
}

/// With thresholds of 1 ns every softirq is a stall: pending, its handler, and what ends it.
///
/// # Panics
/// Where events contradict each other, or too many are not counted.
#[must_use]
pub fn every_softirq_can_be_told(cpu: u32, packets: Duration) -> String {
    let (_probes, mut stalls) = load(Thresholds {
        pending_ns: 1,
        handler_ns: 1,
        ..OFF
    });
    drain(&mut stalls);
    assert!(!readable(&stalls, Duration::ZERO) || stalls.next().is_some());
    // On a busy machine the sender seldom runs.
    let deadline = Instant::now() + Duration::from_secs(20);
    let flood = || -> std::io::Result<()> {
        let flood = Flood::open(Packets::Unknown)?;
        while stalls.lost() == 0 && Instant::now() < deadline {
            flood.send_for(packets)?;
        }
        Ok(())
    };
    in_own_network(Some(cpu as usize), flood)
        .and_then(|sent| sent)
        .expect("flood");
    assert!(readable(&stalls, Duration::from_secs(1)));
    let events = drain(&mut stalls);
    let of = |kind| events.iter().filter(move |e| e.kind == kind);
    for event in &events {
        assert!(event.earliest_ns <= event.start_ns && event.start_ns <= event.end_ns);
        assert!(event.vector < 10, "{event:?}");
        assert_eq!(event.next_pid, NONE);
    }
    let mut pairs = 0;
    for drained in of(kind::DRAINED) {
        let same = |e: &&StallEvent| e.cpu == drained.cpu && e.end_ns == drained.start_ns;
        if let Some(pending) = of(kind::PENDING).find(same) {
            assert_eq!(pending.vector, drained.vector);
            assert_eq!(pending.start_ns, pending.earliest_ns);
            pairs += 1;
        }
    }
    assert!(pairs > 100, "{pairs} pairs");
    assert!(of(kind::HANDLER).count() > 100);
    assert!(stalls.lost() > 0, "half a million softirqs do not fit");
    format!(
        "{} events, {pairs} pairs, {} lost",
        events.len(),
        stalls.lost()
    )
}

/// Whether there is an event, or comes to be within that time.
///
/// # Panics
/// Where poll(2) fails.
#[must_use]
pub fn readable(stalls: &Stalls, time: Duration) -> bool {
    let fd = stalls.fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    poll(&mut fds, Some(&time)).expect("poll") > 0
}

/// What was injected, and what was told of it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When it began and ended, CLOCK_MONOTONIC, ns.
    pub truth: (u64, u64),
    /// The first event of its kind that overlaps it.
    pub event: Option<StallEvent>,
    /// How much of the samples between its start and its end, the last one included, is this
    /// process's: samples of its own, and all.
    pub samples: (usize, usize),
}

impl Told {
    /// How much longer than the truth the event says at the least and at the most, ns.
    #[must_use]
    pub fn error_ns(&self) -> Option<(i64, i64)> {
        let event = self.event?;
        let truth = self.truth.1 - self.truth.0;
        let of = |start| (event.end_ns - start) as i64 - truth as i64;
        Some((of(event.start_ns), of(event.earliest_ns)))
    }
}

/// Injects stalls of one kind on one CPU, and looks for each among the events.
///
/// # Errors
/// What this kernel refuses the injector.
///
/// # Panics
/// Where an event of a process is not of this one, or contradicts itself.
pub fn inject(injector: Injector, cpu: u32, count: u32, sampler: bool) -> io::Result<Vec<Told>> {
    let (probes, mut stalls) = load(Thresholds {
        real_time_ns: Thresholds::default().resched_ns,
        ..Thresholds::default()
    });
    for (cpu, pid) in crate::cores::ksoftirqds() {
        probes.cpus().expect("counters").set_ksoftirqd(cpu, pid);
    }
    if sampler {
        stalls.sampler().start(cpu)?;
    }
    let order = Order {
        injector,
        cpu,
        count,
        seed: 1,
    };
    let mut told = Vec::new();
    let mut events = Vec::new();
    std::thread::scope(|scope| {
        let injecting = scope.spawn(move || {
            let mut out = Vec::new();
            inject::run(&order, &mut out).map(|()| out)
        });
        // The ring of samples holds half a second: each window is read at once.
        while !injecting.is_finished() {
            if readable(&stalls, Duration::from_millis(10)) {
                for event in drain(&mut stalls) {
                    let mut window = Vec::new();
                    let at = event.cpu as u32;
                    let _ = stalls.window(at, event.earliest_ns, event.end_ns, &mut window);
                    events.push((event, window));
                }
            }
        }
        let out = injecting.join().expect("the injector ends well")?;
        let offset = boottime_ahead();
        for line in out.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            if let Line::Injected(injected) = serde_json::from_slice(line)? {
                let truth = (injected.begin_ns - offset, injected.end_ns - offset);
                told.push(look_up(truth, injector, cpu, &events));
            }
        }
        Ok(told)
    })
}

fn look_up(
    truth: (u64, u64),
    injector: Injector,
    cpu: u32,
    events: &[(StallEvent, Vec<StackSample>)],
) -> Told {
    let kinds = match injector {
        Injector::Pending => [kind::PENDING].as_slice(),
        Injector::Handler | Injector::HandlerNft => &[kind::HANDLER],
        // Where the kernel does not wake ksoftirqd, its vectors wait all the same.
        Injector::Ksoftirqd => &[kind::KSOFTIRQD, kind::PENDING],
        Injector::IrqsOff => &[kind::IRQS_OFF],
        Injector::NoResched => &[kind::RESCHED],
        Injector::RealTime => &[kind::REAL_TIME],
    };
    let found = events.iter().find(|(event, _)| {
        kinds.contains(&event.kind)
            && event.cpu == u64::from(cpu)
            && event.start_ns < truth.1
            && event.end_ns > truth.0
    });
    let Some((event, window)) = found else {
        return Told {
            truth,
            event: None,
            samples: (0, 0),
        };
    };
    assert!(event.earliest_ns <= event.start_ns && event.start_ns <= event.end_ns);
    // The sample that finds interrupts off is taken once they are on again.
    let until = event.end_ns.max(truth.1) + 100_000;
    let all: Vec<_> = window
        .iter()
        .filter(|s| (event.start_ns..=until).contains(&s.at_ns))
        .collect();
    let own = getpid().as_raw_pid() as u32;
    let of_own = all.iter().filter(|s| tgid(s.pid_tgid) == own).count();
    Told {
        truth,
        event: Some(*event),
        samples: (of_own, all.len()),
    }
}

/// How far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time this machine was asleep.
fn boottime_ahead() -> u64 {
    let boot = clock_gettime(ClockId::Boottime);
    (boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64).saturating_sub(now_ns())
}

/// One line of what came of it.
#[must_use]
pub fn summary(injector: Injector, told: &[Told]) -> String {
    let found: Vec<_> = told.iter().filter_map(Told::error_ns).collect();
    let worst = |pick: fn(&(i64, i64)) -> i64| {
        let mut all: Vec<_> = found.iter().map(pick).collect();
        all.sort_unstable();
        let ms = |at: usize| all.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1e6);
        format!("{:.2} to {:.2} ms", ms(0), ms(all.len().wrapping_sub(1)))
    };
    let samples = told.iter().filter(|t| t.samples.1 > 0);
    let own = samples.clone().filter(|t| 2 * t.samples.0 > t.samples.1);
    format!(
        "{}: {} of {}, at the least off by {}, at the most by {}; {} windows, in {} mostly the \
         injector",
        injector.as_str(),
        found.len(),
        told.len(),
        worst(|e| e.0),
        worst(|e| e.1),
        samples.count(),
        own.count(),
    )
}

/// How often the run-queue delays are compared before they must have agreed.
const ROUNDS: usize = 10;

/// Our run-queue delays of one CPU against the kernel's own (`rq_sched_info`, the two fields before
/// the last of a `cpu` line of /proc/schedstat), while two tasks want that CPU.
///
/// Ours are never more. They can be less: the kernel also adds how long a task was queued that
/// leaves the queue without having run, which is one that the load balancer moves to another CPU
/// (`sched_info_dequeue`, kernel/sched/stats.h); no switch tells of that. Neither of the two tasks
/// can be moved, and a round in which no other one is agrees to the nanosecond.
///
/// # Panics
/// Where ours are more, or less in every round.
#[must_use]
pub fn run_delay_agrees(cpu: u32, time: Duration) -> String {
    let mut probes = crate::cores::load();
    let cpus = probes.cpus_mut().expect("counters");
    let mut ours = || {
        let mut stats = stalltop_probes::CpuStats::default();
        assert!(cpus.read(cpu, 0, &mut stats));
        stats.run_delay
    };
    let kernel = || schedstat(cpu).expect("a line of this CPU");
    std::thread::scope(|scope| {
        let (started, has_started) = mpsc::channel();
        let (running, still_running) = mpsc::channel::<()>();
        scope.spawn(move || {
            on(cpu, move || {
                started.send(()).expect("the other one waits");
                while still_running.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    let _ = fs::read("/proc/self/stat");
                }
            });
        });
        // On that CPU no switch is halfway while its counters are read.
        let result = on(cpu, move || {
            let _running = running;
            has_started.recv().expect("the rival runs");
            let mut rounds = Vec::new();
            for round in 1..=ROUNDS {
                // The kernel's counters are read between two readings of ours.
                let (first, before, second) = (ours(), kernel(), ours());
                call(time);
                let (third, after, fourth) = (ours(), kernel(), ours());
                let waits = third.count - second.count;
                let inside = third.delay_ns - second.delay_ns;
                let around = fourth.delay_ns - first.delay_ns;
                let kernel = after - before;
                rounds.push(format!(
                    "{kernel} ns, ours between {inside} and {around} ns in {waits} waits"
                ));
                if inside > kernel {
                    return Err(rounds);
                }
                if kernel <= around && waits > 0 {
                    return Ok(format!("round {round}: {}", rounds[round - 1]));
                }
            }
            Err(rounds)
        });
        result.unwrap_or_else(|rounds| panic!("the kernel says {}", rounds.join("; ")))
    })
}

/// Run-queue delay of a CPU, ns.
fn schedstat(cpu: u32) -> Option<u64> {
    let text = fs::read_to_string("/proc/schedstat").ok()?;
    let name = format!("cpu{cpu}");
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(&name))?;
    line.split(' ').nth(8)?.parse().ok()
}
