//! One trace instance: the top level of tracefs or one of `instances/*`.
//!
//! What `set_event` lists is what is registered: on or soft-armed. It and a subsystem's `enable`
//! look at the same flag, `EVENT_FILE_FL_ENABLED`, which arming a trigger sets as well
//! (`s_next`, `system_enable_read` and `__ftrace_event_enable_disable`,
//! kernel/trace/trace_events.c), so a summary of `0` is proof that nothing below it is on or
//! soft-armed, and every trigger's event is in `set_event`. Only a *filter* can sit on an event
//! that is off, and only a walk of all `filter` files finds it: see [`InstanceReader::walk`].
//!
//! No file is kept open: an open file of an instance makes its `rmdir` fail with EBUSY
//! (`instance_rmdir`, kernel/trace/trace.c).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use stalltop_model::sample::{EnableState, Event, Instance};
use stalltop_model::{Name, Reading, Reason};

use super::text::{self, SetEventLine, name};
use crate::file;

/// Instances whose name begins so are made by stalltop (or its tests).
pub const OUR_PREFIX: &str = "stalltop";

/// How many listed events have their details read again in one poll: 0.12 ms on 6.18.
const DETAILS_AT_ONCE: usize = 16;

/// Reads all of a small file through a buffer that is used again.
pub(super) fn slurp<'b>(path: &Path, buf: &'b mut Vec<u8>) -> Result<&'b [u8], Reason> {
    match File::open(path).and_then(|file| file::read_from_start(&file, buf)) {
        Ok(()) => Ok(buf),
        Err(e) => Err(Reason::from_io(&path.to_string_lossy(), &e)),
    }
}

/// Reads and remembers one instance.
pub(super) struct InstanceReader {
    dir: PathBuf,
    /// `set_event` as last read: the cheap test for a change.
    set_event: Vec<u8>,
    /// Events that `set_event` lists or the tree has on.
    listed: Vec<Event>,
    /// Filters of events that are off, from the last whole walk.
    off_filtered: Vec<Event>,
    /// The next of `listed` to have its details read again.
    next_detail: usize,
    walk: Walk,
    /// `set_event` changed in the last poll.
    pub(super) relisted: bool,
    /// What is shown.
    pub(super) value: Instance,
}

/// How far the walk over all events has come.
#[derive(Default)]
struct Walk {
    /// Offset into the text of `available_events`.
    at: usize,
    found: Vec<Event>,
    missing: u64,
}

impl InstanceReader {
    /// Whether this is the instance at `dir`.
    pub(super) fn is_at(&self, dir: &Path) -> bool {
        self.dir == dir
    }

    pub(super) fn new(dir: PathBuf, instance: Name) -> Self {
        Self {
            dir,
            set_event: Vec::new(),
            listed: Vec::new(),
            off_filtered: Vec::new(),
            next_detail: 0,
            walk: Walk::default(),
            relisted: false,
            value: Instance {
                ours: instance.starts_with(OUR_PREFIX),
                name: instance,
                ..Instance::default()
            },
        }
    }

    /// Reads `set_event`, `current_tracer`, `tracing_on` and `set_event_pid`, and the details of
    /// some listed events (of all, if `set_event` changed). Says whether anything changed.
    ///
    /// Measured on 6.18: 20 us for the four files, 7 to 9 us for each listed event.
    ///
    /// # Errors
    /// Why `set_event` cannot be read; [`Reason::NoFile`] once the instance is gone.
    pub(super) fn poll(&mut self, buf: &mut Vec<u8>) -> Result<bool, Reason> {
        let mut changed = false;
        let set_event = slurp(&self.dir.join("set_event"), buf)?;
        self.relisted = set_event != self.set_event;
        if self.relisted {
            self.set_event.clear();
            self.set_event.extend_from_slice(set_event);
            changed |= self.list(buf);
        }
        let v = &mut self.value;
        let mut text = |file: &str| slurp(&self.dir.join(file), buf).map(|t| name(t.trim_ascii()));
        let current_tracer = text("current_tracer").into();
        let set_event_pid = text("set_event_pid").into();
        let path = self.dir.join("tracing_on");
        let tracing_on = slurp(&path, buf)
            .and_then(|t| match t.trim_ascii() {
                b"0" => Ok(false),
                b"1" => Ok(true),
                other => Err(Reason::parse(&path.to_string_lossy(), other)),
            })
            .into();
        changed |= v.current_tracer != current_tracer
            || v.set_event_pid != set_event_pid
            || v.tracing_on != tracing_on;
        v.current_tracer = current_tracer;
        v.set_event_pid = set_event_pid;
        v.tracing_on = tracing_on;
        if !self.relisted {
            changed |= self.refresh_details(buf);
        }
        Ok(changed)
    }

    /// Whether anything is on, so that the buffer can be growing.
    pub(super) fn is_active(&self) -> bool {
        let tracer = self.value.current_tracer.value();
        !self.listed.is_empty() || tracer.is_some_and(|t| &**t != "nop")
    }

