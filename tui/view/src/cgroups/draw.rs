//! The cgroups on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::{Cgroup, CgroupLayout, Cgroups, MemoryVersion, OwnerKind};
use stalltop_model::{Reading, printable};

use crate::draw::{self, Pen};
use crate::glyph;
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::rows::Row;
use super::{read_role, trend};

/// A read that takes this long already is called hanging, ns.
const HANGING_NS: u64 = 100_000_000;

impl super::Cgroups {
    pub(super) fn draw(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let cgroups = match scene.sample().cgroups.as_ref() {
            Ok(cgroups) => cgroups,
            Err(reason) => {
                draw::section(buf, theme, area, 0, ("MEMORY CGROUPS", "", ""));
                if scene.started() {
                    let instead = "memory pressure in the header, if the kernel has PSI";
                    draw::missing(buf, theme, area, 2, ("memory cgroups", reason, instead));
                } else {
                    Pen::new(buf, theme, area, 2)
                        .gap(3)
                        .put("waiting for the first sample", Role::Dim);
                }
                return;
            }
        };
        let shape = if self.flat { "flat" } else { "tree" };
        let mut detail = format!("{shape}, {}", self.list.order_title());
        if let Some(filter) = self.list.filter_title() {
            detail = format!("{filter}: {} of {}", self.list.hits(), cgroups.rows.len());
        }
        if scene.past().is_some() {
            let of = text::clock(scene.sample().wall_ns);
            detail.push_str(&format!(" · rows as of {of}"));
        }
        draw::section(
            buf,
            theme,
            area,
            0,
            ("MEMORY CGROUPS", &detail, layout(cgroups.layout)),
        );
        let used = 1 + summary(scene, cgroups, area, buf);
        let columns = Columns::of(area.width, cgroups.layout);
        heading(scene, area, buf, used, &columns);
        let body = draw::below(area, used + 1);
        self.list.draw(scene, body, buf, |buf, y, row| {
            // Rows belong to the sample they were made from; a later one has fewer at worst.
            if let Some(cgroup) = cgroups.rows.get(row.at).filter(|c| c.path == row.path) {
                line(scene, body, buf, y, (row, cgroup), self.flat, &columns);
            }
        });
        if self.list.rows().is_empty() {
            let say = if self.list.filter.is_empty() {
                "no memory cgroup"
            } else {
                "nothing matches the filter"
            };
            Pen::new(buf, theme, body, 0).gap(3).put(say, Role::Dim);
        }
    }
}

fn layout(layout: CgroupLayout) -> &'static str {
    match layout {
        CgroupLayout::V1 => "cgroup v1",
        CgroupLayout::V2 => "cgroup v2",
        CgroupLayout::Hybrid {
            memory: MemoryVersion::V1,
        } => "hybrid, memory in v1",
        CgroupLayout::Hybrid {
            memory: MemoryVersion::V2,
        } => "hybrid, memory in v2",
    }
}

/// Zombies with their trend, and the sweep. Gives the rows used.
fn summary(scene: &Scene<'_>, cgroups: &Cgroups, area: Rect, buf: &mut Buffer) -> u16 {
    let theme = scene.theme;
    let mut pen = Pen::new(buf, theme, area, 1);
    pen.gap(1).put("zombies ", Role::Dim);
    match cgroups.zombies.as_ref() {
        Ok(n) => {
            let role = if *n >= 1_000 {
                Role::Warning
            } else {
                Role::Strong
            };
            pen.right(&text::count(*n), 7, role)
                .left(&trend(scene.model), 24, Role::Dim);
            sparkline(scene, &mut pen);
        }
        Err(reason) => {
            pen.put(&text::name(&reason.to_string(), 120), Role::Warning)
                .put(" · fix: ", Role::Dim)
                .put(&text::name(&reason.fix(), 200), Role::Dim);
        }
    }
    let sweep = &cgroups.sweep;
    let mut pen = Pen::new(buf, theme, area, 2);
    pen.gap(1)
        .put("visible ", Role::Dim)
        .right(&text::count(cgroups.visible), 7, Role::Strong);
    let part = |pen: &mut Pen<'_>, n: u64, what: &str, role: Role| {
        if n > 0 {
            pen.put(" · ", Role::Dim)
                .put(&format!("{} {what}", text::count(n)), role);
        }
    };
    part(&mut pen, sweep.unread, "not read yet", Role::Notice);
    part(
        &mut pen,
        sweep.backed_off,
        "backed off: slow, read less often",
        Role::Warning,
    );
    pen.put(
        &format!(
            " · {} in {} by us",
            text::plural(sweep.reads, "read"),
            text::duration(sweep.read_ns)
        ),
        Role::Dim,
    );
    part(&mut pen, sweep.vanished, "vanished", Role::Dim);
    let now = scene.sample().at_ns;
    let hanging = now.saturating_sub(sweep.reading_since_ns);
    if sweep.reading_since_ns > 0 && hanging >= HANGING_NS {
        pen.put(
            &format!(" · ▲ a read hangs for {}", text::duration(hanging)),
            Role::Critical,
        );
    }
    2
}

