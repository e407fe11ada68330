//! Where frames come from: a thread of their own, so that neither a slow terminal nor a
//! slow read holds up the other.

mod live;
mod replay;

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use stalltop_collectors::change::Writer;
use stalltop_model::{Frame, Name};
use stalltop_view::{Feed, Progress, Seek, Wants};

use crate::cli::LiveArgs;

/// What a feed sends to the screen.
pub(crate) enum FeedMsg {
    /// A frame to be shown.
    Frame(Box<Frame>),
    /// A frame that only makes history: more follow at once.
    History(Box<Frame>),
    /// Forget everything: what follows is from another point of a recording.
    Restart,
    /// Where the feed is.
    At(Feed),
    /// Long work goes on, or ended.
    Work(Option<Progress>),
    /// Something worth one line.
    Note(String),
    /// Leave to change the host; only a live feed that is not read-only has it.
    Writer(Writer),
    /// There will be no more frames, and why.
    Failed(anyhow::Error),
}

/// What the screen asks of a feed.
pub(crate) enum FeedRequest {
    /// Which expensive sources are looked at.
    Wants(Wants),
    /// Read this cgroup's statistics as soon as may be.
    ReadCgroupNow(Name),
    /// The host was changed: look at its tracing state again soon.
    Rescan,
    /// Hold a replay, or let it go on.
    SetPaused(bool),
    /// Move a replay.
    Seek(Seek),
    /// A replay's speed.
    SetSpeed(f32),
    /// An old frame whose buffers can be filled again; only a live feed is sent any.
    Recycle(Box<Frame>),
}

/// What to show.
pub(crate) enum FeedOptions {
    /// This host.
    Live {
        /// How it is measured.
        args: LiveArgs,
        /// The journal of changes.
        journal: PathBuf,
        /// Whether it may not be changed.
        read_only: bool,
    },
    /// A recording.
    Replay {
        /// The file.
        file: PathBuf,
        /// Times real speed.
        speed: f32,
    },
}

/// The two ends of a running feed.
pub(crate) struct Running {
    /// Frames, two at most on their way.
    pub(crate) messages: tokio::sync::mpsc::Receiver<FeedMsg>,
    /// Requests to it.
    pub(crate) requests: mpsc::Sender<FeedRequest>,
    /// Whether old frames are filled again.
    pub(crate) recycles: bool,
}

impl Running {
    /// Asks something of the feed. One that has ended hears nothing: its last message says why.
    pub(crate) fn ask(&self, request: FeedRequest) {
        let _ = self.requests.send(request);
    }

    /// Gives back a frame that was shown. A replay makes its frames anew, and while it seeks it
    /// hears nothing: all that it passes over would pile up here.
    pub(crate) fn recycle(&self, frame: Box<Frame>) {
        if self.recycles {
            self.ask(FeedRequest::Recycle(frame));
        }
    }
}

/// Starts the feed's thread. It ends when either end of its channels is dropped.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(options: FeedOptions) -> std::io::Result<Running> {
    let (to_screen, messages) = tokio::sync::mpsc::channel(2);
    let (requests, from_screen) = mpsc::channel();
    let recycles = matches!(options, FeedOptions::Live { .. });
    thread::Builder::new()
        .name("stalltop-feed".into())
        .spawn(move || match options {
            FeedOptions::Live {
                args,
                journal,
                read_only,
            } => {
                live::run(&args, &journal, read_only, &to_screen, &from_screen);
            }
            FeedOptions::Replay { file, speed } => {
                if let Err(error) = replay::run(&file, speed, &to_screen, &from_screen) {
                    // The screen may be gone already.
                    let _ = to_screen.blocking_send(FeedMsg::Failed(error));
                }
            }
        })?;
    Ok(Running {
        messages,
        requests,
        recycles,
    })
}

#[cfg(test)]
mod tests {
    use stalltop_model::frame::Header;
    use stalltop_model::recording::Recorder;
    use stalltop_model::sample::{Host, Sample};

    use super::*;

    #[test]
    fn a_replay_is_sent_no_frames_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = Header::new("0", 1, Host::default());
        let mut recorder = Recorder::new(file.reopen().unwrap(), header).unwrap();
        let sample = Frame::Sample(Box::<Sample>::default());
        recorder.write(&sample).unwrap();
        recorder.finish().unwrap();
        let file_options = FeedOptions::Replay {
            file: file.path().to_owned(),
            speed: 1.0,
        };
        let mut replay = start(file_options).unwrap();
        let (requests, asked) = mpsc::channel();
        replay.requests = requests;
        replay.recycle(Box::new(sample.clone()));
        assert!(asked.try_recv().is_err());
        replay.recycles = true;
        replay.recycle(Box::new(sample));
        assert!(matches!(asked.try_recv(), Ok(FeedRequest::Recycle(_))));
    }
}
