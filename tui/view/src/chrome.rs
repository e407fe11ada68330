//! Header, tabs and footer, and how the screen is divided.

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::verdict;
use stalltop_model::sample::{PressureLine, System};
use stalltop_model::{Model, Reading, printable};

use crate::action::{ActionId, Context, Danger};
use crate::draw::Pen;
use crate::keymap::Keymap;
use crate::msg::{Feed, Progress};
use crate::pane::{PANES, PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;

/// One line that stands in the footer's place until the next key.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    role: Role,
    text: String,
    undo: bool,
    /// The journal's number of the change that it is about.
    change: Option<u64>,
}

impl Status {
    pub(crate) fn new(role: Role, text: String) -> Self {
        Self {
            role,
            text,
            undo: false,
            change: None,
        }
    }

    /// About a change: what it did is told in its place, once that is known.
    pub(crate) fn about(mut self, change: u64) -> Self {
        self.change = Some(change);
        self
    }

    /// Tells what the change did, as far as that is known.
    pub(crate) fn judge(&mut self, model: &Model) {
        let Some(id) = self.change else {
            return;
        };
        let entry = model.changes().iter().find(|e| e.id == id);
        if let (Some(entry), Some(verdict)) = (entry, model.verdict(id)) {
            let clock = text::clock(entry.wall_ns);
            self.text = format!("{clock} {}: {verdict}", verdict::short(entry));
        }
    }

    /// With something more to say; the graver role counts.
    pub(crate) fn and(mut self, role: Role, text: &str) -> Self {
        if role != Role::Ok {
            self.role = role;
        }
        self.text = format!("{}, {}", self.text, text);
        self
    }

    /// With another file that was written; a directory is named once.
    pub(crate) fn and_file(self, path: &str) -> Self {
        if !self.text.starts_with("written to ") {
            return self.and(Role::Ok, &format!("written to {path}"));
        }
        let name = match path.rfind('/') {
            Some(at) if self.text.contains(&path[..=at]) => &path[at + 1..],
            _ => path,
        };
        self.and(Role::Ok, name)
    }

    /// With the key that undoes what it tells.
    pub(crate) fn with_undo(mut self, undo: bool) -> Self {
        self.undo = undo;
        self
    }
}

/// What stands around the open pane.
pub(crate) struct Chrome<'a> {
    pub scene: Scene<'a>,
    /// The live model: own cost is never held.
    pub live: &'a Model,
    pub feed: &'a Feed,
    pub paused: bool,
    pub open: PaneId,
    pub work: Option<&'a Progress>,
    pub size: Rect,
}