/// The number of zombies over the last minutes, between its least and its most.
fn sparkline(scene: &Scene<'_>, pen: &mut Pen<'_>) {
    let points = scene.model.cgroups.points();
    let cells = pen.room().saturating_sub(26).min(110);
    let skip = points.len().saturating_sub(cells);
    let shown = || scene.model.cgroups.points().skip(skip).map(|p| p.zombies);
    let least = shown().flatten().min().unwrap_or(0);
    let most = shown().flatten().max().unwrap_or(0);
    if cells < 8 || points.len() < 2 {
        return;
    }
    for point in shown() {
        match point {
            None => pen.put("–", Role::Faint),
            Some(_) if most == least => pen.put("▁", Role::Series1),
            Some(n) => pen.put(
                glyph::block((n - least) as f64 / (most - least) as f64),
                Role::Series1,
            ),
        };
    }
    let scale = if most == least {
        format!("  all {}", text::count(most))
    } else {
        format!("  ▁ {} █ {}", text::count(least), text::count(most))
    };
    pen.put(&scale, Role::Faint);
}

/// Widths of the columns; 0 for one that is left out.
struct Columns {
    name: usize,
    owner: usize,
    longest: usize,
    processes: usize,
    zombies: usize,
    memory: usize,
    age: usize,
}

impl Columns {
    fn of(width: u16, layout: CgroupLayout) -> Self {
        let width_cells = usize::from(width);
        // v1 does not tell the zombies of a subtree: a column of dashes says nothing.
        let told = !matches!(
            layout,
            CgroupLayout::V1
                | CgroupLayout::Hybrid {
                    memory: MemoryVersion::V1
                }
        );
        let mut out = Self {
            name: 0,
            owner: if width >= 110 { 34 } else { 0 },
            longest: if width >= 90 { 11 } else { 0 },
            processes: if width >= 70 { 7 } else { 0 },
            zombies: if width >= 60 && told { 9 } else { 0 },
            memory: if width >= 50 { 11 } else { 0 },
            age: if width >= 40 { 8 } else { 0 },
        };
        let fixed = out.owner + out.longest + out.processes + out.zombies + out.memory + out.age;
        out.name = width_cells.saturating_sub(fixed + 12 + 4);
        out
    }
}

fn heading(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16, columns: &Columns) {
    let mut pen = Pen::new(buf, scene.theme, area, y);
    let gap = if columns.owner > 0 { 2 } else { 0 };
    pen.gap(3)
        .left("cgroup", columns.name, Role::Faint)
        .gap(gap)
        .left("whose", columns.owner.saturating_sub(gap), Role::Faint)
        .right("stat read", 12, Role::Faint)
        .right("longest", columns.longest, Role::Faint)
        .right("zombies", columns.zombies, Role::Faint)
        .right("memory", columns.memory, Role::Faint)
        .right("procs", columns.processes, Role::Faint)
        .right("age", columns.age, Role::Faint);
}

