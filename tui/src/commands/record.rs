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
use crate::outlet::Sink;
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
    let recorder = Recorder::new(out, ticker::header(&live, args.tick))
        .with_context(|| format!("cannot write {shown}"))?;
    let file = File {
        recorder,
        shown,
        samples: 0,
    };
    let all = runtime()?.block_on(ticker::run(
        &mut live,
        None,
        args.tick,
        duration,
        &mut journal,
        file,
    ))?;
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The recording's file.
struct File {
    recorder: Recorder<std::fs::File>,
    /// Its name, for people.
    shown: String,
    samples: u64,
}

impl Sink for File {
    fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let shown = &self.shown;
        self.recorder
            .write(frame)
            .with_context(|| format!("cannot write {shown}"))?;
        self.samples += u64::from(matches!(frame, Frame::Sample(_)));
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self {
            recorder,
            shown,
            samples,
        } = self;
        let bytes = recorder
            .finish()
            .and_then(|out| sync(&out))
            .with_context(|| format!("cannot finish {shown}"))?;
        eprintln!("{shown}: {} samples, {}", Count(samples), Bytes(bytes));
        Ok(())
    }
}

fn sync(out: &std::fs::File) -> io::Result<u64> {
    out.sync_all()?;
    Ok(out.metadata()?.len())
}
