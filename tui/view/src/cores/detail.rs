//! One CPU in full.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::hist::{BUCKETS, Hist};
use stalltop_model::model::cores::CpuTick;
use stalltop_model::sample::{CpuSample, Vector};

use crate::action::ActionId;
use crate::draw::{self, Pen, below};
use crate::glyph;
use crate::msg::Mouse;
use crate::pane::{Reply, Scene, Wish};
use crate::text::{self, NONE};
use crate::theme::Role;

use super::heat::{self, Heat};
use super::marks::Marks;
use super::{delay_role, timeline, vectors};

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
        let mut y = 1 + self.lines(scene, area, buf, row, seq, &tick);
        y += self.stalls(scene, area, buf, y, (sample, &tick), marks);
        y += threads(scene, area, buf, y, row, sample, &tick);
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
            histograms(scene, right, buf, sample, vector);
        } else if rest.height >= 24 {
            let upper = Rect::new(rest.x, rest.y, rest.width, 12);
            draw::section(buf, theme, upper, 0, ("VECTORS", "this tick", ""));
            vectors::table(scene, upper, buf, &ticks, Some(vector));
            histograms(scene, below(rest, 12), buf, sample, vector);
        } else {
            histograms(scene, rest, buf, sample, vector);
        }
    }

    /// Stalls tick by tick and run-queue delay. Gives the rows used.
    fn stalls(
        &self,
        scene: &Scene<'_>,
        area: Rect,
        buf: &mut Buffer,
        y: u16,
        (sample, tick): (&CpuSample, &CpuTick),
        marks: &Marks,
    ) -> u16 {
        let window = timeline::window(scene);
        let Some(seq) = scene.tick() else { return 0 };
        let mut pen = Pen::new(buf, scene.theme, area, y);
        let count = marks.count(self.cpu, &window);
        pen.gap(1).left("stalls", 11, Role::Dim);
        match scene.sample().stalls.reason() {
            Some(reason) => {
                pen.put(&format!("not watched: {reason}"), Role::Faint);
            }
            None => {
                let now = count.map_or_else(|| "0".to_owned(), |(n, _)| text::count(n));
                let role = count.map_or(Role::Strong, |(_, ns)| delay_role(ns));
                pen.right(&now, 10, role).gap(2);
                let cells = pen.room().saturating_sub(2) as u64;
                let kept = scene.model.cores.ticks().start;
                let first = (seq + 1).saturating_sub(cells).max(kept);
                pen.gap((cells - (seq + 1 - first)) as usize);
                for at in first..=seq {
                    match marks.count(self.cpu, &(at..at + 1)) {
                        Some((_, ns)) => pen.put(timeline::mark(ns), delay_role(ns)),
                        None => pen.put("·", Role::Line),
                    };
                }
            }
        }
        let mut pen = Pen::new(buf, scene.theme, area, y + 1);
        pen.gap(1).left("run queue", 11, Role::Dim);
        match (sample.run_delay.as_ref(), tick.run_delay) {
            (Err(reason), _) => {
                pen.put(
                    &format!("not measured: {}", text::name(&reason.to_string(), 200)),
                    Role::Faint,
                );
            }
            (Ok(_), None) => {
                pen.put("no rate yet", Role::Faint);
            }
            (Ok(_), Some(delay)) => {
                let longest = window
                    .filter_map(|seq| scene.model.cores.cpu(self.row(scene)?, seq)?.run_delay)
                    .map(|d| d.max_ns)
                    .max()
                    .unwrap_or(delay.max_ns);
                pen.put(
                    &format!("{} waited, ", text::plural(u64::from(delay.count), "task")),
                    Role::Text,
                )
                .put(
                    &format!("mean {}, ", text::duration(delay.mean_ns as u64)),
                    Role::Text,
                )
                .put(
                    &format!("longest {}", text::duration(delay.max_ns)),
                    delay_role(delay.max_ns),
                )
                .put(
                    &format!(" · in 2 min at most {}", text::duration(longest)),
                    Role::Dim,
                );
            }
        }
        2
    }

    fn row(&self, scene: &Scene<'_>) -> Option<usize> {
        let numbers = scene.model.cores.numbers();
        numbers.iter().position(|n| *n == self.cpu)
    }

    /// Timelines of shares and delays, newest at the right. Gives the rows used.
    fn lines(
        &self,
        scene: &Scene<'_>,
        area: Rect,
        buf: &mut Buffer,
        row: usize,
        seq: u64,
        tick: &CpuTick,
    ) -> u16 {
        type Pick = fn(&CpuTick) -> Option<f64>;
        let share = |s: Option<f32>| s.map(f64::from);
        let lines: [(&str, Role, Pick, String); 5] = [
            (
                "softirq",
                Role::Series1,
                |t| t.softirq.map(f64::from),
                percent(share(tick.softirq)),
            ),
            (
                "ksoftirqd",
                Role::Series2,
                |t| t.ksoftirqd.map(f64::from),
                percent(share(tick.ksoftirqd)),
            ),
            (
                "hardirq",
                Role::Series4,
                |t| t.hardirq.map(f64::from),
                percent(share(tick.hardirq)),
            ),
            (
                "steal",
                Role::Series3,
                |t| t.steal.map(f64::from),
                percent(share(tick.steal)),
            ),
            // 1 us to 1 s on a logarithmic scale.
            (
                "delay max",
                Role::Series3,
                |t| {
                    t.delay_max
                        .map(|(ns, _)| ((ns.max(1) as f64).log10() - 3.0) / 6.0)
                },
                tick.delay_max
                    .map_or_else(|| NONE.into(), |(ns, _)| text::duration(ns)),
            ),
        ];
        let most = area.height.saturating_sub(12).clamp(1, 5);
        let cells = usize::from(area.width).saturating_sub(26) as u64;
        let start = scene.model.cores.ticks().start;
        let mut used = 0;
        // Few rows: shares and delay matter most.
        let order: &[usize] = if most >= 5 {
            &[0, 1, 2, 3, 4]
        } else {
            &[0, 4, 1, 2]
        };
        for i in order.iter().take(usize::from(most)) {
            let (name, role, pick, now) = &lines[*i];
            let mut pen = Pen::new(buf, scene.theme, area, 1 + used);
            pen.gap(1)
                .left(name, 11, Role::Dim)
                .right(now, 10, Role::Strong)
                .gap(2);
            let from = (seq + 1).saturating_sub(cells).max(start);
            pen.gap((cells - (seq + 1 - from).min(cells)) as usize);
            for at in from..=seq {
                match scene.model.cores.cpu(row, at).and_then(pick) {
                    Some(v) => pen.put(glyph::block(v), *role),
                    None => pen.put("–", Role::Faint),
                };
            }
            used += 1;
        }
        if area.height >= 20 {
            Pen::new(buf, scene.theme, area, 1 + used).gap(24).put(
                "newest at the right, 1 cell a tick; shares ▁█ 100 %, delay ▁█ 1 us to 1 s (logarithmic)",
                Role::Faint,
            );
            used += 1;
        }
        used
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.into(), |s| format!("{} %", text::percent(s)))
}

