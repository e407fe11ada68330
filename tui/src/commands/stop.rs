//! `stalltop stop`.

use std::process::ExitCode;

use stalltop_collectors::change::apply;
use stalltop_model::change::{Plan, Request, StopSignal, stop};

use super::confirm::{Desk, change, say};
use crate::cli::ChangeArgs;

/// Shows who it is and what goes with it, asks for the word, sends the signal, and says what
/// came of it.
pub(crate) fn run(pid: u32, kill: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let signal = if kill {
        StopSignal::Kill
    } else {
        StopSignal::Term
    };
    let request = Request::Stop {
        pid,
        signal: Some(signal),
    };
    change(&request, args, send)
}

fn send(desk: &Desk<'_>, plan: &Plan) -> ExitCode {
    let done = apply(&desk.writer, plan, &mut |_| ());
    let Ok(entry) = &done else {
        return desk.report(plan, done);
    };
    let exited = stop::exited(entry);
    for line in stop::outcome(entry).into_iter().chain(stop::figures(entry)) {
        say(&format!("  {line}"));
    }
    let status = desk.report(plan, done);
    if exited == Some(false) {
        ExitCode::FAILURE
    } else {
        status
    }
}