    /// Reads every listed event anew after `set_event` changed.
    fn list(&mut self, buf: &mut Vec<u8>) -> bool {
        let mut listed = Vec::new();
        let mut disagreement = Vec::new();
        let text = std::mem::take(&mut self.set_event);
        for line in text::set_event(&text) {
            match line {
                SetEventLine::Event { system, event } => {
                    let (system, event) = (name(system), name(event));
                    match self.read_event(&system, &event, buf) {
                        Some(event) => listed.push(event),
                        None => disagreement.push(format!("{system}:{event}").into()),
                    }
                }
                SetEventLine::Pending(line) => disagreement.push(name(line)),
            }
        }
        self.set_event = text;
        self.listed = listed;
        self.next_detail = 0;
        self.value.disagreement = disagreement;
        self.publish()
    }

    /// Reads again the details of the next few listed events: an `enable` may go from `0*` to
    /// `1*`, a filter or a trigger may come, all without a trace in `set_event`.
    fn refresh_details(&mut self, buf: &mut Vec<u8>) -> bool {
        let mut changed = false;
        for _ in 0..self.listed.len().min(DETAILS_AT_ONCE) {
            let n = self.next_detail % self.listed.len();
            self.next_detail = n + 1;
            let (system, event) = (&self.listed[n].system, &self.listed[n].name);
            // One that is gone by now will be missing from the next set_event.
            if let Some(event) = self.read_event(system, event, buf)
                && event != self.listed[n]
            {
                self.listed[n] = event;
                changed = true;
            }
        }
        changed && self.publish()
    }

    /// `enable`, `filter` and `trigger` of one event; [`None`] if it has no readable `enable`.
    fn read_event(&self, system: &Name, event: &Name, buf: &mut Vec<u8>) -> Option<Event> {
        let dir = self.event_dir(system, event);
        let state = EnableState::parse(slurp(&dir.join("enable"), buf).ok()?)?;
        let filter = slurp(&dir.join("filter"), buf).ok().and_then(text::filter);
        let triggers = slurp(&dir.join("trigger"), buf).map(text::triggers);
        Some(Event {
            system: system.clone(),
            name: event.clone(),
            state,
            filter,
            triggers: triggers.unwrap_or_default(),
        })
    }

    fn event_dir(&self, system: &str, event: &str) -> PathBuf {
        let mut dir = self.dir.join("events");
        dir.push(system);
        dir.push(event);
        dir
    }

    /// Puts together what is shown; says whether it changed.
    fn publish(&mut self) -> bool {
        let listed: BTreeSet<_> = self.listed.iter().map(|e| (&e.system, &e.name)).collect();
        let mut events = self.listed.clone();
        let off = self.off_filtered.iter();
        events.extend(
            off.filter(|e| !listed.contains(&(&e.system, &e.name)))
                .cloned(),
        );
        events.sort_by(|a, b| (&a.system, &a.name).cmp(&(&b.system, &b.name)));
        let changed = events != self.value.events;
        self.value.events = events;
        changed
    }

    /// Compares the `events/*/enable` tree with `set_event`, both ways, and shows the differing
    /// events. `events/enable` and each subsystem's `enable` prune the walk.
    ///
    /// Measured on 6.18 with 2,305 events in 101 subsystems: 10 us where nothing is on, else
    /// 1.3 ms and 2 to 4 us for each event of a subsystem that has something on (10 ms for all).
    pub(super) fn verify(&mut self, buf: &mut Vec<u8>) -> bool {
        let events = self.dir.join("events");
        let mut on = Vec::new();
        let all_off = slurp(&events.join("enable"), buf).is_ok_and(is_off);
        let systems = if all_off {
            Vec::new()
        } else {
            subdirs(&events)
        };
        for system in systems {
            let dir = events.join(&*system);
            if slurp(&dir.join("enable"), buf).map_or(true, is_off) {
                continue;
            }
            for event in subdirs(&dir) {
                let enable = slurp(&dir.join(&*event).join("enable"), buf).ok();
                if enable
                    .and_then(EnableState::parse)
                    .is_some_and(|state| state != EnableState::Off)
                {
                    on.push((system.clone(), event));
                }
            }
        }
        // Somebody may have switched between the two readings: set_event is read once more, and
        // if it moved the next poll sees the change and a later comparison decides.
        match slurp(&self.dir.join("set_event"), buf) {
            Ok(now) if now == self.set_event => {}
            _ => return false,
        }
        let text = std::mem::take(&mut self.set_event);
        let mut disagreement: BTreeSet<Name> = BTreeSet::new();
        let mut in_set_event = BTreeSet::new();
        for line in text::set_event(&text) {
            match line {
                SetEventLine::Event { system, event } => {
                    in_set_event.insert((name(system), name(event)));
                }
                SetEventLine::Pending(line) => {
                    disagreement.insert(name(line));
                }
            }
        }
        self.set_event = text;
        let in_tree: BTreeSet<_> = on.into_iter().collect();
        for (system, event) in in_set_event.symmetric_difference(&in_tree) {
            disagreement.insert(format!("{system}:{event}").into());
        }
        // What only the tree has is on all the same.
        let mut more = false;
        for (system, event) in in_tree.difference(&in_set_event) {
            let known = |e: &Event| e.system == *system && e.name == *event;
            if !self.listed.iter().any(known)
                && let Some(event) = self.read_event(system, event, buf)
            {
                self.listed.push(event);
                more = true;
            }
        }
        let disagreement: Vec<_> = disagreement.into_iter().collect();
        let changed = disagreement != self.value.disagreement;
        self.value.disagreement = disagreement;
        (more && self.publish()) || changed
    }

