//! Frames of a recording.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use stalltop_model::Frame;
use stalltop_model::recording::Player;
use stalltop_view::{Feed, Progress, Seek};
use tokio::sync::mpsc::Sender;

use super::{FeedMsg, FeedRequest};
use crate::open_recording;

/// How many samples of history are rebuilt after a jump: what the model keeps.
const HISTORY: u64 = 900;
/// The longest wait between two samples of a recording: gaps are not sat out.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Files larger than this show their progress while they are opened, bytes.
const LARGE: u64 = 4 << 20;

struct Replay<'a> {
    player: Player,
    file: &'a Path,
    to_screen: &'a Sender<FeedMsg>,
    tick_ns: u64,
    span_ns: (u64, u64),
    /// `at_ns` of the sample shown last.
    at_ns: u64,
    speed: f32,
    paused: bool,
    ended: bool,
}

/// The screen is gone.
struct Gone;

/// Plays until the screen is gone.
pub(super) fn run(
    file: &Path,
    speed: f32,
    to_screen: &Sender<FeedMsg>,
    requests: &Receiver<FeedRequest>,
) -> anyhow::Result<()> {
    let large = std::fs::metadata(file).is_ok_and(|m| m.len() > LARGE);
    let mut shown = 0;
    let recording = open_recording::open(file, |done| {
        let percent = (done * 100.0) as u64;
        if large && percent > shown {
            shown = percent;
            let what = format!("opening {}", file.display());
            let progress = Progress {
                what,
                done: percent,
                total: Some(100),
            };
            // Progress may be dropped; nothing else is.
            let _ = to_screen.try_send(FeedMsg::Work(Some(progress)));
        }
    })?;
    let note = recording.note().map(str::to_owned);
    let mut replay = Replay {
        file,
        to_screen,
        tick_ns: recording.header().tick_ns.max(1),
        span_ns: recording.span_ns().unwrap_or_default(),
        at_ns: 0,
        speed,
        paused: false,
        ended: false,
        player: Player::new(recording),
    };
    // Gone is the ordinary end: the person left.
    let _: Result<(), Gone> = (|| {
        replay.send(FeedMsg::Work(None))?;
        if let Some(note) = note {
            replay.send(FeedMsg::Note(note))?;
        }
        // Two samples at once: rates need both.
        replay.step(0)?;
        replay.step(0)?;
        replay.go_on(requests)
    })();
    Ok(())
}

impl Replay<'_> {
    fn send(&self, msg: FeedMsg) -> Result<(), Gone> {
        self.to_screen.blocking_send(msg).map_err(|_| Gone)
    }

    fn go_on(&mut self, requests: &Receiver<FeedRequest>) -> Result<(), Gone> {
        let mut next = Instant::now() + self.wait(self.at_ns, self.tick_ns);
        loop {
            let still = self.paused || self.ended;
            let request = if still {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                requests.recv_timeout(next.saturating_duration_since(Instant::now()))
            };
            match request {
                Ok(FeedRequest::SetPaused(paused)) => {
                    self.paused = paused;
                    next = Instant::now();
                    self.send_position()?;
                }
                Ok(FeedRequest::SetSpeed(speed)) => {
                    self.speed = speed.clamp(0.01, 100_000.0);
                    next = Instant::now();
                    self.send_position()?;
                }
                Ok(FeedRequest::Seek(Seek::Ticks(ticks))) => {
                    self.seek(ticks)?;
                    next = Instant::now() + self.wait(self.at_ns, self.tick_ns);
                }
                Ok(
                    FeedRequest::Wants(_)
                    | FeedRequest::Rescan
                    | FeedRequest::ReadCgroupNow(_)
                    | FeedRequest::Recycle(_),
                ) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
                Err(RecvTimeoutError::Timeout) => {
                    let before = self.at_ns;
                    self.step(0)?;
                    let gap = self.at_ns.saturating_sub(before);
                    next += self.wait(before, gap);
                    // Behind its speed, it goes as fast as it can and does not catch up.
                    next = next.max(Instant::now());
                }
            }
        }
    }

    fn wait(&self, before_ns: u64, gap_ns: u64) -> Duration {
        if before_ns == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos((gap_ns as f64 / f64::from(self.speed)) as u64).min(LONGEST_WAIT)
    }

    /// Goes on up to and with the first sample at `from_ns` or later, and shows that one; those
    /// before it only make history.
    fn step(&mut self, from_ns: u64) -> Result<(), Gone> {
        loop {
            match self.player.next_frame() {
                Ok(Some(frame)) => {
                    let at_ns = match &frame {
                        Frame::Sample(sample) => Some(sample.at_ns),
                        _ => None,
                    };
                    let shown = at_ns.is_some_and(|at| at >= from_ns);
                    let frame = Box::new(frame);
                    self.send(if shown {
                        FeedMsg::Frame(frame)
                    } else {
                        FeedMsg::History(frame)
                    })?;
                    self.at_ns = at_ns.unwrap_or(self.at_ns);
                    if shown {
                        return self.send_position();
                    }
                }
                Ok(None) => {
                    self.ended = true;
                    return self.send_position();
                }
                Err(error) => {
                    let text = open_recording::bad(self.file, &error).to_string();
                    self.send(FeedMsg::Note(text))?;
                }
            }
        }
    }

    fn seek(&mut self, ticks: i64) -> Result<(), Gone> {
        self.ended = false;
        let far = ticks.unsigned_abs().saturating_mul(self.tick_ns);
        let (start, end) = self.span_ns;
        let target = if ticks < 0 {
            self.at_ns.saturating_sub(far).max(start)
        } else {
            self.at_ns.saturating_add(far).min(end)
        };
        if ticks < 0 {
            self.send(FeedMsg::Restart)?;
            let from = target
                .saturating_sub(HISTORY.saturating_mul(self.tick_ns))
                .max(start);
            self.at_ns = 0;
            self.player.seek(from);
        }
        // Half a tick of tolerance: samples are never exactly a tick apart.
        self.step(target.saturating_sub(self.tick_ns / 2))
    }

    fn send_position(&self) -> Result<(), Gone> {
        let (start, end) = self.span_ns;
        self.send(FeedMsg::At(Feed::Replay {
            at_ns: self.at_ns.saturating_sub(start),
            length_ns: end.saturating_sub(start),
            speed: self.speed,
            paused: self.paused,
            ended: self.ended,
        }))
    }
}

