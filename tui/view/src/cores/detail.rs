//! One CPU in full.

mod histogram;
mod lines;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::Vector;

use crate::action::ActionId;
use crate::draw::{self, Pen, below};
use crate::msg::Mouse;
use crate::pane::{Reply, Scene, Wish};
use crate::theme::Role;

use super::heat::{self, Heat};
use super::marks::Marks;
use super::vectors;

/// From this height on the heat map stands below the rest.
const TALL: u16 = 48;
/// Lines of it.
const GLANCE: u16 = 14;

/// The CPU that is open, and the vector whose histograms are shown.
#[derive(Debug)]
pub(super) struct Detail {
    cpu: u32,
    /// `None` follows the vector with the most time.
    vector: Option<Vector>,
    shown: std::cell::Cell<usize>,
    /// The heat map, while it is open.
    heat: Option<Heat>,
}

impl Detail {
    pub(super) fn new(cpu: u32) -> Self {
        Self {
            cpu,
            vector: None,
            shown: std::cell::Cell::new(Vector::NetRx as usize),
            heat: None,
        }
    }

    pub(super) fn cpu(&self) -> u32 {
        self.cpu
    }

    pub(super) fn in_heat(&self) -> bool {
        self.heat.is_some()
    }

    pub(super) fn open_heat(&mut self) {
        self.heat = Some(Heat::default());
    }

    /// An action while the heat map is open.
    pub(super) fn heat_act(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let Some(heat) = &mut self.heat else {
            return Reply::NotMine;
        };
        match heat.act(action, scene, self.cpu) {
            heat::Answer::NotMine => return Reply::NotMine,
            heat::Answer::Done => {}
            heat::Answer::Close => self.heat = None,
            heat::Answer::Mark(span) => return Reply::Wish(Wish::Mark(span)),
        }
        Reply::Done
    }

    pub(super) fn mouse(&mut self, mouse: Mouse) {
        if let Some(heat) = &mut self.heat {
            heat.mouse(mouse);
        }
    }

    /// The next or the previous vector that ever ran on this CPU.
    pub(super) fn step(&mut self, forward: bool, scene: &Scene<'_>) {
        let n = Vector::ALL.len();
        let sample = scene.sample().cpus.iter().find(|c| c.cpu == self.cpu);
        let ran = |v: &Vector| sample.is_some_and(|s| s.softirqs[*v as usize].count > 0);
        let next = (1..n)
            .map(|by| self.shown.get() + if forward { by } else { n - by })
            .filter_map(|at| Vector::ALL.get(at % n).copied())
            .find(ran);
        self.vector = next.or(self.vector);
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, marks: &Marks) {
        if let Some(heat) = &self.heat {
            heat.render(scene, area, buf, self.cpu);
            return;
        }
        let mut area = area;
        if area.height >= TALL && scene.tick().is_some() {
            // A tall screen has room for when it stalled, too.
            area.height -= GLANCE;
            let lower = Rect {
                y: area.bottom(),
                height: GLANCE,
                ..area
            };
            Heat::glance(scene, lower, buf, self.cpu);
        }
        let theme = scene.theme;
        let cores = &scene.model.cores;
        let row = cores.numbers().iter().position(|n| *n == self.cpu);
        let sample = scene.sample().cpus.iter().find(|c| c.cpu == self.cpu);
        let (Some(row), Some(sample)) = (row, sample) else {
            draw::section(buf, theme, area, 0, ("CPU", &self.cpu.to_string(), ""));
            Pen::new(buf, theme, area, 2)
                .gap(3)
                .put("this CPU is not present any more", Role::Dim);
            return;
        };
        let mut title = format!("cpu {}", self.cpu);
        if let Some(t) = cores.topology(row) {
            title = format!(
                "{title} · node {} · package {} · llc {} · core {}",
                t.node, t.package, t.llc, t.core
            );
        }
        title.push_str(if sample.online {
            " · online"
        } else {
            " · offline"
        });
        draw::section(buf, theme, area, 0, ("CORE", &title, "Esc closes"));
        let Some(seq) = scene.tick() else { return };
        let tick = cores.cpu(row, seq).copied().unwrap_or_default();
        let cpu = lines::Cpu {
            row,
            sample,
            seq,
            tick: &tick,
        };
        let mut y = 1 + cpu.timelines(scene, area, buf);
        y += cpu.stalls(scene, area, buf, y, marks);
        y += cpu.threads(scene, area, buf, y);
        let ticks = cores.vectors(row, seq).copied().unwrap_or_default();
        let busiest = Vector::ALL
            .into_iter()
            .max_by(|a, b| {
                let weight = |v: &Vector| {
                    let t = &ticks[*v as usize];
                    t.share.unwrap_or(0.0).mul_add(1e9, t.per_s)
                };
                weight(a).total_cmp(&weight(b))
            })
            .unwrap_or(Vector::NetRx);
        let vector = self.vector.unwrap_or(busiest);
        self.shown.set(vector as usize);
        let rest = below(area, y);
        // Beside each other when there is room, else the histograms take what is left.
        if rest.width >= 150 {
            let left = Rect::new(rest.x, rest.y, 82, rest.height);
            draw::section(buf, theme, left, 0, ("VECTORS", "this tick", ""));
            vectors::table(scene, left, buf, &ticks, Some(vector));
            let right = Rect::new(rest.x + 84, rest.y, rest.width - 84, rest.height);
            histogram::both(scene, right, buf, sample, vector);
        } else if rest.height >= 24 {
            let upper = Rect::new(rest.x, rest.y, rest.width, 12);
            draw::section(buf, theme, upper, 0, ("VECTORS", "this tick", ""));
            vectors::table(scene, upper, buf, &ticks, Some(vector));
            histogram::both(scene, below(rest, 12), buf, sample, vector);
        } else {
            histogram::both(scene, rest, buf, sample, vector);
        }
    }
}
