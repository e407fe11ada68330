//! Who held CPUs most in the last minute: the Overview's list.

use std::collections::{BTreeSet, HashMap};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::stalls::{self, Filter, Group, GroupBy, StallsModel};
use stalltop_model::sample::Stall;

use crate::cores::delay_role;
use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::names;

/// A culprit with its stalls of the last minute.
#[derive(Clone, Debug)]
pub(crate) struct Culprit {
    group: Group,
    /// `cadvisor[10436]`.
    who: String,
    owner: String,
    /// From the function at the top of the operation inward.
    chain: String,
}

/// The culprits of the time that is shown, most stalls first.
#[derive(Debug, Default)]
pub(crate) struct Culprits {
    rows: Vec<Culprit>,
    /// Stalls in all.
    stalls: u64,
    /// What the time that is shown is called.
    span: String,
}

impl Culprits {
    /// Works them out anew.
    pub(crate) fn refresh(&mut self, scene: &Scene<'_>) {
        let (from, until) = scene.of_late();
        let stalls = &scene.model.stalls;
        let groups = stalls.groups(GroupBy::Culprit, &Filter::default(), from, until);
        self.stalls = groups.iter().map(|g| u64::from(g.count)).sum();
        let mut pids: HashMap<stalls::Key, BTreeSet<u32>> = HashMap::new();
        for stall in stalls.matching(&Filter::default(), from, until) {
            if let Some(found) = stall.culprit.value() {
                let group = pids.entry(GroupBy::Culprit.key(stall)).or_default();
                group.insert(found.pid);
            }
        }
        self.rows = groups
            .into_iter()
            .take(16)
            .map(|group| {
                let processes = pids.get(&group.key).map_or(0, BTreeSet::len);
                culprit(stalls, group, processes)
            })
            .collect();
        self.span = scene.span.map_or("60 s".to_owned(), |span| span.clock());
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What culprit `at` is known by from refresh to refresh.
    pub(crate) fn key(&self, at: usize) -> Option<&stalls::Key> {
        self.rows.get(at).map(|c| &c.group.key)
    }

    /// Draws the title and as many as there is room for.
    pub(crate) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let all = text::plural(self.stalls, "stall");
        let detail = format!("{} · {all}", self.span);
        draw::section(buf, scene.theme, area, 0, ("CULPRITS", &detail, "3"));
        for (y, culprit) in (1u16..area.height).zip(&self.rows) {
            line(scene, area, buf, y, culprit);
        }
    }
}

fn culprit(model: &StallsModel, group: Group, tasks: usize) -> Culprit {
    let worst = model.get(group.worst_id);
    let found = worst.and_then(|s| s.culprit.value());
    Culprit {
        who: match (found, worst.and_then(|s| s.culprit.reason())) {
            // One name, and many that bear it one after the other.
            (Some(c), _) if tasks > 1 => format!("{} ({tasks} tasks)", text::name(&c.comm, 16)),
            (Some(c), _) => names::who(c, 32),
            (None, Some(reason)) => names::unknown(reason),
            (None, None) => group.key.to_string(),
        },
        owner: found
            .and_then(|c| c.owner.value())
            .map_or_else(String::new, |o| text::name(&o.name, 80).into_owned()),
        chain: worst.map_or_else(String::new, |s| chain(s)),
        group,
    }
}

/// `read < memory_stat_show < mem_cgroup_flush_stats`: the system call, the function at the
/// top of the operation, and where the time went.
fn chain(stall: &Stall) -> String {
    let Some(culprit) = stall.culprit.value() else {
        return String::new();
    };
    let mut parts = Vec::new();
    if let Some(syscall) = &culprit.syscall {
        parts.push(text::name(syscall, 24).into_owned());
    }
    if let Some(function) = culprit.function.value() {
        parts.push(text::name(function, 48).into_owned());
        let stack = stalls::main_stack(stall).and_then(|i| stall.stacks.get(i as usize));
        // Innermost first: what stands before the function is below it.
        let inner = stack.and_then(|s| {
            let at = s.iter().position(|f| f == function)?;
            s.get(..at)?.first()
        });
        parts.extend(inner.map(|f| text::name(f, 48).into_owned()));
    }
    parts.join(" < ")
}

fn line(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16, culprit: &Culprit) {
    let group = &culprit.group;
    // Of whom: from the second width on.
    let (who, owner) = match area.width {
        0..100 => (22, 0),
        100..110 => (20, 0),
        110..160 => (20, 24),
        _ => (34, 44),
    };
    let mut pen = Pen::new(buf, scene.theme, area, y);
    pen.gap(2);
    if owner > 0 && culprit.owner.is_empty() {
        // Why nobody is known needs the room, and nobody has an owner.
        pen.column(&culprit.who, who + owner, Role::Strong);
    } else {
        pen.column(&culprit.who, who, Role::Strong);
        pen.column(&culprit.owner, owner, Role::Dim);
    }
    pen.right(&text::count(u64::from(group.count)), 6, Role::Text)
        .put(
            if group.count == 1 {
                " stall "
            } else {
                " stalls"
            },
            Role::Dim,
        )
        .right(&text::duration(group.total_ns), 9, Role::Text);
    if area.width >= 130 {
        pen.put(" worst", Role::Dim).right(
            &text::duration(group.worst_ns),
            9,
            delay_role(group.worst_ns),
        );
    }
    pen.gap(2).put(&culprit.chain, Role::Text);
}
