//! Pane 2: softirqs and ksoftirqd, CPU by CPU.

mod detail;
mod heat;
pub(crate) mod marks;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod vectors;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::stalls::Filter;
use stalltop_model::sample::CoresSource;

use crate::action::{ActionId, Context};
use crate::draw;
use crate::list::List;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene};
use crate::text;
use crate::theme::Role;
use detail::Detail;
use marks::Marks;
use rows::{Order, Row, RowKey, Wish};

/// The role of a delay: when it hurts.
pub(crate) fn delay_role(ns: u64) -> Role {
    match ns {
        0..1_000_000 => Role::Text,
        1_000_000..5_000_000 => Role::Notice,
        5_000_000..50_000_000 => Role::Warning,
        _ => Role::Critical,
    }
}

/// The glyph that goes with [`delay_role`].
pub(crate) fn delay_mark(ns: u64) -> &'static str {
    match ns {
        0..5_000_000 => " ",
        5_000_000..50_000_000 => "▲",
        _ => "✖",
    }
}

/// Lists the stalls of one CPU.
fn stalls_of(cpu: u32) -> Reply {
    let filter = Filter {
        cpu: Some(cpu),
        ..Filter::default()
    };
    Reply::Wish(crate::pane::Wish::Stalls(Box::new(filter)))
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Cores {
    wish: Wish,
    list: List<RowKey>,
    rows: Vec<Row>,
    marks: Marks,
    detail: Option<Detail>,
}

impl Cores {
    /// Opens the details of a CPU.
    pub(crate) fn open(&mut self, cpu: u32) {
        self.list.select_key(&RowKey::Cpu(cpu));
        self.detail = Some(Detail::new(cpu));
    }

    fn step_order(&mut self) {
        let at = Order::ALL.iter().position(|o| *o == self.wish.order);
        let next = at.map_or(0, |at| (at + 1) % Order::ALL.len());
        self.wish.order = Order::ALL[next];
        self.list.release();
    }

    fn fold(&mut self, key: RowKey, open: bool) {
        self.wish.unfolded.retain(|k| *k != key);
        if open {
            self.wish.unfolded.push(key);
        }
    }

    fn selected(&self) -> Option<&Row> {
        self.rows.get(self.list.cursor())
    }

    /// Enter: details of a CPU, or unfold a group.
    fn enter(&mut self) {
        match self.list.selected().copied() {
            Some(RowKey::Cpu(cpu)) => self.detail = Some(Detail::new(cpu)),
            Some(key @ RowKey::Group(..)) => {
                let open = !self.wish.unfolded.contains(&key);
                self.fold(key, open);
            }
            Some(RowKey::All) | None => {}
        }
    }

    /// The group that holds the selected CPU.
    fn parent(&self) -> Option<RowKey> {
        let before = self.rows.get(..self.list.cursor())?;
        let row = self.selected()?;
        row.inside
            .then(|| before.iter().rev().find(|r| !r.inside).map(|r| r.key))?
    }

    fn fold_all(&mut self) {
        if self.wish.unfolded.is_empty() {
            let groups = self.rows.iter().map(|r| r.key);
            self.wish.unfolded = groups.filter(|k| matches!(k, RowKey::Group(..))).collect();
        } else {
            self.wish.unfolded.clear();
        }
    }

    /// What stands beside the title: order, grouping, filter, scale.
    fn heading(&self, scene: &Scene<'_>) -> String {
        let mut out = timeline::heading(self.wish.order.title(), scene);
        if self.wish.reverse {
            out.push_str(", reversed");
        }
        let level = rows::level_in_use(&scene.model.cores, self.wish.level);
        if level != rows::Level::Cpu && self.wish.filter.is_empty() {
            out = format!("{out} · calm ones {}", level.title());
        }
        if !self.wish.filter.is_empty() {
            out = format!(
                "{out} · filter {:?}: {} of {}",
                text::name(&self.wish.filter, 30),
                self.rows.len(),
                scene.model.cores.numbers().len()
            );
        }
        out
    }
}

impl Pane for Cores {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.list.tick();
        let window = timeline::window(scene);
        // The timelines reach back further than what is marked.
        let drawn = scene.model.cores.ticks().start..window.end;
        self.marks = Marks::of(scene, &drawn);
        self.rows = rows::build(scene, &self.wish, &window, &self.marks, &self.list);
        self.list.set(self.rows.iter().map(|r| r.key).collect());
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if let Some(detail) = &mut self.detail {
            if detail.in_heat() {
                return detail.heat_act(action, scene);
            }
            match action {
                ActionId::HeatMap => detail.open_heat(),
                ActionId::CoreStalls => return stalls_of(detail.cpu()),
                ActionId::Close | ActionId::Fold | ActionId::Quit => self.detail = None,
                ActionId::NextVector | ActionId::Down => detail.step(true, scene),
                ActionId::Up => detail.step(false, scene),
                _ => return Reply::NotMine,
            }
            return Reply::Done;
        }
        match action {
            ActionId::Open => self.enter(),
            ActionId::Unfold => match self.list.selected().copied() {
                Some(key @ RowKey::Group(..)) => self.fold(key, true),
                _ => self.enter(),
            },
            ActionId::Fold => match self.list.selected().copied() {
                Some(key @ RowKey::Group(..)) => self.fold(key, false),
                _ => {
                    if let Some(key) = self.parent() {
                        self.list.select_key(&key);
                    }
                }
            },
            ActionId::FoldAll => self.fold_all(),
            ActionId::Group => self.wish.level = self.wish.level.next(),
            ActionId::Sort => self.step_order(),
            ActionId::Reverse => {
                self.wish.reverse = !self.wish.reverse;
                self.list.release();
            }
            ActionId::NextMatch => {
                self.list.seek(true, |_| true);
            }
            ActionId::PreviousMatch => {
                self.list.seek(false, |_| true);
            }
            ActionId::Close if !self.wish.filter.is_empty() => self.wish.filter.clear(),
            action => {
                return if self.list.act(action) {
                    Reply::Done
                } else {
                    Reply::NotMine
                };
            }
        }
        self.refresh(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        let before = self.list.cursor();
        match mouse.kind {
            MouseKind::Press | MouseKind::Drag if self.detail.is_some() => {
                if let Some(detail) = &mut self.detail {
                    detail.mouse(mouse);
                }
                Reply::Done
            }
            MouseKind::WheelUp => self.update(ActionId::Up, scene),
            MouseKind::WheelDown => self.update(ActionId::Down, scene),
            MouseKind::Press if self.list.click(mouse.column, mouse.row) => {
                if before == self.list.cursor() {
                    self.enter();
                    self.refresh(scene);
                }
                Reply::Done
            }
            MouseKind::Press | MouseKind::Drag => Reply::Done,
        }
    }

    fn stack(&self) -> &'static [Context] {
        match &self.detail {
            Some(detail) if detail.in_heat() => {
                &[Context::Heat, Context::Pane, Context::Everywhere]
            }
            Some(_) => &[Context::CoreDetail, Context::Pane, Context::Everywhere],
            None => PaneId::Cores.info().stack,
        }
    }

    fn attends(&self) -> Option<u32> {
        self.detail.as_ref().map(Detail::cpu)
    }

    fn filter(&mut self) -> Option<&mut String> {
        self.detail.is_none().then_some(&mut self.wish.filter)
    }

    fn filtered(&self) -> &str {
        &self.wish.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        if let Some(detail) = &self.detail {
            detail.render(scene, area, buf, &self.marks);
            return;
        }
        let theme = scene.theme;
        let mut area = area;
        if let Some(reason) = scene.sample().cores.bpf.reason()
            && scene.started()
            && scene.sample().cores.source == CoresSource::Proc
            && area.height > 8
        {
            let used = draw::missing(
                buf,
                theme,
                area,
                0,
                (
                    "no delays, no handler times",
                    reason,
                    "counts, shares and ksoftirqd from /proc/softirqs, /proc/stat, schedstat",
                ),
            );
            area = Rect::new(area.x, area.y + used, area.width, area.height - used);
        }
        let Some(seq) = scene.tick() else {
            draw::section(buf, theme, area, 0, ("CORES", "", ""));
            let say = if scene.started() {
                "one sample so far: rates begin with the next tick"
            } else {
                "waiting for the first sample"
            };
            draw::Pen::new(buf, theme, area, 2)
                .gap(3)
                .put(say, Role::Dim);
            return;
        };
        let panel = vectors::height(area, self.rows.len());
        let main = Rect::new(area.x, area.y, area.width, area.height - panel);
        table::render(
            scene,
            main,
            buf,
            &table::Table {
                title: "CORES",
                detail: &self.heading(scene),
                rows: &self.rows,
                view: self.list.view(table::body(main)),
                cursor: Some(self.list.cursor()),
                seq,
                marks: &self.marks,
            },
        );
        if panel > 0 {
            let below = Rect::new(area.x, main.bottom(), area.width, panel);
            vectors::render(scene, below, buf, self.selected(), seq);
        }
    }
}
