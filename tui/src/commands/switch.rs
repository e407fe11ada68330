//! `stalltop off` and `stalltop on`.

use std::process::ExitCode;

use stalltop_model::change::Request;

use super::confirm::{Desk, refused};
use crate::cli::ChangeArgs;

/// Switches off, or with `remove` removes, what the selectors name.
pub(crate) fn off(
    selectors: &[String],
    remove: bool,
    args: &ChangeArgs,
) -> anyhow::Result<ExitCode> {
    let selector = selectors.join(" ").into();
    change(
        &if remove {
            Request::Remove { selector }
        } else {
            Request::Off { selector }
        },
        args,
    )
}

/// Switches on again what was switched off; with `force` anything.
pub(crate) fn on(selectors: &[String], force: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let selector = selectors.join(" ").into();
    change(&Request::On { selector, force }, args)
}

fn change(request: &Request, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let planned = Desk::new(args).and_then(|desk| desk.plan(request).map(|plan| (desk, plan)));
    match planned {
        Ok((desk, plan)) => desk.carry_out(&plan),
        Err(error) => Ok(refused(&error)),
    }
}
