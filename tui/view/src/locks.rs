//! Pane 4: what waits for the kernel's locks, for how long, and in which functions.
//!
//! Figures are of a stretch of time: the last ten seconds, those up to the tick that is shown,
//! or what was marked. Where waits cannot be traced, the share of the CPUs' samples that were
//! in a lock's slow path stands in their place, and is named so.

mod brief;
mod columns;
mod detail;
mod draw;
mod figures;
mod flame;
mod folded;
mod icicle;
mod names;
mod rows;
mod watch;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Reason;
use stalltop_model::model::locks::Over;
use stalltop_model::sample::{LockWaits, Waits};

use crate::action::{ActionId, Context};
use crate::listing::{ListPane, Listing, after};
use crate::msg::{FlameGraph, Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::text;
pub(crate) use brief::{badge, brief};
use detail::Detail;
use rows::{By, Key, Of, Row};

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    list: Listing<Row>,
    by: By,
    /// What is counted, where a person chose.
    of: Option<Of>,
    shown: Shown,
    detail: Option<Box<Detail>>,
}

/// Figures of the stretch of time that is shown, all locks together.
#[derive(Debug, Default)]
struct Shown {
    of: Option<Of>,
    /// `10.0 s up to 22:42:09`.
    when: String,
    /// How many windows that are.
    windows: u32,
    /// For how much of it waits were watched, ns.
    measured_ns: u64,
    total: Waits,
    kinds: Vec<LockWaits>,
    /// Why there are no samples.
    no_share: Option<Reason>,
    head: Vec<watch::Line>,
    /// All samples: what shares are of.
    samples: u64,
    /// How many rows there are without the filter.
    all: usize,
    /// Waits that no row has, in words; empty where all are there.
    rest: String,
}

impl Shown {
    /// Seconds of waiting per second; `None` where waits were not watched.
    fn wait_per_s(&self, waits: &Waits) -> Option<f64> {
        (self.measured_ns > 0).then(|| waits.wait_ns as f64 / self.measured_ns as f64)
    }

    /// Waits a second.
    fn per_s(&self, waits: &Waits) -> Option<f64> {
        (self.measured_ns > 0).then(|| waits.count as f64 * 1e9 / self.measured_ns as f64)
    }
}

/// The time that is shown, `(from, to]` of `CLOCK_BOOTTIME` in ns: what was marked, else the
/// last windows.
fn stretch(scene: &Scene<'_>) -> (u64, u64) {
    match scene.span {
        Some(span) => (span.from_ns, span.to_ns),
        None => scene.model.locks.stretch(scene.times().1),
    }
}

/// The windows of the time that is shown, added up.
fn over<'a>(scene: &Scene<'a>) -> Over<'a> {
    let (from, to) = stretch(scene);
    scene.model.locks.over(from, to)
}

/// `10.0 s up to 22:42:09`; nothing where there is no window.
fn when(scene: &Scene<'_>, over: &Over<'_>) -> String {
    if over.windows == 0 {
        return String::new();
    }
    let sample = scene.sample();
    let ago = sample.at_ns.saturating_sub(over.to_ns);
    let wall_ns = sample.wall_ns.saturating_sub(ago);
    format!(
        "{} up to {}",
        text::duration(over.to_ns.saturating_sub(over.from_ns)),
        text::clock(wall_ns)
    )
}

impl Locks {
    fn of(&self) -> Of {
        self.shown.of.unwrap_or(Of::Waits)
    }

    fn in_detail(&mut self, action: ActionId) -> Reply {
        let Some(detail) = &mut self.detail else {
            return Reply::NotMine;
        };
        match action {
            ActionId::Close if detail.zoom_out() => {}
            ActionId::Close | ActionId::Quit => self.detail = None,
            action if detail.act(action) => {}
            _ => return Reply::NotMine,
        }
        Reply::Done
    }
}

impl ListPane for Locks {
    type Row = Row;

