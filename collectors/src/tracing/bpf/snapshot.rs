//! What one look gives of BPF objects, by the programs and links that it is of.

use std::collections::{BTreeMap, HashMap};

use stalltop_model::sample::{Attachment, BpfLink, BpfObjects, BpfProgram, HeldBy};
use stalltop_model::{Name, Reading};
use stalltop_probes::sys::info::{LinkDetail, LinkInfo, PerfEvent, ProgramInfo};
use stalltop_probes::sys::query::TaskFd;
use stalltop_probes::sys::{names, query};

use super::attach;
use super::held::{HoldersOf, put};
use super::pins::{self, Pins};
use super::places::Places;
use crate::Env;
use crate::tracing::holders::{Found, not_all};
use crate::tracing::perf::{Event, Pmus};
use crate::tracing::text::name;

/// All that is known at one time, for a look-up by id.
pub(super) struct Snapshot<'s> {
    links: &'s [LinkInfo],
    /// Links by what they attach: programs, and `struct_ops` maps.
    of_program: HashMap<u32, Vec<&'s LinkInfo>>,
    of_table: HashMap<u32, &'s LinkInfo>,
    places: &'s Places,
    pmus: Pmus,
    /// Perf events that run a program, by program.
    perf: HashMap<u32, Vec<Place>>,
    /// Events of links on perf events, by link.
    events: &'s HashMap<u32, Event>,
    held: HoldersOf,
    pins: Pins,
    complete: Reading<()>,
}

/// What is known of a perf event's descriptor.
enum Place {
    /// By bpf(2).
    Task(TaskFd),
    /// By the iterator: of sampling events bpf(2) says nothing.
    Event(Event),
}

impl<'s> Snapshot<'s> {
    /// Puts everything where it is found again. `links` are listed by id.
    pub(super) fn take(
        env: &Env,
        links: &'s [LinkInfo],
        places: &'s Places,
        found: &'s Found,
        buf: &mut Vec<u8>,
    ) -> Self {
        let mut this = Self {
            links,
            of_program: HashMap::new(),
            of_table: HashMap::new(),
            places,
            pmus: Pmus::read(env),
            perf: HashMap::new(),
            events: &found.events,
            held: HoldersOf::default(),
            pins: pins::walk(env, buf),
            complete: found.complete.clone(),
        };
        for link in links {
            if let LinkDetail::StructOps { map_id } = link.detail {
                this.of_table.insert(map_id, link);
            } else {
                this.of_program.entry(link.prog_id).or_default().push(link);
            }
        }
        for (pid, what) in &found.held {
            this.held.add(*pid, *what, links, &found.processes);
        }
        for perf in &found.perf {
            // Most perf events have no program; of a process that is gone nothing is left.
            let told = query::task_fd(perf.pid, perf.fd).ok().flatten();
            let (program, place) = match (told, &perf.known) {
                (Some(fd), _) => (fd.prog_id, Place::Task(fd)),
                (None, Some((program, event))) => (*program, Place::Event(event.clone())),
                (None, None) => continue,
            };
            this.perf.entry(program).or_default().push(place);
            let holder = found.processes.holder(perf.pid, HeldBy::PerfEvent);
            put(this.held.programs.entry(program).or_default(), holder);
        }
        let beyond = this.places.beyond().map(str::to_owned);
        for beyond in beyond.chain(this.pins.beyond.take()).collect::<Vec<_>>() {
            not_all(&mut this.complete, &beyond);
        }
        this
    }

    /// The programs and all links.
    pub(super) fn objects(&self, programs: &BTreeMap<u32, ProgramInfo>) -> BpfObjects {
        BpfObjects {
            programs: programs.values().map(|p| self.program(p)).collect(),
            links: self.links.iter().map(|link| self.link(link)).collect(),
            holders: self.complete.clone(),
        }
    }

