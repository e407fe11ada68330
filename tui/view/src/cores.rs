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
use crate::listing::{ListPane, Listing};
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::theme::Role;
use detail::Detail;
use marks::Marks;
use rows::{Level, Row, RowKey};

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
    Reply::Wish(Wish::Stalls(Box::new(filter)))
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Cores {
    list: Listing<Row>,
    level: Level,
    marks: Marks,
    detail: Option<Detail>,
}

impl Cores {
    /// Opens the details of a CPU.
    pub(crate) fn open(&mut self, cpu: u32) {
        self.list.select_key(&RowKey::Cpu(cpu));
        self.detail = Some(Detail::new(cpu));
    }

    /// What stands beside the title: order, grouping, filter, scale.
    fn heading(&self, scene: &Scene<'_>) -> String {
        let mut out = timeline::heading(&self.list.order_title(), scene);
        match self.list.filter_title() {
            Some(filter) => {
                let (n, of) = (self.list.hits(), scene.model.cores.numbers().len());
                out.push_str(&format!(" · {filter}: {n} of {of}"));
            }
            None => match rows::level_in_use(&scene.model.cores, self.level) {
                Level::Cpu => {}
                level => out.push_str(&format!(" · calm ones {}", level.title())),
            },
        }
        out
    }

    fn in_detail(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let Some(detail) = &mut self.detail else {
            return Reply::NotMine;
        };
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
        Reply::Done
    }
}

impl ListPane for Cores {
    type Row = Row;

    fn listing(&mut self) -> &mut Listing<Row> {
        &mut self.list
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let window = timeline::window(scene);
        // The timelines reach back further than what is marked.
        let drawn = scene.model.cores.ticks().start..window.end;
        self.marks = Marks::of(scene, &drawn);
        let rows = rows::build(scene, self.level, &window, &self.marks, &self.list);
        self.list.set(rows);
    }

    fn enter(&mut self, _: &Scene<'_>) -> Reply {
        match self.list.selected().map(|row| row.key) {
            Some(RowKey::Cpu(cpu)) => self.detail = Some(Detail::new(cpu)),
            Some(RowKey::All) => {
                let say = "details are of one cpu: choose it below";
                return Reply::Wish(Wish::Say(Role::Notice, say.to_owned()));
            }
            Some(RowKey::Group(..)) | None => {}
        }
        Reply::Done
    }
}

impl Pane for Cores {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.refresh_list(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.detail.is_some() {
            return self.in_detail(action, scene);
        }
        if action != ActionId::Group {
            return self.act_on_list(action, scene);
        }
        self.level = self.level.next();
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match (&mut self.detail, mouse.kind) {
            (None, _) => self.mouse_on_list(mouse, scene),
            (Some(_), MouseKind::WheelUp) => self.update(ActionId::Up, scene),
            (Some(_), MouseKind::WheelDown) => self.update(ActionId::Down, scene),
            (Some(detail), MouseKind::Press | MouseKind::Drag) => {
                detail.mouse(mouse);
                Reply::Done
            }
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
        self.detail.is_none().then_some(&mut self.list.filter)
    }

    fn filtered(&self) -> &str {
        &self.list.filter
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
        let panel = vectors::height(area, self.list.rows().len());
        let main = Rect::new(area.x, area.y, area.width, area.height - panel);
        table::render(
            scene,
            main,
            buf,
            &table::Table {
                title: "CORES",
                detail: &self.heading(scene),
                rows: self.list.rows(),
                view: self.list.view(table::body(main)),
                cursor: Some(self.list.cursor()),
                seq,
                marks: &self.marks,
            },
        );
        if panel > 0 {
            let below = Rect::new(area.x, main.bottom(), area.width, panel);
            vectors::render(scene, below, buf, self.list.selected(), seq);
        }
    }
}
