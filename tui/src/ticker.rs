//! Ticks of a live host without a screen: for `stream` and `record`.

use std::time::Duration;

use anyhow::Context;
use stalltop_collectors::live::{Live, Options, Wants};
use stalltop_model::frame::{Frame, Header};
use stalltop_model::sample::Sample;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::LiveArgs;
use crate::journal_watch::JournalWatch;

/// What is measured though no pane shows it: who asks for frames wants to know what probes cost.
pub(crate) const WANTS: Wants = Wants {
    costs: true,
    tracing: false,
    cgroups: false,
    locks: false,
    sample: None,
};

/// How to look at the host, as the arguments say.
pub(crate) fn options(args: &LiveArgs, read_only: bool) -> Options {
    Options {
        tick: args.tick,
        no_bpf: args.no_bpf,
        read_only,
        stalls: args.stalls(),
        sample: args.sample.into(),
        locks: args.locks.into(),
        // The file that runs, even where it was replaced since.
        program: Some("/proc/self/exe".into()),
        ..Options::default()
    }
}

/// The header line of a live host's frames.
pub(crate) fn header(live: &Live, tick: Duration) -> Header {
    let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
    Header::new(env!("CARGO_PKG_VERSION"), tick_ns, (**live.host()).clone())
}

/// Hands every tick's frame to `take`, from the first at once until `duration` is over,
/// or a signal asks to end; before it, the stalls since the last one, and after it, every
/// change that the journal shows meanwhile.
pub(crate) async fn run(
    live: &mut Live,
    tick: Duration,
    duration: Option<Duration>,
    journal: &mut JournalWatch,
    mut take: impl FnMut(&Frame) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let start = Instant::now();
    let end = duration.map(|d| start + d);
    let mut ticks = interval_at(start, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut frame = Frame::Sample(Box::<Sample>::default());
    let mut stalls = Vec::new();
    loop {
        tokio::select! {
            at = ticks.tick() => {
                // The last sample belongs to the end that was asked for.
                let last = end.is_some_and(|end| at + tick > end);
                live.stalls(&mut stalls);
                for stall in stalls.drain(..) {
                    take(&stall)?;
                }
                if let Frame::Sample(sample) = &mut frame {
                    live.tick(sample);
                }
                take(&frame)?;
                for entry in journal.news() {
                    take(&Frame::Change(Box::new(entry)))?;
                }
                if last {
                    return Ok(());
                }
            }
            result = tokio::signal::ctrl_c() => return result.context("cannot wait for SIGINT"),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}
