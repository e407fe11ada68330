//! The screen's loop: frames, keys and signals in, effects out.
//!
//! One thread draws and decides. Frames come from the feed's thread, changes and files are made
//! on threads of their own; none of them can hold up a key.

mod feed;
mod input;
mod keys;
mod leave;
mod panics;
mod signals;
mod snapshot;
mod terminal;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use crossterm::event::Event;
use stalltop_collectors::change::Writer;
use stalltop_model::Model;
use stalltop_model::change::{ChangeError, Plan};
use stalltop_view::{App, Effect, Effects, FlameGraph, JobId, Msg};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, channel};

pub(crate) use feed::FeedOptions;
use feed::{FeedMsg, FeedRequest};
use panics::Panic;
use signals::{Signals, Told};
use terminal::Screen;
use worker::{Apply, Done, Job};

/// What the screen shows and may do.
pub(crate) struct UiOptions {
    /// The screen's state at the start.
    pub(crate) app: App,
    /// Where frames come from.
    pub(crate) feed: FeedOptions,
    /// The journal; `None` where nothing can be changed (a replay).
    pub(crate) journal: Option<PathBuf>,
}

/// Whether to go on.
#[derive(Debug)]
enum Go {
    On,
    Quit,
    Fail(anyhow::Error),
}

/// Shows the screen until the person leaves, the terminal is gone, or the feed fails. What is being
/// written by then is waited for.
///
/// # Errors
/// What the feed or the terminal reports, and that a thread failed.
pub(crate) fn run(options: UiOptions) -> anyhow::Result<()> {
    show(options.app, options.journal, || feed::start(options.feed))
}

/// Shows frames of the feed that is started once the terminal is ours.
fn show(
    app: App,
    journal: Option<PathBuf>,
    feed: impl FnOnce() -> io::Result<feed::Running>,
) -> anyhow::Result<()> {
    let runtime = crate::commands::runtime()?;
    let shown = runtime.block_on(async {
        // Before the terminal is taken: a signal must not end us while it is.
        let mut signals = Signals::catch()?;
        let panics = panics::watch();
        let mut screen = Screen::take()
            .context("stalltop needs a terminal (see stalltop --help for stream and record)")?;
        let mut sources = Sources {
            events: input::start().context("cannot start a thread")?,
            panics,
        };
        let feed = feed().context("cannot start a thread")?;
        let mut ui = Ui::new(app, feed, journal).context("cannot start a thread")?;
        let (columns, rows) = screen.size().context("cannot read the terminal's size")?;
        ui.tell(Msg::Resize(columns, rows));
        let result = ui.go(&mut screen, &mut sources, &mut signals).await;
        drop(screen);
        ui.leave(&mut signals).await;
        result
    });
    // Reads of the terminal may still be under way on the runtime's own threads.
    runtime.shutdown_background();
    shown
}

/// What the screen hears of, but for the feed and its own threads.
struct Sources {
    events: Receiver<Event>,
    panics: UnboundedReceiver<Panic>,
}

struct Ui {
    app: App,
    model: Model,
    feed: feed::Running,
    /// Leave to change the host.
    writer: Option<Writer>,
    /// Where its changes stand.
    journal: Option<PathBuf>,
    jobs: Option<std::sync::mpsc::Sender<Job>>,
    /// For the threads that are started: once all have ended, nothing more can come.
    answers: Option<Sender<Done>>,
    done: Receiver<Done>,
    redraw: bool,
    clear: bool,
    /// What is being written to the host.
    writing: BTreeMap<JobId, Box<Plan>>,
    /// Whether files for a ticket are being written.
    snapshot: bool,
    /// Numbers of the changes made from this screen.
    made: Vec<u64>,
    /// Threads that failed, without which the screen goes on.
    failed: Vec<String>,
}

