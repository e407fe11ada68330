//! The table of stalls on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::stalls::{Filter, Group};
use stalltop_model::sample::{Pause, Stall};
use stalltop_model::{Name, Reason, printable};

use crate::action::{ActionId, Context};
use crate::cores::{delay_mark, delay_role};
use crate::draw::{self, Pen, below};
use crate::listing::SortOrder;
use crate::pane::{PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;

use super::rows::{Order, Row};
use super::{Stalls, instead, names, watch};

impl Stalls {
    pub(super) fn draw(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        draw::section(
            buf,
            theme,
            area,
            0,
            ("STALLS", &self.heading(scene), &self.folded_away(scene)),
        );
        let mut y = 1;
        let watched = &scene.sample().stalls;
        match watched.as_ref() {
            Ok(watch) => {
                let mut pen = Pen::new(buf, theme, area, y);
                pen.gap(1);
                for (text, role) in watch::line(scene, watch) {
                    // What comes last matters least: all of it or nothing.
                    if text::width(&text) <= pen.room() || !text.contains("since") {
                        pen.put(&text, role);
                    }
                }
                y += 1;
                for (what, reason) in watch::gaps(watch) {
                    // Where there is no room for the reasons, doctor has them.
                    if area.height >= 12 && y < area.height / 3 {
                        y += gap(buf, scene, area, y, &what, reason);
                    }
                }
            }
            Err(_) if !scene.started() => {
                Pen::new(buf, theme, area, y)
                    .gap(3)
                    .put("waiting for the first sample", Role::Dim);
                return;
            }
            Err(reason) => {
                let instead = if scene.sample().cores.bpf.value().is_some() {
                    "per tick the longest softirq delay of each cpu"
                } else {
                    "per tick how long ksoftirqd waited for its cpu (schedstat)"
                };
                let about = ("stalls are not watched", reason, instead);
                y += draw::missing(buf, theme, area, y, about);
                if self.list.rows().is_empty() {
                    let rest = below(area, y + 1);
                    instead::render(scene, rest, buf, &self.late);
                    return;
                }
            }
        }
        if self.list.rows().is_empty() {
            self.none(scene, below(area, y), buf);
            return;
        }
        let columns = Columns::of(area.width);
        if self.narrow.by.is_none() || area.height > 8 {
            self.headings(scene, area, buf, y, &columns);
            y += 1;
        }
        let body = below(area, y);
        self.list.draw(scene, body, buf, |buf, y, row| match row {
            Row::Stall {
                stall,
                inside,
                again,
            } => {
                let place = match (again, inside) {
                    (true, _) => "=",
                    (false, true) => "│",
                    (false, false) => " ",
                };
                stall_line(scene, body, buf, y, (stall, place), &columns);
            }
            Row::Group { group, open } => group_line(scene, body, buf, y, group, *open),
        });
    }

    /// Order, grouping and what narrows the list down.
    fn heading(&self, scene: &Scene<'_>) -> String {
        let mut out = match (self.narrow.by, self.list.order) {
            (None, order) => order.title().to_owned(),
            (Some(by), Order::Newest) => format!("by {}, most first", by.as_str()),
            (Some(by), Order::Worst) => format!("by {}, worst first", by.as_str()),
        };
        if self.list.reverse {
            out.push_str(", reversed");
        }
        out.push_str(&format!(" · {}", text::count(self.tally.shown)));
        let dropped = scene.model.stalls.dropped();
        if dropped > 0 {
            out.push_str(&format!(" ({} older ones dropped)", text::count(dropped)));
        }
        if self.narrow.is_narrow() {
            let key = scene.key(&[Context::Stalls], ActionId::LikeThis);
            out.push_str(&format!(
                " · only {} ({key}: all)",
                only(&self.narrow.filter)
            ));
        }
        if let Some(filter) = self.list.filter_title() {
            let n = text::count(self.list.hits() as u64);
            out.push_str(&format!(" · {filter}: {n} match"));
        }
        if let (None, Some(_)) = (scene.span, scene.past()) {
            out.push_str(&format!(" · up to {}", text::clock(scene.wall_ns())));
        }
        out
    }

    /// What is folded away, and the keys that show it.
    fn folded_away(&self, scene: &Scene<'_>) -> String {
        let stack = PaneId::Stalls.info().stack;
        let key = |id| scene.key(stack, id);
        let mut parts = Vec::new();
        if self.tally.paused > 0 {
            let (n, key) = (text::count(self.tally.paused), key(ActionId::ShowPaused));
            parts.push(format!("{n} paused vCPU hidden ({key})"));
        }
        if self.tally.ours > 0 {
            let (n, key) = (text::count(self.tally.ours), key(ActionId::ShowOurs));
            parts.push(format!("{n} ours hidden ({key})"));
        }
        parts.join(", ")
    }

    /// What stands where no stall does.
    fn none(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let mut pen = Pen::new(buf, scene.theme, area, 1);
        let nothing_matches = !self.list.filter.is_empty() || self.narrow.is_narrow();
        if nothing_matches {
            pen.gap(3).put("nothing matches", Role::Dim);
        } else {
            let line = watch::calm(scene, &scene.sample().stalls);
            pen.gap(1).put("✔ ", Role::Ok).put(&line, Role::Text);
            if let Some(watch) = scene.sample().stalls.value() {
                Pen::new(buf, scene.theme, area, 2)
                    .gap(3)
                    .put("watched: ", Role::Dim)
                    .put(&watch::watched(watch), Role::Dim);
            }
        }
    }

    fn headings(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16, c: &Columns) {
        let mut pen = Pen::new(buf, scene.theme, area, y);
        let dim = Role::Faint;
        if self.narrow.by.is_some() {
            pen.gap(2)
                .right("worst", 8, dim)
                .right("in all", 10, dim)
                .gap(2)
                .put("how many, and what most of them have in common", dim);
            return;
        }
        pen.gap(2)
            .left("time", c.time, dim)
            .right("cpu", c.cpu - 1, dim)
            .gap(1)
            .left("stall", c.what, dim)
            .right("delay", c.delay, dim)
            .gap(2)
            .left("held by", c.who, dim)
            .left(if c.owner > 0 { "of" } else { "" }, c.owner, dim)
            .left(if c.syscall > 0 { "syscall" } else { "" }, c.syscall, dim)
            .left("in function", c.function, dim)
            .right(if c.share > 0 { "share" } else { "" }, c.share, dim)
            .right(if c.samples > 0 { "samples" } else { "" }, c.samples, dim)
            .gap(2.min(c.rest))
            .left(
                if c.rest > 0 {
                    "lock, file, victims"
                } else {
                    ""
                },
                c.rest,
                dim,
            );
    }
}

/// Something that is not watched, with what mends it, in a line or two.
fn gap(
    buf: &mut Buffer,
    scene: &Scene<'_>,
    area: Rect,
    y: u16,
    what: &str,
    reason: &Reason,
) -> u16 {
    let mut pen = Pen::new(buf, scene.theme, area, y);
    let fix = reason.fix();
    pen.gap(1)
        .put("○ ", Role::Faint)
        .put(what, Role::Dim)
        .put(": ", Role::Dim)
        .put(&text::name(&reason.to_string(), 300), Role::Warning);
    // What nothing mends needs no second line.
    if text::width(&fix) + 8 <= pen.room() || !reason.is_mendable() {
        pen.put(" · fix: ", Role::Dim)
            .put(&text::name(&fix, 300), Role::Strong);
        return 1;
    }
    let mut pen = Pen::new(buf, scene.theme, area, y + 1);
    pen.gap(3)
        .put("fix: ", Role::Dim)
        .put(&text::name(&fix, 300), Role::Strong);
    2
}

/// What a filter narrows down to: `cadvisor in memory_stat_show`.
fn only(filter: &Filter) -> String {
    let named = |name: &Option<Name>| match name {
        Some(name) => text::name(name, 40).into_owned(),
        None => "nobody known".to_owned(),
    };
    let mut out = Vec::new();
    if let Some(culprit) = &filter.culprit {
        out.push(named(culprit));
    }
    if let Some(function) = &filter.function {
        out.push(match function {
            Some(name) => format!("in {}", text::name(name, 40)),
            None => "in no known function".to_owned(),
        });
    }
    if let Some(kind) = filter.kind {
        out.push(kind.as_str().to_owned());
    }
    if let Some(cpu) = filter.cpu {
        out.push(format!("cpu {cpu}"));
    }
    out.join(" ")
}

/// Widths of the columns; 0 for those that there is no room for.
struct Columns {
    /// Digits of the second's parts.
    digits: u32,
    time: usize,
    cpu: usize,
    what: usize,
    delay: usize,
    who: usize,
    owner: usize,
    syscall: usize,
    function: usize,
    share: usize,
    samples: usize,
    rest: usize,
}

impl Columns {
    fn of(width: u16) -> Self {
        let wide = usize::from(width).saturating_sub(2);
        let mut out = Self {
            digits: if width >= 100 { 3 } else { 0 },
            time: if width >= 100 { 14 } else { 9 },
            cpu: 5,
            what: 17,
            delay: 8,
            who: if width >= 100 { 24 } else { 20 },
            owner: match width {
                0..140 => 0,
                140..180 => 26,
                _ => 34,
            },
            syscall: if width >= 110 { 10 } else { 0 },
            function: 0,
            share: if width >= 90 { 7 } else { 0 },
            samples: if width >= 160 { 10 } else { 0 },
            rest: 0,
        };
        if width < 60 {
            (out.time, out.what, out.who) = (0, 10, 16);
        }
        let used = out.time
            + out.cpu
            + out.what
            + out.delay
            + 2
            + out.who
            + out.owner
            + out.syscall
            + out.share
            + out.samples;
        let left = wide.saturating_sub(used);
        out.function = if width >= 180 { left.min(34) } else { left };
        out.rest = left - out.function;
        out
    }
}

/// How long it took, marked where that is an estimate which is shorter than what counts: it may have
/// been longer.
fn delay(scene: &Scene<'_>, stall: &Stall) -> String {
    let watch = scene.sample().stalls.value();
    let from_ns = watch.and_then(|watch| watch.kinds[stall.kind as usize].get());
    let mark = match from_ns {
        Some(from_ns) if names::may_count(stall, from_ns) => "~",
        _ => "",
    };
    format!("{mark}{}", text::duration(stall.delay_ns))
}

fn stall_line(
    scene: &Scene<'_>,
    body: Rect,
    buf: &mut Buffer,
    y: u16,
    (stall, place): (&Stall, &str),
    c: &Columns,
) {
    let mut pen = Pen::new(buf, scene.theme, body, y);
    let paused = stall.pause == Pause::Paused;
    let (mark, role) = if paused {
        (" ", Role::Dim)
    } else {
        (delay_mark(stall.delay_ns), delay_role(stall.delay_ns))
    };
    pen.put(mark, role).put(place, Role::Line);
    let time = match c.digits {
        0 => text::clock(stall.wall_ns),
        digits => text::clock_part(stall.wall_ns, digits),
    };
    pen.left(&time, c.time, Role::Dim)
        .right(&stall.cpu.to_string(), c.cpu - 1, Role::Strong)
        .gap(1)
        .left(&names::what(stall), c.what, Role::Text)
        .right(&delay(scene, stall), c.delay, role)
        .gap(2);
    let column = |pen: &mut Pen<'_>, text: &str, width: usize, role: Role| {
        // A blank between columns however long the text is.
        if let Some(room) = width.checked_sub(1) {
            pen.left(text, room, role).gap(1);
        }
    };
    let (who, role) = names::who_cell(stall, c.who.saturating_sub(1));
    let culprit = stall.culprit.value().filter(|_| !paused);
    let Some(culprit) = culprit else {
        // A reason needs the room of what is not known either.
        let room = c.who + c.owner + c.syscall + c.function;
        column(&mut pen, &who, room, role);
        pen.right(if c.share > 0 { NONE } else { "" }, c.share, Role::Faint);
        return;
    };
    column(&mut pen, &who, c.who, role);
    let owner = match culprit.owner.as_ref() {
        Ok(owner) => (text::name(&owner.name, c.owner), Role::Dim),
        Err(_) => (NONE.into(), Role::Faint),
    };
    column(&mut pen, &owner.0, c.owner, owner.1);
    let syscall = culprit.syscall.as_deref().unwrap_or("");
    column(
        &mut pen,
        &text::name(syscall, c.syscall),
        c.syscall,
        Role::Dim,
    );
    let (function, role) = names::function(stall);
    // As the last column it needs no gap behind it.
    let gap = usize::from(c.share + c.rest > 0);
    column(&mut pen, &function, c.function + 1 - gap, role);
    let share = format!("{:.0} %", culprit.share * 100.0);
    pen.right(if c.share > 0 { &share } else { "" }, c.share, Role::Text);
    if c.samples > 0 {
        let (of, all) = culprit.samples;
        pen.right(&format!("{of}/{all}"), c.samples, Role::Dim);
    }
    if c.rest > 4 {
        pen.gap(2).put(&rest(stall), Role::Dim);
    }
}

