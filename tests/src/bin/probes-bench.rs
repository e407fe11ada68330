//! What our softirq programs cost per softirq, dispatch included: the same flood with nothing
//! attached, with programs that do nothing, and with ours, in turns of a fraction of a second.
//!
//! Called by `cargo xtask bench probes`. The differences are taken within a round, so that drift
//! of the machine cancels, and the median is printed, so that a disturbed round does not matter.
//! Beside it, for a machine that is never quiet, the difference of the best tenths of the windows.

use std::process::ExitCode;
use std::time::Duration;

use stalltop_probes::{Kind, Options, PROGRAMS, Probes, Spec};
use stalltop_tests::flood::{Flood, Packets, in_own_network};

/// One set of programs to be compared.
struct Mode {
    name: &'static str,
    programs: Vec<&'static Spec>,
    /// The most it may cost, nanoseconds per softirq.
    limit: Option<f64>,
    samples: Vec<f64>,
}

fn ours(names: &[&str]) -> Vec<&'static Spec> {
    PROGRAMS
        .iter()
        .filter(|spec| names.contains(&spec.name))
        .collect()
}

const fn nothing(name: &'static str, tracepoint: &'static str) -> Spec {
    Spec {
        name,
        tracepoint,
        kind: Kind::RawTp,
        measures: "nothing",
        needs: "",
        with: &[],
        replaced_by: "",
        only_stalls: false,
    }
}

static EMPTY: [Spec; 3] = [
    nothing("empty_exit", "softirq_exit"),
    nothing("empty_entry", "softirq_entry"),
    nothing("empty_raise", "softirq_raise"),
];

fn modes() -> Vec<Mode> {
    let mode = |name, programs, limit| Mode {
        name,
        programs,
        limit,
        samples: Vec::new(),
    };
    vec![
        mode("base, nothing attached", Vec::new(), None),
        mode(
            "2 empty programs: exit, entry",
            EMPTY[..2].iter().collect(),
            None,
        ),
        mode("3 empty programs: and raise", EMPTY.iter().collect(), None),
        mode(
            "ours: exit, entry",
            ours(&["softirq_exit", "softirq_entry"]),
            Some(150.0),
        ),
        mode(
            "ours: exit, entry, raise, delays",
            ours(&["softirq_exit", "softirq_entry", "softirq_raise"]),
            Some(230.0),
        ),
    ]
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Some(Ok(seconds)), Some(Ok(cpu)), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: probes-bench SECONDS CPU");
        return ExitCode::FAILURE;
    };
    match in_own_network(Some(cpu as usize), || run(Duration::from_secs(seconds))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(e)) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("a network namespace of our own: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration) -> Result<(), String> {
    let window = Duration::from_millis(40);
    // Others' time on this CPU is no cost of ours.
    rustix::process::setpriority_process(None, -20).map_err(|e| e.to_string())?;
    let flood = Flood::open(Packets::Unknown).map_err(|e| e.to_string())?;
    let send = |time| flood.send_for(time).map_err(|e| e.to_string());
    let mut modes = modes();
    let started = std::time::Instant::now();
    let mut rounds = 0;
    while started.elapsed() < time {
        // Every mode takes every place in turn: none always follows the same one.
        let count = modes.len();
        for i in 0..count {
            let mode = &mut modes[(i + rounds) % count];
            let probes = Probes::load(&Options {
                programs: mode.programs.clone(),
                ..Options::default()
            });
            for health in probes.health() {
                if let Err(failure) = &health.attached {
                    return Err(format!("{}: {failure}", health.spec.name));
                }
            }
            send(window / 8)?;
            mode.samples.push(send(window)?.ns_per_packet());
        }
        rounds += 1;
    }
    print(&modes, rounds);
    Ok(())
}

fn print(modes: &[Mode], rounds: usize) {
    let base = &modes[0].samples;
    println!("{rounds} rounds; nanoseconds per softirq, median of the rounds (quartiles)");
    println!("{:<34} {:>8}   over base{:23}best tenth", "", "total", "");
    let best = |samples: &[f64]| {
        let mut samples = samples.to_vec();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 10).copied().unwrap_or(f64::NAN)
    };
    for mode in modes {
        let mut total = mode.samples.clone();
        let mut over: Vec<f64> = mode.samples.iter().zip(base).map(|(a, b)| a - b).collect();
        let [_, total, _] = quartiles(&mut total);
        print!("{:<34} {total:>8.1}", mode.name);
        if !mode.programs.is_empty() {
            let [low, median, high] = quartiles(&mut over);
            let spread = format!("({low:.1} to {high:.1})");
            let best = best(&mode.samples) - best(base);
            print!("   {median:>6.1}  {spread:<22} {best:>8.1}");
            if let Some(limit) = mode.limit {
                let verdict = if median <= limit { "within" } else { "OVER" };
                print!("  {verdict} {limit:.0}");
            }
        }
        println!();
    }
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        values
            .get(values.len() * quarter / 4)
            .copied()
            .unwrap_or(f64::NAN)
    })
}