    fn link(&self, link: &LinkInfo) -> BpfLink {
        let LinkInfo { id, prog_id, .. } = *link;
        BpfLink {
            id,
            kind: type_name(names::link_type(link.kind), link.kind),
            program: prog_id,
            target: self.attachment(link, "").target,
            holders: self.held.links.get(&id).cloned().unwrap_or_default(),
            pins: self.pins.links.get(&id).cloned().unwrap_or_default(),
        }
    }

    fn attachment(&self, link: &LinkInfo, program_kind: &str) -> Attachment {
        let mut attachment = match (&link.detail, self.events.get(&link.id)) {
            // Before 6.6 the link does not say, and its event's descriptor may be closed (aya).
            (LinkDetail::PerfEvent(PerfEvent::Unknown), Some(event)) => {
                attach::of_event(event, Some(link.id), &self.pmus, self.places)
            }
            _ => attach::of_link(link, program_kind, self.places),
        };
        attachment.target = name(attachment.target.as_bytes());
        attachment
    }

    fn program(&self, program: &ProgramInfo) -> BpfProgram {
        let id = program.id;
        let kind = type_name(names::program_type(program.kind), program.kind);
        let mine = self.of_program.get(&id).map_or(&[][..], Vec::as_slice);
        let mut attached: Vec<_> = mine.iter().map(|l| self.attachment(l, &kind)).collect();
        let events = self.perf.get(&id).into_iter().flatten();
        let events = events.map(|place| match place {
            Place::Task(fd) => attach::of_fd(fd, self.places),
            Place::Event(event) => attach::of_event(event, None, &self.pmus, self.places),
        });
        add_events(&mut attached, events);
        for loose in self.places.without_link(id) {
            // A cgroup's programs are listed whether or not a link attached them.
            if !attached.iter().any(|a| same_place(a, loose)) {
                attached.push(loose.clone());
            }
        }
        // What keeps a program attached through a map: that map, or the link on it.
        let through = self.places.in_maps.of_program(id);
        let on_maps: Vec<_> = (through.iter())
            .filter_map(|map| self.of_table.get(map).copied())
            .collect();
        attached.extend(self.of_tables(through));
        if &*kind == "lsm" {
            self.name_hooks(program, &mut attached);
        }
        let HoldersOf {
            programs,
            links,
            maps,
        } = &self.held;
        let mut holders = programs.get(&id).cloned().unwrap_or_default();
        let through_links = on_maps.iter().filter_map(|link| links.get(&link.id));
        let through_maps = through.iter().filter_map(|map| maps.get(map));
        for holder in through_links.chain(through_maps).flatten() {
            put(&mut holders, holder.clone());
        }
        if holders.is_empty() {
            // Nobody holds the program itself: who holds its maps is the best that can be said.
            let of_maps = program.map_ids.iter().filter_map(|map| maps.get(map));
            for holder in of_maps.flatten() {
                put(&mut holders, holder.clone());
            }
        }
        let pinned = (self.pins.programs.get(&id).into_iter())
            .chain((mine.iter().chain(&on_maps)).filter_map(|l| self.pins.links.get(&l.id)))
            .chain(through.iter().filter_map(|map| self.pins.maps.get(map)));
        let mut pins: Vec<Name> = pinned.flatten().cloned().collect();
        pins.sort_unstable();
        pins.dedup();
        let tag: String = program.tag.iter().map(|b| format!("{b:02x}")).collect();
        BpfProgram {
            id,
            name: program.name.as_str().into(),
            tag: tag.into(),
            loaded_at_ns: program.load_time_ns,
            uid: program.uid,
            attached,
            ours: holders
                .iter()
                .any(|h| h.pid == std::process::id() && h.by != HeldBy::Map),
            holders,
            pins,
            maps: program.map_ids.clone(),
            kind,
        }
    }