/// Lock, file, victims and what was lost, as far as there are any.
fn rest(stall: &Stall) -> String {
    let mut parts = Vec::new();
    if let Some(culprit) = stall.culprit.value() {
        if let Some(lock) = &culprit.lock {
            parts.push(printable(lock).into_owned());
        } else if culprit.lock_suspected {
            parts.push("a lock suspected".to_owned());
        }
        if let Some(file) = &culprit.file {
            parts.push(text::path(file, 40).into_owned());
        }
    }
    if !stall.victims.is_empty() {
        let n = stall.victims.len() as u64;
        parts.push(format!("and {}", text::plural(n, "more cpu")));
    }
    if stall.lost > 0 {
        parts.push(format!("{} lost", stall.lost));
    }
    parts.join(", ")
}

fn group_line(scene: &Scene<'_>, body: Rect, buf: &mut Buffer, y: u16, group: &Group, open: bool) {
    let mut pen = Pen::new(buf, scene.theme, body, y);
    let role = delay_role(group.worst_ns);
    pen.put(if open { "▾ " } else { "▸ " }, Role::Line)
        .right(&text::duration(group.worst_ns), 8, role)
        .right(&text::duration(group.total_ns), 10, Role::Text)
        .gap(2);
    pen.put(&group.to_string(), Role::Text);
    let part = format!(" · {:.0} % of all stalls", group.share * 100.0);
    if group.share < 1.0 && text::width(&part) <= pen.room() {
        pen.put(&part, Role::Dim);
    }
}
