//! tracefs: instances, events, dynamic events (Documentation/trace/ftrace.rst, events.rst).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use stalltop_model::sample::{DynamicEvent, DynamicKind, Holder, Tracefs};
use stalltop_model::{Name, Reading, Reason};

use super::dynamic;
use super::instance::{InstanceReader, folders, name_of, slurp, subdirs};

/// Which of the costlier parts one poll takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// Buffer entries and probe hits.
    pub(super) counters: bool,
    /// Buffer entries also of instances in which nothing is on.
    pub(super) quiet: bool,
    /// Compare the tree with `set_event`.
    pub(super) verify: bool,
    /// Start a walk over all events for filters on events that are off.
    pub(super) walk: bool,
    /// The most time that the walk may take in this poll; no limit if none.
    pub(super) budget: Option<Duration>,
}

/// Reads and remembers tracefs.
pub(super) struct TracefsReader {
    mount: Name,
    root: PathBuf,
    instances: Vec<InstanceReader>,
    /// `kprobe_events`, `uprobe_events`, `dynamic_events` as last read.
    definitions: [Vec<u8>; 3],
    dynamic: Vec<DynamicEvent>,
    available: Vec<u8>,
    /// The instance at which the walk goes on.
    walking: Option<usize>,
    /// Instances came or went in the last poll.
    moved: bool,
    buf: Vec<u8>,
}

impl TracefsReader {
    /// `mount` is the host path, `root` where that is to be read.
    pub(super) fn new(mount: &str, root: PathBuf) -> Self {
        Self {
            mount: mount.into(),
            instances: vec![InstanceReader::new(root.clone(), "".into())],
            root,
            definitions: Default::default(),
            dynamic: Vec::new(),
            available: Vec::new(),
            walking: None,
            moved: false,
            buf: Vec::new(),
        }
    }

    /// Reads what is cheap, and the asked-for parts; says whether anything changed.
    ///
    /// Measured on 6.18 with one instance and nothing on: 20 us without parts, 0.5 ms with
    /// counters and verify, 5 to 6 ms with a walk.
    ///
    /// # Errors
    /// Why the top level cannot be read.
    pub(super) fn poll(&mut self, parts: Parts) -> Result<bool, Reason> {
        self.moved = self.find_instances();
        let mut changed = self.moved;
        let mut first = None;
        self.instances.retain_mut(|instance| {
            let top = instance.value.name.is_empty();
            match instance.poll(&mut self.buf) {
                Ok(moved) => changed |= moved,
                Err(reason) if top => first = Some(reason),
                // Removed between listing and reading.
                Err(_) => {
                    changed = true;
                    self.moved = true;
                    return false;
                }
            }
            true
        });
        if let Some(reason) = first {
            return Err(reason);
        }
        if parts.verify {
            for instance in &mut self.instances {
                changed |= instance.verify(&mut self.buf);
            }
        }
        changed |= self.read_dynamic(parts.counters);
        if parts.counters {
            for instance in &mut self.instances {
                // trace_marker fills a buffer without any event being on: looked at less often.
                let known = instance.value.buffer_entries.value().is_some();
                if !known || parts.verify || parts.quiet || instance.is_active() {
                    changed |= instance.read_buffer(&mut self.buf);
                }
            }
        }
        if parts.walk && self.walking.is_none() {
            self.list_available();
            self.walking = Some(0);
        }
        changed |= self.walk(parts.budget);
        Ok(changed)
    }

    /// Every event there is, as `system:event` lines: `available_events` (62 kB for 2,305 events)
    /// or, where that cannot be read, the folders that have an `enable`.
    fn list_available(&mut self) {
        if slurp(&self.root.join("available_events"), &mut self.available).is_ok() {
            return;
        }
        self.available.clear();
        let events = self.root.join("events");
        for system in subdirs(&events) {
            let dir = events.join(&*system);
            for event in subdirs(&dir) {
                if dir.join(&*event).join("enable").exists() {
                    let line = format!("{system}:{event}\n");
                    self.available.extend_from_slice(line.as_bytes());
                }
            }
        }
    }

    fn walk(&mut self, budget: Option<Duration>) -> bool {
        let deadline = budget.map(|b| Instant::now() + b);
        let mut changed = false;
        while let Some(n) = self.walking {
            let Some(instance) = self.instances.get_mut(n) else {
                self.walking = None;
                // 62 kB are not kept between walks.
                self.available = Vec::new();
                break;
            };
            let (done, moved) = instance.walk(&self.available, deadline, &mut self.buf);
            changed |= moved;
            if !done {
                break;
            }
            self.walking = Some(n + 1);
        }
        changed
    }

