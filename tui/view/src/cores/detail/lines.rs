//! What one CPU did, a line per figure: now, and as far back as the screen is wide.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::cores::CpuTick;
use stalltop_model::sample::CpuSample;

use crate::draw::Pen;
use crate::glyph;
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::super::marks::Marks;
use super::super::{delay_role, timeline};

/// A timeline.
#[derive(Clone, Copy)]
enum Line {
    Softirq,
    Ksoftirqd,
    Hardirq,
    Steal,
    DelayMax,
}

impl Line {
    const ALL: &'static [Self] = &[
        Self::Softirq,
        Self::Ksoftirqd,
        Self::Hardirq,
        Self::Steal,
        Self::DelayMax,
    ];
    /// Where there is little room: shares and delay matter most.
    const FEW: &'static [Self] = &[
        Self::Softirq,
        Self::DelayMax,
        Self::Ksoftirqd,
        Self::Hardirq,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Softirq => "softirq",
            Self::Ksoftirqd => "ksoftirqd",
            Self::Hardirq => "hardirq",
            Self::Steal => "steal",
            Self::DelayMax => "delay max",
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Softirq => Role::Series1,
            Self::Ksoftirqd => Role::Series2,
            Self::Hardirq => Role::Series4,
            Self::Steal | Self::DelayMax => Role::Series3,
        }
    }

    /// How high its cell is for a tick, from 0 to 1: a share of the CPU, or a delay of 1 us to
    /// 1 s on a logarithmic scale.
    fn height(self, tick: &CpuTick) -> Option<f64> {
        match self {
            Self::Softirq => tick.softirq.map(f64::from),
            Self::Ksoftirqd => tick.ksoftirqd.map(f64::from),
            Self::Hardirq => tick.hardirq.map(f64::from),
            Self::Steal => tick.steal.map(f64::from),
            Self::DelayMax => {
                let (ns, _) = tick.delay_max?;
                Some(((ns.max(1) as f64).log10() - 3.0) / 6.0)
            }
        }
    }

    /// Its figure for a tick.
    fn number(self, tick: &CpuTick) -> String {
        match self {
            Self::DelayMax => tick
                .delay_max
                .map_or_else(|| NONE.into(), |(ns, _)| text::duration(ns)),
            share => percent(share.height(tick)),
        }
    }
}

/// The CPU that is open, and the tick that is shown.
pub(super) struct Cpu<'a> {
    /// Its position in the model.
    pub row: usize,
    pub sample: &'a CpuSample,
    pub seq: u64,
    pub tick: &'a CpuTick,
}

impl Cpu<'_> {
    /// Timelines of shares and delays, newest at the right. Gives the rows used.
    pub(super) fn timelines(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) -> u16 {
        let most = area.height.saturating_sub(12).clamp(1, 5);
        let cells = usize::from(area.width).saturating_sub(26) as u64;
        let start = scene.model.cores.ticks().start;
        let from = (self.seq + 1).saturating_sub(cells).max(start);
        let mut used = 0;
        let order = if most >= 5 { Line::ALL } else { Line::FEW };
        for line in order.iter().take(usize::from(most)) {
            let mut pen = Pen::new(buf, scene.theme, area, 1 + used);
            pen.gap(1)
                .left(line.name(), 11, Role::Dim)
                .right(&line.number(self.tick), 10, Role::Strong)
                .gap(2);
            pen.gap((cells - (self.seq + 1 - from).min(cells)) as usize);
            for at in from..=self.seq {
                let tick = scene.model.cores.cpu(self.row, at);
                match tick.and_then(|tick| line.height(tick)) {
                    Some(v) => pen.put(glyph::block(v), line.role()),
                    None => pen.put("–", Role::Faint),
                };
            }
            used += 1;
        }
        if area.height >= 20 {
            let legends = [
                "newest at the right, 1 cell a tick; shares ▁█ 100 %, delay ▁█ 1 us to 1 s (logarithmic)",
                "1 cell a tick; shares ▁█ 100 %, delay ▁█ 1 us to 1 s",
            ];
            let mut pen = Pen::new(buf, scene.theme, area, 1 + used);
            pen.gap(24).whole(&legends, Role::Faint);
            used += 1;
        }
        used
    }

    /// Stalls tick by tick and run-queue delay. Gives the rows used.
    pub(super) fn stalls(
        &self,
        scene: &Scene<'_>,
        area: Rect,
        buf: &mut Buffer,
        y: u16,
        marks: &Marks,
    ) -> u16 {
        let window = timeline::window(scene);
        let (cpu, seq) = (self.sample.cpu, self.seq);
        let mut pen = Pen::new(buf, scene.theme, area, y);
        let count = marks.count(cpu, &window);
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
                    match marks.count(cpu, &(at..at + 1)) {
                        Some((_, ns)) => pen.put(timeline::mark(ns), delay_role(ns)),
                        None => pen.put("·", Role::Line),
                    };
                }
            }
        }
        let mut pen = Pen::new(buf, scene.theme, area, y + 1);
        pen.gap(1).left("run queue", 11, Role::Dim);
        match (self.sample.run_delay.as_ref(), self.tick.run_delay) {
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
                let within = match scene.span {
                    Some(_) => "in the marked time",
                    None => "in 2 min",
                };
                let longest = window
                    .filter_map(|seq| scene.model.cores.cpu(self.row, seq)?.run_delay)
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
                .whole(
                    &[
                        &format!(" · {within} at most {}", text::duration(longest)),
                        &format!(" · {within} {}", text::duration(longest)),
                    ],
                    Role::Dim,
                );
            }
        }
        2
    }

    /// ksoftirqd and the packet backlog, one line each.
    pub(super) fn threads(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16) -> u16 {
        if area.height < y + 6 {
            return 0;
        }
        let (theme, tick) = (scene.theme, self.tick);
        let mut pen = Pen::new(buf, theme, area, y);
        pen.gap(1).left("ksoftirqd", 11, Role::Dim);
        match self.sample.ksoftirqd.as_ref() {
            Ok(k) => {
                let runs = text::count(k.runs);
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
                    .whole(
                        &[
                            &format!("{runs} runs, {} in all", text::duration(k.run_ns)),
                            &format!("{runs} runs"),
                        ],
                        Role::Dim,
                    );
            }
            Err(reason) => {
                pen.put(&text::name(&reason.to_string(), 200), Role::Faint);
            }
        }
        let mut pen = Pen::new(buf, theme, area, y + 1);
        pen.gap(1).left("softnet", 11, Role::Dim);
        match self.sample.softnet.as_ref() {
            Ok(s) => {
                if let Some(rate) = scene.model.cores.softnet(self.row) {
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
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.into(), |s| format!("{} %", text::percent(s)))
}
