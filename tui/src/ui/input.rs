//! Keys, the mouse and resizes: read on a thread of their own.
//!
//! When a terminal has hung up, crossterm 0.29 reads it for ever: it takes the end of the file for
//! nothing to read, and poll(2) says at once that there is something (`hung_up_tty_poll`,
//! drivers/tty/tty_io.c). On the thread that draws, that would be a stalltop that spins after a lost
//! connection; on this one it ends with the process, which SIGHUP or the next failing write ends.
//! EIO ends the thread, and the channel with it.

use crossterm::event::{self, Event};
use tokio::sync::mpsc::{Receiver, channel};

/// How many events may wait: more than a person types while one frame is drawn.
const WAITING: usize = 256;

/// Starts reading. The channel closes when the terminal fails.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start() -> std::io::Result<Receiver<Event>> {
    let (to_screen, events) = channel(WAITING);
    std::thread::Builder::new()
        .name("stalltop-input".into())
        .spawn(move || {
            while let Ok(event) = event::read() {
                if to_screen.blocking_send(event).is_err() {
                    return;
                }
            }
        })?;
    Ok(events)
}
