//! Checks of the softirq programs against what the kernel itself counts, on the running kernel:
//! for the live tests and, in a static binary, for machines with other kernels.
//!
//! Every check panics with what did not agree, and otherwise says what it measured.

use std::fs;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use stalltop_probes::wire::{BUCKETS, SOFTIRQS, bucket};
use stalltop_probes::{CpuStats, Cpus, Options, Probes};

use crate::flood::{Flood, Packets, in_own_network};

const NET_RX: usize = 3;

/// CLOCK_MONOTONIC, nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Loads all programs.
///
/// # Panics
/// Where one is not attached, or lacks a part.
#[must_use]
pub fn load() -> Probes {
    let probes = Probes::load(&Options::default());
    for health in probes.health() {
        let name = health.spec.name;
        assert!(health.attached.is_ok(), "{name}: {:?}", health.attached);
        assert!(health.partial.is_none(), "{name}: {:?}", health.partial);
    }
    probes
}

/// The rows of /proc/softirqs, one column per possible CPU, in the order of [`SOFTIRQS`].
///
/// # Panics
/// Where the file is not what it is on every kernel.
#[must_use]
pub fn proc_softirqs() -> Vec<Vec<u64>> {
    let text = fs::read_to_string("/proc/softirqs").unwrap_or_default();
    let rows: Vec<Vec<u64>> = text
        .lines()
        .skip(1)
        .map(|line| {
            let (_, counts) = line.split_once(':').unwrap_or_default();
            counts
                .split_whitespace()
                .map(|n| n.parse().unwrap_or(u64::MAX))
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), SOFTIRQS.len(), "{text}");
    rows
}

/// All counters of all CPUs.
#[must_use]
pub fn read(cpus: &mut Cpus) -> Vec<CpuStats> {
    let now = now_ns();
    (0..cpus.possible())
        .map(|cpu| {
            let mut stats = CpuStats::default();
            cpus.read(cpu, now, &mut stats);
            stats
        })
        .collect()
}

/// Our counters, and the kernel's just before and just after they were read: on a busy machine
/// softirqs run in between, so what is ours must lie between the two.
struct Reading {
    before: Vec<Vec<u64>>,
    ours: Vec<CpuStats>,
    after: Vec<Vec<u64>>,
}

impl Reading {
    fn take(cpus: &mut Cpus) -> Self {
        let before = proc_softirqs();
        let ours = read(cpus);
        let after = proc_softirqs();
        Self {
            before,
            ours,
            after,
        }
    }
}

/// Floods one CPU for that long and compares every vector of every CPU with /proc/softirqs, and
/// what was measured with itself.
///
/// # Panics
/// Where they differ by more than 0.1 %, where an event was lost, or the figures contradict each
/// other; where ksoftirqd took packets together in each of `ROUNDS` rounds.
#[must_use]
pub fn counts_agree(packets: Packets, time: Duration, cpu: usize) -> String {
    let mut rounds = (0..ROUNDS).filter_map(|_| counts_agree_once(packets, time, cpu));
    rounds.next().expect("a round without ksoftirqd")
}

