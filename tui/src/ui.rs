//! The screen's loop: frames, keys and signals in, effects out.
//!
//! One thread draws and decides. Frames come from the feed's thread, changes are made on
//! the worker's thread; neither can hold up a key.

mod feed;
mod input;
mod keys;
mod snapshot;
mod terminal;
mod worker;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use crossterm::event::Event;
use stalltop_model::Model;
use stalltop_model::change::{Entry, Outcome};
use stalltop_view::{App, Effect, Effects, Msg};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use feed::FeedOptions;
use feed::{FeedMsg, FeedRequest};
use terminal::Screen;
use worker::{Done, Job};

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
enum Go {
    On,
    Quit,
}

/// Shows the screen until the person leaves, the terminal is gone, or the feed fails.
///
/// # Errors
/// What the feed or the terminal reports.
pub(crate) fn run(options: UiOptions) -> anyhow::Result<()> {
    let runtime = crate::commands::runtime()?;
    let mut screen = Screen::take()
        .context("stalltop needs a terminal (see stalltop --help for stream and record)")?;
    let result = runtime.block_on(async {
        let mut ui = Ui::start(options, &screen)?;
        let result = ui.go(&mut screen).await;
        result.map(|()| ui.in_effect())
    });
    drop(screen);
    // Reads of the terminal may still be under way on the runtime's own threads.
    runtime.shutdown_background();
    let mut out = std::io::stdout().lock();
    for line in result? {
        // After a lost connection nobody reads it; the journal has it all the same.
        let _ = writeln!(out, "{}", stalltop_model::printable(&line));
    }
    Ok(())
}

struct Ui {
    app: App,
    model: Model,
    feed: feed::Running,
    jobs: Option<std::sync::mpsc::Sender<Job>>,
    done: tokio::sync::mpsc::Receiver<Done>,
    redraw: bool,
    clear: bool,
    /// Numbers of the changes made from this screen.
    made: Vec<u64>,
    failure: Option<anyhow::Error>,
}

impl Ui {
    fn start(options: UiOptions, screen: &Screen) -> anyhow::Result<Self> {
        let (answers, done) = tokio::sync::mpsc::channel(16);
        let jobs = options
            .journal
            .map(|journal| worker::start(journal, answers))
            .transpose()
            .context("cannot start a thread")?;
        let mut ui = Self {
            app: options.app,
            model: Model::new(),
            feed: feed::start(options.feed).context("cannot start a thread")?,
            jobs,
            done,
            redraw: true,
            clear: false,
            made: Vec::new(),
            failure: None,
        };
        let (columns, rows) = screen.size().context("cannot read the terminal's size")?;
        ui.tell(Msg::Resize(columns, rows));
        Ok(ui)
    }

    async fn go(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        let mut events = input::start().context("cannot start a thread")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let mut resume =
            signal(SignalKind::from_raw(libc_sigcont())).context("cannot wait for SIGCONT")?;
        loop {
            if terminal::is_gone() || (self.redraw && self.draw(screen).is_err()) {
                // The terminal is gone, as after a lost connection: leave in peace.
                return Ok(());
            }
            let go = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(&event),
                    None => Go::Quit,
                },
                Some(msg) = self.feed.messages.recv() => self.feed_message(msg),
                Some(done) = self.done.recv(), if self.jobs.is_some() => self.worker_message(done),
                _ = interrupt.recv() => Go::Quit,
                _ = terminate.recv() => Go::Quit,
                _ = hangup.recv() => Go::Quit,
                _ = resume.recv() => {
                    self.clear = true;
                    self.redraw = true;
                    Go::On
                }
            };
            if matches!(go, Go::Quit) {
                return self.failure.take().map_or(Ok(()), Err);
            }
        }
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
                self.job(Job::Allow(writer));
                Go::On
            }
            FeedMsg::Failed(error) => {
                self.failure = Some(error);
                Go::Quit
            }
        }
    }

    fn take_frame(&mut self, mut frame: Box<stalltop_model::Frame>) {
        self.model.apply(&mut frame);
        self.feed.recycle(frame);
    }

    fn worker_message(&mut self, done: Done) -> Go {
        match done {
            Done::Msg(msg) => {
                if let Msg::Applied(Ok(entry)) = &msg {
                    self.made.push(entry.id);
                    self.model.note_change((**entry).clone());
                }
                self.tell(msg)
            }
            Done::Journal(entry) => {
                self.model.note_change(*entry);
                self.tell(Msg::Advanced)
            }
            Done::Changed => {
                self.feed.ask(FeedRequest::Rescan);
                Go::On
            }
        }
    }

    /// Tells the screen what happened and carries out what it asks for.
    fn tell(&mut self, msg: Msg) -> Go {
        let Effects { list, redraw } = self.app.update(msg, &self.model);
        self.redraw |= redraw;
        for effect in list {
            if let Go::Quit = self.carry_out(effect) {
                return Go::Quit;
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
            Effect::Plan(request) => {
                let tracing = std::sync::Arc::clone(&self.model.now().tracing);
                self.job(Job::Plan(request, tracing));
            }
            Effect::Apply(plan) => self.job(Job::Apply(plan)),
            Effect::SetPaused(paused) => self.feed.ask(FeedRequest::SetPaused(paused)),
            Effect::Seek(seek) => self.feed.ask(FeedRequest::Seek(seek)),
            Effect::SetSpeed(speed) => self.feed.ask(FeedRequest::SetSpeed(speed)),
            Effect::Snapshot(text) => {
                return self.tell(Msg::SnapshotWritten(snapshot::write(&text)));
            }
            Effect::FlameGraph(flame) => {
                return self.tell(Msg::SnapshotWritten(snapshot::write_flame(&flame)));
            }
            Effect::Wants(wants) => self.feed.ask(FeedRequest::Wants(wants)),
            Effect::ReadCgroupNow(path) => self.feed.ask(FeedRequest::ReadCgroupNow(path)),
        }
        Go::On
    }

    fn job(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            self.jobs = None;
        }
    }

    /// What this screen changed and left so, for the person who leaves.
    fn in_effect(&self) -> Vec<String> {
        let left = |entry: &&Entry| {
            self.made.contains(&entry.id)
                && entry.undoes.is_none()
                && matches!(entry.outcome, Outcome::Done | Outcome::Failed { .. })
                && entry.plan.undo != stalltop_model::change::UndoClass::Never
        };
        let entries = self.model.changes().iter().filter(left);
        entries
            .map(|e| format!("still in effect: {} (stalltop undo {})", e.plan.title, e.id))
            .collect()
    }
}

/// Sent by the shell's `fg`: the terminal holds something else now.
fn libc_sigcont() -> i32 {
    rustix::process::Signal::CONT.as_raw()
}
