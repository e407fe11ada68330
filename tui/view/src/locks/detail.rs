//! One lock, stack or waiter in full: exact figures and what is an estimate, who held it, and
//! the stacks that waited, merged.

use std::cell::RefCell;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::locks::Over;

use crate::action::{ActionId, Context};
use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::flame::Flame;
use super::icicle::{self, Drawn, Place};
use super::rows::{self, Key, Of, Row};
use super::watch::Part;
use super::{figures, names, watch, when};

/// Lines of the tree in a ticket.
const TICKET: usize = 400;
/// Rows that stay for the stacks when what is hidden is told above them.
const FLAME: usize = 8;
/// Cells of the labels at the left.
const LABEL: usize = 9;

/// What is open.
#[derive(Debug)]
pub(super) struct Detail {
    key: Key,
    of: Of,
    title: String,
    flame: Flame,
    head: Vec<(&'static str, Vec<Part>)>,
    /// What this host hides, and why.
    hidden: Vec<String>,
    place: Place,
    /// As an indented tree, by wish.
    tree: bool,
    /// For how much of the time waits were watched, ns.
    measured_ns: u64,
    drawn: RefCell<Drawn>,
    /// Whether the tree was drawn last: arrows then go from line to line.
    lines: std::cell::Cell<bool>,
}

impl Detail {
    pub(super) fn new(row: &Row, of: Of) -> Self {
        let kind = match row.kind {
            "" => String::new(),
            kind => format!("{kind} "),
        };
        Self {
            key: row.key.clone(),
            of,
            title: format!("{kind}{}", row.name),
            flame: Flame::default(),
            head: Vec::new(),
            hidden: Vec::new(),
            place: Place::default(),
            tree: false,
            measured_ns: 0,
            drawn: RefCell::default(),
            lines: std::cell::Cell::default(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The model went on: the same functions stay selected and at the top.
    pub(super) fn refresh(&mut self, scene: &Scene<'_>, over: &Over<'_>) {
        let at = self.flame.path(self.place.at);
        let zoom = self.flame.path(self.place.zoom);
        self.flame = match self.of {
            Of::Waits => {
                let stacks = over.stacks.iter().filter(|s| self.key.has(s));
                Flame::of(stacks.map(|s| (&s.stack.frames[..], s.waits)))
            }
            Of::Samples => {
                let stacks = over.share.value().into_iter().flat_map(|s| &s.stacks);
                let stacks = stacks.filter(|s| self.key.has_samples(s));
                Flame::of(stacks.map(|s| (&s.stack.frames[..], rows::as_waits(s.samples))))
            }
        };
        self.place = Place {
            at: self.flame.find(&at),
            zoom: self.flame.find(&zoom),
        };
        self.measured_ns = over.measured_ns;
        self.head = match self.of {
            Of::Waits => figures::waits(scene, &self.key, over),
            Of::Samples => figures::samples(scene, &self.key, over),
        };
        self.head
            .push(("time", vec![(when(scene, over), Role::Dim)]));
        self.hidden = watch::hidden(scene);
    }

    /// Shows everything again; whether it did not.
    pub(super) fn zoom_out(&mut self) -> bool {
        let zoomed = self.place.zoom != 0;
        self.place.zoom = 0;
        zoomed
    }

    /// Does what moves in the tree.
    pub(super) fn act(&mut self, action: ActionId) -> bool {
        let flame = &self.flame;
        let Place { zoom, at } = self.place;
        let first = |at: usize| flame.node(at).children.first().copied().unwrap_or(at);
        let line = |by: isize| {
            let lines = flame.lines(zoom);
            let cursor = lines.iter().position(|l| *l == at).unwrap_or(0);
            let to = cursor.saturating_add_signed(by).min(lines.len() - 1);
            lines[to]
        };
        let times = |n: usize, step: &dyn Fn(usize) -> usize| (0..n).fold(at, |at, _| step(at));
        let caller = |at: usize| flame.node(at).parent;
        let lines = self.lines.get();
        let page = self.drawn.borrow().len().max(2) - 1;
        self.place.at = match (action, lines) {
            (ActionId::Up, true) => line(-1),
            (ActionId::Down, true) => line(1),
            (ActionId::PageUp, true) => line(-(page as isize)),
            (ActionId::PageDown, true) => line(page as isize),
            (ActionId::Fold, true) | (ActionId::Up, false) => caller(at),
            (ActionId::Unfold, true) | (ActionId::Down, false) => first(at),
            (ActionId::Fold, false) => flame.sibling(at, false),
            (ActionId::Unfold, false) => flame.sibling(at, true),
            (ActionId::PageUp, false) => times(8, &caller),
            (ActionId::PageDown, false) => times(8, &first),
            (ActionId::Top, _) => zoom,
            (ActionId::Bottom, true) => line(isize::MAX),
            (ActionId::Bottom, false) => flame.deepest(at),
            (ActionId::Zoom, _) => {
                self.place.zoom = at;
                at
            }
            (ActionId::FlameTree, _) => {
                self.tree = !self.tree;
                at
            }
            _ => return false,
        };
        // Past the top of what is shown: show the caller's surroundings too.
        if !self.flame.is_below(self.place.at, self.place.zoom) {
            self.place.zoom = self.place.at;
        }
        true
    }

    /// The mouse: selects, and on what is selected zooms.
    pub(super) fn click(&mut self, column: u16, row: u16) {
        let hit = self
            .drawn
            .borrow()
            .iter()
            .find(|(area, _)| area.contains((column, row).into()))
            .map(|(_, at)| *at);
        match hit {
            Some(at) if at == self.place.at => self.place.zoom = at,
            Some(at) => self.place.at = at,
            None => {}
        }
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let title = text::cut(&self.title, usize::from(area.width));
        let end = match self.place.zoom {
            0 => "Esc closes",
            _ => "Esc shows all",
        };
        draw::section(buf, scene.theme, area, 0, ("WHO WAITS", &title, end));
        self.drawn.borrow_mut().clear();
        // The stacks need most of the room.
        let room = usize::from(area.height.saturating_sub(2));
        let head = match room {
            0..4 => 0,
            room => self.head.len().min(room / 2),
        };
        let mut y = 1;
        for (label, parts) in self.head.iter().take(head) {
            put(scene, area, buf, y, label, parts);
            y += 1;
        }
        // Whole, or not at all.
        let wide = usize::from(area.width).saturating_sub(LABEL + 2);
        for line in &self.hidden {
            let rows = text::wrap(line, wide);
            if usize::from(y) + rows.len() + FLAME > usize::from(area.height) {
                break;
            }
            for (at, row) in rows.into_iter().enumerate() {
                let label = if at == 0 { "hidden" } else { "" };
                put(scene, area, buf, y, label, &[(row, Role::Dim)]);
                y += 1;
            }
        }
        if self.flame.is_empty() {
            Pen::new(buf, scene.theme, area, y + 1)
                .gap(3)
                .put(&self.none(), Role::Dim);
            return;
        }
        put(scene, area, buf, y, "selected", &self.selected(scene));
        y += 1;
        let rest = Rect::new(
            area.x,
            area.y + y.min(area.height),
            area.width,
            area.height.saturating_sub(y),
        );
        let as_lines = self.tree || !icicle::fits(rest);
        self.lines.set(as_lines);
        let draw = if as_lines {
            icicle::tree
        } else {
            icicle::render
        };
        *self.drawn.borrow_mut() = draw(scene, &self.flame, self.place, rest, buf);
    }

    fn none(&self) -> String {
        match self.of {
            Of::Waits => "no stack of it in the time that is shown".to_owned(),
            Of::Samples => "no sample of it in the time that is shown".to_owned(),
        }
    }

    /// The selected function in words.
    fn selected(&self, scene: &Scene<'_>) -> Vec<Part> {
        let at = self.place.at;
        let node = self.flame.node(at);
        let share = self.flame.share(at);
        let mut out = vec![(format!("{} % ", text::percent(share)), Role::Strong)];
        out.push((icicle::label(&self.flame, at), Role::Strong));
        if let Some(probe) = node.probe {
            let about = format!(" {} {}", names::PROBE, probe.as_str());
            out.push((about, Role::Critical));
        }
        out.push((" · ".to_owned(), Role::Line));
        out.push((
            self.figures(node.weight, node.count, node.longest_ns),
            Role::Text,
        ));
        if node.own > 0 && node.own < node.weight {
            let own = node.own as f64 / node.weight as f64;
            let about = format!(" · {} % of it itself", text::percent(own));
            out.push((about, Role::Dim));
        }
        match node.children.len() {
            0 => out.push((" · innermost".to_owned(), Role::Dim)),
            1 => {}
            n => out.push((format!(" · calls {n}"), Role::Dim)),
        }
        if at == 0 {
            let key = scene.key(&[Context::LockDetail], ActionId::Zoom);
            out.push((format!(" · arrows select, {key} zooms"), Role::Faint));
        }
        if at == 0 && self.flame.left_out() > 0 {
            out.push((
                " · too many stacks: the lightest left out".to_owned(),
                Role::Warning,
            ));
        }
        out
    }

    fn figures(&self, weight: u64, count: u64, longest_ns: u64) -> String {
        if self.of == Of::Samples {
            return text::plural(count, "sample");
        }
        let per = |n: u64| (self.measured_ns > 0).then(|| n as f64 / self.measured_ns as f64);
        let count = per(count).map_or(text::NONE.to_owned(), |c| text::rate(c * 1e9));
        format!(
            "{}, {count} waits/s, longest {}",
            names::wait_per_s(per(weight)),
            text::duration(longest_ns)
        )
    }

    /// Everything, for a ticket.
    pub(super) fn text(&self, scene: &Scene<'_>) -> Vec<String> {
        let mut out = vec![format!("who waits: {}", self.title)];
        for (label, parts) in &self.head {
            let text: String = parts.iter().map(|(t, _)| t.as_str()).collect();
            out.push(format!("{} {text}", text::left(label, LABEL)));
        }
        for line in &self.hidden {
            out.push(format!("{} {line}", text::left("hidden", LABEL)));
        }
        let selected: String = self.selected(scene).into_iter().map(|(t, _)| t).collect();
        out.push(format!("{} {selected}", text::left("selected", LABEL)));
        let lines = self.flame.lines(0);
        for at in lines.iter().take(TICKET) {
            let indent = icicle::indent(&self.flame, *at, 0).min(40);
            let mark = match self.flame.node(*at).probe {
                Some(_) => "* ",
                None => "",
            };
            out.push(format!(
                "{} % {}{mark}{}",
                text::right(&text::percent(self.flame.share(*at)), 6),
                " ".repeat(indent),
                icicle::label(&self.flame, *at)
            ));
        }
        if let Some(more) = lines.len().checked_sub(TICKET).filter(|n| *n > 0) {
            out.push(format!("and {more} more functions"));
        }
        out
    }
}

fn put(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16, label: &str, parts: &[Part]) {
    let mut pen = Pen::new(buf, scene.theme, area, y);
    if area.width >= 40 {
        pen.gap(1).left(label, LABEL, Role::Dim);
    }
    for (text, role) in parts {
        pen.put(text, *role);
    }
}
