//! Checks our eBPF programs on the running kernel, whatever it is: `cargo xtask vm 5.10 --program
//! probes-check probes-check`. Says what was measured; exits 0 only where everything agrees.
//! `probes-check hotplug` takes a CPU away and brings it back: for machines of our own.

use std::time::Duration;

use stalltop_tests::cores;
use stalltop_tests::flood::Packets;

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "hotplug" {
        let away = Duration::from_secs(3);
        println!("hotplug: {}", cores::survives_hotplug(away));
        return;
    }
    let seconds = argument.parse().ok();
    let time = Duration::from_secs_f64(seconds.unwrap_or(2.0));
    let probes = cores::load();
    println!("loaded: {:?}", probes.times());
    drop(probes);
    println!("udp: {}", cores::counts_agree(Packets::Udp, time, 0));
    println!("frames: {}", cores::counts_agree(Packets::Unknown, time, 0));
    println!("ticks: {}", cores::ticks_lose_nothing(time, 0));
    let limit = Duration::from_secs(40);
    println!("ksoftirqd: {}", cores::ksoftirqd_agrees(5, limit));
}
