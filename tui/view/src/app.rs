//! The shell around the panes: which one is open, what lies over it, which moment is shown.

mod keys;
mod ticket;
mod time;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{Entry, Outcome, Request};
use stalltop_model::{Model, printable};

use crate::action::{ActionId, Context, Danger, Needs};
use crate::chrome::{Chrome, Status};
use crate::dialog::Dialog;
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
            Msg::Planned { request, result } => {
                if let Some(Dialog::Change(change)) = &mut self.dialog {
                    change.planned(&request, result);
                }
                Effects::redraw()
            }
            Msg::Applying(progress) => {
                if let Some(Dialog::Change(change)) = &mut self.dialog {
                    change.progress(progress);
                }
                Effects::redraw()
            }
            Msg::Applied(result) => {
                self.applied(result);
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
        let chrome = Chrome {
            scene,
            live: model,
            feed: &self.options.feed,
            paused: self.time.is_held(),
            open: self.open,
            work: self.work.as_ref(),
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
        self.dialog = Some(Dialog::change(request.clone()));
        Effects::one(Effect::Plan(request))
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

    fn applied(&mut self, result: Result<Box<Entry>, stalltop_model::change::ChangeError>) {
        let waiting = matches!(self.dialog, Some(Dialog::Change(_)));
        match result {
            Ok(entry) => {
                let time = text::clock(entry.wall_ns);
                let title = printable(&entry.plan.title).into_owned();
                let status = match &entry.outcome {
                    Outcome::Failed { written, why } => Status::new(
                        Role::Critical,
                        format!(
                            "{time} {title}: stopped after {}: {}",
                            text::plural(u64::from(*written), "write"),
                            printable(why)
                        ),
                    ),
                    _ => Status::new(Role::Ok, format!("{time} {title}")).about(entry.id),
                };
                let undo = entry.plan.undo != stalltop_model::change::UndoClass::Never
                    && entry.undoes.is_none();
                self.status = Some(status.with_undo(undo));
                if waiting {
                    self.dialog = entry.effect.is_some().then(|| Dialog::report(&entry));
                }
            }
            Err(error) => {
                if let Some(Dialog::Change(change)) = &mut self.dialog {
                    change.failed(error);
                } else {
                    self.status = Some(Status::new(
                        Role::Critical,
                        printable(&error.to_string()).into_owned(),
                    ));
                }
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
