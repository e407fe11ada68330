//! Frames of this host.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use stalltop_collectors::live::{Live, Wants};
use stalltop_model::Frame;
use stalltop_model::sample::Sample;
use stalltop_view::Feed;
use tokio::sync::mpsc::Sender;

use super::{FeedMsg, FeedRequest};
use crate::cli::LiveArgs;
use crate::ticker;

/// Rates need two samples: the second one comes early, so that the screen fills at once.
const SECOND_SAMPLE: Duration = Duration::from_millis(150);

/// Ticks until the screen is gone.
pub(super) fn run(
    args: &LiveArgs,
    journal: &Path,
    read_only: bool,
    to_screen: &Sender<FeedMsg>,
    requests: &Receiver<FeedRequest>,
) {
    let options = ticker::options(args, read_only);
    let mut live = Live::start(&options);
    let header = ticker::header(&live, args.tick);
    let feed = Feed::Live {
        tick_ns: header.tick_ns,
    };
    let mut spare: Vec<Box<Frame>> = Vec::new();
    let mut stalls = Vec::new();
    // Read-only: there is no writer, and the screen says why.
    let writer = Live::writer(&options, Some(journal))
        .ok()
        .map(FeedMsg::Writer);
    let header = FeedMsg::Frame(Box::new(Frame::Header(Box::new(header))));
    for msg in [FeedMsg::At(feed), header].into_iter().chain(writer) {
        if to_screen.blocking_send(msg).is_err() {
            return;
        }
    }
    let mut next = Instant::now();
    let mut first = true;
    loop {
        match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(FeedRequest::Wants(wants)) => {
                live.wants(Wants {
                    tracing: wants.tracing,
                    cgroups: wants.cgroups,
                    costs: wants.costs,
                    locks: wants.locks,
                    sample: wants.cpu,
                });
            }
            Ok(FeedRequest::Rescan) => live.rescan(),
            Ok(FeedRequest::ReadCgroupNow(path)) => live.read_cgroup(path),
            // Two are on their way at most; the header's frame is of no use.
            Ok(FeedRequest::Recycle(frame))
                if spare.len() < 4 && matches!(*frame, Frame::Sample(_)) =>
            {
                spare.push(frame);
            }
            // Only a replay can be held or moved.
            Ok(
                FeedRequest::Recycle(_)
                | FeedRequest::SetPaused(_)
                | FeedRequest::Seek(_)
                | FeedRequest::SetSpeed(_),
            ) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // Before their sample, so that it is judged with them, and drawn once.
                live.stalls(&mut stalls);
                for stall in stalls.drain(..) {
                    let stall = FeedMsg::History(Box::new(stall));
                    if to_screen.blocking_send(stall).is_err() {
                        return;
                    }
                }
                let mut frame = spare
                    .pop()
                    .unwrap_or_else(|| Box::new(Frame::Sample(Box::<Sample>::default())));
                if let Frame::Sample(sample) = &mut *frame {
                    live.tick(sample);
                }
                if to_screen.blocking_send(FeedMsg::Frame(frame)).is_err() {
                    return;
                }
                next += if first {
                    SECOND_SAMPLE.min(args.tick)
                } else {
                    args.tick
                };
                first = false;
                // A stalled host is no reason to hurry afterwards.
                next = next.max(Instant::now());
            }
        }
    }
}