impl Ui {
    fn new(app: App, feed: feed::Running, journal: Option<PathBuf>) -> io::Result<Self> {
        let (answers, done) = channel(16);
        let start = |journal| worker::start(journal, answers.clone());
        Ok(Self {
            app,
            model: Model::new(),
            feed,
            writer: None,
            jobs: journal.clone().map(start).transpose()?,
            journal,
            answers: Some(answers),
            done,
            redraw: true,
            clear: false,
            writing: BTreeMap::new(),
            snapshot: false,
            made: Vec::new(),
            failed: Vec::new(),
        })
    }

    async fn go(
        &mut self,
        screen: &mut Screen,
        sources: &mut Sources,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        loop {
            if terminal::is_gone() || (self.redraw && self.draw(screen).is_err()) {
                // The terminal is gone, as after a lost connection: leave in peace.
                return Ok(());
            }
            match self.turn(sources, signals).await {
                Go::On => {}
                Go::Quit => return Ok(()),
                Go::Fail(error) => return Err(error),
            }
        }
    }

    /// Waits for one thing, and does what follows from it.
    async fn turn(&mut self, sources: &mut Sources, signals: &mut Signals) -> Go {
        let go = tokio::select! {
            Some(panic) = sources.panics.recv() => self.panicked(panic),
            event = sources.events.recv() => match event {
                Some(event) => self.event(&event),
                None => Go::Quit,
            },
            msg = self.feed.messages.recv() => match msg {
                Some(msg) => self.feed_message(msg),
                None => Go::Fail(anyhow!("measuring ended without a reason (a bug)")),
            },
            Some(done) = self.done.recv() => self.done(done),
            told = signals.next() => match told {
                Told::End | Told::Gone => Go::Quit,
                Told::Resumed => {
                    self.clear = true;
                    self.redraw = true;
                    Go::On
                }
            },
        };
        // A thread that fails closes its channels as well: why is said rather than that.
        match (go, sources.panics.try_recv()) {
            (go, Err(_)) => go,
            (Go::On, Ok(panic)) => self.panicked(panic),
            (Go::Quit | Go::Fail(_), Ok(panic)) => Go::Fail(anyhow!(panic.what)),
        }
    }

    /// A thread failed: without it the screen would stand still, or lie.
    fn panicked(&mut self, panic: Panic) -> Go {
        if !panic.spared {
            return Go::Fail(anyhow!(panic.what));
        }
        self.failed.push(panic.what.clone());
        self.tell(Msg::Note(panic.what))
    }

    fn draw(&mut self, screen: &mut Screen) -> std::io::Result<()> {
        self.redraw = false;
        if std::mem::take(&mut self.clear) {
            screen.clear();
        }
        screen.draw(|frame| self.app.render(&self.model, frame))
    }

    fn event(&mut self, event: &Event) -> Go {
        if matches!(event, Event::Resize(..)) {
            // Smaller and back between two frames is no other size, yet cells are lost.
            self.clear = true;
            self.redraw = true;
        }
        match keys::message(event) {
            Some(msg) => self.tell(msg),
            None => Go::On,
        }
    }

    fn feed_message(&mut self, msg: FeedMsg) -> Go {
        match msg {
            FeedMsg::Frame(frame) => {
                self.take_frame(frame);
                self.tell(Msg::Advanced)
            }
            FeedMsg::History(frame) => {
                self.take_frame(frame);
                Go::On
            }
            FeedMsg::Restart => {
                let header = self.model.header().cloned();
                self.model = Model::new();
                if let Some(header) = header {
                    self.model.set_header(header);
                }
                Go::On
            }
            FeedMsg::At(feed) => self.tell(Msg::Feed(feed)),
            FeedMsg::Work(progress) => self.tell(Msg::Work(progress)),
            FeedMsg::Note(note) => self.tell(Msg::Note(note)),
            FeedMsg::Writer(writer) => {
                self.writer = Some(writer);
                Go::On
            }
            FeedMsg::Failed(error) => Go::Fail(error),
        }
    }

    fn take_frame(&mut self, mut frame: Box<stalltop_model::Frame>) {
        self.model.apply(&mut frame);
        self.feed.recycle(frame);
    }

