//! A warm tick allocates nothing: collect and advance, live and on a recorded host. The one
//! exception is a host with findings, each of which is a sentence with the tick's numbers.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stalltop_collectors::Env;
use stalltop_collectors::live::{Live, Options};
use stalltop_model::model::Model;
use stalltop_model::sample::{CoresSource, LockWaits, Locks, Sample};
use stalltop_model::{Header, Reading};
use stalltop_tests::{need, require};

thread_local! {
    /// Allocations of this thread; the background thread of `Live` may allocate.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Gone while a thread ends: those do not tick.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    of();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(vec![1u8; 100]))),
        1
    );
    assert_eq!(allocations(|| _ = std::hint::black_box([0u8; 100])), 0);
}

/// Ticks until nothing new has come from the background for a while, then counts ticks with
/// nothing new: those are the warm ones.
/// Gives the number of them without a finding.
fn warm_ticks(options: &Options, expect: CoresSource) -> u32 {
    const WARM: u32 = 30;
    const MEASURED: u32 = 50;
    let mut live = Live::start(options);
    let mut model = Model::new();
    model.set_header(Header::new("test", 1_000_000_000, (**live.host()).clone()));
    let mut next = Sample::default();
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut quiet, mut measured, mut calm) = (0, 0, 0);
    while measured < MEASURED {
        assert!(
            Instant::now() < deadline,
            "no rest, or no eBPF: {:?}",
            model.now().cores
        );
        let tracing = Arc::clone(&model.now().tracing);
        let cgroups = model.now().cgroups.value().cloned();
        let costs = model.now().own.probe_ns.value().is_some();
        let collected = allocations(|| live.tick(&mut next));
        let advanced = allocations(|| model.advance(&mut next));
        let now = model.now();
        let same = |a: Option<&Arc<_>>, b: Option<&Arc<_>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let news = !Arc::ptr_eq(&tracing, &now.tracing)
            || !same(cgroups.as_ref(), now.cgroups.value())
            || costs != now.own.probe_ns.value().is_some()
            || now.tracing.at_ns == 0
            || now.cores.source != expect;
        quiet = if news { 0 } else { quiet + 1 };
        if quiet > WARM {
            assert_eq!(collected, 0, "allocations of collect in tick {measured}");
            // A finding is a sentence with this tick's numbers: it is written anew.
            if model.findings().is_empty() {
                assert_eq!(advanced, 0, "allocations of advance in tick {measured}");
                calm += 1;
            }
            measured += 1;
        } else {
            // The background needs the CPU that ticks in a row would take.
            std::thread::yield_now();
        }
    }
    calm
}

#[test]
fn a_live_tick_from_proc() {
    warm_ticks(&without_bpf(Env::live()), CoresSource::Proc);
}

#[test]
fn a_live_tick_from_bpf() {
    require!(need::root());
    require!(need::path("/sys/kernel/btf/vmlinux"));
    warm_ticks(&Options::default(), CoresSource::Bpf);
}

#[test]
fn recorded_hosts_with_missing_files() {
    for name in ["4.18-rhel8", "5.4-ubuntu20.04", "6.12"] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let env = Env::at(fixtures.join(name));
        warm_ticks(&without_bpf(env), CoresSource::Proc);
    }
}

#[test]
fn a_host_without_findings() {
    let dir = tempfile::tempdir().unwrap();
    let proc = dir.path().join("proc");
    std::fs::create_dir(&proc).unwrap();
    std::fs::write(proc.join("softirqs"), "CPU0 CPU1\nNET_RX: 5 7\n").unwrap();
    std::fs::write(proc.join("stat"), "cpu0 1 0 0 9\ncpu1 1 0 0 9\n").unwrap();
    for (pid, cpu) in [(14, 0), (22, 1)] {
        let thread = proc.join(pid.to_string());
        std::fs::create_dir(&thread).unwrap();
        let put = |file: &str, text: String| std::fs::write(thread.join(file), text).unwrap();
        put("comm", format!("ksoftirqd/{cpu}\n"));
        put("stat", format!("{pid} (ksoftirqd/{cpu}) S 2 0\n"));
        put("schedstat", "5 6 7\n".to_owned());
    }
    let calm = warm_ticks(&without_bpf(Env::at(dir.path())), CoresSource::Proc);
    assert!(calm > 0, "advance was never looked at");
}

fn without_bpf(env: Env) -> Options {
    Options {
        no_bpf: true,
        env,
        ..Options::default()
    }
}

#[test]
fn windows_of_lock_contention() {
    const S: u64 = 1_000_000_000;
    let sample = |number: u64| Sample {
        at_ns: number * S,
        wall_ns: number * S,
        locks: Reading::Value(Arc::new(Locks {
            window: number,
            at_ns: number * S,
            span_ns: S,
            measured_ns: S,
            kinds: vec![LockWaits::default()],
            stacks: Vec::new(),
            ..Locks::default()
        })),
        ..Sample::default()
    };
    let mut model = Model::new();
    for number in 1..2_000 {
        let mut next = sample(number);
        let advanced = allocations(|| model.advance(&mut next));
        // What a rule asks each tick.
        let asked = allocations(|| {
            let now = model.now().at_ns;
            let rates = (model.locks.rate(0, now), model.locks.rate(now - S, now));
            std::hint::black_box(rates);
        });
        if number > 2 {
            assert_eq!((advanced, asked), (0, 0), "window {number}");
        }
    }
}

#[test]
fn reasons_are_shared_not_rebuilt() {
    let dir = Path::new("/nonexistent");
    let mut file = stalltop_collectors::file::KeptFile::new(dir.join("a"));
    assert!(file.read().is_err());
    let again = allocations(|| {
        let _ = Reading::from(file.read().map(|_| ()));
    });
    assert_eq!(again, 0);
}
