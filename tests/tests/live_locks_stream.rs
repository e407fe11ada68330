//! Waits for the kernel's locks, from the kernel to a line of `stalltop stream`: threads of this
//! test wait for a pipe's mutex, and the stream names the kind, the process and the function.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stalltop_model::Frame;
use stalltop_model::sample::{Lasting, LockKind, LockStack, LockTracer, Locks, Sample, ShareStack};
use stalltop_tests::held_lock::{self, HeldLock};
use stalltop_tests::program::stalltop;
use stalltop_tests::tool::Tool;
use stalltop_tests::{need, require};

/// A process that ends with the test, whatever becomes of that.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Threads that write to and read from one pipe, so that they wait for its mutex.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to) = std::io::pipe().expect("a pipe");
        let threads = (0..4).map(|_| {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let stop = Arc::clone(&stop);
            let work = move || {
                let mut buf = [0u8; 4096];
                // Each takes out as much as it puts in: nobody waits for long.
                while !stop.load(Ordering::Relaxed) {
                    to.write_all(&buf).unwrap();
                    from.read_exact(&mut buf).unwrap();
                }
            };
            let thread = thread::Builder::new().name("lock-waiter".into());
            thread.spawn(work).unwrap()
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A failed one is told by what it printed.
            let _ = thread.join();
        }
    }
}

/// The first sample of `stream` for which `found` gives something.
fn streamed<T>(arguments: &[&str], mut found: impl FnMut(&Sample, &Locks) -> Option<T>) -> T {
    let mut command = Command::new(stalltop());
    command.args(["stream", "--tick", "250ms"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let out = child.stdout.take().expect("a pipe");
    let _process = Process(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = String::new();
    for line in BufReader::new(out).lines() {
        let line = line.expect("a line of JSON");
        if let Frame::Sample(sample) = Frame::parse(line.as_bytes()).expect("a frame") {
            if let Some(found) = sample.locks.value().and_then(|locks| found(&sample, locks)) {
                return found;
            }
            last = format!("{:#?}", sample.locks);
        }
        assert!(Instant::now() < deadline, "not seen: {last}");
    }
    panic!("the stream ended: {last}");
}

fn has_tracepoints() -> Result<(), String> {
    let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let there = |root| {
        std::path::Path::new(root)
            .join("events/lock/contention_begin")
            .exists()
    };
    let any = tracefs.into_iter().any(there);
    any.then_some(())
        .ok_or_else(|| "needs the tracepoint lock:contention_begin (5.19)".to_owned())
}

#[test]
fn waits_for_a_mutex_are_named() {
    let _alone = need::alone();
    require!(need::root());
    require!(has_tracepoints());
    let _load = Load::start();
    let me = std::process::id();
    // In every window, also before the table of symbols is read that has our program.
    let (locks, stack) = streamed(&["--locks", "always"], |sample, locks| {
        let stack = locks.stacks.iter().find(|stack| {
            let pipe = |frame: &&std::sync::Arc<str>| frame.contains("pipe_");
            stack.tgid == me
                && stack.kind == LockKind::Mutex
                && stack.frames.iter().any(|f| pipe(&f))
        })?;
        let ours = sample
            .own
            .programs
            .iter()
            .find(|p| &*p.name == "lock_contention")?;
        assert!(
            ours.attached.value().is_some() && ours.runs.get() > Some(0),
            "{ours:?}"
        );
        let id = *ours.attached.value()?;
        for stack in &locks.stacks {
            assert!(!stack.programs.contains(&id), "{stack:?}");
        }
        // Nothing but the tracer runs a program where a task waits for a mutex.
        let mutexes = |stack: &&LockStack| stack.tgid == me && stack.kind == LockKind::Mutex;
        for stack in locks.stacks.iter().filter(mutexes) {
            let name = stack.name.value().map_or("", |name| &**name);
            let ours = |f: &str| f.contains("bpf_") || f.contains("__traceiter");
            let any = stack.frames.iter().any(|f| ours(f)) || ours(name);
            assert!(!any, "{stack:?}");
        }
        Some((locks.clone(), stack.clone()))
    });
    assert_eq!(&*stack.comm, "lock-waiter");
    assert!(
        stack.waits.count > 0 && stack.waits.wait_ns > 0,
        "{stack:?}"
    );
    assert_eq!(locks.watch.tracer.value(), Some(&LockTracer::Always));
    let hidden = locks.watch.hidden.value().expect("asked for all the time");
    assert!(
        hidden
            .iter()
            .any(|hidden| hidden.why.to_string().contains("sample share"))
    );
    // What stacks show and what they do not is all that was counted.
    let total: u64 = locks.kinds.iter().map(|kind| kind.waits.count).sum();
    let shown: u64 = locks.stacks.iter().map(|stack| stack.waits.count).sum();
    assert_eq!(total, shown + locks.unseen.count);
    assert!(locks.measured_ns > 0 && locks.measured_ns <= locks.span_ns + 1_000_000_000);
}

#[test]
fn the_share_of_samples_needs_no_tracepoint() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let _load = Load::start();
    let share = streamed(&["--locks", "off"], |_, locks| {
        assert!(locks.watch.tracer.value().is_none() && locks.kinds.is_empty());
        let share = locks.share.value()?;
        (share.kernel > 0).then(|| share.clone())
    });
    assert!(share.in_lock + share.suspected <= share.kernel && share.kernel <= share.samples);
    assert!(!share.source.is_empty());
}

/// Since 6.15 no tracepoint tells of waits for locks of BPF maps, and interrupts are off meanwhile:
/// samples are all there is.
#[test]
fn waits_behind_somebodys_program_show_in_samples() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    let cpus = thread::available_parallelism().expect("CPUs").get();
    require!((cpus >= 2).then_some(()).ok_or("needs two CPUs"));
    let _tool = Tool::start(
        env!("CARGO_BIN_EXE_bpf-holder"),
        &["raw_tracepoint_hash:sys_enter"],
    );
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..cpus).map(|_| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::process::getppid();
            }
        })
    });
    let load: Vec<_> = load.collect();
    let me = std::process::id();
    let (share, stack) = streamed(&["--locks", "off"], |sample, locks| {
        let bpf = sample.tracing.bpf.value()?;
        let theirs = bpf
            .programs
            .iter()
            .find(|p| &*p.name == "raw_tracepoint_")?;
        let share = locks.share.value()?;
        // Others of its stacks are of the program's own way to there.
        let update = |frame: &std::sync::Arc<str>| frame.contains("htab_map_update_elem");
        let of = |stack: &&ShareStack| {
            let theirs = stack.tgid == me && stack.programs.contains(&theirs.id);
            theirs && stack.frames.iter().any(update)
        };
        let stack = share.stacks.iter().find(of)?;
        Some((share.clone(), stack.clone()))
    });
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().expect("it ends");
    }
    println!(
        "{} in locks and {} suspected of {}, {stack:#?}",
        share.in_lock, share.suspected, share.samples
    );
}

