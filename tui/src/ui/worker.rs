//! Changes: worked out and carried out on a thread of their own, one at a time, because a
//! write to the kernel may block for minutes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal, Writer};
use stalltop_model::change::{ChangeError, Entry, Plan, Request};
use stalltop_model::sample::Tracing;
use stalltop_view::{Msg, Progress};

use crate::journal_watch::JournalWatch;

/// How often the journal is looked at for what other instances did.
const JOURNAL_EVERY: Duration = Duration::from_secs(1);

/// Work for the thread.
pub(crate) enum Job {
    /// Work a plan out.
    Plan(Request, Arc<Tracing>),
    /// Carry a confirmed plan out.
    Apply(Box<Plan>),
    /// From now on changes are allowed.
    Allow(Writer),
}

/// What the thread answers.
pub(crate) enum Done {
    /// For the screen.
    Msg(Msg),
    /// The journal has this entry, ours or another instance's.
    Journal(Box<Entry>),
    /// The host was changed: look at it again soon.
    Changed,
}

/// Starts the thread. It ends when the sender of its jobs is dropped.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    journal: PathBuf,
    done: tokio::sync::mpsc::Sender<Done>,
) -> std::io::Result<Sender<Job>> {
    let (jobs, from_screen) = channel();
    thread::Builder::new()
        .name("stalltop-change".into())
        .spawn(move || {
            let journal = JournalWatch::new(journal);
            Worker {
                journal,
                done,
                writer: None,
            }
            .run(&from_screen);
        })?;
    Ok(jobs)
}

struct Worker {
    journal: JournalWatch,
    done: tokio::sync::mpsc::Sender<Done>,
    writer: Option<Writer>,
}

/// The screen is gone.
struct Gone;

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            for entry in self.journal.news() {
                if self.send(Done::Journal(Box::new(entry))).is_err() {
                    return;
                }
            }
            let result = match jobs.recv_timeout(JOURNAL_EVERY) {
                Ok(Job::Allow(writer)) => {
                    self.writer = Some(writer);
                    Ok(())
                }
                Ok(Job::Plan(request, tracing)) => self.plan(request, &tracing),
                Ok(Job::Apply(plan)) => self.apply(&plan),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if result.is_err() {
                return;
            }
        }
    }

    fn send(&self, done: Done) -> Result<(), Gone> {
        self.done.blocking_send(done).map_err(|_| Gone)
    }

    fn plan(&self, request: Request, tracing: &Tracing) -> Result<(), Gone> {
        let env = Env::live();
        let result = Journal::read(&env, self.journal.path()).and_then(|journal| {
            let plan = change::plan(&env, &request, &journal, Some(tracing))?;
            // What could not be journaled is not asked for.
            journal.may_write()?;
            Ok(Box::new(plan))
        });
        self.send(Done::Msg(Msg::Planned { request, result }))
    }

    fn apply(&self, plan: &Plan) -> Result<(), Gone> {
        let Some(writer) = &self.writer else {
            let why = "changes are not allowed here".into();
            return self.send(Done::Msg(Msg::Applied(Err(ChangeError::ReadOnly { why }))));
        };
        let what = plan.title.to_string();
        let result = change::apply(writer, plan, &mut |progress| {
            let progress = Progress {
                what: what.clone(),
                done: progress.done as u64,
                total: Some(progress.of as u64),
            };
            // Progress may be dropped, the result may not.
            let _ = self.done.try_send(Done::Msg(Msg::Applying(progress)));
        });
        self.send(Done::Changed)?;
        let result = result.map(Box::new).map_err(|failure| failure.error);
        self.send(Done::Msg(Msg::Applied(result)))
    }
}