/// ksoftirqd and the packet backlog, one line each.
fn threads(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    y: u16,
    row: usize,
    sample: &CpuSample,
    tick: &CpuTick,
) -> u16 {
    if area.height < y + 6 {
        return 0;
    }
    let theme = scene.theme;
    let mut pen = Pen::new(buf, theme, area, y);
    pen.gap(1).left("ksoftirqd", 11, Role::Dim);
    match sample.ksoftirqd.as_ref() {
        Ok(k) => {
            pen.put(&format!("pid {}  ", k.pid), Role::Text)
                .put(
                    &format!("running {}  ", percent(tick.ksoftirqd.map(f64::from))),
                    Role::Text,
                )
                .put(
                    &format!(
                        "runnable but waiting {}  ",
                        percent(tick.ksoftirqd_wait.map(f64::from))
                    ),
                    if tick.ksoftirqd_wait.unwrap_or(0.0) >= 0.1 {
                        Role::Warning
                    } else {
                        Role::Text
                    },
                )
                .put(
                    &format!(
                        "{} runs, {} in all",
                        text::count(k.runs),
                        text::duration(k.run_ns)
                    ),
                    Role::Dim,
                );
        }
        Err(reason) => {
            pen.put(&text::name(&reason.to_string(), 200), Role::Faint);
        }
    }
    let mut pen = Pen::new(buf, theme, area, y + 1);
    pen.gap(1).left("softnet", 11, Role::Dim);
    match sample.softnet.as_ref() {
        Ok(s) => {
            if let Some(rate) = scene.model.cores.softnet(row) {
                pen.put(
                    &format!("{} packets/s  ", text::rate(rate.processed_per_s)),
                    Role::Text,
                );
            }
            let hot = |n: u64| if n > 0 { Role::Warning } else { Role::Dim };
            pen.put(
                &format!("dropped {}  ", text::count(s.dropped)),
                hot(s.dropped),
            )
            .put(
                &format!("squeezed {}  ", text::count(s.time_squeeze)),
                Role::Text,
            );
            if s.backlog_known {
                pen.put(
                    &format!("backlog now {}  ", text::count(s.backlog)),
                    Role::Text,
                );
            }
            pen.put("since boot", Role::Faint);
        }
        Err(reason) => {
            pen.put(&text::name(&reason.to_string(), 200), Role::Faint);
        }
    }
    2
}

