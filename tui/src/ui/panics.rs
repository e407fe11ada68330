//! What becomes of a panic while the screen is there.
//!
//! One of the thread that draws gives the terminal back and is told as ever. One of another thread
//! must not: the screen would go on over the shell. It is told to the screen, which ends; unless
//! the collectors say in what they measure that they go on without that thread
//! ([`stalltop_collectors::alive`]).

use std::panic::PanicHookInfo;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::terminal;

/// A thread that failed.
pub(super) struct Panic {
    /// Which, where, and why.
    pub(super) what: String,
    /// Whether the screen can go on without it.
    pub(super) spared: bool,
}

/// From now on tells of the panics of all threads but this one while the terminal is taken.
pub(super) fn watch() -> UnboundedReceiver<Panic> {
    let (tell, panics) = unbounded_channel();
    let ours = thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().id() != ours && terminal::is_taken() {
            let panic = Panic {
                what: describe(info),
                spared: stalltop_collectors::alive::is_told_of(),
            };
            if tell.send(panic).is_ok() {
                return;
            }
        }
        // Before the message is printed, so that it can be read.
        terminal::give_back();
        before(info);
    }));
    panics
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = text.unwrap_or("no reason given");
    format!("thread {name} failed at {place} (a bug): {why}")
}
