//! Pane 1: is something wrong, where, and what can be done.

mod findings;
mod summary;

use std::cell::RefCell;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Name;
use stalltop_model::model::stalls::{self, Filter};

use crate::action::{ActionId, Context};
use crate::cores::marks::Marks;
use crate::cores::rows::{self, Level, Row, RowKey};
use crate::cores::table::{self, Table};
use crate::cores::{timeline, vectors};
use crate::draw::{self, Pen};
use crate::list::List;
use crate::listing::Listing;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::stalls::Culprits;
use crate::text;
use crate::theme::Role;
use findings::{blind, calm, evidence, fixes, lines, names};

/// What the cursor can stand on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    Finding(&'static str),
    Core(RowKey),
    Culprit(stalls::Key),
    Locks,
    Tracing,
    Cgroups,
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    list: List<Item>,
    /// The cores among the items; its cursor follows the one of the items.
    cores: Listing<Row>,
    marks: Marks,
    culprits: Culprits,
    /// What is to be said of lock contention, if anything.
    locks: Option<Vec<(String, Role)>>,
    /// What was drawn on which line, for the mouse.
    drawn: RefCell<Vec<(u16, Item)>>,
}

impl Overview {
    fn enter(&self, scene: &Scene<'_>) -> Reply {
        match self.list.selected() {
            Some(Item::Finding(id)) => {
                let found = scene.model.findings().iter().find(|f| f.id == *id);
                found.map_or(Reply::Done, |f| Reply::Wish(Wish::Show(evidence(scene, f))))
            }
            Some(Item::Core(RowKey::Cpu(cpu))) => Reply::Wish(Wish::Core(*cpu)),
            Some(Item::Core(_)) => Reply::Wish(Wish::Do(ActionId::Cores)),
            Some(Item::Culprit(key)) => {
                let mut filter = Filter::default();
                key.narrow(&mut filter);
                Reply::Wish(Wish::Stalls(Box::new(filter)))
            }
            Some(Item::Locks) => Reply::Wish(Wish::Do(ActionId::Locks)),
            Some(Item::Tracing) => Reply::Wish(Wish::Do(ActionId::Tracing)),
            Some(Item::Cgroups) => Reply::Wish(Wish::Do(ActionId::Cgroups)),
            None => Reply::Done,
        }
    }

    fn items(&self, scene: &Scene<'_>) -> Vec<Item> {
        let findings = scene.model.findings().iter().map(|f| Item::Finding(f.id));
        let cores = self.cores.rows().iter().map(|r| Item::Core(r.key));
        let culprits = (0..self.culprits.len())
            .filter_map(|at| Some(Item::Culprit(self.culprits.key(at)?.clone())));
        findings
            .chain(cores)
            .chain(culprits)
            .chain(self.locks.as_ref().map(|_| Item::Locks))
            .chain([Item::Tracing, Item::Cgroups])
            .collect()
    }

    /// Draws a line's cursor, and keeps for the mouse what is on it.
    fn mark(&self, scene: &Scene<'_>, line: Rect, buf: &mut Buffer, item: Item, first: bool) {
        if self.list.selected() == Some(&item) && (first || line.height > 0) {
            draw::highlight(buf, scene.theme, line, 0, Role::Cursor);
        }
        self.drawn.borrow_mut().push((line.y, item));
    }

