//! A thread that answers questions whose answers may block, and how long one waits for them.
//!
//! A read of `/proc` may block for as long as somebody else holds a lock: `exec_update_lock`
//! (/proc/PID/stack, /proc/PID/syscall; fs/proc/base.c), `cgroup_mutex` (/proc/PID/cgroup before 6.16;
//! kernel/cgroup/cgroup.c). Such a read cannot be cut short. So a thread of its own reads, and who
//! asks waits for so long at most: what comes later is nobody's answer any more.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

/// The end that asks. Dropping it ends the thread.
pub(crate) struct Desk<Q, A> {
    ask: SyncSender<Q>,
    answers: Receiver<A>,
    /// Asked, and not answered in time.
    owed: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Desk<Q, A> {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub(crate) fn start(
        name: &str,
        mut answer: impl FnMut(Q) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let (send, answers) = sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for question in asked {
                    if send.send(answer(question)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            ask,
            answers,
            owed: false,
        })
    }

    /// Asks, and waits for so long at most. `None` where that is not enough, and at once where the
    /// thread still works at an earlier question.
    pub(crate) fn ask(&mut self, question: Q, patience: Duration) -> Option<A> {
        if self.owed {
            match self.answers.try_recv() {
                Ok(_) => self.owed = false,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
        self.ask.try_send(question).ok()?;
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.owed = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_nobodys_and_the_next_one_is_not_waited_for_meanwhile() {
        const LONG: Duration = Duration::from_secs(60);
        let (let_go, held) = sync_channel::<()>(1);
        let answer = move |question: u32| {
            if question == 1 {
                held.recv().unwrap();
            }
            question * 10
        };
        let mut desk = Desk::start("desk", answer).unwrap();
        assert_eq!(desk.ask(7, LONG), Some(70));
        assert_eq!(desk.ask(1, Duration::from_millis(1)), None);
        // At once: it would wait for a minute.
        assert_eq!(desk.ask(2, LONG), None);
        let_go.send(()).unwrap();
        while desk.owed {
            assert!(matches!(desk.ask(3, LONG), None | Some(30)));
        }
        assert_eq!(desk.ask(4, LONG), Some(40));
    }
}
