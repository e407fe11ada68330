//! What lies over a pane: help, palette, texts, and changes to confirm.

mod change;
mod help;
mod palette;
mod report;
mod story;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{Entry, Request};

use crate::action::{ActionId, Context, Danger};
use crate::draw::{self, Pen};
use crate::job::Job;
use crate::key::Key;
use crate::keymap::Keymap;
use crate::msg::{Effect, Effects, MouseKind};
use crate::pane::{PANES, Scene};
use crate::text;
use crate::theme::Role;

pub(crate) use change::Change;
use palette::Palette;

/// What lies over the pane; at most one thing does.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// Keys and marks.
    Help(Scroll),
    /// Commands by name.
    Palette(Palette),
    /// A change: being planned, to be confirmed, going on, or refused.
    Change(Box<Change>),
    /// Text: the title, then its lines.
    Text(Vec<String>, Scroll),
    /// A change that was made, by its number in the journal: what came of it is told anew with
    /// everything that is measured.
    Story(u64, Scroll),
}

/// What a dialog wants after a key.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Stay open.
    Stay,
    /// Close.
    Close,
    /// Close and do this.
    Run(ActionId),
    /// Plan this in its place.
    Plan(Request),
    /// Stay open, and have the program do this.
    Effect(Effect),
}

/// The first line shown of a text that may be longer than its box.
#[derive(Debug, Default)]
pub(crate) struct Scroll {
    top: usize,
    /// Lines of the text and of the box, as drawn last.
    drawn: std::cell::Cell<(usize, usize)>,
}

impl Scroll {
    /// Scrolls if the action does that.
    pub(crate) fn act(&mut self, action: ActionId) -> bool {
        let (lines, height) = self.drawn.get();
        let last = lines.saturating_sub(height);
        let page = height.max(2) - 1;
        self.top = match action {
            ActionId::Up => self.top.saturating_sub(1),
            ActionId::Down => self.top + 1,
            ActionId::PageUp => self.top.saturating_sub(page),
            ActionId::PageDown => self.top + page,
            ActionId::Top => 0,
            ActionId::Bottom => last,
            _ => return false,
        }
        .min(last);
        true
    }

    /// The lines to draw in a box of `height`.
    pub(crate) fn view(&self, lines: usize, height: usize) -> std::ops::Range<usize> {
        self.drawn.set((lines, height));
        let top = self.top.min(lines.saturating_sub(height));
        top..(top + height).min(lines)
    }
}

impl Dialog {
    pub(crate) fn help() -> Self {
        Self::Help(Scroll::default())
    }

    pub(crate) fn palette(stack: &'static [Context]) -> Self {
        Self::Palette(Palette::new(stack))
    }

    pub(crate) fn change(job: Job) -> Self {
        Self::Change(Box::new(Change::new(job)))
    }

    pub(crate) fn text(lines: Vec<String>) -> Self {
        Self::Text(lines, Scroll::default())
    }

    pub(crate) fn story(change: u64) -> Self {
        Self::Story(change, Scroll::default())
    }

    /// What a measured change brought.
    pub(crate) fn report(entry: &Entry) -> Self {
        Self::text(report::lines(entry))
    }

    /// The contexts whose keys the footer shows.
    pub(crate) fn stack(&self) -> &'static [Context] {
        match self {
            Self::Change(change) if change.asks() => {
                &[Context::Confirm, Context::Dialog, Context::Everywhere]
            }
            _ => &[Context::Dialog, Context::Everywhere],
        }
    }

    pub(crate) fn key(&mut self, key: Key, keymap: &Keymap, below: &[Context]) -> Answer {
        // Details say which key switches what they tell of, or shows more: it works there.
        if let Self::Text(..) | Self::Story(..) = self
            && let Some(action) = keymap.find(below, key)
            && (action.action().danger == Danger::Asks
                || PANES.iter().any(|pane| pane.open == action))
        {
            return Answer::Run(action);
        }
        match self {
            Self::Palette(palette) => palette.key(key, keymap),
            Self::Change(change) => change.key(key, keymap),
            Self::Help(scroll) | Self::Text(_, scroll) | Self::Story(_, scroll) => {
                match moving(key, keymap) {
                    Some(ActionId::Close | ActionId::Quit | ActionId::Help | ActionId::Open) => {
                        return Answer::Close;
                    }
                    Some(action) => scroll.act(action),
                    None => false,
                };
                Answer::Stay
            }
        }
    }

    pub(crate) fn wheel(&mut self, kind: MouseKind) -> Effects {
        let action = match kind {
            MouseKind::WheelUp => ActionId::Up,
            MouseKind::WheelDown => ActionId::Down,
            MouseKind::Press | MouseKind::Drag => return Effects::none(),
        };
        match self {
            Self::Help(scroll) | Self::Text(_, scroll) | Self::Story(_, scroll) => {
                scroll.act(action)
            }
            Self::Change(change) => change.scroll(action),
            Self::Palette(palette) => palette.step(action),
        };
        Effects::redraw()
    }

    pub(crate) fn render(
        &self,
        scene: &Scene<'_>,
        stack: &[Context],
        area: Rect,
        buf: &mut Buffer,
    ) {
        match self {
            Self::Help(scroll) => help::render(scene, stack, scroll, area, buf),
            Self::Palette(palette) => palette.render(scene, area, buf),
            Self::Change(change) => change.render(scene, area, buf),
            Self::Text(lines, scroll) => plain(scene, area, buf, lines, scroll),
            Self::Story(change, scroll) => {
                plain(scene, area, buf, &story::of(scene.model, *change), scroll);
            }
        }
    }
}