#[test]
fn a_host_without_probes_says_so() {
    let _alone = need::alone();
    let output = Command::new(stalltop())
        .args(["stream", "--no-bpf", "--tick", "50ms", "--for", "500ms"])
        .output()
        .expect("stalltop starts");
    let last = output
        .stdout
        .split(|b| *b == b'\n')
        .rfind(|line| !line.is_empty());
    let Ok(Frame::Sample(sample)) = Frame::parse(last.expect("lines")) else {
        panic!("no sample");
    };
    let why = sample.locks.reason().map(ToString::to_string);
    assert_eq!(why.as_deref(), Some("switched off by --no-bpf"));
}

#[test]
fn a_wait_that_lasts_is_told_before_it_ends() {
    let _alone = need::alone();
    require!(need::root());
    require!(has_tracepoints());
    let me = std::process::id();
    let mut held = None;
    // What began before the tracer was attached is not seen.
    let (lasting, at_ns) = streamed(&["--locks", "always"], |_, locks| {
        locks.watch.tracer.value()?;
        held.get_or_insert_with(|| {
            let mut held = HeldLock::new().expect("a pipe");
            (0..3).for_each(|_| held.wait().expect("a thread"));
            held
        });
        let of_ours = |l: &&Lasting| l.tgid == me && l.threads == 3 && !l.frames.is_empty();
        let lasting = locks.lasting.iter().find(of_ours)?;
        Some((lasting.clone(), locks.at_ns))
    });
    assert_eq!(
        (lasting.kind, &*lasting.comm),
        (LockKind::Mutex, held_lock::WAITER)
    );
    assert!(lasting.since_ns < at_ns, "{lasting:?}");
    assert!(
        lasting.frames.iter().any(|f| f.contains("pipe_write")),
        "{lasting:?}"
    );
    let owner = lasting.owner.expect("a mutex tells its owner");
    assert_eq!(&*owner.comm, held_lock::HOLDER);
    assert!(
        owner.frames.iter().any(|f| f.contains("splice")),
        "{owner:?}"
    );
}