    /// Adds instances that came; those that went are dropped when they cannot be read.
    fn find_instances(&mut self) -> bool {
        let dir = self.root.join("instances");
        let mut changed = false;
        for path in folders(&dir) {
            if !self.instances.iter().any(|i| i.is_at(&path)) {
                let name = name_of(&path);
                self.instances.push(InstanceReader::new(path, name));
                changed = true;
            }
        }
        changed
    }

    fn read_dynamic(&mut self, counters: bool) -> bool {
        let mut redefined = false;
        for (n, file) in ["kprobe_events", "uprobe_events", "dynamic_events"]
            .into_iter()
            .enumerate()
        {
            // Older kernels lack dynamic_events, and each kind can be left out of the build.
            let text = slurp(&self.root.join(file), &mut self.buf).unwrap_or_default();
            if text != self.definitions[n] {
                self.definitions[n].clear();
                self.definitions[n].extend_from_slice(text);
                redefined = true;
            }
        }
        let mut dynamic = std::mem::take(&mut self.dynamic);
        let before = dynamic.clone();
        if redefined {
            let [kprobes, uprobes, all] = &self.definitions;
            dynamic = dynamic::merge(kprobes, uprobes, all);
            dynamic::put_no_hits(&mut dynamic);
        }
        if let Some(top) = self.instances.first() {
            for event in &mut dynamic {
                event.state = Reading::Value(top.state_of(&event.group, &event.name));
            }
        }
        if redefined || counters {
            let has = |kinds: [DynamicKind; 2]| dynamic.iter().any(|e| kinds.contains(&e.kind));
            let kernel = has([DynamicKind::Kprobe, DynamicKind::Kretprobe]);
            let user = has([DynamicKind::Uprobe, DynamicKind::Uretprobe]);
            if kernel {
                let text = slurp(&self.root.join("kprobe_profile"), &mut self.buf);
                dynamic::put_hits(&mut dynamic, &text.map(dynamic::kprobe_profile), false);
            }
            if user {
                let text = slurp(&self.root.join("uprobe_profile"), &mut self.buf);
                dynamic::put_hits(&mut dynamic, &text.map(dynamic::uprobe_profile), true);
            }
        }
        self.dynamic = dynamic;
        before != self.dynamic
    }

    /// What is known now.
    pub(super) fn snapshot(&self) -> Tracefs {
        Tracefs {
            mount: self.mount.clone(),
            instances: self.instances.iter().map(|i| i.value.clone()).collect(),
            dynamic: self.dynamic.clone(),
        }
    }

    /// Whether the last poll saw instances come or go or a `set_event` change: then somebody is at
    /// work here, and readers may have come with it.
    pub(super) fn moved(&self) -> bool {
        self.moved || self.instances.iter().any(|i| i.relisted)
    }

    /// Takes over who reads each instance's buffer; says whether that changed.
    pub(super) fn put_readers(&mut self, of: impl Fn(&str) -> Reading<Vec<Holder>>) -> bool {
        let mut changed = false;
        for instance in &mut self.instances {
            let readers = of(&instance.value.name);
            changed |= readers != instance.value.readers;
            instance.value.readers = readers;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn an_instance_is_seen_whatever_bytes_its_name_holds() {
        let root = tempfile::tempdir().unwrap();
        let hostile = OsStr::from_bytes(b"x\xff\x1b[31m");
        let instance = root.path().join("instances").join(hostile);
        for dir in [root.path(), &instance] {
            std::fs::create_dir_all(dir.join("events")).unwrap();
            for (file, text) in [
                ("set_event", "sched:sched_switch\n"),
                ("current_tracer", "nop\n"),
                ("tracing_on", "1\n"),
                ("set_event_pid", ""),
            ] {
                std::fs::write(dir.join(file), text).unwrap();
            }
        }
        let parts = Parts {
            counters: false,
            quiet: false,
            verify: false,
            walk: false,
            budget: None,
        };
        let mut reader = TracefsReader::new("/t", root.path().to_owned());
        for _ in 0..2 {
            reader.poll(parts).unwrap();
            let names: Vec<_> = reader.instances.iter().map(|i| &*i.value.name).collect();
            assert_eq!(names, ["", "x\u{fffd}\u{1b}[31m"]);
        }
    }
}
