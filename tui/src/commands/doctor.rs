//! `stalltop doctor`: what works on this host, what does not, and what would mend it.

use std::io::{self, Write};
use std::process::ExitCode;

use stalltop_collectors::Env;
use stalltop_collectors::doctor::{Check, doctor};
use stalltop_model::{Reading, printable};

/// Column in which details begin.
const DETAILS: usize = 36;

/// Prints every check, for a person or as JSON.
pub(crate) fn run(json: bool) -> anyhow::Result<ExitCode> {
    let checks = doctor(&Env::live());
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &checks)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&checks).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(checks: &[Check]) -> String {
    let mut out = String::new();
    let mut area = "";
    let mut line = |left: &str, right: &str| {
        // Names, reasons and errors may quote what the host wrote.
        let (left, right) = (printable(left), printable(right));
        out += &format!("{left:<DETAILS$}{right}\n");
    };
    for check in checks {
        if check.area != area {
            area = check.area;
            line(area, "");
        }
        match &check.works {
            Reading::Value(detail) => line(&format!("  ok  {} ", check.capability), detail),
            Reading::Off(reason) => {
                line(&format!("  no  {} ", check.capability), &reason.to_string());
                line("", &format!("fix      {}", reason.fix()));
                if !check.instead.is_empty() {
                    line("", &format!("instead  {}", check.instead));
                }
            }
        }
    }
    let missing = checks.iter().filter(|c| c.works.value().is_none()).count();
    line("", "");
    line(
        &format!("{} of {} work", checks.len() - missing, checks.len()),
        "",
    );
    out.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use stalltop_model::Reason;

    use super::*;

    #[test]
    fn a_lack_comes_with_its_cure() {
        let check = |capability: &str, works| Check {
            area: "tracing",
            capability: capability.into(),
            works,
            instead: "BPF programs only".into(),
        };
        let checks = [
            check("debugfs", Reading::Value("/sys/kernel/debug".into())),
            check(
                "tracefs",
                Reading::Off(Reason::NotMounted {
                    fs: "tracefs".into(),
                    at: "/sys/kernel/\x1b[2Jtracing".into(),
                }),
            ),
        ];
        assert_eq!(
            text(&checks),
            "\
tracing
  ok  debugfs                       /sys/kernel/debug
  no  tracefs                       tracefs is not mounted at /sys/kernel/^[[2Jtracing
                                    fix      mount -t tracefs tracefs /sys/kernel/^[[2Jtracing
                                    instead  BPF programs only

1 of 2 work
"
        );
    }
}