    fn findings(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let findings = scene.model.findings();
        let blind = blind(scene);
        let mut count = match findings.len() {
            0 => String::new(),
            n => text::plural(n as u64, "finding"),
        };
        if let Some(as_of) = scene.findings_as_of().filter(|_| !findings.is_empty()) {
            count = format!("{count} {as_of}");
        }
        if !findings.is_empty() && !blind.is_empty() {
            count = format!("{count} · not judged: {}", names(&blind));
        }
        let lines = lines(scene, area.width);
        // Where there is no room for a title, the findings speak for themselves.
        let fits = usize::from(area.height) > lines.len();
        let head = u16::from(area.height >= 4 || fits);
        if head > 0 {
            draw::section(buf, theme, area, 0, ("FINDINGS", &count, ""));
        }
        if findings.is_empty() {
            if scene.started() && !blind.is_empty() {
                Pen::new(buf, theme, area, 1)
                    .gap(1)
                    .put("○ cannot judge: not measured: ", Role::Notice)
                    .put(&names(&blind), Role::Text);
                for (y, line) in (2u16..).zip(fixes(&blind, area.width)) {
                    Pen::new(buf, theme, area, y)
                        .gap(3)
                        .put(&line, Role::Strong);
                }
                return;
            }
            let mut pen = Pen::new(buf, theme, area, 1);
            match calm(scene) {
                Ok(line) => pen.gap(1).put("✔ ", Role::Ok).put(&line, Role::Text),
                Err(line) => pen.gap(3).put(&line, Role::Dim),
            };
            return;
        }
        let room = usize::from(area.height - head.min(area.height));
        // The selected finding stays in view when not all fit.
        let selected = match self.list.selected() {
            Some(Item::Finding(id)) => lines.iter().position(|l| l.id == *id).unwrap_or(0),
            _ => 0,
        };
        let end = lines[selected..]
            .iter()
            .take_while(|l| l.id == lines[selected].id);
        let top = (selected + end.count()).saturating_sub(room).min(selected);
        let hidden = lines.len().saturating_sub(top + room);
        for (y, line) in (head..).zip(lines.iter().skip(top).take(room)) {
            let mut pen = Pen::new(buf, theme, area, y);
            pen.gap(1)
                .left(line.glyph, 2, line.role)
                .left(line.incident, 3, Role::Dim);
            pen.put(&line.text, Role::Text);
            if pen.room() > text::width(&line.hint) + 1 {
                pen.last(&line.hint, Role::Dim);
            }
            let on = Rect::new(area.x, area.y + y, area.width, 1);
            self.mark(
                scene,
                on,
                buf,
                Item::Finding(line.id),
                !line.glyph.is_empty(),
            );
        }
        if hidden > 0 && room > 2 {
            let last = Rect::new(area.x, area.bottom() - 1, area.width, 1);
            Pen::new(buf, theme, last, 0).last(&format!(" ↓ {hidden} more lines "), Role::Title);
        }
    }
}