impl Chrome<'_> {
    /// What is left for the pane.
    pub(crate) fn body(&self) -> Rect {
        let top = (2 + u16::from(self.scene.span.is_some())).min(self.size.height);
        let bottom = 1.min(self.size.height - top);
        Rect::new(
            self.size.x,
            self.size.y + top,
            self.size.width,
            self.size.height - top - bottom,
        )
    }

    /// Draws the two lines at the top.
    pub(crate) fn header(&self, buf: &mut Buffer) {
        let theme = self.scene.theme;
        let line = Rect {
            height: 1.min(self.size.height),
            ..self.size
        };
        buf.set_style(line, theme.style(Role::Header));
        let right = self.right_of_header();
        let right_width: usize = right.iter().map(|(t, _)| text::width(t)).sum();
        let room = usize::from(self.size.width).saturating_sub(right_width + 2);
        let mut pen = Pen::new(buf, theme, line, 0);
        pen.put(" stalltop  ", Role::HeaderName);
        let host = self.host_facts(room.saturating_sub(11));
        if let Some((name, facts)) = host {
            pen.put(&name, Role::HeaderHost).put(&facts, Role::Header);
        }
        if right_width < usize::from(self.size.width) {
            let rest = Rect {
                x: line.right() - right_width as u16,
                width: right_width as u16,
                ..line
            };
            let mut pen = Pen::new(buf, theme, rest, 0);
            for (text, role) in &right {
                pen.put(text, *role);
            }
        }
        self.tabs(buf);
        self.span(buf);
    }

    /// The line that says that only a marked time is shown, and how to leave it.
    fn span(&self, buf: &mut Buffer) {
        let Some(span) = self.scene.span else { return };
        if self.size.height < 3 {
            return;
        }
        let line = Rect {
            y: self.size.y + 2,
            height: 1,
            ..self.size
        };
        buf.set_style(line, self.scene.theme.style(Role::Paused));
        let key = self.scene.key(&[Context::Pane], ActionId::Close);
        let about = format!(
            " only {} ({}): {key} shows everything again",
            span.clock(),
            text::duration(span.length_ns())
        );
        Pen::new(buf, self.scene.theme, line, 0).put(&about, Role::Paused);
    }

    /// The host's name and as many facts as fit.
    fn host_facts(&self, room: usize) -> Option<(String, String)> {
        let header = self.scene.model.header()?;
        let host = &header.host;
        let name = text::name(&host.hostname, room.min(30)).into_owned();
        let cpus = self.scene.sample().cpus.iter();
        let online = cpus.clone().filter(|c| c.online).count();
        let present = cpus.count();
        let mut facts = String::new();
        let mut candidates = vec![format!(" · {}", text::name(&host.release, 40))];
        if present > 0 {
            candidates.push(if online == present {
                format!(" · {}", text::plural(present as u64, "cpu"))
            } else {
                format!(" · {online} of {present} cpus online")
            });
        }
        if let Some(up) = self.scene.sample().system.uptime_ns.get() {
            candidates.push(format!(" · up {}", text::ago(up)));
        }
        if let Some(preemption) = host.preemption.get() {
            candidates.push(format!(
                " · preempt {}",
                format!("{preemption:?}").to_lowercase()
            ));
        }
        if let Some(hz) = host.hz.get() {
            candidates.push(format!(" · {hz} Hz"));
        }
        for fact in candidates {
            if text::width(&name) + text::width(&facts) + text::width(&fact) <= room {
                facts.push_str(&fact);
            }
        }
        Some((name, facts))
    }

    /// Mode and own cost; shorter forms where there is little room.
    fn right_of_header(&self) -> Vec<(String, Role)> {
        let width = self.size.width;
        let mut out = vec![self.mode(width)];
        let own = &self.live.own;
        let percent =
            |p: Option<f64>| p.map_or_else(|| NONE.to_owned(), |p| text::percent(p / 100.0));
        let (user, probes) = (percent(own.cpu_percent()), percent(own.probe_percent()));
        let drops = match self.live.now().own.drops {
            Reading::Value(n) => text::count(n),
            Reading::Off(_) => NONE.into(),
        };
        if width >= 70 {
            out.push((format!("  self {user} % probes {probes} %"), Role::Header));
        } else if width >= 40 {
            out.push((format!("  self {user}+{probes} %"), Role::Header));
        }
        // The sampler's cost is its interrupts, which no program's run time has in it.
        let watch = self.live.now().stalls.value();
        let sampled = watch.map_or(0, |watch| watch.sampling.len());
        if sampled > 0 && width >= 100 {
            out.push((format!(" + 1 kHz on {sampled}"), Role::Notice));
        }
        let lost = self.live.now().own.drops.get().is_some_and(|n| n > 0);
        if width >= 60 || lost {
            let role = if lost { Role::Paused } else { Role::Header };
            out.push((format!("  lost {drops} "), role));
        }
        out
    }

    fn mode(&self, width: u16) -> (String, Role) {
        match self.feed {
            Feed::Live { tick_ns } if !self.paused => {
                let tick = *tick_ns as f64 / 1e9;
                (format!("LIVE {tick}s"), Role::Live)
            }
            Feed::Live { .. } => match self.behind() {
                Some(s) => (format!("PAUSED -{s}"), Role::Paused),
                None => ("PAUSED".into(), Role::Paused),
            },
            Feed::Replay {
                at_ns,
                length_ns,
                speed,
                paused,
                ended,
            } => {
                let state = match (ended, paused) {
                    (true, _) => " end".to_owned(),
                    (_, true) => " paused".to_owned(),
                    _ => format!(" {speed}x"),
                };
                if width >= 60 {
                    let (at, of) = (text::ago(*at_ns), text::ago(*length_ns));
                    (format!("REPLAY {at} of {of}{state}"), Role::Replay)
                } else {
                    (format!("REPLAY{state}"), Role::Replay)
                }
            }
        }
    }

    /// How far back in history the tick shown is.
    fn behind(&self) -> Option<String> {
        let cores = &self.scene.model.cores;
        let shown = cores.time(self.scene.tick()?)?;
        let newest = cores.time(cores.newest()?)?;
        let back = newest.at_ns.checked_sub(shown.at_ns).filter(|ns| *ns > 0)?;
        Some(text::ago(back))
    }

    fn tabs(&self, buf: &mut Buffer) {
        let theme = self.scene.theme;
        let width = self.size.width;
        if self.size.height < 2 {
            return;
        }
        for (pane, from, label) in tab_labels(width, self.scene.model) {
            let area = Rect {
                x: self.size.x + from,
                y: self.size.y + 1,
                width: width.saturating_sub(from),
                height: 1,
            };
            let role = if pane == self.open {
                Role::TabActive
            } else {
                Role::Tab
            };
            Pen::new(buf, theme, area, 0).put(&label, role);
        }
        let used = tab_labels(width, self.scene.model)
            .last()
            .map_or(0, |(_, from, label)| {
                usize::from(*from) + text::width(label)
            });
        let room = usize::from(width).saturating_sub(used + 1);
        let line = Rect::new(self.size.x, self.size.y + 1, width, 1);
        let mut pen = Pen::new(buf, theme, line, 0);
        pen.gap(used);
        if let Some(work) = self.work {
            let text = progress(work);
            pen.last(&format!("{} ", text::cut(&text, room)), Role::Warning);
            return;
        }
        let wall = self
            .scene
            .tick()
            .and_then(|seq| self.scene.model.cores.time(seq))
            .map_or(self.scene.sample().wall_ns, |t| t.wall_ns);
        if wall == 0 {
            return;
        }
        let clock = format!("{} UTC ", text::clock(wall));
        let pressure = pressure(&self.scene.sample().system);
        let full = format!("{pressure}   {clock}");
        let short = format!("{} {}", pressure.trim_end_matches(" %"), text::clock(wall));
        let pick = [full, short, clock]
            .into_iter()
            .find(|t| text::width(t) <= room);
        pen.last(&pick.unwrap_or_default(), Role::Dim);
    }

    /// The keys that work here.
    pub(crate) fn footer(
        &self,
        buf: &mut Buffer,
        keymap: &Keymap,
        stack: &[Context],
        usable: impl Fn(ActionId) -> bool,
    ) {
        let theme = self.scene.theme;
        let line = self.bottom();
        buf.set_style(line, theme.style(Role::Footer));
        // The ways out and on come first: they must be there at any width.
        let mut entries: Vec<(String, &str, Role)> = Vec::new();
        for (key, action) in keymap.available(stack) {
            // In a pane itself there is mostly nothing to close.
            let in_pane = PANES.iter().any(|p| p.stack == stack);
            let live = matches!(self.feed, Feed::Live { .. });
            let short = match action.id {
                ActionId::Close if in_pane && self.paused && live => "back to live",
                ActionId::Close if in_pane => "",
                // Details have a way out of their own.
                ActionId::Quit if !in_pane => "",
                ActionId::Pause if self.paused && live => "live",
                _ => action.short,
            };
            if short.is_empty() || !usable(action.id) {
                continue;
            }
            let role = match action.danger {
                Danger::None => Role::FooterKey,
                Danger::Asks => Role::FooterDanger,
            };
            let entry = (key.to_string(), short, role);
            match action.id {
                ActionId::Help => entries.insert(0, entry),
                ActionId::Quit => entries.insert(1.min(entries.len()), entry),
                ActionId::Close => entries.insert(0, entry),
                _ => entries.push(entry),
            }
        }
        let mut pen = Pen::new(buf, theme, line, 0);
        pen.gap(1);
        for (key, short, role) in &entries {
            if pen.room() < text::width(key) + text::width(short) + 3 {
                continue;
            }
            pen.put(key, *role)
                .put(" ", Role::Footer)
                .put(short, Role::Footer)
                .gap(2);
        }
        let name = format!("{} ", theme.name());
        if pen.room() > text::width(&name) + 2 {
            pen.last(&name, Role::Footer);
        }
    }

    /// A line in the footer's place.
    pub(crate) fn status(&self, buf: &mut Buffer, status: &Status) {
        let line = self.bottom();
        buf.set_style(line, self.scene.theme.style(Role::Footer));
        let key = self.scene.key(&[Context::Pane], ActionId::Undo);
        let mut pen = Pen::new(buf, self.scene.theme, line, 0);
        let room = pen.room().saturating_sub(if status.undo { 12 } else { 2 });
        pen.gap(1).put(&text::cut(&status.text, room), status.role);
        if status.undo {
            pen.put("   ", Role::Footer)
                .put(&key, Role::FooterKey)
                .put(" undo", Role::Footer);
        }
    }

    /// A text field in the footer's place.
    pub(crate) fn input(&self, buf: &mut Buffer, prompt: &str, value: &str) {
        let line = self.bottom();
        buf.set_style(line, self.scene.theme.style(Role::Footer));
        let mut pen = Pen::new(buf, self.scene.theme, line, 0);
        let shown = printable(value);
        let shown = text::cut_left(&shown, pen.room().saturating_sub(30));
        pen.gap(1)
            .put(prompt, Role::FooterKey)
            .put(&format!("{shown}▏"), Role::Input)
            .put("  Enter keeps it, Esc clears it", Role::Footer);
    }

    fn bottom(&self) -> Rect {
        if self.size.height < 3 {
            return Rect {
                height: 0,
                ..self.size
            };
        }
        Rect {
            y: self.size.bottom() - 1,
            height: 1,
            ..self.size
        }
    }
}