    fn done(&mut self, done: Done) -> Go {
        match done {
            Done::Msg(msg) => self.tell(msg),
            Done::Applied { job, result } => {
                self.writing.remove(&job);
                let entry = match &result {
                    Ok(entry) => Some(entry),
                    Err(failure) => failure.entry.as_ref(),
                };
                if let Some(entry) = entry {
                    self.made.push(entry.id);
                    self.model.note_change((**entry).clone());
                }
                self.feed.ask(FeedRequest::Rescan);
                self.tell(Msg::Applied { job, result })
            }
            Done::Journal(entry) => {
                self.model.note_change(*entry);
                self.tell(Msg::Advanced)
            }
            Done::Written(files) => {
                self.snapshot = false;
                for file in files {
                    self.tell(Msg::SnapshotWritten(file));
                }
                Go::On
            }
        }
    }

    /// Tells the screen what happened and carries out what it asks for.
    fn tell(&mut self, msg: Msg) -> Go {
        let Effects { list, redraw } = self.app.update(msg, &self.model);
        self.redraw |= redraw;
        for effect in list {
            match self.carry_out(effect) {
                Go::On => {}
                end => return end,
            }
        }
        Go::On
    }

    fn carry_out(&mut self, effect: Effect) -> Go {
        match effect {
            Effect::Quit => return Go::Quit,
            Effect::Redraw => {
                self.clear = true;
                self.redraw = true;
            }
            Effect::Plan { job, request } => {
                let tracing = std::sync::Arc::clone(&self.model.now().tracing);
                self.job(Job::Plan {
                    job,
                    request,
                    tracing,
                });
            }
            Effect::Apply { job, plan } => return self.apply(job, plan),
            Effect::SetPaused(paused) => self.feed.ask(FeedRequest::SetPaused(paused)),
            Effect::Seek(seek) => self.feed.ask(FeedRequest::Seek(seek)),
            Effect::SetSpeed(speed) => self.feed.ask(FeedRequest::SetSpeed(speed)),
            Effect::Snapshot { text, flame } => return self.write_down(text, flame),
            Effect::Wants(wants) => self.feed.ask(FeedRequest::Wants(wants)),
            Effect::ReadCgroupNow(path) => self.feed.ask(FeedRequest::ReadCgroupNow(path)),
        }
        Go::On
    }

    /// A thread that failed takes none: that is told by its panic.
    fn job(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// Has a confirmed change made.
    fn apply(&mut self, job: JobId, plan: Box<Plan>) -> Go {
        let (Some(writer), Some(answers)) = (self.writer.clone(), self.answers.clone()) else {
            let why = "changes are not allowed here".into();
            let result = Err(ChangeError::ReadOnly { why }.into());
            return self.tell(Msg::Applied { job, result });
        };
        let long = worker::takes_long(&plan.request);
        self.writing.insert(job, plan.clone());
        let apply = Apply { job, plan, writer };
        if !long {
            self.job(Job::Apply(apply));
            return Go::On;
        }
        match apply.aside(answers) {
            Ok(()) => Go::On,
            Err(error) => {
                let result = Err(no_thread(&error).into());
                self.done(Done::Applied { job, result })
            }
        }
    }

    /// Has what is shown written to files. The folder may be on a server that does not answer.
    fn write_down(&mut self, text: String, flame: Option<Box<FlameGraph>>) -> Go {
        let Some(answers) = self.answers.clone().filter(|_| !self.snapshot) else {
            let why = "the files before are still being written".to_owned();
            return self.tell(Msg::SnapshotWritten(Err(why)));
        };
        self.snapshot = true;
        let write = move |done: &Sender<Done>| {
            let text = snapshot::write(&text);
            let flame = flame.map(|flame| snapshot::write_flame(&flame));
            // The screen may be gone; the files are there all the same.
            let _ = done.blocking_send(Done::Written([text].into_iter().chain(flame).collect()));
        };
        match worker::aside("stalltop-files", answers, write) {
            Ok(()) => Go::On,
            Err(error) => self.done(Done::Written(vec![Err(error.to_string())])),
        }
    }
}

fn no_thread(error: &io::Error) -> ChangeError {
    ChangeError::Refused {
        command: "a thread".into(),
        why: error.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
