//! The shell around the panes: which one is open, what lies over it, which moment is shown.

mod keys;
mod ticket;
mod time;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{Entry, Failure, Request};
use stalltop_model::{Model, printable};

use crate::action::{ActionId, Context, Danger, Needs};
use crate::chrome::{self, Chrome, Status};
use crate::dialog::{Change, Dialog};
use crate::job::{self, Job, JobId, JobState};
use crate::keymap::Keymap;
use crate::msg::{Effect, Effects, Feed, Msg, Progress, Wants};
use crate::pane::{PANES, Pane, PaneId, Reply, Scene, Wish};
use crate::panes::Panes;
use crate::theme::{Role, Theme};
use crate::{glyph, text};
use time::Time;

/// How a person wants the screen.
#[derive(Clone, Debug)]
pub struct Options {
    /// The theme.
    pub theme: Theme,
    /// The keys.
    pub keymap: Keymap,
    /// Only ASCII.
    pub ascii: bool,
    /// Why nothing may be written to this host; `None` if it may.
    pub read_only: Option<String>,
    /// Where frames come from at first.
    pub feed: Feed,
}

/// The screen's state.
#[derive(Debug)]
pub struct App {
    options: Options,
    open: PaneId,
    panes: Panes,
    dialog: Option<Dialog>,
    /// How many changes were asked for.
    jobs: u64,
    /// What is being written and has no dialog any more.
    going_on: Vec<Job>,
    /// A filter is being typed.
    typing: bool,
    time: Time,
    work: Option<Progress>,
    status: Option<Status>,
    size: Rect,
    wants: Wants,
}

