//! Waits for the kernel's locks, measured on the running kernel while threads of this test wait for
//! each other.
//!
//! One is a soak, which `cargo xtask soak` runs.

#[path = "live_locks/soak.rs"]
mod soak;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stalltop_probes::wire::lock::{kind, what};
use stalltop_probes::{LockCounts, LockOptions, LockRuns, LockTracer, LockWait, Step, Waits};
use stalltop_tests::held_lock::{self, HeldLock};
use stalltop_tests::instance::Instance;
use stalltop_tests::{bpf, need, require};

/// Threads that do the same thing over and over.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(threads: usize, what: impl Fn() + Send + Clone + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads)
            .map(|_| {
                let (stop, what) = (Arc::clone(&stop), what.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        what();
                    }
                })
            })
            .collect();
        Self { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// All threads open and close descriptors of one table: a spinlock, `files_struct.file_lock`.
fn descriptors() {
    for _ in 0..64 {
        drop(io::stderr().as_fd().try_clone_to_owned().unwrap());
    }
}

/// All threads write to and read from one pipe: a mutex, `pipe_inode_info.mutex`.
fn pipe() -> impl Fn() + Send + Clone + 'static {
    let (read, write) = io::pipe().unwrap();
    let ends = Arc::new((read, write));
    move || {
        use std::io::{Read, Write};
        // As many bytes are in it as threads have written and not yet read: nobody waits for one.
        let (mut read, mut write) = (&ends.0, &ends.1);
        write.write_all(&[1]).unwrap();
        read.read_exact(&mut [0]).unwrap();
    }
}

/// Loads the tracer, where the kernel has what it needs.
fn tracer() -> Result<LockTracer, String> {
    need::root()?;
    need::tracepoint("lock:contention_begin")?;
    Ok(LockTracer::load(&LockOptions::default()).unwrap())
}

/// What became of all waits that began, once none is going on.
fn settled(tracer: &mut LockTracer, counts: &mut LockCounts, total: &mut Waits) -> LockRuns {
    tracer.detach();
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(5));
        tracer.read(counts);
        add(total, counts);
        let runs = counts.runs;
        let known = runs.ends + runs.repeats + runs.begins_unpaired + runs.full;
        if counts.late == 0 && runs.begins == known + runs.waiting + runs.abandoned {
            return runs;
        }
    }
    panic!("unaccounted for: {:?}", counts.runs);
}

fn add(total: &mut Waits, counts: &LockCounts) {
    let window = counts.total();
    total.count += window.count;
    total.wait_ns += window.wait_ns;
    total.longest_ns = total.longest_ns.max(window.longest_ns);
}

fn is_ours(wait: &LockWait) -> bool {
    wait.pid_tgid >> 32 == u64::from(std::process::id())
}

#[test]
fn a_kernel_without_the_tracepoints_says_so() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    match LockTracer::load(&LockOptions::default()) {
        Ok(tracer) => {
            assert!(tracefs.join("events/lock/contention_begin").is_dir());
            assert!(tracer.program_id() != 0 && !tracer.is_attached());
        }
        Err(failure) => {
            assert!(!tracefs.join("events/lock/contention_begin").is_dir());
            assert_eq!(
                (failure.step, failure.errno),
                (Step::Attach, Some(libc::ENOENT)),
                "{failure}"
            );
        }
    }
}

/// The kernel's own count: what the tracepoint has written into the buffers of an instance of ours,
/// what it could not write, and what was overwritten since.
fn events(instance: &Instance) -> u64 {
    let mut sum = 0;
    for cpu in std::fs::read_dir(instance.path("per_cpu")).unwrap() {
        let stats = std::fs::read_to_string(cpu.unwrap().path().join("stats")).unwrap();
        for line in stats.lines() {
            let (name, value) = line.split_once(':').unwrap();
            if ["entries", "overrun", "commit overrun", "dropped events"].contains(&name) {
                sum += value.trim().parse::<u64>().unwrap();
            }
        }
    }
    sum
}

/// Beginnings by our count, between two readings of the kernel's own.
struct Bracketed {
    earlier: u64,
    begins: u64,
    later: u64,
}

fn bracketed(instance: &Instance, tracer: &mut LockTracer, counts: &mut LockCounts) -> Bracketed {
    let earlier = events(instance);
    tracer.read(counts);
    Bracketed {
        earlier,
        begins: counts.runs.begins,
        later: events(instance),
    }
}

