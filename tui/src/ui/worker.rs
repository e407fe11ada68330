//! Changes: worked out and carried out on threads of their own, because a write to the kernel may
//! block for minutes. One thread plans and writes, one change at a time, and looks at the journal;
//! what takes long by its nature ([`takes_long`]) has a thread to itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal, Writer};
use stalltop_model::change::{ChangeError, Entry, Failure, Plan, Request};
use stalltop_model::sample::Tracing;
use stalltop_view::{JobId, Msg, Progress};
use tokio::sync::mpsc::Sender;

use crate::journal_watch::JournalWatch;

/// How often the journal is looked at for what other instances did.
const JOURNAL_EVERY: Duration = Duration::from_secs(1);

/// Work for the thread.
pub(crate) enum Job {
    /// Work a plan out.
    Plan {
        job: JobId,
        request: Request,
        tracing: Arc<Tracing>,
    },
    /// Carry a confirmed plan out.
    Apply(Apply),
}

/// What the threads answer.
pub(crate) enum Done {
    /// For the screen.
    Msg(Msg),
    /// A change ended.
    Applied {
        job: JobId,
        result: Result<Box<Entry>, Failure>,
    },
    /// The journal has this entry, ours or another instance's.
    Journal(Box<Entry>),
    /// Where the files of a snapshot are, or why not.
    Written(Vec<Result<String, String>>),
}

/// Whether a change takes long by its nature: the others must not wait for it.
pub(crate) fn takes_long(request: &Request) -> bool {
    matches!(request, Request::DropCaches { .. } | Request::Stop { .. })
}

/// Does work on a thread of its own. It ends when `work` does.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn aside(
    name: &str,
    done: Sender<Done>,
    work: impl FnOnce(&Sender<Done>) + Send + 'static,
) -> std::io::Result<()> {
    let builder = thread::Builder::new().name(name.into());
    builder.spawn(move || work(&done)).map(drop)
}

/// Starts the thread. It ends when the sender of its jobs is dropped, and they are done.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    journal: PathBuf,
    done: Sender<Done>,
) -> std::io::Result<std::sync::mpsc::Sender<Job>> {
    let (jobs, from_screen) = channel();
    aside("stalltop-change", done, move |done| {
        let mut journal = JournalWatch::new(journal);
        // Gone is the ordinary end: the person left.
        let _: Result<(), Gone> = run(&mut journal, done, &from_screen);
    })?;
    Ok(jobs)
}

/// The screen is gone.
struct Gone;

fn send(to: &Sender<Done>, done: Done) -> Result<(), Gone> {
    to.blocking_send(done).map_err(|_| Gone)
}

fn run(journal: &mut JournalWatch, done: &Sender<Done>, jobs: &Receiver<Job>) -> Result<(), Gone> {
    loop {
        for entry in journal.news() {
            send(done, Done::Journal(Box::new(entry)))?;
        }
        match jobs.recv_timeout(JOURNAL_EVERY) {
            Ok(Job::Plan {
                job,
                request,
                tracing,
            }) => {
                let result = plan(journal, &request, &tracing);
                send(done, Done::Msg(Msg::Planned { job, result }))?;
            }
            Ok(Job::Apply(apply)) => apply.run(done)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn plan(
    journal: &JournalWatch,
    request: &Request,
    tracing: &Tracing,
) -> Result<Box<Plan>, ChangeError> {
    let env = Env::live();
    let journal = Journal::read(&env, journal.path())?;
    let plan = change::plan_now(&env, request, &journal, Some(tracing))?;
    // What could not be journaled is not asked for.
    journal.may_write()?;
    Ok(Box::new(plan))
}

/// A change to be made.
pub(crate) struct Apply {
    pub(crate) job: JobId,
    pub(crate) plan: Box<Plan>,
    pub(crate) writer: Writer,
}

impl Apply {
    /// Makes it, and says how it went.
    fn run(&self, done: &Sender<Done>) -> Result<(), Gone> {
        let job = self.job;
        let what = self.plan.title.to_string();
        let result = change::apply(&self.writer, &self.plan, &mut |progress| {
            let progress = Progress {
                what: what.clone(),
                done: progress.done as u64,
                total: Some(progress.of as u64),
            };
            // Progress may be dropped, the result may not.
            let _ = done.try_send(Done::Msg(Msg::Applying { job, progress }));
        });
        let result = result.map(Box::new);
        send(done, Done::Applied { job, result })
    }

    /// Makes it on a thread of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn aside(self, done: Sender<Done>) -> std::io::Result<()> {
        aside("stalltop-long", done, move |done| {
            // Whoever asked may be gone: what was done is in the journal.
            let _: Result<(), Gone> = self.run(done);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use stalltop_collectors::live::{Live, Options};
    use stalltop_model::change::Outcome;

    use super::*;

    /// The second of two events is a link, which is read and never written.
    #[test]
    fn what_was_written_before_the_end_reaches_the_screen() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "proc/self/mountinfo",
            "1 2 0:3 / /sys/kernel/tracing rw - tracefs tracefs rw\n",
        );
        put("proc/sys/kernel/random/boot_id", "boot\n");
        put("run/.keep", "");
        put("sys/kernel/tracing/set_event", "sched:one\nsched:two\n");
        put("sys/kernel/tracing/instances/.keep", "");
        for event in ["one", "two"] {
            let folder = format!("sys/kernel/tracing/events/sched/{event}");
            put(&format!("{folder}/enable"), "1\n");
            put(&format!("{folder}/filter"), "none\n");
            put(&format!("{folder}/trigger"), "# Available triggers:\n");
        }
        let events = dir.path().join("sys/kernel/tracing/events/sched");
        fs::rename(events.join("two/enable"), events.join("two/real")).unwrap();
        symlink("real", events.join("two/enable")).unwrap();

        let env = Env::at(dir.path());
        let options = Options {
            env: env.clone(),
            ..Options::default()
        };
        let writer = Live::writer(&options, None).unwrap();
        let journal = Journal::read(&env, writer.journal()).unwrap();
        let request = Request::Off {
            selector: "sched:*".into(),
        };
        let plan = Box::new(change::plan(&env, &request, &journal, None).unwrap());
        let (done, mut answers) = tokio::sync::mpsc::channel(16);
        let job = JobId::default();
        assert!(Apply { job, plan, writer }.run(&done).is_ok());
        drop(done);
        let mut last = None;
        while let Some(answer) = answers.blocking_recv() {
            last = Some(answer);
        }
        let Some(Done::Applied {
            result: Err(failure),
            ..
        }) = last
        else {
            panic!("no failure");
        };
        let entry = failure.entry.unwrap();
        assert!(
            matches!(entry.outcome, Outcome::Failed { written: 1, .. }),
            "{entry:?}"
        );
        assert_eq!(entry.id, 1);
    }
}