/// Service time and raise-to-entry delay of one vector, since attach.
fn histograms(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, sample: &CpuSample, vector: Vector) {
    if area.height < 3 {
        return;
    }
    let softirq = &sample.softirqs[vector as usize];
    let keys = scene.key(&[crate::Context::CoreDetail], crate::ActionId::NextVector);
    let title = format!(
        "{}, {} runs since counting began",
        vector.as_str(),
        text::count(softirq.count)
    );
    let next = format!("{keys} next vector");
    draw::section(buf, scene.theme, area, 0, ("HISTOGRAMS", &title, &next));
    match softirq.timing.as_ref() {
        Ok(timing) => {
            let half = (area.width / 2).max(1);
            let rows = below(area, 1);
            let left = Rect {
                width: half,
                ..rows
            };
            let right = Rect {
                x: rows.x + half,
                width: rows.width - half,
                ..rows
            };
            histogram(
                scene,
                left,
                buf,
                "time in the handler",
                &timing.service,
                timing.max_ns,
            );
            histogram(
                scene,
                right,
                buf,
                "raise to entry",
                &timing.delay,
                timing.delay_max_ns,
            );
        }
        Err(reason) => {
            let instead = "counts above, from /proc/softirqs";
            draw::missing(buf, scene.theme, area, 2, ("no histogram", reason, instead));
        }
    }
}

fn histogram(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    title: &str,
    hist: &Hist,
    max_ns: u64,
) {
    let theme = scene.theme;
    let total = hist.total();
    let mut pen = Pen::new(buf, theme, area, 0);
    pen.gap(1).put(title, Role::Strong);
    if total == 0 {
        Pen::new(buf, theme, area, 1)
            .gap(1)
            .put("none yet", Role::Dim);
        return;
    }
    let quantile = |q| {
        hist.quantile_below_ns(q)
            .map_or_else(|| NONE.into(), text::duration)
    };
    if pen.room() >= 46 {
        pen.put(
            &format!(
                "  half under {}, 99 % under {}, max ",
                quantile(0.5),
                quantile(0.99)
            ),
            Role::Dim,
        );
    } else {
        pen.put("  max ", Role::Dim);
    }
    pen.put(&text::duration(max_ns), delay_role(max_ns));
    let first = hist.0.iter().position(|n| *n > 0).unwrap_or(0);
    let last = hist.0.iter().rposition(|n| *n > 0).unwrap_or(0);
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    // Without room for all buckets, neighbours share a line; nothing is left out.
    let step = (last + 1 - first).div_ceil(room).max(1);
    let groups: Vec<(usize, u64)> = (first..=last)
        .step_by(step)
        .map(|i| (i, hist.0[i..(i + step).min(BUCKETS)].iter().sum()))
        .collect();
    let most = groups.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let wide = usize::from(area.width).saturating_sub(25);
    for (y, (i, n)) in (1u16..).zip(groups) {
        let mut pen = Pen::new(buf, theme, area, y);
        let floor = Hist::floor_ns(i);
        pen.gap(1)
            .right(
                &text::duration(floor),
                9,
                if floor >= 1_000_000 {
                    delay_role(floor)
                } else {
                    Role::Dim
                },
            )
            .put(" │", Role::Line);
        let bar = glyph::bar(n as f64 / most as f64, wide);
        pen.left(
            &bar,
            wide,
            if floor >= 5_000_000 {
                Role::Warning
            } else {
                Role::Series1
            },
        )
        .right(
            &if n == 0 {
                String::new()
            } else {
                text::count(n)
            },
            10,
            Role::Text,
        );
    }
}
