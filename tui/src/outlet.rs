//! Frames written on a thread of their own: a reader that stands still, or a disk that hangs,
//! holds up neither the ticks nor the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use stalltop_model::Frame;
use stalltop_model::units::Count;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Ticks on their way to the writer at most; while so many wait, nothing is measured.
const WAITING: usize = 16;

/// How long the writer is waited for once a signal has asked to end.
const GRACE: Duration = Duration::from_secs(2);

/// How long standard error is waited for at the end: it may be the terminal that hangs.
const TELL: Duration = Duration::from_millis(200);

/// What frames are written to.
pub(crate) trait Sink: Send + 'static {
    /// Writes one frame, whole, so that it survives whatever comes next.
    ///
    /// # Errors
    /// What writing reports; nothing is written after it.
    fn write(&mut self, frame: &Frame) -> anyhow::Result<()>;

    /// Ends the output.
    ///
    /// # Errors
    /// What writing reports.
    fn finish(self) -> anyhow::Result<()>;
}

/// What comes in one piece: a tick's sample, with the stalls before it and the changes after it.
struct Tick {
    frames: Vec<Frame>,
    /// Ticks right before this one that were not measured.
    missed: u64,
}

/// The writing thread is gone: [`Outlet::finish`] tells why.
#[derive(Debug)]
pub(crate) struct Gone;

/// The near end of the writing thread.
pub(crate) struct Outlet {
    to: mpsc::Sender<Tick>,
    /// Written frames, to be filled again.
    back: std::sync::mpsc::Receiver<Vec<Frame>>,
    end: oneshot::Receiver<anyhow::Result<()>>,
    handed: u64,
    written: Arc<AtomicU64>,
    missed: u64,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(sink: impl Sink) -> anyhow::Result<Self> {
        let (to, from) = mpsc::channel(WAITING);
        let (give_back, back) = std::sync::mpsc::channel();
        let (tell, end) = oneshot::channel();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        thread::Builder::new()
            .name("stalltop-write".into())
            .spawn(move || {
                // Nobody may wait for it any more.
                let _ = tell.send(write_all(sink, from, &give_back, &count));
            })
            .context("cannot start a thread")?;
        Ok(Self {
            to,
            back,
            end,
            handed: 0,
            written,
            missed: 0,
        })
    }

    /// Has `fill` make a tick's frames, from those of an earlier tick, and hands them over. Where
    /// too many wait already the tick is missed, and said to be so before the next one is written.
    ///
    /// # Errors
    /// [`Gone`]: nothing more will be written.
    pub(crate) fn tick(&mut self, fill: impl FnOnce(&mut Vec<Frame>)) -> Result<(), Gone> {
        let room = match self.to.try_reserve() {
            Ok(room) => room,
            Err(mpsc::error::TrySendError::Full(())) => {
                self.missed += 1;
                return Ok(());
            }
            Err(mpsc::error::TrySendError::Closed(())) => return Err(Gone),
        };
        let mut frames = self.back.try_recv().unwrap_or_default();
        fill(&mut frames);
        self.handed += 1;
        room.send(Tick {
            frames,
            missed: std::mem::take(&mut self.missed),
        });
        Ok(())
    }

