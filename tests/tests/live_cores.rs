//! The eBPF programs on the running kernel, against what the kernel itself counts.

use std::time::Duration;

use stalltop_tests::flood::Packets;
use stalltop_tests::{cores, need, require};

/// Half a second is half a million softirqs.
const TIME: Duration = Duration::from_millis(500);

#[test]
fn counts_agree_under_a_flood_of_udp() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::counts_agree(Packets::Udp, TIME, 0));
}

#[test]
fn counts_agree_at_the_highest_rate() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::counts_agree(Packets::Unknown, TIME, 0));
}

#[test]
fn no_tick_loses_its_longest() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::ticks_lose_nothing(TIME, 0));
}

#[test]
fn ksoftirqd_agrees_with_schedstat() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::ksoftirqd_agrees(5, Duration::from_secs(120)));
}
