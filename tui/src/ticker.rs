//! Ticks of a live host without a screen: for `stream` and `record`.

use std::time::Duration;

use stalltop_collectors::live::{Live, Options, Wants};
use stalltop_model::frame::{Frame, Header};
use stalltop_model::sample::Sample;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::LiveArgs;
use crate::journal_watch::JournalWatch;
use crate::outlet::{Outlet, Signals, Sink};

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

/// Writes the header and every tick's frames to `sink`, from the first at once until `duration`
/// is over, or a signal asks to end: before a sample the stalls since the last one, and after it
/// every change that the journal shows meanwhile. Gives whether all was written.
///
/// # Errors
/// What writing reports.
pub(crate) async fn run(
    live: &mut Live,
    header: Option<Header>,
    tick: Duration,
    duration: Option<Duration>,
    journal: &mut JournalWatch,
    sink: impl Sink,
) -> anyhow::Result<bool> {
    let mut signals = Signals::new()?;
    let mut outlet = Outlet::start(sink)?;
    let start = Instant::now();
    // No end where the clock does not reach so far.
    let end = duration.and_then(|d| start.checked_add(d));
    let mut ticks = interval_at(start, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut header = header.map(|header| Frame::Header(Box::new(header)));
    let asked = loop {
        tokio::select! {
            at = ticks.tick() => {
                // The last sample belongs to the end that was asked for.
                let last = end.is_some_and(|end| at + tick > end);
                let written = outlet.tick(|frames| {
                    let sample = sample_of(frames);
                    frames.extend(header.take());
                    live.stalls(frames);
                    frames.push(measured(live, sample));
                    let news = journal.news().into_iter();
                    frames.extend(news.map(|entry| Frame::Change(Box::new(entry))));
                });
                if last || written.is_err() {
                    break false;
                }
            }
            () = signals.next() => break true,
        }
    };
    outlet.finish(&mut signals, asked).await
}

/// The sample of an earlier tick, to be filled again; leaves nothing else of it.
fn sample_of(frames: &mut Vec<Frame>) -> Box<Sample> {
    let sample = frames.drain(..).find_map(|frame| match frame {
        Frame::Sample(sample) => Some(sample),
        _ => None,
    });
    sample.unwrap_or_default()
}

fn measured(live: &mut Live, mut sample: Box<Sample>) -> Frame {
    live.tick(&mut sample);
    Frame::Sample(sample)
}