#[test]
fn every_wait_that_begins_is_accounted_for() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    let tracefs = require!(need::tracefs());
    let instance = Instance::new(&tracefs, "locks").unwrap();
    instance.write("buffer_size_kb", "64");
    instance.write("events/lock/contention_begin/enable", "1");
    let mut counts = LockCounts::default();
    let mut total = Waits::default();
    let mut stacks = Vec::new();
    let pipe = pipe();
    tracer.attach().unwrap();
    let attached = Instant::now();
    let before = bracketed(&instance, &mut tracer, &mut counts);
    add(&mut total, &counts);
    let (spins, sleeps) = (Load::start(2, descriptors), Load::start(2, pipe));
    let mut lost = 0;
    // On a busy machine the threads seldom run at the same time.
    let until = Instant::now() + Duration::from_secs(20);
    while counts.runs.begins - before.begins < 5000 && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
        tracer.read(&mut counts);
        add(&mut total, &counts);
        lost += tracer.stacks(&mut stacks);
        // Tables, kinds and CPUs tell of the same waits.
        let sum = |waits: &mut dyn Iterator<Item = Waits>| {
            waits.fold((0, 0), |sum, w| (sum.0 + w.count, sum.1 + w.wait_ns))
        };
        let all = (counts.total().count, counts.total().wait_ns);
        assert_eq!(sum(&mut counts.cpus.iter().copied()), all);
        let overflow: u64 = counts.kinds.iter().map(|kind| kind.overflow).sum();
        if overflow == 0 {
            assert_eq!(sum(&mut counts.locks.iter().map(|lock| lock.waits)), all);
        }
        for kind in &counts.kinds {
            assert_eq!(kind.hist.iter().sum::<u64>(), kind.waits.count);
        }
    }
    drop((spins, sleeps));
    let after = bracketed(&instance, &mut tracer, &mut counts);
    add(&mut total, &counts);
    // Others wait between two readings, too: what the kernel has counted at least, and at most.
    let least = after.earlier - before.later;
    let most = after.later - before.earlier;
    let ours = after.begins - before.begins;
    let runs = settled(&mut tracer, &mut counts, &mut total);
    lost += tracer.stacks(&mut stacks);
    let elapsed = attached.elapsed();
    println!(
        "{least} to {most} beginnings by the kernel's count, {ours} by ours; {runs:?}, {total:?}"
    );

    assert!(ours > 1000, "{runs:?}");
    // Interrupts wait while the program runs.
    let missed = tracer
        .counters()
        .unwrap()
        .recursion_misses
        .unwrap_or_default();
    let allowed = most / 200 + missed + 20;
    assert!(
        (least.saturating_sub(allowed)..=most + allowed).contains(&ours),
        "{least} to {most}, and {ours}"
    );
    assert_eq!(runs.ends, total.count);
    assert_eq!((runs.full, runs.begins_unpaired), (0, 0), "{runs:?}");

    // No wait is longer than there was time for it.
    assert!(u128::from(total.longest_ns) <= elapsed.as_nanos());
    let long = stacks
        .iter()
        .filter(|w| w.end_ns - w.begin_ns >= tracer.long_ns())
        .count();
    println!(
        "{} stacks, {long} of long waits, {} at the end, {lost} lost",
        stacks.len(),
        runs.at_end
    );
    assert_eq!(stacks.len() as u64 + lost, runs.stacks);
    for wait in &stacks {
        assert!(wait.end_ns >= wait.begin_ns && wait.frames > 3, "{wait:?}");
        assert_eq!(wait.stack[wait.frames as usize..].iter().sum::<u64>(), 0);
        let long = wait.end_ns - wait.begin_ns >= tracer.long_ns();
        assert!(long || wait.what & what::SAMPLED != 0);
    }
    let ours: Vec<_> = stacks.iter().filter(|wait| is_ours(wait)).collect();
    assert!(!ours.is_empty());
    let sampled = stacks
        .iter()
        .filter(|w| w.what & what::SAMPLED != 0)
        .count() as f64;
    let expected = (runs.begins - runs.repeats) as f64 / 64.0;
    if lost == 0 {
        assert!(
            (sampled - expected).abs() < expected / 5.0 + 50.0,
            "{sampled} of {expected}"
        );
    }
}

#[test]
fn a_mutex_tells_who_holds_it() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let mut counts = LockCounts::default();
    let mut stacks = Vec::new();
    tracer.attach().unwrap();
    let load = Load::start(4, pipe());
    let until = Instant::now() + Duration::from_secs(20);
    let mut owned = 0;
    while owned < 5 && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
        stacks.clear();
        tracer.stacks(&mut stacks);
        let tasks: Vec<u64> = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        owned += stacks
            .iter()
            .filter(|wait| wait.what & what::KIND_MASK == kind::MUTEX && is_ours(wait))
            .filter(|wait| {
                let waiter = wait.pid_tgid & 0xffff_ffff;
                wait.owner != waiter && tasks.contains(&wait.owner)
            })
            .count();
    }
    drop(load);
    assert!(owned >= 5, "{owned} waits with an owner");
    tracer.read(&mut counts);
    assert!(counts.kinds[kind::MUTEX as usize].waits.count > 0);
}

