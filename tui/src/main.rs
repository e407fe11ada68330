//! stalltop: a top for kernel stalls.
//!
//! This binary is the only place with a runtime, a terminal and arguments. What it shows
//! is `stalltop-view`'s; what it reads and changes is `stalltop-collectors`'.

mod cli;
mod commands;
mod journal_watch;
mod open_recording;
mod outlet;
mod ticker;
mod ui;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    stalltop_collectors::sys::heap::keep_small();
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to stdout with status 0, usage errors with 2.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            // Nothing useful is left to do if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    match commands::run(cli) {
        Ok(status) => status,
        Err(error) if commands::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{error:#}");
            // The terminal may be gone: no reason to panic.
            let _ = writeln!(
                std::io::stderr(),
                "stalltop: {}",
                stalltop_model::printable(&text)
            );
            ExitCode::from(commands::exit_status(&error))
        }
    }
}
