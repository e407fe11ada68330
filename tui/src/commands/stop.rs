//! `stalltop stop`.

use std::process::ExitCode;

use stalltop_collectors::change;
use stalltop_model::change::{Request, StopSignal, stop};

use super::confirm::{Desk, refused, report, say};
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
    let planned = Desk::new(args).and_then(|desk| desk.plan(&request).map(|plan| (desk, plan)));
    let (desk, plan) = match planned {
        Ok(both) => both,
        Err(error) => return Ok(refused(&error)),
    };
    desk.show(&plan)?;
    if args.dry_run {
        say("dry run: nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = desk.confirm(plan.confirm_word.as_deref()) {
        return Ok(refused(&error));
    }
    let done = change::apply(&desk.writer, &plan, &mut |_| ());
    let Ok(entry) = &done else {
        return Ok(report(&plan, done));
    };
    let exited = stop::exited(entry);
    for line in stop::outcome(entry).into_iter().chain(stop::figures(entry)) {
        say(&format!("  {line}"));
    }
    let status = report(&plan, done);
    Ok(if exited == Some(false) {
        ExitCode::FAILURE
    } else {
        status
    })
}
