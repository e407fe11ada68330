//! What traces and how the cgroups are, in a few lines.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Reading;
use stalltop_model::sample::{Cgroup, Holder, Instance};

use crate::cgroups::{stale, trend};
use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;
use crate::tracing::{Tally, read_by};

use super::Item;

/// Draws the line of the locks, if there is one, and up to two sections into `area`; gives the
/// lines that stand for something that can be opened.
pub(super) fn render(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    locks: Option<&[(String, Role)]>,
) -> Vec<(u16, Item)> {
    let mut out = Vec::new();
    if area.height == 0 {
        return out;
    }
    let mut y = 0;
    if let Some(parts) = locks {
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.gap(1).put("LOCKS ", Role::Title);
        for (text, role) in parts {
            pen.put(text, *role);
        }
        out.push((y, Item::Locks));
        y += 1;
    }
    let titled = area.height >= 4 + y;
    let as_of = match scene.past() {
        Some(_) => format!("as of {}", text::clock(scene.wall_ns())),
        None => String::new(),
    };
    let newest = scene.as_of_newest();
    let newest = newest.trim_start_matches(", ").to_owned();
    if titled {
        draw::section(buf, scene.theme, area, y, ("WHAT TRACES", &as_of, "5"));
        y += 1;
    }
    let tally = Tally::of(scene.tracing());
    let mut pen = Pen::new(buf, scene.theme, area, y);
    pen.gap(1);
    tally.draw(&mut pen);
    out.push((y, Item::Tracing));
    y += 1;
    // Where, or of whom: what it does there must be seen whole.
    let whose = if area.width < 100 { 30 } else { 36 };
    let spare = area.height.saturating_sub(y + if titled { 2 } else { 1 });
    let end = y + spare;
    for (instance, n) in instances_on(scene).take(usize::from(spare)) {
        let name = match &*instance.name {
            "" => "top level".to_owned(),
            name => format!("instance {}", text::name(name, 24)),
        };
        let unread = instance.readers.value().is_some_and(Vec::is_empty);
        let role = if unread { Role::Notice } else { Role::Dim };
        Pen::new(buf, scene.theme, area, y)
            .gap(3)
            .left(
                &format!("{} on", text::plural(n, "event")),
                24,
                Role::Strong,
            )
            .column(&name, whose, Role::Dim)
            .put(&read_by(instance.readers.as_ref()), role);
        y += 1;
    }
    let spare = end - y;
    for (holder, n) in holders(scene).into_iter().take(usize::from(spare)) {
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.gap(3)
            .left(
                &format!("{}[{}]", text::name(&holder.comm, 16), holder.pid),
                24,
                Role::Strong,
            )
            .column(&text::name(&holder.owner.name, 80), whose, Role::Dim)
            .put(
                &format!("holds {}", text::plural(n, "BPF program")),
                Role::Text,
            );
        y += 1;
    }
    if area.height <= y {
        return out;
    }
    if titled {
        draw::section(buf, scene.theme, area, y, ("MEMORY CGROUPS", &newest, "6"));
        y += 1;
    }
    if area.height > y {
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.gap(1);
        cgroups(scene, &mut pen);
        out.push((y, Item::Cgroups));
    }
    out
}

/// Instances of others with the number of events on in each, if any.
pub(super) fn instances_on<'a>(scene: &Scene<'a>) -> impl Iterator<Item = (&'a Instance, u64)> {
    let tracefs = scene.tracing().tracefs.value();
    let others = tracefs.into_iter().flat_map(|t| &t.instances);
    others.filter(|i| !i.ours).filter_map(|i| {
        let on = i.events.iter().filter(|e| e.state.is_on()).count() as u64;
        (on > 0).then_some((i, on))
    })
}

/// Processes other than stalltop that hold BPF programs, the one with most first.
fn holders<'a>(scene: &Scene<'a>) -> Vec<(&'a Holder, u64)> {
    let mut out: Vec<(&Holder, u64)> = Vec::new();
    let Some(bpf) = scene.tracing().bpf.value() else {
        return out;
    };
    for program in bpf.programs.iter().filter(|p| !p.ours) {
        let mut seen = 0;
        for holder in &program.holders {
            if seen == holder.pid {
                continue;
            }
            seen = holder.pid;
            match out.iter_mut().find(|(h, _)| h.pid == holder.pid) {
                Some((_, n)) => *n += 1,
                None => out.push((holder, 1)),
            }
        }
    }
    out.sort_by_key(|(h, n)| (std::cmp::Reverse(*n), h.pid));
    out
}

fn cgroups(scene: &Scene<'_>, pen: &mut Pen<'_>) {
    let cgroups = match scene.sample().cgroups.as_ref() {
        Ok(cgroups) => cgroups,
        Err(reason) => {
            pen.put("○ memory cgroups: ", Role::Dim)
                .put(&text::name(&reason.to_string(), 200), Role::Faint)
                .put(" · fix: ", Role::Dim)
                .put(&text::name(&reason.fix(), 200), Role::Dim);
            return;
        }
    };
    match &cgroups.zombies {
        Reading::Value(n) => {
            let role = if *n >= 1_000 {
                Role::Warning
            } else {
                Role::Strong
            };
            pen.put(&text::count(*n), role)
                .put(" zombies", Role::Text)
                .put(&trend(scene.model), Role::Dim);
        }
        Reading::Off(reason) => {
            pen.put("zombies not counted: ", Role::Dim)
                .put(&text::name(&reason.to_string(), 80), Role::Faint);
        }
    }
    pen.put(
        &format!(" · {} visible", text::count(cgroups.visible)),
        Role::Text,
    );
    let slowest: Option<(&Cgroup, u64)> = cgroups
        .rows
        .iter()
        .filter_map(|row| Some((row, row.read.value()?.smoothed_ns)))
        .max_by_key(|(_, ns)| *ns);
    if let Some((row, ns)) = slowest {
        let role = crate::cgroups::read_role(ns);
        pen.put(" · slowest memory.stat ", Role::Text)
            .put(&text::duration(ns), role)
            .put(&stale(scene.sample().at_ns, row.read_at_ns), Role::Notice)
            .put(" ", Role::Text);
        let room = pen.room().saturating_sub(1);
        pen.put(&text::path(&row.path, room), Role::Dim);
    }
}
