//! The programs that find stalls, on the running kernel.

use std::time::Duration;

use stalltop_collectors::selftest::plan::Injector;
use stalltop_tests::{need, require, stalls};

#[test]
fn samples_tell_who_runs() {
    let _alone = need::alone();
    require!(need::root());
    let time = Duration::from_millis(300);
    println!("{}", stalls::samples_tell_who_runs(0, time));
}

#[test]
fn every_softirq_can_be_told() {
    let _alone = need::alone();
    require!(need::root());
    let time = Duration::from_millis(100);
    println!("{}", stalls::every_softirq_can_be_told(0, time));
}

/// Injections of each class.
const COUNT: u32 = 5;

fn injected(injector: Injector, sampler: bool) {
    let told = stalls::inject(injector, 0, COUNT, sampler).unwrap();
    println!("{}", stalls::summary(injector, &told));
    let found = told.iter().filter(|t| t.event.is_some()).count();
    // Whether another task is to run is seen at ticks, which an emulated CPU skips; and whether a
    // vector is pending while ksoftirqd waits is up to the kernel.
    let expected = match injector {
        Injector::Ksoftirqd | Injector::NoResched => 1,
        _ => told.len().div_ceil(2),
    };
    assert!(!told.is_empty() && found >= expected, "{told:#?}");
}

#[test]
fn injected_stalls_are_told() {
    let _alone = need::alone();
    require!(need::root());
    for sampler in [false, true] {
        for injector in Injector::ALL {
            // As Handler, but needs nft.
            if injector != Injector::HandlerNft {
                injected(injector, sampler);
            }
        }
    }
}

#[test]
fn run_delay_agrees_with_schedstat() {
    let _alone = need::alone();
    require!(need::root());
    // Kernels without CONFIG_SCHEDSTATS have nothing to compare with. Those of the machines have
    // it, and tests/vm/live.sh sees to that.
    if !std::path::Path::new("/proc/schedstat").exists() {
        println!("not compared here: this kernel has no /proc/schedstat");
        return;
    }
    let time = Duration::from_millis(50);
    println!("{}", stalls::run_delay_agrees(0, time));
}

#[test]
#[ignore = "takes a CPU offline: tests/vm/virtual.sh does so to a machine"]
fn a_sampler_is_known_to_have_stopped() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", stalls::hotplug_stops_the_sampler(1));
}
