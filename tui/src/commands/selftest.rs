//! `stalltop selftest`.

mod table;

use std::io::{self, BufWriter, IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::selftest::inject::{self, Order};
use stalltop_collectors::selftest::plan::Injector;
use stalltop_collectors::selftest::run::{self, Mode, Step, Test};
use stalltop_collectors::selftest::{keeper, zombies};
use stalltop_collectors::{Env, cpu_list, file};
use stalltop_model::change::ChangeError;
use stalltop_model::printable;

use super::Usage;
use super::confirm::{Given, confirm, refused, say};
use crate::cli::selftest::{Kind, SelftestArgs};

/// Says what is to come, asks, does it, and reports; or does a child's part of it.
pub(crate) fn run(args: &SelftestArgs, read_only: bool) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let cpu = cpu(args.cpu)?;
    if let Some(owner) = args.zombies {
        zombies::run(owner, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(owner) = args.keep {
        keeper::run(owner, cpu, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Kind::Stall(injector)) = args.inject {
        let order = Order {
            injector,
            cpu,
            count: args.count,
            seed: args.seed,
        };
        inject::run(&order, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    drop(out);
    if read_only {
        return Ok(refused(&ChangeError::ReadOnly {
            why: "started with --read-only".into(),
        }));
    }
    let test = test(args, cpu)?;
    announce(&test, args.json);
    let given = if args.yes { Given::Yes } else { Given::Nothing };
    if let Err(error) = confirm(given, Some("selftest")) {
        return Ok(refused(&error));
    }
    let report = run::run(&test, progress()).context("the self-test cannot run")?;
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        table::print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// The CPU that was asked for, or the last one: the first has most of a host's own work.
fn cpu(asked: Option<u32>) -> anyhow::Result<u32> {
    let path = Env::live().path("/sys/devices/system/cpu/online");
    let online = file::read(&path).map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let online = cpu_list::cpus(&online);
    match asked {
        None => online.last().copied().context("no CPU is online"),
        Some(cpu) if online.contains(&cpu) => Ok(cpu),
        Some(cpu) => Err(Usage(format!("there is no CPU {cpu}, or it is offline")).into()),
    }
}

fn test(args: &SelftestArgs, cpu: u32) -> anyhow::Result<Test> {
    let all = args.only.is_empty();
    let injectors = Injector::ALL
        .into_iter()
        // What this host lacks a program for is left out unless it is asked for.
        .filter(|injector| {
            all && inject::is_possible(*injector) || args.only.contains(&Kind::Stall(*injector))
        })
        .collect();
    Ok(Test {
        program: run::this_program().context("cannot find this program")?,
        cpu,
        count: args.count,
        seed: args.seed,
        injectors,
        modes: match args.mode {
            Some(mode) => vec![mode.into()],
            None => Mode::ALL.to_vec(),
        },
        zombies: all || args.only.contains(&Kind::Zombies),
    })
}

/// Says what will be done, where and for how long. Not on standard output where that is JSON.
fn announce(test: &Test, json: bool) {
    let mut lines = vec![format!(
        "selftest: makes trouble on CPU {} for about {}, up to {} ms at a time",
        test.cpu,
        humantime::format_duration(std::time::Duration::from_secs(
            test.length().as_secs_f64().ceil() as u64
        )),
        test.longest().as_millis(),
    )];
    for injector in &test.injectors {
        lines.push(format!("  {:<11} {}", injector.as_str(), injector.what()));
    }
    if test.zombies {
        lines.push(format!(
            "  {:<11} {} zombie memory cgroups, and a process that reads memory.stat",
            "zombies",
            zombies::COUNT
        ));
    }
    lines.push(
        "  Whatever else runs on that CPU waits meanwhile. It happens in processes, a network \
         namespace,\n  a tracefs instance and a cgroup of its own, which are gone afterwards, \
         also after Ctrl-C or kill -9."
            .to_owned(),
    );
    for line in lines {
        if json {
            eprintln!("{line}");
        } else {
            say(&line);
        }
    }
}

/// Shows how far it is: on a terminal in one line, elsewhere a line per step.
fn progress() -> impl FnMut(Step) {
    let terminal = io::stderr().is_terminal();
    let mut said = String::new();
    move |step| {
        let (what, count) = match step {
            Step::Attaching(mode) => (
                format!("{}: attaching eBPF programs", table::mode(mode)),
                None,
            ),
            Step::Injecting(mode, injector, done, of) => (
                format!("{}: {}", table::mode(mode), injector.as_str()),
                Some((done, of)),
            ),
            Step::Zombies => ("zombie cgroups".to_owned(), None),
        };
        if terminal {
            let count = count.map_or(String::new(), |(done, of)| format!(" {done} of {of}"));
            eprint!("\r\x1b[K{}{count}", printable(&what));
        } else if what != said {
            eprintln!("stalltop: {}", printable(&what));
        }
        said = what;
    }
}
