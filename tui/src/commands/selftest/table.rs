//! The self-test's report as text.

use std::io::{self, Write};

use stalltop_collectors::selftest::plan::{Class, Injector};
use stalltop_collectors::selftest::run::{Judged, Mode, Outcome, Report, Tried};
use stalltop_collectors::selftest::score::Figures;
use stalltop_model::printable;

/// What the columns say.
const LEGEND: &str = "
recall: detected of injected · process, function: detected stalls that name the right one
error: how far the told length is off · close: within a tenth, or a tick (1 ms with the sampler)
false: rows on this CPU that no injection explains; stalls that others caused are among them
paused: rows told as a pause of the virtual CPU by the hypervisor";

/// How stalltop looked, in words.
pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Tick => "always-on programs alone",
        Mode::Sampler => "1 kHz sampler on",
    }
}

/// Prints all of it.
pub(super) fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let host = &report.host;
    writeln!(
        out,
        "{}, kernel {}, CPU {}, {} injections of each kind and length, seed {}",
        printable(&host.hostname),
        printable(&host.release),
        report.cpu,
        report.count,
        report.seed
    )?;
    writeln!(
        out,
        "stalls from 5 ms, tick {} ms, load before {}, after {}",
        report.tick_ns as f64 / 1e6,
        printable(&report.load[0]),
        printable(&report.load[1])
    )?;
    if let Tried::NotTried(why) = &report.trace {
        writeln!(out, "no second source: {}", printable(why))?;
    }
    let mut shown = None;
    for outcome in &report.results {
        if shown.replace(outcome.mode) != Some(outcome.mode) {
            heading(out, outcome.mode)?;
        }
        match &outcome.judged {
            Tried::Ok(judged) => rows(out, outcome.injector, judged)?,
            Tried::NotTried(why) => writeln!(
                out,
                "{:<11} not tried: {}",
                outcome.injector.as_str(),
                printable(why)
            )?,
        }
    }
    let listed = |outcome: &Outcome, out: &mut dyn Write| match &outcome.judged {
        Tried::Ok(judged) => notes(out, outcome, judged),
        Tried::NotTried(_) => Ok(()),
    };
    writeln!(out)?;
    for outcome in &report.results {
        listed(outcome, out)?;
    }
    match &report.zombies {
        Some(Tried::Ok(zombies)) => writeln!(
            out,
            "zombies: {} made, {} more counted; memory.stat read {} times by st-zombies, \
             longest {:.2} ms; longest that stalltop timed {:.2} ms",
            zombies.made,
            zombies.counted,
            zombies.reads.count,
            zombies.reads.longest_ns as f64 / 1e6,
            zombies.timed_ns as f64 / 1e6
        )?,
        Some(Tried::NotTried(why)) => writeln!(out, "zombies: not tried: {}", printable(why))?,
        None => {}
    }
    writeln!(out, "{LEGEND}")?;
    writeln!(
        out,
        "{}",
        if report.holds() {
            "all that is promised holds"
        } else {
            "not all that is promised holds"
        }
    )
}

fn heading(out: &mut impl Write, shown: Mode) -> io::Result<()> {
    writeln!(out, "\n{}", mode(shown))?;
    writeln!(
        out,
        "{:<11} {:<8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>22} {:>6} {:>6} {:>6}",
        "kind",
        "length",
        "injected",
        "detected",
        "recall",
        "process",
        "function",
        "error p50/p95/worst ms",
        "close",
        "false",
        "paused"
    )
}

fn rows(out: &mut impl Write, injector: Injector, judged: &Judged) -> io::Result<()> {
    for class in Class::ALL {
        let figures = &judged.score.classes[class as usize];
        let of_detected = |part: u32| percent(part, figures.detected);
        write!(
            out,
            "{:<11} {:<8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>22} {:>6}",
            injector.as_str(),
            class.as_str(),
            figures.injected,
            figures.detected,
            percent(figures.detected, figures.injected),
            of_detected(figures.process),
            of_detected(figures.attributed),
            errors(figures),
            of_detected(figures.close),
        )?;
        // Of both classes together, once.
        if class == Class::Short {
            writeln!(
                out,
                " {:>6} {:>6}",
                judged.score.false_rows, judged.score.paused_rows
            )?;
        } else {
            writeln!(out)?;
        }
    }
    Ok(())
}

fn errors(figures: &Figures) -> String {
    if figures.detected == 0 {
        return "-".to_owned();
    }
    let ms = |ns: u64| ns as f64 / 1e6;
    format!(
        "{:.2}/{:.2}/{:.2}",
        ms(figures.error_p50_ns),
        ms(figures.error_p95_ns),
        ms(figures.error_max_ns)
    )
}

fn percent(part: u32, whole: u32) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", f64::from(part) * 100.0 / f64::from(whole))
}

/// What the table has no room for.
fn notes(out: &mut dyn Write, outcome: &Outcome, judged: &Judged) -> io::Result<()> {
    let (score, second) = (&judged.score, &judged.second);
    let mut notes = Vec::new();
    if second.seen > 0 {
        notes.push(format!(
            "the kernel's trace has {} of {}, lengths {:.2} ms apart (median), {:.2} at most",
            second.seen,
            second.injected,
            second.apart_p50_ns as f64 / 1e6,
            second.apart_max_ns as f64 / 1e6
        ));
    }
    if judged.lost > 0 {
        notes.push(format!("{} events were lost or left out", judged.lost));
    }
    if score.told_as.len() > 1 {
        let told: Vec<String> = score
            .told_as
            .iter()
            .map(|(kind, told)| format!("{told} as {}", kind.as_str()))
            .collect();
        notes.push(format!("told {}", told.join(", ")));
    }
    let not_held: u32 = score.classes.iter().map(|figures| figures.not_held).sum();
    if not_held > 0 {
        notes.push(format!(
            "{not_held} were told as a pause of the virtual CPU, or perhaps one"
        ));
    }
    if score.other_rows > 0 {
        notes.push(format!("{} rows of other kinds", score.other_rows));
    }
    if score.too_short > 0 {
        notes.push(format!("{} came out too short to count", score.too_short));
    }
    for (named, times) in &score.named_instead {
        notes.push(format!(
            "named instead, {times} times: {}",
            printable(named)
        ));
    }
    for broken in &judged.broken {
        notes.push(format!("NOT KEPT: {broken}"));
    }
    for note in notes {
        writeln!(
            out,
            "{}, {}: {note}",
            outcome.injector.as_str(),
            mode(outcome.mode)
        )?;
    }
    Ok(())
}