/// `None` where all agrees, but there were fewer NET_RX than packets: while ksoftirqd is to run,
/// kernels before 6.6 leave to it what a sender would otherwise do at once (`ksoftirqd_running`,
/// kernel/softirq.c), and it takes several packets together.
fn counts_agree_once(packets: Packets, time: Duration, cpu: usize) -> Option<String> {
    let ksoftirqd = ksoftirqds()
        .into_iter()
        .find(|(its, _)| *its as usize == cpu);
    let runs = || ksoftirqd.map_or(0, |(_, pid)| schedstat(pid)[0]);
    let mut probes = load();
    let misses_before = misses(&probes);
    let cpus = probes.cpus_mut().expect("attached programs have counters");
    let runs_before = runs();
    let first = Reading::take(cpus);
    let started = Instant::now();
    let sent = in_own_network(Some(cpu), || {
        Flood::open(packets).and_then(|flood| flood.send_for(time))
    })
    .and_then(|sent| sent)
    .expect("flood");
    let last = Reading::take(cpus);
    let (before, after) = (&first.ours, &last.ours);
    let elapsed = started.elapsed().as_nanos() as u64;
    assert_eq!(misses(&probes), misses_before, "programs left out runs");

    // The kernel of a hosted machine may run no BPF program while a task of the host's own agent is
    // current (seen on 6.18: pid 1, one or two softirqs a second, and never another task): these
    // softirqs are lost to every BPF tool. They weigh only where a vector has few.
    let unseen = 10 * (1 + elapsed / 1_000_000_000);
    let (mut worst, mut unsure) = (0.0_f64, 0.0_f64);
    for (v, name) in SOFTIRQS.iter().enumerate() {
        for c in 0..after.len() {
            let least = last.before[v][c].saturating_sub(first.after[v][c]);
            let most = last.after[v][c] - first.before[v][c];
            let ours = after[c].vectors[v].count - before[c].vectors[v].count;
            // The kernel counts at entry, we at exit: one may be in progress at either end.
            let off = least
                .saturating_sub(ours + 1)
                .max(ours.saturating_sub(most + 1));
            assert!(
                off <= most / 1000 + unseen,
                "cpu {c} {name}: the kernel counts {least} to {most}, we count {ours}"
            );
            if least > 10_000 {
                worst = worst.max(off as f64 / least as f64 * 100.0);
                unsure = unsure.max((most - least) as f64 / least as f64 * 100.0);
            }
        }
    }
    let net_rx = &after[cpu].vectors[NET_RX];
    let count = net_rx.count - before[cpu].vectors[NET_RX].count;
    if count < sent.packets {
        println!("{} packets, {count} NET_RX", sent.packets);
        assert!(runs() > runs_before, "and ksoftirqd did not run");
        return None;
    }
    let delays = net_rx.delays - before[cpu].vectors[NET_RX].delays;
    assert!(
        delays <= count + 1 && delays >= count - count / 100,
        "{delays} delays of {count} softirqs"
    );
    for (c, stats) in after.iter().enumerate() {
        let time: u64 = stats.vectors.iter().map(|v| v.time_ns).sum();
        assert!(
            time <= elapsed * 2,
            "cpu {c}: {time} ns of handlers in {elapsed} ns"
        );
    }
    Some(format!(
        "{} NET_RX in {:.2?} ({:.0}/s), at worst {worst:.4} % off /proc/softirqs (read within {unsure:.4} %), {delays} delays, \
         mean service {} ns, mean delay {} ns, longest {} and {} ns",
        count,
        sent.elapsed,
        count as f64 / sent.elapsed.as_secs_f64(),
        net_rx.time_ns / net_rx.count.max(1),
        net_rx.delay_ns / net_rx.delays.max(1),
        net_rx.max_ns,
        net_rx.delay_max_ns,
    ))
}

/// Ends many short ticks under a flood: the longest of all ticks must be the longest since attach,
/// and lie in the highest bucket of the histogram.
///
/// # Panics
/// Where one was lost, or told of that never was.
#[must_use]
pub fn ticks_lose_nothing(time: Duration, cpu: usize) -> String {
    let mut probes = load();
    let cpus = probes.cpus_mut().expect("attached programs have counters");
    let mut longest = vec![[(0, 0); SOFTIRQS.len()]; cpus.possible() as usize];
    let mut ticks = 0;
    let mut tick = |cpus: &mut Cpus| {
        cpus.flip_epoch();
        ticks += 1;
        for (stats, longest) in read(cpus).iter().zip(&mut longest) {
            for (v, longest) in stats.vectors.iter().zip(longest) {
                longest.0 = v.tick_max_ns.max(longest.0);
                longest.1 = v.delay_tick_max_ns.max(longest.1);
            }
        }
    };
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || {
            in_own_network(Some(cpu), || {
                Flood::open(Packets::Unknown).and_then(|flood| flood.send_for(time))
            })
        });
        while !flood.is_finished() {
            tick(cpus);
        }
        flood
            .join()
            .expect("flood")
            .and_then(|sent| sent)
            .expect("flood");
    });
    // One more than needed takes in what a program wrote in the moment of the last switch.
    tick(cpus);
    tick(cpus);
    let top = |hist: &[u64; BUCKETS]| hist.iter().rposition(|&n| n != 0);
    for (c, stats) in read(cpus).iter().enumerate() {
        for (v, name) in stats.vectors.iter().zip(SOFTIRQS) {
            let at = SOFTIRQS.iter().position(|n| *n == name).expect("itself");
            let (service, delay) = longest[c][at];
            // A longer one may have come since the last tick; the histogram then tells.
            if v.max_ns != service || v.delay_max_ns != delay {
                assert!(v.max_ns >= service && v.delay_max_ns >= delay);
                assert!(v.entered_ns != 0 || v.count > 0);
                continue;
            }
            assert_eq!(
                top(&v.hist),
                (v.count > 0).then(|| bucket(service)),
                "cpu {c} {name}: longest {service} ns"
            );
            assert_eq!(
                top(&v.delay_hist),
                (v.delays > 0).then(|| bucket(delay)),
                "cpu {c} {name}: longest delay {delay} ns"
            );
        }
    }
    let net_rx = longest[cpu][NET_RX];
    assert!(net_rx.0 > 0 && net_rx.1 > 0);
    format!(
        "{ticks} ticks, longest NET_RX {} ns, delay {} ns",
        net_rx.0, net_rx.1
    )
}

