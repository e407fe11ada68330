//! A second thread of the process that makes trouble, on the same CPU: its own clock tells when it
//! came to run.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::super::trace::WAITER;
use super::now_ns;

pub(super) struct Waiter {
    orders: Sender<u64>,
    answers: Receiver<u64>,
}

impl Waiter {
    /// `begin` runs once on that thread, and `wait` with each order, before it looks at its clock.
    pub(super) fn start(begin: fn(), wait: fn(u64)) -> io::Result<Self> {
        let (orders, incoming) = channel::<u64>();
        let (outgoing, answers) = channel();
        std::thread::Builder::new()
            .name(WAITER.to_owned())
            .spawn(move || {
                begin();
                while let Ok(order) = incoming.recv() {
                    wait(order);
                    if outgoing.send(now_ns()).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self { orders, answers })
    }

    /// Wakes it.
    pub(super) fn order(&self, order: u64) -> io::Result<()> {
        self.orders.send(order).map_err(|_| gone())
    }

    /// When it came to run.
    pub(super) fn answer(&self) -> io::Result<u64> {
        let answer = self.answers.recv_timeout(Duration::from_secs(5));
        answer.map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the second thread ended")
}