/// A title, then its lines.
fn plain(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, lines: &[String], scroll: &Scroll) {
    let (title, lines) = lines
        .split_first()
        .map_or(("", &[][..]), |(t, l)| (t.as_str(), l));
    let lines: Vec<Line> = lines.iter().map(|l| (l.clone(), Role::Text)).collect();
    paper(scene, area, buf, (title, &lines, &[]), scroll);
}

/// The action of a key inside a dialog that takes no text: closing and moving only.
fn moving(key: Key, keymap: &Keymap) -> Option<ActionId> {
    keymap.find(&[Context::Dialog, Context::Pane, Context::Overview], key)
}

/// A line of a dialog and how it is painted.
type Line = (String, Role);

/// Where the text behind a label begins: after the first run of two blanks or more.
fn hanging(line: &str) -> Option<usize> {
    let gap = line.find("  ")?;
    let rest = line[gap..].trim_start_matches(' ');
    (!rest.is_empty()).then(|| line.len() - rest.len())
}

/// A scrolled box of wrapped lines, with some pinned to its foot; a line that begins with spaces keeps them on each row.
fn paper(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    (title, lines, foot): (&str, &[Line], &[Line]),
    scroll: &Scroll,
) {
    let all = lines.iter().chain(foot);
    let longest = all.map(|(l, _)| text::width(l)).max().unwrap_or(0);
    let most = usize::from(area.width).saturating_sub(8).max(20);
    let width = longest
        .clamp(text::width(title) + 6, most.max(text::width(title) + 6))
        .min(most);
    let mut rows: Vec<(String, Role)> = Vec::new();
    for (line, role) in lines {
        let body = line.trim_start_matches(' ');
        let indent = (line.len() - body.len()).min(width / 2);
        let hang = hanging(body).filter(|h| indent + h <= width / 3);
        // What follows a label in its own column stays in that column.
        let (label, body, hang) = match hang {
            Some(at) => (&body[..at], &body[at..], indent + text::width(&body[..at])),
            None => ("", body, indent),
        };
        for (i, part) in text::wrap(body, width - hang).into_iter().enumerate() {
            let before = if i == 0 { label } else { "" };
            let before = format!("{}{before}", " ".repeat(indent));
            rows.push((format!("{}{part}", text::left(&before, hang)), *role));
        }
    }
    let mut pinned: Vec<(String, Role)> = Vec::new();
    for (line, role) in foot {
        pinned.extend(text::wrap(line, width).into_iter().map(|l| (l, *role)));
    }
    let height = (rows.len() + pinned.len() + 2).min(usize::from(area.height));
    let inner = draw::popup(
        buf,
        scene.theme,
        area,
        ((width + 4) as u16, height as u16),
        title,
    );
    // What is to be decided is always in view, however long the rest is.
    let pinned_height = pinned.len().min(usize::from(inner.height));
    let room = usize::from(inner.height) - pinned_height;
    let view = scroll.view(rows.len(), room);
    let below = rows.len() - view.end;
    for (y, (line, role)) in (0u16..).zip(rows.iter().take(view.end).skip(view.start)) {
        Pen::new(buf, scene.theme, inner, y).put(line, *role);
    }
    for (y, (line, role)) in (room as u16..).zip(&pinned) {
        Pen::new(buf, scene.theme, inner, y).put(line, *role);
    }
    if below > 0 {
        let foot = Rect {
            y: inner.bottom().min(buf.area.bottom().saturating_sub(1)),
            height: 1,
            ..inner
        };
        Pen::new(buf, scene.theme, foot, 0).last(&format!(" ↓ {below} more "), Role::DialogBorder);
    }
}