/// Takes the last CPU away and brings it back: what was counted stays, what was pending does not show
/// as a delay, and counting goes on. For machines of our own only.
///
/// # Panics
/// Where any of that does not hold.
#[must_use]
pub fn survives_hotplug(away: Duration) -> String {
    let mut probes = load();
    let cpus = probes.cpus_mut().expect("attached programs have counters");
    let cpu = ksoftirqds().last().map_or(0, |&(cpu, _)| cpu);
    assert!(cpu > 0, "one CPU only");
    let switch = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let flood = || {
        in_own_network(Some(cpu as usize), || {
            Flood::open(Packets::Udp)?.send_for(Duration::from_millis(300))
        })
        .and_then(|sent| sent)
        .expect("flood")
    };
    let net_rx = |cpus: &mut Cpus| read(cpus)[cpu as usize].vectors[NET_RX];
    let before = net_rx(cpus).count;
    let sent = flood();
    let counted = net_rx(cpus);
    assert!(counted.count - before >= sent.packets);
    fs::write(&switch, "0").expect("take the CPU away");
    let kept = net_rx(cpus);
    assert!(kept.count >= counted.count);
    cpus.forget_pending(cpu);
    std::thread::sleep(away);
    assert_eq!(
        net_rx(cpus).count,
        kept.count,
        "an offline CPU counts nothing"
    );
    let gone = Instant::now();
    fs::write(&switch, "1").expect("bring the CPU back");
    let sent = flood();
    let Reading { ours, after, .. } = Reading::take(cpus);
    let back = ours[cpu as usize].vectors[NET_RX];
    assert!(back.count - kept.count >= sent.packets);
    for (v, name) in ours[cpu as usize].vectors.iter().zip(SOFTIRQS) {
        assert!(
            u128::from(v.delay_max_ns) < away.as_nanos(),
            "{name}: {} ns",
            v.delay_max_ns
        );
    }
    format!(
        "cpu {cpu} of {} possible: {} NET_RX, away for {away:.1?}, then {} more in {:.1?} (kernel since boot {})",
        cpus.possible(),
        kept.count,
        back.count - kept.count,
        gone.elapsed(),
        after[NET_RX][cpu as usize],
    )
}

/// Follows ksoftirqd of every online CPU, all of which are kept busy, in rounds of `runs` runs in
/// all and a wait, and compares with /proc/PID/schedstat: runs, time running, waiting.
///
/// Runs and waiting agree exactly, in every round. Time running does not: the kernel's begins and
/// ends where a run queue's clock was last read, ours at the tracepoint of the switch, which is a
/// part of a switch later, at most; how long one takes is measured on this machine. After a wakeup
/// that clock may be older still (`rq_clock_skip_update`), and a hypervisor may take the CPU away
/// in between: such rounds are repeated.
///
/// # Panics
/// Where runs or waiting differ, time running does in each of `ROUNDS` rounds, or ksoftirqd does
/// not run within the limit.
#[must_use]
pub fn ksoftirqd_agrees(runs: u64, limit: Duration) -> String {
    let mut probes = load();
    let cpus = probes.cpus_mut().expect("attached programs have counters");
    let pids = ksoftirqds();
    assert!(!pids.is_empty());
    for &(cpu, pid) in &pids {
        cpus.set_ksoftirqd(cpu, pid);
    }
    let switch_ns = switch_ns(pids[0].0);
    let deadline = Instant::now() + limit;
    // Gone with this function, however it ends, and the load with it.
    let running = Arc::new(());
    std::thread::scope(|scope| {
        for &(cpu, _) in &pids {
            for _ in 0..2 {
                let until = Arc::downgrade(&running);
                scope.spawn(move || flood_until_over(cpu as usize, &until).expect("flood"));
            }
        }
        let _running = running;
        let mut told = Vec::new();
        for _ in 0..ROUNDS {
            let before = steady(cpus, &pids);
            let (kernel, ours) = loop {
                let (kernel, ours) = difference(&before, &steady(cpus, &pids));
                if kernel[0] >= runs && kernel[2] > 0 {
                    break (kernel, ours);
                }
                assert!(
                    Instant::now() < deadline,
                    "ksoftirqd hardly ran: {kernel:?}"
                );
                std::thread::sleep(Duration::from_millis(20));
            };
            assert_eq!(kernel[0], ours[0], "runs");
            assert_eq!(kernel[2], ours[2], "time waiting, ns");
            told.push(format!(
                "{} runs, {} ns running (schedstat {}), {} ns waiting",
                ours[0], ours[1], kernel[1], ours[2]
            ));
            // The kernel also leaves interrupt time out of a task's run time.
            if kernel[1].abs_diff(ours[1]) <= kernel[1] / 5 + ours[0] * 2 * switch_ns {
                return format!("{}; a switch takes {switch_ns} ns", told.join("; "));
            }
        }
        panic!(
            "time running differs; a switch takes {switch_ns} ns; {}",
            told.join("; ")
        );
    })
}

