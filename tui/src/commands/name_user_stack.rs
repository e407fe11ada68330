//! `stalltop name-user-stack`, which stalltop runs itself: see
//! [`stalltop_collectors::stalls::user_stack`].

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use stalltop_collectors::stalls::user_stack;

/// Prints the names of the addresses as a JSON array.
pub(crate) fn run(pid: u32, addresses: &[u64]) -> anyhow::Result<ExitCode> {
    user_stack::limit_child();
    let names = user_stack::symbolize(pid, addresses).map_err(|why| anyhow!(why))?;
    let text = serde_json::to_string(&names).context("cannot be written as JSON")?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}