impl Pane for Overview {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.list.tick();
        self.cores.tick();
        let window = timeline::window(scene);
        let drawn = scene.model.cores.ticks().start..window.end;
        self.marks = Marks::of(scene, &drawn);
        self.culprits.refresh(scene);
        self.locks = crate::locks::brief(scene);
        let cores = rows::build(scene, Level::Auto, &window, &self.marks, &self.cores);
        self.cores.set(cores);
        let items = self.items(scene);
        self.list.set(items);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        match action {
            ActionId::Open | ActionId::Unfold => self.enter(scene),
            ActionId::ClearSetEvent => match crate::tracing::clear_events(scene) {
                Ok(request) => Reply::Wish(Wish::Plan(request)),
                Err(why) => Reply::Wish(Wish::Say(Role::Warning, why)),
            },
            ActionId::KprobesMaster => {
                Reply::Wish(Wish::Plan(crate::tracing::kprobes_master(scene)))
            }
            ActionId::Close if !self.cores.filter.is_empty() => {
                self.cores.filter.clear();
                self.refresh(scene);
                Reply::Done
            }
            action if self.list.act(action) => {
                // The cores keep their order while the cursor is among them.
                if let Some(Item::Core(key)) = self.list.selected() {
                    self.cores.select_key(key);
                }
                Reply::Done
            }
            ActionId::NextMatch | ActionId::PreviousMatch => {
                let on_core = |item: &Item| matches!(item, Item::Core(_));
                let hits: Vec<bool> = self.list.rows().iter().map(on_core).collect();
                self.list
                    .seek(action == ActionId::NextMatch, |row| hits[row]);
                Reply::Done
            }
            _ => Reply::NotMine,
        }
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match mouse.kind {
            MouseKind::WheelUp => self.update(ActionId::Up, scene),
            MouseKind::WheelDown => self.update(ActionId::Down, scene),
            MouseKind::Drag => Reply::Done,
            MouseKind::Press => {
                let hit = self
                    .drawn
                    .borrow()
                    .iter()
                    .find(|(y, _)| *y == mouse.row)
                    .map(|(_, item)| item.clone());
                match hit {
                    Some(item) if self.list.selected() == Some(&item) => self.enter(scene),
                    Some(item) => {
                        self.list.select_key(&item);
                        Reply::Done
                    }
                    None => Reply::Done,
                }
            }
        }
    }

    fn stack(&self) -> &'static [Context] {
        PaneId::Overview.info().stack
    }

    fn filter(&mut self) -> Option<&mut String> {
        Some(&mut self.cores.filter)
    }

    fn filtered(&self) -> &str {
        &self.cores.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        self.drawn.borrow_mut().clear();
        let wanted = match scene.model.findings().len() {
            0 => 2 + fixes(&blind(scene), area.width).len() as u16,
            _ => lines(scene, area.width).len() as u16 + 1,
        };
        // What traces and the cgroups: two lines at least, more where there is room.
        let sources = match area.height {
            0..6 => 0,
            6..16 => 2,
            16..30 => 4,
            _ => 9u16.max(summary::instances_on(scene).count().min(8) as u16 + 8),
        };
        let sources = match sources {
            0 => 0,
            n => n + u16::from(self.locks.is_some()),
        };
        // Who stalls the host matters more than what else is on.
        let culprits = match (self.culprits.len() as u16, area.height) {
            (0, _) | (_, 0..10) => 0,
            (n, 10..30) => (n + 1).min(3),
            (n, _) => (n + 1).min(9),
        };
        let sources = match culprits {
            1.. if area.height < 30 => sources.min(2 + u16::from(self.locks.is_some())),
            _ => sources,
        };
        let findings = wanted
            .min(area.height.saturating_sub(sources + culprits) / 2 + 2)
            .min(area.height);
        let rest = area.height - findings;
        let sources = sources.min(rest);
        let culprits = culprits.min(rest - sources);
        let upper = Rect {
            height: findings,
            ..area
        };
        self.findings(scene, upper, buf);
        let room = rest - sources - culprits;
        // Lines that the cores do not need.
        let spare = room.saturating_sub(self.cores.rows().len().max(1) as u16 + 2);
        let more = (self.culprits.len() as u16 + 1).saturating_sub(culprits);
        let grown = match culprits {
            0 => 0,
            _ => more.min(spare).min(6),
        };
        let (culprits, room) = (culprits + grown, room - grown);
        let middle = Rect {
            y: area.y + findings,
            height: room.min(self.cores.rows().len().max(1) as u16 + 2),
            ..area
        };
        match scene.tick() {
            Some(seq) => self.cores_table(scene, middle, buf, seq),
            None => {
                draw::section(buf, scene.theme, middle, 0, ("CORES", "", ""));
            }
        }
        let held_by = Rect {
            y: middle.bottom(),
            height: culprits,
            ..area
        };
        self.culprits(scene, held_by, buf);
        let lower = Rect {
            y: held_by.bottom(),
            height: area.bottom() - held_by.bottom(),
            ..area
        };
        // The numbers per vector where the screen is tall enough, at the bottom for good.
        let panel = if lower.height > sources + vectors::FULL {
            vectors::FULL
        } else {
            0
        };
        let lower = Rect {
            height: lower.height - panel,
            ..lower
        };
        if let (1.., Some(seq)) = (panel, scene.tick()) {
            let below = Rect::new(area.x, lower.bottom(), area.width, panel);
            vectors::render(scene, below, buf, self.cores.rows().first(), seq);
        }
        let lines = summary::render(scene, lower, buf, self.locks.as_deref());
        for (y, item) in lines {
            let on = Rect::new(area.x, lower.y + y, area.width, 1);
            self.mark(scene, on, buf, item, true);
        }
    }
}

impl Overview {
    fn culprits(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        if area.height == 0 {
            return;
        }
        self.culprits.render(scene, area, buf);
        for (y, at) in (1..area.height).zip(0..self.culprits.len()) {
            if let Some(key) = self.culprits.key(at) {
                let on = Rect::new(area.x, area.y + y, area.width, 1);
                self.mark(scene, on, buf, Item::Culprit(key.clone()), true);
            }
        }
    }

    fn cores_table(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, seq: u64) {
        let cursor = match self.list.selected() {
            Some(Item::Core(key)) => self.cores.rows().iter().position(|r| r.key == *key),
            _ => None,
        };
        let body = table::body(area);
        let height = usize::from(body.height);
        let top = cursor.map_or(0, |at| (at + 1).saturating_sub(height));
        let view = top..(top + height).min(self.cores.rows().len());
        let hidden = self.cores.rows().len() - view.len();
        let mut detail: Name = timeline::heading("worst first", scene).into();
        if hidden > 0 {
            let more = format!("{detail}, {hidden} calmer rows below");
            detail = more.into();
        }
        if let Some(filter) = self.cores.filter_title() {
            detail = filter.into();
        }
        for (y, row) in (0u16..).zip(&self.cores.rows()[view.clone()]) {
            self.drawn
                .borrow_mut()
                .push((body.y + y, Item::Core(row.key)));
        }
        table::render(
            scene,
            area,
            buf,
            &Table {
                title: "CORES",
                detail: &detail,
                rows: self.cores.rows(),
                view,
                cursor,
                seq,
                marks: &self.marks,
            },
        );
    }
}
