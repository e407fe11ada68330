//! `stalltop stream`: one JSON object per line.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use stalltop_collectors::live::Live;
use stalltop_model::Frame;
use stalltop_model::recording::Player;

use super::runtime;
use crate::cli::LiveArgs;
use crate::journal_watch::JournalWatch;
use crate::outlet::Sink;
use crate::ticker;

/// Prints this host's frames.
pub(crate) fn live(
    duration: Option<Duration>,
    args: &LiveArgs,
    mut journal: JournalWatch,
) -> anyhow::Result<ExitCode> {
    let mut live = Live::start(&ticker::options(args, true));
    live.wants(ticker::WANTS);
    let header = ticker::header(&live, args.tick);
    let all = runtime()?.block_on(ticker::run(
        &mut live,
        Some(header),
        args.tick,
        duration,
        &mut journal,
        Lines::new(),
    ))?;
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints a recording's frames.
pub(crate) fn from_recording(file: &Path) -> anyhow::Result<ExitCode> {
    let recording = crate::open_recording::open(file, |_| ())?;
    let note = recording.note().map(str::to_owned);
    let mut player = Player::new(recording);
    let mut out = Lines::new();
    let mut faults = 0usize;
    loop {
        match player.next_frame() {
            Ok(Some(frame)) => out.write(&frame)?,
            Ok(None) => break,
            // What can be shown is shown; the first fault is told, the others are counted.
            Err(error) => {
                if faults == 0 {
                    tell(&crate::open_recording::bad(file, &error).to_string());
                }
                faults += 1;
            }
        }
    }
    if let Some(note) = note {
        tell(&format!("{}: {note}", file.display()));
    }
    if faults > 1 {
        tell(&format!("{}: {} more faults", file.display(), faults - 1));
    }
    if faults > 0 {
        return Ok(ExitCode::from(2));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line on standard error; what it quotes of a recording may be anything.
fn tell(text: &str) {
    eprintln!("stalltop: {}", stalltop_model::printable(text));
}

/// Standard output, a line at a time.
struct Lines {
    out: BufWriter<io::Stdout>,
}

impl Lines {
    fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(64 * 1024, io::stdout()),
        }
    }
}

impl Sink for Lines {
    fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, frame)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .and_then(|()| self.out.flush())
            .context("cannot write to standard output")
    }

    fn finish(self) -> anyhow::Result<()> {
        Ok(())
    }
}
