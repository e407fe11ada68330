//! Load of known kinds, each bounded in time, for machines of their own: what incident I2 is
//! made of. Its command decides its name: started through a link `cadvisor`, that is its comm.
//!
//! ```text
//! host-load flood CPU BURST PAUSE SECONDS     datagrams over loopback, from that CPU
//! host-load zombies PARENT HOME FILES COUNT   cgroups that are gone but still charged
//! host-load touch FILES CPU PAUSE SECONDS     uses the files that those are charged with
//! host-load read TOP NAME CPU PAUSE SECONDS   reads a statistic of all cgroups
//! host-load calls SECONDS                     getppid(2) from every CPU; calls so far, each 200 ms
//! ```
//!
//! BURST and PAUSE are in milliseconds. Pauses keep an emulated machine, whose CPUs share one,
//! from looking like one whose hypervisor pauses them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stalltop_tests::flood::{self, Flood, Packets};
use stalltop_tests::zombies;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["flood", cpu, burst, pause, seconds] => {
            flood::pin(number(cpu)?)?;
            let flood = Flood::open(Packets::Udp)?;
            let (burst, pause, time) = (millis(burst)?, millis(pause)?, time(seconds)?);
            let started = Instant::now();
            let mut packets = 0;
            while started.elapsed() < time {
                packets += flood.send_for(burst)?.packets;
                std::thread::sleep(pause);
            }
            println!("{packets} packets");
        }
        ["zombies", parent, home, files, count] => {
            let folder = Path::new;
            zombies::leave_behind(folder(parent), folder(home), folder(files), number(count)?)?;
        }
        ["touch", files, cpu, pause, seconds] => {
            flood::pin(number(cpu)?)?;
            let rounds = zombies::touch_for(Path::new(files), millis(pause)?, time(seconds)?)?;
            println!("touched all {rounds} times");
        }
        ["read", top, name, cpu, pause, seconds] => {
            flood::pin(number(cpu)?)?;
            let (pause, time) = (millis(pause)?, time(seconds)?);
            let (longest, reads) = zombies::read_all_for(Path::new(top), name, pause, time)?;
            println!("{reads} reads, the longest {longest:?}");
        }
        ["calls", seconds] => calls(time(seconds)?)?,
        _ => bail!("not a load: {}", words.join(" ")),
    }
    Ok(())
}

/// One thread per CPU calls; each 200 ms a line with the time, CLOCK_BOOTTIME in seconds, and how
/// many calls there were so far.
fn calls(time: Duration) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let counts: Vec<AtomicU64> = (0..cpus).map(|_| AtomicU64::new(0)).collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (cpu, count) in counts.iter().enumerate() {
            scope.spawn(move || {
                flood::pin(cpu)?;
                while started.elapsed() < time {
                    for _ in 0..64 {
                        let _ = rustix::process::getppid();
                    }
                    count.fetch_add(64, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        while started.elapsed() < time {
            std::thread::sleep(Duration::from_millis(200));
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let sum: u64 = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            println!("{}.{:09} {sum}", now.tv_sec, now.tv_nsec);
        }
    });
    Ok(())
}

fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("a number: {text}"))
}

fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(number(text)? as u64))
}

fn time(seconds: &str) -> Result<Duration> {
    Ok(Duration::from_secs(number(seconds)? as u64))
}