fn line(
    scene: &Scene<'_>,
    body: Rect,
    buf: &mut Buffer,
    y: u16,
    (row, cgroup): (&Row, &Cgroup),
    flat: bool,
    columns: &Columns,
) {
    let mut pen = Pen::new(buf, scene.theme, body, y);
    let slow = cgroup.read.value().map_or(0, |r| r.smoothed_ns);
    let mark = match slow {
        0..5_000_000 => " ",
        5_000_000..50_000_000 => "▲",
        _ => "✖",
    };
    pen.put(mark, read_role(slow));
    let indent = usize::from(row.place.depth.min(20)) * 2;
    let indent = indent.min(columns.name / 2);
    let fold = match row.place.open {
        Some(true) => "▾ ",
        Some(false) => "▸ ",
        None => "  ",
    };
    pen.put(if flat { "  " } else { "" }, Role::Line);
    let name = if flat || row.place.depth == 0 {
        text::path(&cgroup.path, columns.name).into_owned()
    } else {
        let last = cgroup.path.rsplit('/').next().unwrap_or(&cgroup.path);
        text::name(last, columns.name.saturating_sub(indent)).into_owned()
    };
    if !flat {
        pen.gap(indent).put(fold, Role::Line);
    }
    let room = columns.name.saturating_sub(if flat { 0 } else { indent });
    pen.left(
        &name,
        room,
        if row.place.hit { Role::Text } else { Role::Dim },
    );
    if columns.owner > 0 {
        // Where the path tells no owner, it would only be repeated.
        let owner = if matches!(cgroup.owner.kind, OwnerKind::Root | OwnerKind::Other) {
            "".into()
        } else {
            text::name(&cgroup.owner.name, columns.owner - 3)
        };
        pen.gap(2).left(&owner, columns.owner - 2, Role::Dim);
    }
    match cgroup.read.as_ref() {
        Ok(read) => {
            let backed = if cgroup.backed_off { "↓" } else { " " };
            pen.right(&text::duration(read.last_ns), 11, read_role(read.last_ns))
                .put(backed, Role::Warning);
            pen.right(
                &text::duration(read.longest_ns),
                columns.longest,
                read_role(read.longest_ns),
            );
        }
        Err(_) => {
            pen.right(NONE, 11, Role::Faint)
                .gap(1)
                .right(NONE, columns.longest, Role::Faint);
        }
    }
    let number = |pen: &mut Pen<'_>,
                  value: &Reading<u64>,
                  width: usize,
                  show: fn(u64) -> String| match value.get() {
        Some(0) => pen.right("0", width, Role::Faint).room(),
        Some(n) => pen.right(&show(n), width, Role::Text).room(),
        None => pen.right(NONE, width, Role::Faint).room(),
    };
    number(&mut pen, &cgroup.zombies, columns.zombies, text::count);
    number(&mut pen, &cgroup.used_bytes, columns.memory, text::bytes);
    number(&mut pen, &cgroup.processes, columns.processes, text::count);
    let age = match cgroup.read_at_ns {
        0 => NONE.into(),
        at => text::ago(scene.sample().at_ns.saturating_sub(at)),
    };
    pen.right(&age, columns.age, Role::Dim);
}

/// Everything known of a cgroup: the title, then its lines.
pub(super) fn facts(cgroup: &Cgroup, cgroups: &Cgroups, scene: &Scene<'_>) -> Vec<String> {
    let mut out = vec![printable(&cgroup.owner.name).into_owned()];
    let mut fact =
        |name: &str, value: String| out.push(format!("{} {value}", text::left(name, 18)));
    let below = if &*cgroup.path == "/" {
        ""
    } else {
        &*cgroup.path
    };
    fact(
        "file",
        format!(
            "{}{}/memory.stat",
            printable(&cgroups.mount),
            printable(below)
        ),
    );
    match cgroup.read.as_ref() {
        Ok(read) => {
            fact("last read", text::duration(read.last_ns));
            fact("smoothed", text::duration(read.smoothed_ns));
            fact("longest", text::duration(read.longest_ns));
            fact("reads by us", text::count(read.count));
            let age = scene.sample().at_ns.saturating_sub(cgroup.read_at_ns);
            fact("read", format!("{} ago", text::ago(age)));
        }
        Err(reason) => {
            fact("not read", printable(&reason.to_string()).into_owned());
            fact("fix", printable(&reason.fix()).into_owned());
        }
    }
    if cgroup.backed_off {
        fact(
            "backed off",
            "its read is slow, so it is read less often; r reads it now".into(),
        );
    }
    let show = |value: &Reading<u64>, unit: fn(u64) -> String| match value.as_ref() {
        Ok(n) => unit(*n),
        Err(reason) => printable(&reason.to_string()).into_owned(),
    };
    fact("memory", show(&cgroup.used_bytes, text::bytes));
    fact("processes", show(&cgroup.processes, text::count));
    fact("zombies below", show(&cgroup.zombies, text::count));
    out
}