    /// Waits until all is written. A signal ends the wait; where one has `asked` to end already,
    /// it is not a long one. Gives whether all was written; says so if not.
    ///
    /// # Errors
    /// What the writing thread reports.
    pub(crate) async fn finish(self, signals: &mut Signals, asked: bool) -> anyhow::Result<bool> {
        let Self {
            to,
            end,
            handed,
            written,
            missed,
            ..
        } = self;
        drop(to);
        let grace = async {
            if asked {
                tokio::time::sleep(GRACE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let left = tokio::select! {
            result = end => match result {
                Ok(result) => {
                    result?;
                    missed
                }
                Err(_) => bail!("the thread that writes has ended early"),
            },
            () = signals.next() => missed + handed - written.load(Ordering::Relaxed),
            () = grace => missed + handed - written.load(Ordering::Relaxed),
        };
        if left > 0 {
            tell(&not_written(left));
        }
        Ok(left == 0)
    }
}

fn write_all(
    mut sink: impl Sink,
    mut from: mpsc::Receiver<Tick>,
    back: &std::sync::mpsc::Sender<Vec<Frame>>,
    written: &AtomicU64,
) -> anyhow::Result<()> {
    while let Some(tick) = from.blocking_recv() {
        if tick.missed > 0 {
            eprintln!("stalltop: {}", not_written(tick.missed));
        }
        for frame in &tick.frames {
            sink.write(frame)?;
        }
        written.fetch_add(1, Ordering::Relaxed);
        // The ticks may have ended.
        let _ = back.send(tick.frames);
    }
    sink.finish()
}

fn not_written(ticks: u64) -> String {
    let s = if ticks == 1 { " was" } else { "s were" };
    format!(
        "{} tick{s} not written: what takes the output stood still",
        Count(ticks)
    )
}

/// One line on standard error, which nobody waits for longer than for [`TELL`].
fn tell(text: &str) {
    let line = format!("stalltop: {text}");
    let (done, wait) = std::sync::mpsc::channel();
    let told = thread::Builder::new().spawn(move || {
        eprintln!("{line}");
        // Nobody may wait for it any more.
        let _ = done.send(());
    });
    if told.is_ok() {
        let _ = wait.recv_timeout(TELL);
    }
}

/// The signals that ask to end.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    /// From now on none of them ends the program by itself.
    ///
    /// # Errors
    /// Where they cannot be waited for.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let wait =
            |kind, name: &str| signal(kind).with_context(|| format!("cannot wait for {name}"));
        Ok(Self([
            wait(SignalKind::interrupt(), "SIGINT")?,
            wait(SignalKind::terminate(), "SIGTERM")?,
            wait(SignalKind::hangup(), "SIGHUP")?,
        ]))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a frame once it is let.
    struct Gate {
        let_in: Receiver<()>,
        taken: Sender<Frame>,
    }

    impl Sink for Gate {
        fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
            self.let_in.recv()?;
            self.taken.send(frame.clone())?;
            Ok(())
        }

        fn finish(self) -> anyhow::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Outlet, Sender<()>, Receiver<Frame>) {
        let (open, let_in) = channel();
        let (taken, out) = channel();
        (Outlet::start(Gate { let_in, taken }).unwrap(), open, out)
    }

    fn runtime() -> tokio::runtime::Runtime {
        crate::commands::runtime().unwrap()
    }

    /// How many of `ticks` ticks were made.
    fn hand_over(outlet: &mut Outlet, ticks: usize) -> usize {
        let mut made = 0;
        for _ in 0..ticks {
            let fill = |frames: &mut Vec<Frame>| {
                frames.clear();
                frames.push(Frame::Unknown);
                made += 1;
            };
            outlet.tick(fill).unwrap();
        }
        made
    }

    #[test]
    fn what_stands_still_holds_up_neither_the_ticks_nor_the_end() {
        let (mut outlet, _open, out) = gate();
        let made = hand_over(&mut outlet, 100);
        // The writer may hold one more.
        assert!((WAITING..=WAITING + 1).contains(&made), "{made}");
        assert_eq!(outlet.missed, 100 - made as u64);
        let all = runtime().block_on(async {
            let mut signals = Signals::new().unwrap();
            outlet.finish(&mut signals, true).await
        });
        assert!(!all.unwrap(), "it is said that not all was written");
        assert!(out.try_recv().is_err());
    }

    #[test]
    fn what_takes_them_late_gets_all_that_were_made() {
        let (mut outlet, open, out) = gate();
        let made = hand_over(&mut outlet, 50);
        for _ in 0..50 {
            open.send(()).unwrap();
        }
        // Each was written before its buffers came back.
        let waited = std::time::Instant::now();
        while outlet.written.load(Ordering::Relaxed) < made as u64 {
            assert!(waited.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
        let more = hand_over(&mut outlet, 1);
        assert_eq!(
            (more, outlet.missed),
            (1, 0),
            "said with the tick after them"
        );
        let all = runtime().block_on(async {
            let mut signals = Signals::new().unwrap();
            outlet.finish(&mut signals, false).await
        });
        assert!(all.unwrap());
        assert_eq!(out.iter().count(), made + more);
    }

    #[test]
    fn an_error_ends_the_ticks_and_is_told() {
        let (mut outlet, open, _out) = gate();
        drop(open);
        let waited = std::time::Instant::now();
        while outlet.tick(|frames| frames.push(Frame::Unknown)).is_ok() {
            assert!(waited.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
        let end = runtime().block_on(async {
            let mut signals = Signals::new().unwrap();
            outlet.finish(&mut signals, false).await
        });
        assert!(end.is_err());
    }
}
