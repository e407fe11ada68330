//! A change from the question to its end. A dialog looks at one; what is being written goes on
//! without one.

use stalltop_model::change::{ChangeError, Entry, Failure, Outcome, Plan, Request};
use stalltop_model::printable;

use crate::chrome;
use crate::msg::{Effect, Progress};
use crate::text;

/// Which change of this screen a message is about: no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct JobId(pub(crate) u64);

/// What was asked for, and how far it is.
#[derive(Debug)]
pub(crate) struct Job {
    pub id: JobId,
    pub request: Request,
    pub state: JobState,
}

#[derive(Debug)]
pub(crate) enum JobState {
    /// The host is being read.
    Planning,
    /// What would be written waits for a person's decision.
    Asking(Box<Plan>),
    /// It is being written.
    Applying {
        plan: Box<Plan>,
        progress: Option<Progress>,
    },
    /// It could not be planned, or not all of it could be done.
    Failed(Failure),
}

impl Job {
    pub(crate) fn new(id: JobId, request: Request) -> Self {
        Self {
            id,
            request,
            state: JobState::Planning,
        }
    }

    /// Takes the plan that it waits for.
    pub(crate) fn planned(&mut self, result: Result<Box<Plan>, ChangeError>) {
        if !matches!(self.state, JobState::Planning) {
            return;
        }
        self.state = match result {
            Ok(plan) => {
                // `the last one` has a number from here on.
                self.request = plan.request.clone();
                JobState::Asking(plan)
            }
            Err(error) => JobState::Failed(error.into()),
        };
    }

    /// Has its plan carried out, once that was confirmed.
    pub(crate) fn apply(&mut self) -> Option<Effect> {
        let JobState::Asking(plan) = &self.state else {
            return None;
        };
        let plan = plan.clone();
        self.state = JobState::Applying {
            plan: plan.clone(),
            progress: None,
        };
        Some(Effect::Apply { job: self.id, plan })
    }

    /// Takes news of the writes.
    pub(crate) fn progress(&mut self, news: Progress) {
        if let JobState::Applying { progress, .. } = &mut self.state {
            *progress = Some(news);
        }
    }

    /// The change in words, while it is being written.
    pub(crate) fn title(&self) -> Option<&str> {
        match &self.state {
            JobState::Applying { plan, .. } => Some(&plan.title),
            _ => None,
        }
    }

    /// What is being written, and how far that is; `None` while nothing is.
    pub(crate) fn going_on(&self) -> Option<String> {
        match &self.state {
            JobState::Applying {
                progress: Some(progress),
                ..
            } => Some(chrome::progress(progress)),
            JobState::Applying { plan, .. } => Some(format!("{} …", printable(&plan.title))),
            _ => None,
        }
    }

    /// Another request that makes sense after a failure.
    pub(crate) fn way_on(&self) -> Option<WayOn> {
        let JobState::Failed(failure) = &self.state else {
            return None;
        };
        match (&failure.error, &self.request) {
            (
                ChangeError::Moved { .. } | ChangeError::KeptMoved { .. },
                Request::Undo {
                    entry,
                    force: false,
                },
            ) => Some(WayOn::Force(Request::Undo {
                entry: *entry,
                force: true,
            })),
            _ => put_back(failure.entry.as_deref()?).map(WayOn::PutBack),
        }
    }
}

/// What can be asked for after a failure.
pub(crate) enum WayOn {
    /// The undo in spite of a value that has moved.
    Force(Request),
    /// The undo of what was written, or the rest of an undo.
    PutBack(Request),
}

/// The undo of what a change wrote before it stopped; of an undo, the rest.
pub(crate) fn put_back(entry: &Entry) -> Option<Request> {
    let id = match entry.undoes {
        Some(id) => id,
        None if entry.standing().can_undo() => entry.id,
        None => return None,
    };
    Some(Request::Undo {
        entry: Some(id),
        force: false,
    })
}

/// How many of its writes took effect.
pub(crate) fn written(entry: &Entry) -> usize {
    let all = entry.plan.writes.len();
    match entry.outcome {
        Outcome::Failed { written, .. } => all.min(written as usize),
        Outcome::Done => all,
        Outcome::Intended | Outcome::Undone { .. } => 0,
    }
}

/// How much was written of a change that failed; `None` where nothing was.
pub(crate) fn stopped(entry: &Entry) -> Option<String> {
    let all = text::plural(entry.plan.writes.len() as u64, "write");
    match (&entry.outcome, written(entry)) {
        (_, 0) => None,
        (Outcome::Done, _) => Some(format!("all of {all} done, but not journaled")),
        (_, n) => Some(format!("stopped after {n} of {all}")),
    }
}
