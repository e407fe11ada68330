//! `--stall` and `--sample`.

use std::time::Duration;

use clap::ValueEnum;
use stalltop_collectors::stalls::{Ask, Asked, LEAST, MOST, SampleMode};
use stalltop_model::sample::StallKind;

/// The kinds as they are written, in the order of [`StallKind::ALL`].
const KINDS: [&str; StallKind::ALL.len()] = [
    "pending",
    "handler",
    "ksoftirqd",
    "irqs-off",
    "no-resched",
    "real-time",
];

/// One `[KIND=]TIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StallArg {
    /// `None`: all kinds.
    kind: Option<StallKind>,
    ask: Ask,
    text: String,
}

/// `--sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sample {
    /// For 10 s after a stall, and where you look
    Auto,
    /// Every CPU, all the time
    Always,
    /// Never
    Off,
}

impl From<Sample> for SampleMode {
    fn from(sample: Sample) -> Self {
        match sample {
            Sample::Auto => Self::Auto,
            Sample::Always => Self::Always,
            Sample::Off => Self::Off,
        }
    }
}

/// Understands one `[KIND=]TIME`.
pub(super) fn parse(text: &str) -> Result<StallArg, String> {
    let (kind, time) = match text.split_once('=') {
        None => (None, text),
        Some((name, time)) => {
            let at = KINDS.iter().position(|kind| *kind == name).ok_or_else(|| {
                format!(
                    "no kind of stall is called {name}: there are {}",
                    KINDS.join(", ")
                )
            })?;
            (Some(StallKind::ALL[at]), time)
        }
    };
    let ask = match time {
        "off" => Ask::Off,
        _ => Ask::From(bounded(time)?),
    };
    Ok(StallArg {
        kind,
        ask,
        text: text.to_owned(),
    })
}

fn bounded(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time < LEAST || time > MOST {
        return Err("a stall is 1ms to 10s long".to_owned());
    }
    Ok(time)
}

/// All of them together; of several for the same the last one counts.
pub(super) fn asked(args: &[StallArg]) -> Asked {
    let mut asked = Asked::default();
    for arg in args {
        match arg.kind {
            Some(kind) => asked.kinds[kind as usize] = Some(arg.ask),
            None => asked.all = Some(arg.ask),
        }
    }
    let words: Vec<&str> = args.iter().map(|arg| arg.text.as_str()).collect();
    if !words.is_empty() {
        asked.words = format!("--stall {}", words.join(","));
    }
    asked
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    const fn from(ms: u64) -> Option<Ask> {
        Some(Ask::From(Duration::from_millis(ms)))
    }

    #[test]
    fn times_for_all_and_for_one() {
        let asked = |args: &[&str]| {
            Cli::try_parse_from([&["stalltop"], args].concat())
                .map(|cli| cli.live.stalls())
                .unwrap()
        };
        assert_eq!(asked(&[]), Asked::default());
        let all = asked(&["--stall", "7ms"]);
        assert_eq!((all.all, all.kinds), (from(7), [None; 6]));
        assert_eq!(all.words, "--stall 7ms");
        let some = asked(&["--stall", "handler=20ms,irqs-off=off", "--stall", "1s"]);
        assert_eq!(some.all, from(1_000));
        let off = Some(Ask::Off);
        assert_eq!(some.kinds, [None, from(20), None, off, None, None]);
        assert_eq!(some.words, "--stall handler=20ms,irqs-off=off,1s");
        assert_eq!(asked(&["--stall", "1ms,2ms"]).all, from(2));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            error("hardirq=5ms"),
            "no kind of stall is called hardirq: \
             there are pending, handler, ksoftirqd, irqs-off, no-resched, real-time"
        );
        for text in ["0ms", "999us", "pending=10001ms", "1h"] {
            assert_eq!(error(text), "a stall is 1ms to 10s long", "{text}");
        }
        for text in ["", "=", "pending=", "5", "handler=x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("1ms").is_ok() && parse("10s").is_ok());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for (kind, name) in StallKind::ALL.into_iter().zip(KINDS) {
            let arg = parse(&format!("{name}=5ms")).unwrap();
            assert_eq!(arg.kind, Some(kind));
        }
    }
}
