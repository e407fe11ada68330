//! Signals that end the program, and the one after which the terminal holds something else.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// They are caught from the moment that this is there.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resume: Signal,
}

/// What a signal means to the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To end: SIGINT, SIGTERM.
    End,
    /// The terminal is gone: SIGHUP. It may come more than once for one lost connection.
    Gone,
    /// SIGCONT, of the shell's `fg`.
    Resumed,
}

impl Signals {
    /// Catches them; inside of a runtime.
    pub(super) fn catch() -> anyhow::Result<Self> {
        let of = |kind, name: &str| signal(kind).with_context(|| format!("cannot wait for {name}"));
        let resume = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        Ok(Self {
            interrupt: of(SignalKind::interrupt(), "SIGINT")?,
            terminate: of(SignalKind::terminate(), "SIGTERM")?,
            hangup: of(SignalKind::hangup(), "SIGHUP")?,
            resume: of(resume, "SIGCONT")?,
        })
    }

    /// Waits for the next.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.hangup.recv() => Told::Gone,
            _ = self.resume.recv() => Told::Resumed,
        }
    }
}
