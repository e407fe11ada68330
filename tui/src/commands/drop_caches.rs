//! `stalltop drop-caches`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use stalltop_collectors::change::drop_caches::{self, Running, Stage};
use stalltop_collectors::change::{Entry, Failure};
use stalltop_model::change::{ChangeError, Plan, Request};
use stalltop_model::printable;

use super::confirm::{Desk, change, refused, say};
use crate::cli::ChangeArgs;

/// How often progress is shown on a terminal; elsewhere only changes of stage are.
const SHOW: Duration = Duration::from_millis(500);

/// Shows what it costs, asks for the word, drops, and says what it did.
pub(crate) fn run(level: Option<u8>, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    change(&Request::DropCaches { level }, args, |desk, plan| {
        drop(desk, plan).unwrap_or_else(|error| refused(&error))
    })
}

fn drop(desk: &Desk<'_>, plan: &Plan) -> Result<ExitCode, ChangeError> {
    let running = drop_caches::start(&desk.writer, plan)?;
    let end = wait(running);
    let entry = match &end {
        Ok(entry) => Some(entry),
        Err(failure) => failure.entry.as_deref(),
    };
    if let Some(effect) = entry.and_then(|e| e.effect.as_ref()) {
        for line in drop_caches::report(effect) {
            say(&format!("  {}", printable(&line)));
        }
    }
    Ok(match end {
        // There is nothing that undo could put back of a drop that failed.
        Err(failure) => refused(&failure.error),
        done => desk.report(plan, done),
    })
}

/// Waits for the end, and shows that it goes on.
fn wait(mut running: Running) -> Result<Entry, Failure> {
    let terminal = io::stderr().is_terminal();
    let mut said = None;
    loop {
        if let Some(end) = running.poll(SHOW) {
            if terminal && said.is_some() {
                eprint!("\r\x1b[K");
            }
            return end;
        }
        let stage = running.stage();
        let what = match stage {
            Stage::Measuring => "reading figures before",
            Stage::Dropping => "the kernel drops caches; this cannot be cut short",
            Stage::Settling => "waiting for figures to stand still",
        };
        let seconds = running.elapsed().as_secs();
        if terminal {
            eprint!("\r\x1b[K{what}, {seconds} s");
        } else if said != Some(stage) {
            eprintln!("stalltop: {what}");
        }
        said = Some(stage);
    }
}
