//! Working out a change: reads the host, writes nothing.

mod events;
mod holders;
mod remove;
mod restart;
mod stop;
mod switches;

use std::collections::HashSet;

use stalltop_model::change::{
    ChangeError, Left, OpenMode, Plan, Request, UndoClass, UndoWrite, Write,
};
use stalltop_model::sample::Tracing;
use stalltop_model::{Name, printable};

use crate::Env;
use crate::tracing::TracingCollector;

use super::journal::Journal;
use super::selector::{self, What};
use super::target::Target;
use super::undo;

/// Works out the literal writes of a request. `tracing`, where it was collected, names
/// who holds what cannot be switched from outside.
///
/// # Errors
/// A [`ChangeError`]: the selector is not understood or matches nothing, there is nothing
/// to do, or a source is missing.
pub fn plan(
    env: &Env,
    request: &Request,
    journal: &Journal,
    tracing: Option<&Tracing>,
) -> Result<Plan, ChangeError> {
    let context = Context {
        env,
        request,
        journal,
        tracing,
    };
    match request {
        Request::Off { selector } => switch(&context, selector, Direction::Off),
        Request::On { selector, force } => {
            switch(&context, selector, Direction::On { force: *force })
        }
        Request::Remove { selector } => remove::plan(&context, selector),
        Request::DropCaches { level } => super::drop_caches::plan(env, request, journal, *level),
        Request::Stop { pid, signal } => stop::plan(&context, *pid, *signal),
        Request::Undo { entry, force } => undo::plan(env, journal, *entry, *force),
    }
}

/// Works out a request on this host. Who holds what is looked up in `known`, an older look at it,
/// or looked at anew where there is none; and always where a process is to be stopped, whose
/// number may be another's by now.
///
/// # Errors
/// As [`plan`].
pub fn plan_now(
    env: &Env,
    request: &Request,
    journal: &Journal,
    known: Option<&Tracing>,
) -> Result<Plan, ChangeError> {
    let anew = match request {
        Request::Stop { .. } => true,
        Request::Off { .. } | Request::Remove { .. } => known.is_none(),
        Request::On { .. } | Request::DropCaches { .. } | Request::Undo { .. } => false,
    };
    let now = anew.then(|| TracingCollector::new(env).scan_all());
    plan(env, request, journal, now.as_deref().or(known))
}

/// What a plan is made from.
struct Context<'a> {
    env: &'a Env,
    request: &'a Request,
    journal: &'a Journal,
    tracing: Option<&'a Tracing>,
}

/// Which way things are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Off,
    On { force: bool },
}

impl Direction {
    fn verb(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On { .. } => "on",
        }
    }
}

/// A plan in the making.
struct Draft {
    direction: Direction,
    writes: Vec<Write>,
    /// Paths of `writes`, so that two selectors do not write one file twice.
    seen: HashSet<String>,
    notes: Vec<Name>,
    left: Vec<Left>,
    /// What is switched, for the title.
    titles: Vec<String>,
    partial: bool,
    /// Entries of the journal that this puts back, or some of it.
    undoes: Vec<u64>,
}

impl Draft {
    fn new(direction: Direction) -> Self {
        Self {
            direction,
            writes: Vec::new(),
            seen: HashSet::new(),
            notes: Vec::new(),
            left: Vec::new(),
            titles: Vec::new(),
            partial: false,
            undoes: Vec::new(),
        }
    }