/// `opening x.stalltop 12 %`.
pub(crate) fn progress(work: &Progress) -> String {
    let what = printable(&work.what);
    match work.total {
        Some(total) if total > 0 => format!(
            "{what}: {} of {}, {} %",
            text::count(work.done),
            text::count(total),
            work.done.saturating_mul(100) / total
        ),
        _ => format!("{what}: {}", text::count(work.done)),
    }
}

fn pressure(system: &System) -> String {
    let one = |line: &Reading<PressureLine>| match line {
        Reading::Value(p) => format!("{:>2.0}", p.avg10),
        Reading::Off(_) => NONE.into(),
    };
    let p = &system.pressure;
    if p.cpu.value().is_none() && p.memory.value().is_none() && p.io.value().is_none() {
        return "PSI not available".into();
    }
    let mut out = format!(
        "PSI cpu {} mem {} io {}",
        one(&p.cpu),
        one(&p.memory),
        one(&p.io)
    );
    if let Reading::Value(irq) = &p.irq {
        let _ = write!(out, " irq {:>2.0}", irq.avg10);
    }
    out.push_str(" %");
    out
}

/// The tabs with where they begin.
fn tab_labels(width: u16, model: &Model) -> Vec<(PaneId, u16, String)> {
    let mut from = 0u16;
    PANES
        .iter()
        .enumerate()
        .map(|(i, pane)| {
            let label = if width >= 60 {
                format!(" {} {}{} ", i + 1, pane.title, badge(pane.id, width, model))
            } else if width >= 42 {
                format!(" {} {} ", i + 1, pane.title)
            } else {
                format!(
                    "{} {} ",
                    i + 1,
                    text::cut(
                        pane.title,
                        (usize::from(width) / 4).saturating_sub(3).max(2)
                    )
                )
            };
            let at = from;
            from = from.saturating_add(text::width(&label) as u16);
            (pane.id, at, label)
        })
        .collect()
}