#[test]
fn it_is_switched_on_and_off_under_load() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    let mut counts = LockCounts::default();
    let mut total = Waits::default();
    let mut stacks = Vec::new();
    let load = (Load::start(2, descriptors), Load::start(2, pipe()));
    let started = Instant::now();
    let mut measured = Duration::ZERO;
    let mut flips = Vec::new();
    for _ in 0..30 {
        let flip = Instant::now();
        tracer.attach().unwrap();
        flips.push(flip.elapsed());
        thread::sleep(Duration::from_millis(10));
        let flip = Instant::now();
        tracer.detach();
        flips.push(flip.elapsed());
        thread::sleep(Duration::from_millis(10));
        tracer.read(&mut counts);
        add(&mut total, &counts);
        measured += Duration::from_nanos(counts.measured_ns);
        tracer.stacks(&mut stacks);
    }
    drop(load);
    flips.sort_unstable();
    println!(
        "a flip takes {:?}, {:?} at most",
        flips[flips.len() / 2],
        flips[flips.len() - 1]
    );
    let runs = settled(&mut tracer, &mut counts, &mut total);
    println!("{runs:?} {total:?}");
    assert_eq!(runs.ends, total.count);
    assert!(measured < started.elapsed() && measured >= Duration::from_millis(300));
    // A wait that spans a pause would be longer than any window.
    let longest = stacks
        .iter()
        .map(|w| w.end_ns - w.begin_ns)
        .max()
        .unwrap_or_default();
    assert!(u128::from(longest) <= started.elapsed().as_nanos());
    // Off is off.
    let before = counts.runs;
    let load = Load::start(4, descriptors);
    thread::sleep(Duration::from_millis(100));
    drop(load);
    tracer.read(&mut counts);
    assert_eq!((counts.runs.begins, counts.measured_ns), (before.begins, 0));
}

/// Threads that write one value of a BPF map under its spinlock.
fn locked_map() -> impl Fn() + Send + Clone + 'static {
    let map = Arc::new(bpf::locked_array(LOCKED_BYTES as u32).unwrap());
    move || {
        let value = [1; LOCKED_BYTES];
        for _ in 0..64 {
            bpf::update_locked(&map, &value).unwrap();
        }
    }
}

const LOCKED_BYTES: usize = 16 * 1024;

/// While the kernel works on a BPF map for somebody, it runs no program on a classic tracepoint
/// (`bpf_disable_instrumentation`, include/linux/bpf.h, and `trace_call_bpf`,
/// kernel/trace/bpf_trace.c), just as while such a program itself runs: a tracer on those would
/// see none of this, which is where incident I1 is.
#[test]
fn waits_within_bpf_are_seen() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    let mut stacks = Vec::new();
    tracer.attach().unwrap();
    let load = Load::start(4, locked_map());
    let until = Instant::now() + Duration::from_secs(20);
    let mut ours = 0;
    // Only every 64th has a stack, but waits for a lock with so much to do under it are many.
    while ours < 5 && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
        stacks.clear();
        tracer.stacks(&mut stacks);
        ours += stacks
            .iter()
            .filter(|wait| wait.what & what::KIND_MASK == kind::SPIN && is_ours(wait))
            .count();
    }
    drop(load);
    assert!(
        ours >= 5,
        "{ours} waits within the update of a map were seen"
    );
}

#[test]
fn waits_that_last_are_told_while_they_do() {
    let _alone = need::alone();
    let mut tracer = require!(tracer());
    tracer.attach().unwrap();
    let mut held = HeldLock::new().unwrap();
    held.wait().unwrap();
    held.wait().unwrap();
    let mut waits = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while waits.len() < 2 {
        assert!(Instant::now() < deadline, "{waits:?}");
        thread::sleep(Duration::from_millis(50));
        waits.clear();
        tracer.lasting(Duration::from_millis(300), &mut waits);
        waits.retain(is_ours);
    }
    let [first, second] = &waits[..] else {
        panic!("{waits:?}");
    };
    assert_eq!(first.lock, second.lock);
    assert!(first.pid_tgid != second.pid_tgid, "{waits:?}");
    for wait in &waits {
        assert_eq!(wait.what & what::KIND_MASK, kind::MUTEX, "{wait:?}");
        let owner = std::fs::read_to_string(format!("/proc/{}/comm", wait.owner));
        assert_eq!(owner.unwrap().trim_end(), held_lock::HOLDER);
    }
    let lock = first.lock;
    drop(held);
    waits.clear();
    tracer.lasting(Duration::ZERO, &mut waits);
    waits.retain(|wait| is_ours(wait) && wait.lock == lock);
    assert!(waits.is_empty(), "{waits:?}");
}
