//! Header, tabs and footer, and how the screen is divided.

mod status;
mod tabs;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::{Model, Reading, printable};

use crate::action::{ActionId, Context, Danger};
use crate::draw::Pen;
use crate::keymap::Keymap;
use crate::msg::{Feed, Progress};
use crate::pane::{PANES, PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;
pub(crate) use status::Status;
pub(crate) use tabs::tab_at;

/// What stands around the open pane.
pub(crate) struct Chrome<'a> {
    pub scene: Scene<'a>,
    /// The live model: own cost is never held.
    pub live: &'a Model,
    pub feed: &'a Feed,
    pub paused: bool,
    pub open: PaneId,
    pub work: Option<&'a str>,
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
            let cpus = text::plural(sampled as u64, "cpu");
            out.push((format!(" + 1 kHz on {cpus}"), Role::Notice));
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