    fn listing(&mut self) -> &mut Listing<Row> {
        &mut self.list
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let over = over(scene);
        // Waits where they are traced, else what tells of them.
        let traced = over.measured_ns > 0 || over.windows == 0;
        let of = self.of.unwrap_or(match traced {
            true => Of::Waits,
            false => Of::Samples,
        });
        let rows = rows::build(scene, (of, self.by), &over, &self.list);
        self.list.set(rows);
        self.shown = Shown {
            of: Some(of),
            when: when(scene, &over),
            windows: over.windows,
            measured_ns: over.measured_ns,
            total: over.total,
            no_share: over.share.reason().cloned(),
            head: watch::lines(scene, &over),
            kinds: over.kinds.clone(),
            samples: over.share.value().map_or(0, |s| s.samples),
            all: match (of, self.by) {
                (Of::Waits, By::Lock) => over.locks.len(),
                (Of::Waits, By::Stack) => over.stacks.len(),
                (Of::Waits, By::Waiter) => over.waiters.len(),
                (Of::Waits, By::Cpu) => over.cpus.len(),
                (Of::Samples, _) => self.list.rows().len(),
            },
            rest: match of {
                Of::Waits => watch::rest(self.by, &over),
                Of::Samples => String::new(),
            },
        };
        if let Some(detail) = &mut self.detail {
            detail.refresh(scene, &over);
        }
    }

    fn enter(&mut self, scene: &Scene<'_>) -> Reply {
        match self.list.selected() {
            // Stacks are not kept by CPU: what else it does is known.
            Some(Row {
                key: Key::Cpu(cpu), ..
            }) => return Reply::Wish(Wish::Core(*cpu)),
            Some(row) => {
                let mut detail = Detail::new(row, self.of());
                detail.refresh(scene, &over(scene));
                self.detail = Some(Box::new(detail));
            }
            None => {}
        }
        Reply::Done
    }
}

impl Pane for Locks {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.refresh_list(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.detail.is_some() {
            return self.in_detail(action);
        }
        match action {
            ActionId::GroupLocks => self.by = after(By::ALL, self.by),
            ActionId::LockSamples => {
                self.of = Some(match self.of() {
                    Of::Waits => Of::Samples,
                    Of::Samples => Of::Waits,
                });
            }
            _ => return self.act_on_list(action, scene),
        }
        self.list.restart();
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match (&mut self.detail, mouse.kind) {
            (None, _) => self.mouse_on_list(mouse, scene),
            (Some(_), MouseKind::WheelUp) => self.update(ActionId::Up, scene),
            (Some(_), MouseKind::WheelDown) => self.update(ActionId::Down, scene),
            (Some(detail), MouseKind::Press) => {
                detail.click(mouse.column, mouse.row);
                Reply::Done
            }
            (Some(_), MouseKind::Drag) => Reply::Done,
        }
    }

    fn stack(&self) -> &'static [Context] {
        if self.detail.is_some() {
            &[Context::LockDetail, Context::Pane, Context::Everywhere]
        } else {
            PaneId::Locks.info().stack
        }
    }

    fn filter(&mut self) -> Option<&mut String> {
        self.detail.is_none().then_some(&mut self.list.filter)
    }

    fn filtered(&self) -> &str {
        &self.list.filter
    }

    fn full_text(&self, scene: &Scene<'_>) -> Option<Vec<String>> {
        self.detail.as_ref().map(|detail| detail.text(scene))
    }

    fn flame(&self, scene: &Scene<'_>) -> Option<FlameGraph> {
        let (key, what) = match &self.detail {
            Some(detail) => (detail.key(), detail.title().to_owned()),
            None => (&Key::All, "all locks".to_owned()),
        };
        folded::flame_graph(scene, &over(scene), key, self.of(), &what)
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        match &self.detail {
            Some(detail) => detail.render(scene, area, buf),
            None => self.draw(scene, area, buf),
        }
    }
}