    /// What `struct_ops` maps attach: a link on one names the map, not its programs.
    fn of_tables(&self, maps: &[u32]) -> Vec<Attachment> {
        let mut attached = Vec::new();
        for map in maps {
            let link = self.of_table.get(map);
            let table = self.places.in_maps.tables.get(map);
            if table.is_some_and(|table| table.in_use || link.is_some()) {
                attached.push(Attachment {
                    kind: "struct_ops".into(),
                    target: self.places.map(*map).into(),
                    link: link.map(|link| link.id),
                });
            }
        }
        attached
    }

    /// Puts the hook to the cgroup where it is attached.
    fn name_hooks(&self, program: &ProgramInfo, attached: &mut [Attachment]) {
        let Some(hook) = self.places.hook(program) else {
            return;
        };
        for at in attached.iter_mut().filter(|at| &*at.kind == "lsm_cgroup") {
            at.target = format!("{} {hook}", at.target).into();
        }
    }
}

/// Whether a listing without links names what a link attaches.
fn same_place(a: &Attachment, loose: &Attachment) -> bool {
    a.kind == loose.kind && a.target == loose.target
}

/// Adds what perf events' descriptors tell.
///
/// Before 6.6 a link on a perf event does not say what that event is. Where its descriptor is
/// still open (aya closes it, libbpf does not), it says so: with one of each they are the same
/// thing; with several, the descriptors tell more than the links.
fn add_events(attached: &mut Vec<Attachment>, fds: impl Iterator<Item = Attachment>) {
    let is_unknown = |a: &Attachment| &*a.kind == "perf_event" && a.target.is_empty();
    let mut events: Vec<Attachment> = Vec::new();
    for mut fd in fds {
        fd.target = name(fd.target.as_bytes());
        if !events.contains(&fd) {
            events.push(fd);
        }
    }
    // Those that a link already names.
    events.retain(|fd| !attached.iter().any(|a| same_place(a, fd)));
    let unknown = attached.iter().filter(|a| is_unknown(a)).count();
    match (unknown, events.as_mut_slice()) {
        (_, []) => return,
        (1, [one]) => one.link = attached.iter().find(|a| is_unknown(a)).and_then(|a| a.link),
        _ => {}
    }
    if events.len() >= unknown {
        attached.retain(|a| !is_unknown(a));
    }
    attached.append(&mut events);
}

/// A type's name, or its number where it is newer than stalltop.
fn type_name(known: Option<&'static str>, number: u32) -> Name {
    match known {
        Some(known) => known.into(),
        None => format!("type {number}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(kind: &str, target: &str, link: Option<u32>) -> Attachment {
        Attachment {
            kind: kind.into(),
            target: target.into(),
            link,
        }
    }

    #[test]
    fn an_unknown_link_and_its_descriptor_are_one_thing() {
        let mut attached = vec![attachment("perf_event", "", Some(3))];
        let fd = attachment("kprobe", "vfs_read", None);
        add_events(&mut attached, [fd.clone(), fd].into_iter());
        assert_eq!(attached, [attachment("kprobe", "vfs_read", Some(3))]);
    }

    #[test]
    fn several_unknown_links_are_not_matched_by_guess() {
        let unknown = |link| attachment("perf_event", "", Some(link));
        let fd = |target| attachment("kprobe", target, None);
        let mut attached = vec![unknown(3), unknown(4)];
        add_events(&mut attached, [fd("a"), fd("b")].into_iter());
        assert_eq!(attached, [fd("a"), fd("b")]);
        let mut attached = vec![unknown(3), unknown(4)];
        add_events(&mut attached, [fd("a")].into_iter());
        assert_eq!(attached, [unknown(3), unknown(4), fd("a")]);
    }

    #[test]
    fn what_a_link_names_is_not_repeated() {
        let named = attachment("kprobe", "vfs_read", Some(3));
        let mut attached = vec![named.clone()];
        add_events(
            &mut attached,
            [attachment("kprobe", "vfs_read", None)].into_iter(),
        );
        assert_eq!(attached, [named]);
    }
}
