//! `stalltop record`: what is measured, into a file.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use stalltop_collectors::live::Live;
use stalltop_model::Frame;
use stalltop_model::recording::Recorder;
use stalltop_model::units::{Bytes, Count};

use super::{Usage, runtime};
use crate::cli::LiveArgs;
use crate::journal_watch::JournalWatch;
use crate::ticker;

/// Records this host.
pub(crate) fn run(
    file: &Path,
    duration: Option<Duration>,
    args: &LiveArgs,
    mut journal: JournalWatch,
) -> anyhow::Result<ExitCode> {
    let shown = file.display().to_string();
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let out = match created {
        Ok(out) => out,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Usage(format!("{shown} exists: a recording never overwrites")).into());
        }
        Err(e) => return Err(Usage(format!("{shown}: {e}")).into()),
    };
    let mut live = Live::start(&ticker::options(args, true));
    live.wants(ticker::WANTS);
    let mut recorder = Recorder::new(out, ticker::header(&live, args.tick))
        .with_context(|| format!("cannot write {shown}"))?;
    let mut samples = 0u64;
    runtime()?.block_on(ticker::run(
        &mut live,
        args.tick,
        duration,
        &mut journal,
        |frame| {
            recorder
                .write(frame)
                .with_context(|| format!("cannot write {shown}"))?;
            samples += u64::from(matches!(frame, Frame::Sample(_)));
            Ok(())
        },
    ))?;
    let bytes = recorder
        .finish()
        .and_then(|out| sync(&out))
        .with_context(|| format!("cannot finish {shown}"))?;
    eprintln!("{shown}: {} samples, {}", Count(samples), Bytes(bytes));
    Ok(ExitCode::SUCCESS)
}

fn sync(out: &std::fs::File) -> io::Result<u64> {
    out.sync_all()?;
    Ok(out.metadata()?.len())
}