/// What a tab counts, so that it is seen from the other panes.
fn badge(pane: PaneId, width: u16, model: &Model) -> String {
    let n = match pane {
        PaneId::Overview => model.findings().len() as u64,
        PaneId::Cores => 0,
        PaneId::Stalls => crate::stalls::recent(model),
        PaneId::Locks => return crate::locks::badge(model, width),
        PaneId::Tracing => crate::tracing::things_on(model),
        PaneId::Cgroups if width < 100 => 0,
        PaneId::Cgroups => model
            .now()
            .cgroups
            .value()
            .and_then(|c| c.zombies.get())
            .unwrap_or(0),
    };
    match n {
        0 => String::new(),
        n => format!(" {}", text::count(n)),
    }
}

/// The pane whose tab is at a cell.
pub(crate) fn tab_at(size: Rect, column: u16, row: u16, model: &Model) -> Option<PaneId> {
    if row != size.y + 1 {
        return None;
    }
    tab_labels(size.width, model)
        .into_iter()
        .find(|(_, from, label)| {
            let end = from.saturating_add(text::width(label) as u16);
            (*from..end).contains(&column)
        })
        .map(|(pane, _, _)| pane)
}

/// A ticket's text: facts, findings with their evidence, and the screen.
/// `full` is all of what the screen may show only a part of.
pub(crate) fn as_text(scene: &Scene<'_>, buf: &Buffer, full: Option<&[String]>) -> String {
    let mut out = String::new();
    let sample = scene.sample();
    if let Some(header) = scene.model.header() {
        let host = &header.host;
        let _ = writeln!(
            out,
            "host {}, kernel {} {}, {}, stalltop {}",
            printable(&host.hostname),
            printable(&host.release),
            printable(&host.machine),
            text::date(sample.wall_ns),
            printable(&header.version),
        );
    }
    for finding in scene.model.findings() {
        let _ = writeln!(
            out,
            "{} {} {}",
            finding.severity.glyph(),
            finding.id,
            printable(&finding.sentence)
        );
        for line in &finding.evidence {
            let _ = writeln!(out, "    {}", printable(line));
        }
        let _ = writeln!(
            out,
            "    confidence {}; would be wrong if: {}",
            finding.confidence.as_str(),
            finding.disproof
        );
    }
    if scene.model.findings().is_empty() {
        let _ = writeln!(out, "no finding now");
    }
    out.push('\n');
    for y in buf.area.rows() {
        let mut line = String::new();
        let mut skip = 0;
        for position in y.positions() {
            let Some(cell) = buf.cell(position) else {
                continue;
            };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            skip = text::width(cell.symbol()).saturating_sub(1);
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if let Some(full) = full {
        out.push('\n');
        for line in full {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}