    fn note(&mut self, text: impl Into<Name>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn leave(&mut self, what: impl Into<Name>, why: impl Into<Name>) {
        let left = Left {
            what: what.into(),
            why: why.into(),
        };
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    /// One file that holds a value, from `before` to `after` by writing `value`; undone by
    /// writing `undo`.
    fn switch(&mut self, path: &str, before: &str, after: &str, value: &str, undo: &str) {
        self.writes.push(Write {
            path: path.into(),
            mode: OpenMode::Truncate,
            value: value.into(),
            item: None,
            before: Some(before.into()),
            after: Some(after.into()),
            kept: Vec::new(),
            undo: vec![UndoWrite {
                path: path.into(),
                mode: OpenMode::Truncate,
                value: undo.into(),
            }],
        });
    }

    /// Takes the undo from the write added last where that itself puts back what an entry of the
    /// journal changed: it is an undo then, and undoing that in turn would change the host once
    /// more behind the back of who takes back what he did.
    ///
    /// Only what is switched on counts so, and unmounting what stalltop mounted. Who switches
    /// something off in an incident must find it in the journal, whatever was there before.
    fn count_as_undo(&mut self, context: &Context<'_>, target: Target) {
        let counts = self.direction != Direction::Off || target == Target::MountPoint;
        let Some(write) = self.writes.last_mut().filter(|_| counts) else {
            return;
        };
        let after = write.after.as_deref().unwrap_or_default();
        if let Some(id) = context.journal.reversed_by(target, &write.path, after) {
            write.undo.clear();
            if !self.undoes.contains(&id) {
                self.undoes.push(id);
            }
        }
    }

    /// Says which entries are put back, whole or in part.
    fn say_what_is_undone(&mut self, context: &Context<'_>) {
        for id in std::mem::take(&mut self.undoes) {
            let Some(entry) = context.journal.entry(id) else {
                continue;
            };
            let mut changed = entry.plan.writes.iter().filter(|w| !w.undo.is_empty());
            let whole = changed.all(|w| self.writes.iter().any(|own| own.path == w.path));
            let part = if whole { "" } else { "a part of " };
            self.note(format!(
                "undoes {part}change {id} ({})",
                printable(&entry.plan.title)
            ));
        }
    }

    fn finish(mut self, context: &Context<'_>, title: String) -> Result<Plan, ChangeError> {
        if self.writes.is_empty() {
            return Err(ChangeError::NothingToDo {
                why: nothing(&self.left).into(),
            });
        }
        self.say_what_is_undone(context);
        let back = self.writes.iter().filter(|w| w.undo.is_empty()).count();
        if back > 0 && back < self.writes.len() {
            self.note("its own undo concerns only the rest of what it switches");
        }
        Ok(Plan {
            request: context.request.clone(),
            title: title.into(),
            undo: match self.partial {
                _ if back == self.writes.len() => UndoClass::Never,
                true => UndoClass::Partial,
                false => UndoClass::Exact,
            },
            writes: self.writes,
            notes: self.notes,
            left: self.left,
            confirm_word: None,
        })
    }
}

/// Why nothing is to be done, from what a plan leaves as it is.
fn nothing(left: &[Left]) -> String {
    const SHOWN: usize = 3;
    let mut parts: Vec<String> = left
        .iter()
        .take(SHOWN)
        .map(|l| format!("{}: {}", l.what, l.why))
        .collect();
    if left.len() > SHOWN {
        parts.push(format!("{} more", left.len() - SHOWN));
    }
    if parts.is_empty() {
        parts.push("nothing of it is on".to_owned());
    }
    parts.join("; ")
}

fn switch(context: &Context<'_>, text: &str, direction: Direction) -> Result<Plan, ChangeError> {
    let mut draft = Draft::new(direction);
    for selector in &selector::parse(text)? {
        match selector.what {
            What::Either(_) | What::Event(..) | What::SetEvent => {
                events::add(context, &mut draft, selector)?;
            }
            What::TracingOn | What::CurrentTracer => {
                switches::instance_file(context, &mut draft, selector)?;
            }
            What::KprobesEnabled => switches::kprobes(context, &mut draft)?,
            What::Mount(fs) => switches::mount(context, &mut draft, fs)?,
        }
    }
    let title = format!("switch {} {}", direction.verb(), draft.titles.join(", "));
    draft.finish(context, title)
}
