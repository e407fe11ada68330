//! `stalltop off` and `stalltop on`.

use std::process::ExitCode;

use stalltop_model::change::Request;

use super::confirm::{Desk, change};
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
        Desk::apply,
    )
}

/// Switches on again what was switched off; with `force` anything.
pub(crate) fn on(selectors: &[String], force: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let selector = selectors.join(" ").into();
    change(&Request::On { selector, force }, args, Desk::apply)
}