    /// Goes on with the walk over all events for filters on events that are off, until
    /// `deadline`. Says whether it is through, and whether something changed.
    ///
    /// Such a filter does nothing until somebody switches its event on, so the walk runs at the
    /// start, for `audit` and while somebody looks, not at each poll. Measured on 6.18: 4.6 to
    /// 5.5 ms for 2,305 events of one instance.
    pub(super) fn walk(
        &mut self,
        available: &[u8],
        deadline: Option<Instant>,
        buf: &mut Vec<u8>,
    ) -> (bool, bool) {
        let listed: BTreeSet<_> = (self.listed.iter())
            .map(|e| (e.system.as_bytes(), e.name.as_bytes()))
            .collect();
        let mut path = self.dir.join("events");
        let mut at = self.walk.at.min(available.len());
        let mut n = 0_u32;
        while at < available.len() {
            if n.is_multiple_of(32) && deadline.is_some_and(|d| n > 0 && Instant::now() >= d) {
                self.walk.at = at;
                return (false, false);
            }
            n += 1;
            let line = available[at..].split(|b| *b == b'\n').next();
            let line = line.unwrap_or_default();
            at += line.len() + 1;
            let Some(SetEventLine::Event { system, event }) = text::set_event(line).next() else {
                continue;
            };
            if listed.contains(&(system, event)) {
                continue;
            }
            let (system, event) = (
                String::from_utf8_lossy(system),
                String::from_utf8_lossy(event),
            );
            path.extend([&*system, &*event, "filter"]);
            match slurp(&path, buf) {
                Ok(text) => {
                    if let Some(filter) = text::filter(text) {
                        self.walk.found.push(Event {
                            system: system.into(),
                            name: event.into(),
                            state: EnableState::Off,
                            filter: Some(filter),
                            triggers: Vec::new(),
                        });
                    }
                }
                // An instance may have been made with some systems only (6.9 on).
                Err(_) => self.walk.missing += 1,
            }
            for _ in 0..3 {
                path.pop();
            }
        }
        let walk = std::mem::take(&mut self.walk);
        let total = text::set_event(available).count() as u64;
        let events_available = total.saturating_sub(walk.missing);
        self.off_filtered = walk.found;
        let changed = self.value.events_available != events_available;
        self.value.events_available = events_available;
        (true, self.publish() || changed)
    }

    /// Reads `per_cpu/*/stats`: one file for each possible CPU, so not at each poll.
    pub(super) fn read_buffer(&mut self, buf: &mut Vec<u8>) -> bool {
        let dir = self.dir.join("per_cpu");
        let mut sum = text::BufferStats::default();
        let mut off = None;
        let cpus = subdirs(&dir);
        for cpu in &cpus {
            let path = dir.join(&**cpu).join("stats");
            match slurp(&path, buf) {
                Ok(stats) => match text::buffer_stats(stats) {
                    Some(stats) => {
                        sum.written = sum.written.saturating_add(stats.written);
                        sum.lost = sum.lost.saturating_add(stats.lost);
                    }
                    None => off = Some(Reason::parse(&path.to_string_lossy(), stats)),
                },
                Err(reason) => off = Some(reason),
            }
        }
        let stats = match off {
            Some(reason) => Reading::Off(reason),
            None if cpus.is_empty() => Reading::Off(Reason::NoFile {
                path: (&*dir.to_string_lossy()).into(),
            }),
            None => Reading::Value(sum),
        };
        let (written, lost) = (stats.clone().map(|s| s.written), stats.map(|s| s.lost));
        let v = &mut self.value;
        let changed = written != v.buffer_entries || lost != v.buffer_lost;
        (v.buffer_entries, v.buffer_lost) = (written, lost);
        changed
    }

    /// The event's state: what is not listed is off.
    pub(super) fn state_of(&self, group: &str, event: &str) -> EnableState {
        self.listed
            .iter()
            .find(|e| &*e.system == group && &*e.name == event)
            .map_or(EnableState::Off, |e| e.state)
    }
}

fn is_off(text: &[u8]) -> bool {
    // `?`: no event that could be switched.
    matches!(text.trim_ascii(), b"0" | b"?")
}

/// The folders in `dir`, sorted; none if it cannot be read.
pub(super) fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Names of the folders in `dir`, sorted, for those that the kernel names: they are ASCII.
pub(super) fn subdirs(dir: &Path) -> Vec<Name> {
    folders(dir).iter().map(|path| name_of(path)).collect()
}

/// The name of a folder, for showing: people name instances, in any bytes they like.
pub(super) fn name_of(path: &Path) -> Name {
    (&*path.file_name().unwrap_or_default().to_string_lossy()).into()
}