#[cfg(test)]
mod tests {
    use stalltop_model::Model;
    use stalltop_model::frame::Header;
    use stalltop_model::recording::Recorder;
    use stalltop_model::sample::{Host, Sample, Stall};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// One sample a second from 1 s to `seconds`, and one stall in each of these seconds.
    fn recording(seconds: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = Header::new("0", SECOND, Host::default());
        let mut recorder = Recorder::new(file.reopen().unwrap(), header).unwrap();
        for i in 1..=seconds {
            let stall = Stall {
                id: i,
                at_ns: i * SECOND - SECOND / 2,
                ..Stall::default()
            };
            let sample = Sample {
                at_ns: i * SECOND,
                ..Sample::default()
            };
            recorder.write(&Frame::Stall(Box::new(stall))).unwrap();
            recorder.write(&Frame::Sample(Box::new(sample))).unwrap();
        }
        recorder.finish().unwrap();
        file
    }

    /// What a screen keeps of what it is sent, up to the next position at which `until` holds.
    fn play(
        messages: &mut tokio::sync::mpsc::Receiver<FeedMsg>,
        model: &mut Model,
        until: impl Fn(u64) -> bool,
    ) {
        while let Some(msg) = messages.blocking_recv() {
            match msg {
                FeedMsg::Frame(mut frame) | FeedMsg::History(mut frame) => model.apply(&mut frame),
                FeedMsg::Restart => *model = Model::new(),
                FeedMsg::At(Feed::Replay { at_ns, .. }) if until(at_ns / SECOND + 1) => return,
                _ => {}
            }
        }
        panic!("the replay ended");
    }

    fn ids(model: &Model) -> Vec<u64> {
        model.stalls.iter().map(|stall| stall.id).collect()
    }

    #[test]
    fn a_seek_neither_doubles_nor_loses_stalls() {
        let file = recording(130);
        let path = file.path().to_owned();
        let (to_screen, mut messages) = tokio::sync::mpsc::channel(2);
        let (requests, from_screen) = std::sync::mpsc::channel();
        // Held at once, so that it moves only when it is told to.
        requests.send(FeedRequest::SetPaused(true)).unwrap();
        let thread = std::thread::spawn(move || run(&path, 1.0, &to_screen, &from_screen));
        let mut model = Model::new();
        play(&mut messages, &mut model, |at| at == 2);
        assert_eq!(ids(&model), [1, 2]);
        for (ticks, at) in [
            (98, 100),
            (-60, 40),
            (60, 100),
            (-99, 1),
            (129, 130),
            (-1, 129),
        ] {
            requests
                .send(FeedRequest::Seek(Seek::Ticks(ticks)))
                .unwrap();
            play(&mut messages, &mut model, |now| now == at);
            assert_eq!(ids(&model), (1..=at).collect::<Vec<_>>(), "{ticks} to {at}");
        }
        drop((messages, requests));
        thread.join().unwrap().unwrap();
    }
}