impl App {
    /// A screen with nothing on it yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            open: PaneId::Overview,
            panes: Panes::default(),
            dialog: None,
            jobs: 0,
            going_on: Vec::new(),
            typing: false,
            time: Time::default(),
            work: None,
            status: None,
            size: Rect::new(0, 0, 80, 24),
            wants: Wants::default(),
        }
    }

    /// Takes what happened; gives what is to be done. `model` is the live one.
    pub fn update(&mut self, msg: Msg, model: &Model) -> Effects {
        let effects = match msg {
            Msg::Advanced => self.advanced(model),
            Msg::Key(key) => self.key(key, model),
            Msg::Mouse(mouse) => self.mouse(mouse, model),
            Msg::Resize(width, height) => {
                self.size = Rect::new(0, 0, width, height);
                Effects::redraw()
            }
            Msg::Feed(feed) => {
                let differs = self.options.feed != feed;
                self.options.feed = feed;
                Effects {
                    redraw: differs,
                    ..Effects::none()
                }
            }
            Msg::Planned { job, result } => {
                if let Some(change) = self.change(job) {
                    change.job.planned(result);
                }
                Effects::redraw()
            }
            Msg::Applying { job, progress } => {
                let left = self.going_on.iter().position(|left| left.id == job);
                if let Some(job) = left.and_then(|at| self.going_on.get_mut(at)) {
                    job.progress(progress);
                } else if let Some(change) = self.change(job) {
                    change.job.progress(progress);
                }
                Effects::redraw()
            }
            Msg::Applied { job, result } => {
                self.applied(job, result);
                Effects::redraw()
            }
            Msg::Work(progress) => {
                self.work = progress;
                Effects::redraw()
            }
            Msg::SnapshotWritten(result) => {
                // One key may write several files: each is named.
                self.status = Some(match (self.status.take(), result) {
                    (before, Err(why)) => {
                        let about = format!("not written: {}", printable(&why));
                        match before {
                            Some(before) => before.and(Role::Warning, &about),
                            None => Status::new(Role::Warning, about),
                        }
                    }
                    (Some(before), Ok(path)) => before.and_file(&printable(&path)),
                    (None, Ok(path)) => {
                        Status::new(Role::Ok, format!("written to {}", printable(&path)))
                    }
                });
                Effects::redraw()
            }
            Msg::Note(note) => {
                self.status = Some(Status::new(Role::Notice, printable(&note).into_owned()));
                Effects::redraw()
            }
        };
        self.with_wants(effects, model)
    }

    /// Draws the screen. `model` is the live one.
    pub fn render(&self, model: &Model, frame: &mut Frame<'_>) {
        let area = frame.area();
        self.draw(model, area, frame.buffer_mut());
    }

    fn draw(&self, model: &Model, area: Rect, buf: &mut Buffer) {
        let scene = self.scene(model);
        buf.set_style(area, self.options.theme.style(Role::Text));
        let work = self.work.as_ref().map(chrome::progress);
        let work = work.or_else(|| self.going_on.last().and_then(Job::going_on));
        let chrome = Chrome {
            scene,
            live: model,
            feed: &self.options.feed,
            paused: self.time.is_held(),
            open: self.open,
            work: work.as_deref(),
            size: area,
        };
        let body = chrome.body();
        chrome.header(buf);
        self.panes.get(self.open).render(&scene, body, buf);
        self.footer(&chrome, &scene, buf);
        if let Some(dialog) = &self.dialog {
            dialog.render(&scene, self.stack(), body, buf);
        }
        if self.options.ascii {
            glyph::flatten(buf);
        }
    }

    fn footer(&self, chrome: &Chrome<'_>, scene: &Scene<'_>, buf: &mut Buffer) {
        if self.typing {
            let filter = self.panes.get(self.open).filtered();
            chrome.input(buf, "/", filter);
        } else if let Some(status) = &self.status {
            chrome.status(buf, status);
        } else {
            let stack = match &self.dialog {
                Some(dialog) => dialog.stack(),
                None => self.stack(),
            };
            let replay = matches!(self.options.feed, Feed::Replay { .. });
            let usable =
                |id: ActionId| scene.can(id) && (id.action().needs != Needs::Replay || replay);
            chrome.footer(buf, scene.keymap, stack, usable);
        }
    }

    fn scene<'a>(&'a self, live: &'a Model) -> Scene<'a> {
        scene(&self.options, &self.time, live)
    }

    fn stack(&self) -> &'static [Context] {
        self.panes.get(self.open).stack()
    }

    /// Runs something on the open pane with the scene that it sees.
    fn on_pane<T>(&mut self, model: &Model, run: impl FnOnce(&mut dyn Pane, &Scene<'_>) -> T) -> T {
        let scene = scene(&self.options, &self.time, model);
        run(self.panes.get_mut(self.open), &scene)
    }

    fn refresh(&mut self, model: &Model) {
        self.on_pane(model, |pane, scene| pane.refresh(scene));
    }

    fn advanced(&mut self, model: &Model) -> Effects {
        let judged = match &mut self.status {
            Some(status) => status.judge(model),
            None => false,
        };
        if self.time.is_held() {
            // Measuring goes on, the screen stands still but for what came of a change.
            return if judged {
                Effects::redraw()
            } else {
                Effects::none()
            };
        }
        self.refresh(model);
        Effects::redraw()
    }

    /// Tells the program when other sources are looked at than before.
    fn with_wants(&mut self, effects: Effects, model: &Model) -> Effects {
        // A verdict has figures of what was measured before the change, and after it.
        let judged = matches!(self.dialog, Some(Dialog::Change(_)))
            || !self.going_on.is_empty()
            || model.newest_verdict().is_some_and(|(_, v)| v.open);
        let wants = Wants {
            cpu: self.panes.get(self.open).attends(),
            tracing: self.open == PaneId::Tracing,
            cgroups: self.open == PaneId::Cgroups,
            costs: self.open == PaneId::Tracing || judged,
            locks: self.open == PaneId::Locks || judged,
        };
        if wants == self.wants {
            return effects;
        }
        self.wants = wants;
        Effects {
            redraw: effects.redraw,
            ..effects.and(Effects::one(Effect::Wants(wants)))
        }
    }

    /// Does an action, wherever it came from.
    fn act(&mut self, action: ActionId, model: &Model) -> Effects {
        if let Some(why) = self.refused(action) {
            self.status = Some(Status::new(Role::Warning, why));
            return Effects::redraw();
        }
        match self.on_pane(model, |pane, scene| pane.update(action, scene)) {
            Reply::NotMine => self.act_here(action, model),
            reply => self.take(reply, model),
        }
    }

    /// Does an action that no pane takes.
    fn act_here(&mut self, action: ActionId, model: &Model) -> Effects {
        match action {
            ActionId::Quit | ActionId::QuitNow => Effects::one(Effect::Quit),
            ActionId::Redraw => Effects::one(Effect::Redraw),
            ActionId::Pause => self.pause(model),
            ActionId::Close if self.time.span().is_some() => self.unmark(model),
            // Nothing is open any more: what Esc leaves last is the past.
            ActionId::Close if self.time.is_held() => self.pause(model),
            ActionId::Back => self.step(-1, model),
            ActionId::Forward => self.step(1, model),
            ActionId::BackMore => self.step(-10, model),
            ActionId::ForwardMore => self.step(10, model),
            ActionId::Slower => self.speed(0.5),
            ActionId::Faster => self.speed(2.0),
            ActionId::Snapshot => self.write_down(model),
            ActionId::Theme => {
                self.options.theme = self.options.theme.next();
                let about = format!("theme {}", self.options.theme.name());
                self.status = Some(Status::new(Role::Text, about));
                Effects::redraw()
            }
            ActionId::Palette => self.show(Dialog::palette(self.stack())),
            ActionId::Help => self.show(Dialog::help()),
            ActionId::Filter => {
                self.typing = self.on_pane(model, |pane, _| pane.filter().is_some());
                Effects::redraw()
            }
            ActionId::Changes => self.go(Wish::Changes, model),
            ActionId::Undo => self.plan(Request::Undo {
                entry: None,
                force: false,
            }),
            ActionId::DropCaches => self.plan(Request::DropCaches { level: None }),
            ActionId::Overview => self.switch(PaneId::Overview, model),
            ActionId::Cores => self.switch(PaneId::Cores, model),
            ActionId::Stalls => self.switch(PaneId::Stalls, model),
            ActionId::Locks => self.switch(PaneId::Locks, model),
            ActionId::Tracing => self.switch(PaneId::Tracing, model),
            ActionId::Cgroups => self.switch(PaneId::Cgroups, model),
            ActionId::NextPane => self.turn(1, model),
            ActionId::PreviousPane => self.turn(PANES.len() - 1, model),
            _ => Effects::none(),
        }
    }

    /// Why an action cannot be done now.
    fn refused(&self, action: ActionId) -> Option<String> {
        let row = action.action();
        if row.danger == Danger::Asks && self.time.seq().is_some() {
            let why = format!(
                "{}: not from the past; Esc goes back to now first",
                row.name
            );
            return Some(why);
        }
        match row.needs {
            Needs::Nothing => None,
            Needs::Writer => self
                .options
                .read_only
                .as_ref()
                .map(|why| format!("{}: not possible, {}", row.name, printable(why))),
            Needs::Replay => match self.options.feed {
                Feed::Replay { .. } => None,
                Feed::Live { .. } => Some(format!("{}: only in a replay", row.name)),
            },
        }
    }

    /// Does what a pane asked for.
    fn take(&mut self, reply: Reply, model: &Model) -> Effects {
        match reply {
            Reply::NotMine | Reply::Done => Effects::redraw(),
            Reply::Effect(effect) => Effects::one(effect),
            Reply::Wish(wish) => self.go(wish, model),
        }
    }

    fn go(&mut self, wish: Wish, model: &Model) -> Effects {
        match wish {
            Wish::Plan(request) => self.plan(request),
            Wish::Say(role, text) => {
                self.status = Some(Status::new(role, text));
                Effects::redraw()
            }
            Wish::Do(action) => self.act(action, model),
            Wish::Show(lines) => self.show(Dialog::text(lines)),
            Wish::Story(change) => self.show(Dialog::story(change)),
            Wish::Core(cpu) => {
                let effects = self.switch(PaneId::Cores, model);
                self.panes.cores.open(cpu);
                effects
            }
            Wish::Stalls(filter) => {
                self.panes.stalls.only(*filter);
                self.switch(PaneId::Stalls, model)
            }
            Wish::Mark(span) => {
                let was_held = self.time.is_held();
                self.time.mark(span, model);
                self.refresh(model);
                self.held_or_not(was_held)
            }
            Wish::Changes => {
                let effects = self.switch(PaneId::Tracing, model);
                self.panes.tracing.open_changes();
                self.refresh(model);
                effects
            }
        }
    }

    fn plan(&mut self, request: Request) -> Effects {
        self.jobs += 1;
        let job = JobId(self.jobs);
        self.dialog = Some(Dialog::change(Job::new(job, request.clone())));
        Effects::one(Effect::Plan { job, request })
    }

    fn show(&mut self, dialog: Dialog) -> Effects {
        self.dialog = Some(dialog);
        Effects::redraw()
    }

    fn switch(&mut self, pane: PaneId, model: &Model) -> Effects {
        self.open = pane;
        // The list of changes lay over the pane that was left.
        self.panes.tracing.close_changes();
        self.refresh(model);
        Effects::redraw()
    }

    fn turn(&mut self, by: usize, model: &Model) -> Effects {
        let next = PANES.get((self.open as usize + by) % PANES.len());
        match next {
            Some(pane) => self.switch(pane.id, model),
            None => Effects::none(),
        }
    }

    /// The dialog of a change, while that is open.
    fn change(&mut self, job: JobId) -> Option<&mut Change> {
        match &mut self.dialog {
            Some(Dialog::Change(change)) if change.job.id == job => Some(change),
            _ => None,
        }
    }

    /// A change ended: its dialog tells of it, or the footer where it has none.
    fn applied(&mut self, id: JobId, result: Result<Box<Entry>, Failure>) {
        let left = self.going_on.iter().position(|job| job.id == id);
        let left = left.map(|at| self.going_on.remove(at));
        match (result, self.change(id)) {
            (Ok(entry), open) => {
                if open.is_some() {
                    self.dialog = entry.effect.is_some().then(|| Dialog::report(&entry));
                }
                let title = format!(
                    "{} {}",
                    text::clock(entry.wall_ns),
                    printable(&entry.plan.title)
                );
                let undo = entry.standing().can_undo();
                let status = Status::new(Role::Ok, title).about(entry.id);
                self.status = Some(status.with_undo(undo));
            }
            (Err(failure), Some(change)) => change.job.state = JobState::Failed(failure),
            (Err(failure), None) => {
                let title = left.as_ref().and_then(Job::title).unwrap_or_default();
                let entry = failure.entry.as_deref();
                let how = entry.and_then(job::stopped);
                let how = how.unwrap_or_else(|| "not done".to_owned());
                let why = failure.error.to_string();
                let about = format!("{}: {how}: {}", printable(title), printable(&why));
                let undo = entry.and_then(job::put_back).is_some();
                self.status = Some(Status::new(Role::Critical, about).with_undo(undo));
            }
        }
    }
}

/// What panes see. Apart from [`App`], so that a pane can be changed while it sees it.
fn scene<'a>(options: &'a Options, time: &'a Time, live: &'a Model) -> Scene<'a> {
    Scene {
        model: time.shown(live),
        seq: time.seq(),
        span: time.span(),
        theme: &options.theme,
        keymap: &options.keymap,
        writer: options.read_only.is_none(),
    }
}
