//! The terminal: taken over on start, given back on every way out.

use std::io::{self, BufWriter, Stdout, Write};
use std::mem::{ManuallyDrop, take};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::backend::CrosstermBackend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether the terminal is ours now, so that it is given back once and only once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What we draw on: one write a frame.
type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal while it is ours. Dropping it gives it back.
pub(crate) struct Screen {
    /// Never dropped: its own drop shows the cursor and complains on standard error where the
    /// terminal is gone; [`give_back`] does that, and in peace.
    terminal: ManuallyDrop<ratatui::Terminal<Backend>>,
    /// Whether the next frame draws every cell.
    clear: bool,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When standard output or input is no terminal, or it fails.
    pub(crate) fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let result = execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableMouseCapture,
            cursor::Hide
        )
        .and_then(|()| {
            let out = BufWriter::with_capacity(64 * 1024, io::stdout());
            ratatui::Terminal::new(CrosstermBackend::new(out))
        });
        match result {
            Ok(terminal) => Ok(Self {
                terminal: ManuallyDrop::new(terminal),
                clear: false,
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws one frame inside a synchronized update: no terminal shows half of it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn draw(&mut self, render: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        if take(&mut self.clear) {
            // Not `clear`: that asks the terminal where its cursor is, and waits for an answer.
            let size = self.terminal.size()?;
            self.terminal.resize(size.into())?;
        }
        self.terminal.draw(render)?;
        queue!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        Write::flush(self.terminal.backend_mut())
    }

    /// Makes the next frame draw every cell, without a flicker in between.
    pub(crate) fn clear(&mut self) {
        self.clear = true;
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }
}

/// Whether the other end of the terminal was closed. A program that does not belong to the
/// terminal's session gets no SIGHUP, and a paused screen writes nothing that could fail.
pub(crate) fn is_gone() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    let lost = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(lost)
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the terminal is ours now.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Gives the terminal back, as far as it still takes anything.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be restored: nothing to do about errors here.
        let _ = execute!(
            io::stdout(),
            EndSynchronizedUpdate,
            DisableMouseCapture,
            LeaveAlternateScreen,
            cursor::Show
        );
        let _ = disable_raw_mode();
    }
}
