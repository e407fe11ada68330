//! One file per subcommand.

mod audit;
mod confirm;
mod doctor;
mod drop_caches;
mod name_user_stack;
mod record;
mod selftest;
mod stop;
mod stream;
mod switch;
mod top;
mod undo;

pub(crate) use confirm::undo_command;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::Env;
use stalltop_collectors::change::Journal;

use crate::cli::{ByWord, ChangeArgs, Cli, Command};
use crate::journal_watch::JournalWatch;

/// Something wrong with what the person gave: a flag, a file, a recording. Exit status 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let journal = Journal::path_for(&Env::live(), cli.journal.as_deref());
    let with_globals = |change| ChangeArgs {
        journal: cli.journal,
        read_only: cli.read_only,
        ..change
    };
    match cli.command {
        None => top::live(cli.live, &cli.screen, journal, cli.read_only),
        Some(Command::Doctor { json }) => doctor::run(json),
        Some(Command::Audit { json, all, root }) => audit::run(json, all, &root.root),
        Some(Command::Off {
            selectors,
            remove,
            change,
        }) => switch::off(&selectors, remove, &with_globals(change)),
        Some(Command::On {
            selectors,
            force,
            change,
        }) => switch::on(&selectors, force, &with_globals(change)),
        Some(Command::DropCaches { level, change }) => {
            drop_caches::run(level, &with_globals(change))
        }
        Some(Command::Stop {
            pid,
            kill,
            confirm,
            dry_run,
            root,
        }) => {
            let change = ChangeArgs {
                dry_run,
                yes: false,
                root,
                journal: None,
                read_only: false,
                by_word: ByWord::Only(confirm),
            };
            stop::run(pid, kill, &with_globals(change))
        }
        Some(Command::Undo {
            id,
            list,
            json,
            all,
            force,
            change,
        }) => {
            let change = with_globals(change);
            match (list, all) {
                (true, _) => undo::list(json, &change),
                (_, true) => undo::all(force, &change),
                _ => undo::one(id, force, &change),
            }
        }
        Some(Command::Record {
            file,
            duration,
            live,
        }) => record::run(&file, duration, &live, JournalWatch::new(journal)),
        Some(Command::Stream {
            duration,
            from,
            live,
        }) => match from {
            Some(file) => stream::from_recording(&file),
            None => stream::live(duration, &live, JournalWatch::new(journal)),
        },
        Some(Command::Selftest(args)) => selftest::run(&args, cli.read_only),
        Some(Command::NameUserStack { pid, addresses }) => name_user_stack::run(pid, &addresses),
        Some(Command::Replay {
            file,
            speed,
            screen,
        }) => top::replay(file, speed, &screen),
    }
}

/// Whether the reader of our output went away: no error of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause
            .downcast_ref::<serde_json::Error>()
            .and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// 2 for bad usage or a bad file, 1 for everything else.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    if error
        .chain()
        .any(<dyn std::error::Error + 'static>::is::<Usage>)
    {
        2
    } else {
        1
    }
}

/// A runtime for one thread: timers, signals, keys.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}