/// How often time running is compared before it must have agreed.
const ROUNDS: usize = 10;

/// What a wakeup and the switch to the task take on one CPU, with our programs on it: the best of
/// many, which leaves out what else the machine does.
fn switch_ns(cpu: u32) -> u64 {
    const BATCH: u32 = 50;
    std::thread::scope(|scope| {
        let (to, from) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        scope.spawn(move || {
            crate::flood::pin(cpu as usize).expect("pin to a CPU");
            while to.1.recv().is_ok() && from.0.send(()).is_ok() {}
        });
        let best = scope.spawn(move || {
            crate::flood::pin(cpu as usize).expect("pin to a CPU");
            let batch = || {
                let started = Instant::now();
                for _ in 0..BATCH {
                    to.0.send(()).expect("the other one waits");
                    from.1.recv().expect("the other one answers");
                }
                started.elapsed() / (2 * BATCH)
            };
            let _first = batch();
            (0..10).map(|_| batch()).min().expect("ten batches")
        });
        best.join().expect("the thread ends well").as_nanos() as u64
    })
}

/// Floods one CPU for as long as the other end lives. With two of these on it a tick often hits a
/// softirq while another task is to run: what the tick has raised is then left to ksoftirqd
/// (`handle_softirqs`, kernel/softirq.c), which has to wait for its turn.
fn flood_until_over(cpu: usize, running: &Weak<()>) -> std::io::Result<()> {
    in_own_network(Some(cpu), || {
        let flood = Flood::open(Packets::Udp)?;
        while running.strong_count() > 0 {
            flood.send_for(Duration::from_millis(10))?;
        }
        Ok(())
    })?
}

/// runs, time running, time waiting.
type Sched = [u64; 3];

/// schedstat and our counters of every ksoftirqd while none of them runs.
fn steady(cpus: &mut Cpus, pids: &[(u32, u32)]) -> Vec<(Sched, Sched)> {
    pids.iter()
        .map(|&(cpu, pid)| {
            loop {
                let before = schedstat(pid);
                let mut stats = CpuStats::default();
                cpus.read(cpu, now_ns(), &mut stats);
                let k = stats.ksoftirqd;
                // It may be on its way out of the CPU: then the kernel has not added the run yet.
                if k.since_ns == 0 && before == schedstat(pid) {
                    return (before, [k.runs, k.time_ns, k.wait_ns]);
                }
                std::thread::yield_now();
            }
        })
        .collect()
}

fn difference(before: &[(Sched, Sched)], now: &[(Sched, Sched)]) -> (Sched, Sched) {
    let mut sum = ([0; 3], [0; 3]);
    for (before, now) in before.iter().zip(now) {
        for i in 0..3 {
            sum.0[i] += now.0[i] - before.0[i];
            sum.1[i] += now.1[i] - before.1[i];
        }
    }
    sum
}

fn schedstat(pid: u32) -> Sched {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let mut words = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
    let mut next = || words.next().unwrap_or(0);
    let (run, wait, count) = (next(), next(), next());
    [count, run, wait]
}

/// CPU and pid of every ksoftirqd.
pub fn ksoftirqds() -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            let cpu = comm.trim().strip_prefix("ksoftirqd/")?.parse().ok()?;
            Some((cpu, pid))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Runs our programs left out because they were running already, or `None` before 5.12.
fn misses(probes: &Probes) -> Option<u64> {
    use std::os::fd::AsFd;

    use stalltop_probes::sys::{ids, info};
    probes
        .program_ids()
        .map(|id| {
            let fd = ids::open(ids::Object::Program, id).ok()?;
            info::program(fd.as_fd()).ok()?.recursion_misses
        })
        .sum()
}
