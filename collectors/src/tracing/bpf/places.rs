//! Names for what the kernel gives as numbers: type ids, cgroup ids, device indices, addresses.
//!
//! What cannot be named for certain is given as the number it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use stalltop_model::sample::Attachment;
use stalltop_probes::btf::{Btf, VMLINUX};
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, LinkDetail, LinkInfo, PerfEvent, ProgramInfo};
use stalltop_probes::sys::{names, query};

use super::maps::{self, Maps, Table};
use super::symbols::Symbols;
use super::{cgroups, netlink};
use crate::Env;
use crate::tracing::instance::slurp;
use crate::tracing::text::{self, SetEventLine};

/// So many functions of a link are named, the others counted.
const MAX_FUNCTIONS: usize = 16;

/// The names that programs and links of one look need. Of what a name is kept for the next look,
/// and no longer than something is there that needs it: the kernel's BTF and kallsyms are
/// megabytes, read only where a target or an address is new.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Kept: names of types of the kernel's BTF, by object and type id.
    functions: HashMap<(u32, u32), String>,
    /// Kept: functions of a multi link.
    multi: HashMap<u32, Vec<u64>>,
    /// Kept.
    symbols: Symbols,
    /// Links' programs and the programs that those trace or extend.
    targets: HashSet<(u32, u32)>,
    cgroups: HashMap<u64, String>,
    /// Device names where it is certain that the program sits on the device of that name.
    devices: HashMap<(u32, u32), String>,
    /// Systems by event; none where several systems have an event of that name.
    systems: HashMap<String, Option<String>>,
    maps: HashMap<u32, String>,
    /// Programs that sit in maps.
    pub(super) in_maps: Maps,
    own_netns: Option<u64>,
    /// Where programs sit without a link, by program.
    unlinked: HashMap<u32, Vec<Attachment>>,
    /// Cgroups that were not looked at, if any.
    beyond: Option<String>,
}

impl Places {
    /// Looks for all places: types, maps, addresses; cgroups, network devices, events.
    pub(super) fn look(
        &mut self,
        env: &Env,
        programs: &BTreeMap<u32, ProgramInfo>,
        links: &[LinkInfo],
        buf: &mut Vec<u8>,
    ) {
        self.targets.clear();
        self.maps.clear();
        self.unlinked.clear();
        self.beyond = None;
        self.name(env, programs, links);
        self.search(env, programs, links, buf);
    }

    /// What was not looked at, if anything.
    pub(super) fn beyond(&self) -> impl Iterator<Item = &str> {
        [&self.beyond, &self.in_maps.beyond]
            .into_iter()
            .filter_map(Option::as_deref)
    }

    /// Where a program sits without a link.
    pub(super) fn without_link(&self, program: u32) -> &[Attachment] {
        self.unlinked.get(&program).map_or(&[], Vec::as_slice)
    }

    fn put(&mut self, program: u32, kind: &str, target: String) {
        self.unlinked.entry(program).or_default().push(Attachment {
            kind: kind.into(),
            target: target.into(),
            link: None,
        });
    }

    /// What links and programs need that is cheap or kept: types, maps, addresses.
    fn name(&mut self, env: &Env, programs: &BTreeMap<u32, ProgramInfo>, links: &[LinkInfo]) {
        let lsm = (programs.values())
            .filter(|p| names::program_type(p.kind) == Some("lsm") && p.attach_btf_id != 0);
        let mut types: Vec<_> = lsm
            .map(|p| (p.attach_btf_obj_id, p.attach_btf_id))
            .collect();
        let mut multi = HashMap::new();
        let mut addresses = Vec::new();
        for link in links {
            match &link.detail {
                LinkDetail::Tracing {
                    target_obj_id,
                    target_btf_id,
                    ..
                } if *target_btf_id != 0 => {
                    // The object is a BTF object or, for what extends a program, that program.
                    match programs.get(&link.prog_id) {
                        Some(p) if is_program_target(p, *target_obj_id) => {
                            self.targets.insert((link.prog_id, *target_obj_id));
                        }
                        _ => types.push((*target_obj_id, *target_btf_id)),
                    }
                }
                LinkDetail::KprobeMulti { .. } => {
                    // A link's functions stay as they are.
                    let found = self.multi.remove(&link.id).unwrap_or_else(|| {
                        ids::open(Object::Link, link.id)
                            .and_then(|fd| info::link_addresses(fd.as_fd(), MAX_FUNCTIONS))
                            .unwrap_or_default()
                    });
                    addresses.extend_from_slice(&found);
                    multi.insert(link.id, found);
                }
                LinkDetail::PerfEvent(PerfEvent::Kprobe { function, addr, .. })
                    if function.is_empty() && *addr != 0 =>
                {
                    addresses.push(*addr);
                }
                LinkDetail::StructOps { map_id } | LinkDetail::Sockmap { map_id, .. } => {
                    self.maps.insert(*map_id, map_name(*map_id));
                }
                _ => {}
            }
        }
        self.multi = multi;
        self.symbols.keep(env, addresses);
        types.sort_unstable();
        types.dedup();
        self.functions
            .retain(|key, _| types.binary_search(key).is_ok());
        types.retain(|key| !self.functions.contains_key(key));
        self.read_types(types);
    }

    /// Cgroups, network devices and events: the dear part.
    fn search(
        &mut self,
        env: &Env,
        programs: &BTreeMap<u32, ProgramInfo>,
        links: &[LinkInfo],
        buf: &mut Vec<u8>,
    ) {
        let linked: HashSet<u32> = links.iter().map(|l| l.prog_id).collect();
        let loose = || {
            let loose = programs.values().filter(|p| !linked.contains(&p.id));
            loose.filter_map(|p| names::program_type(p.kind))
        };
        let types = cgroups::attach_types(loose());
        let by_id = links
            .iter()
            .any(|l| matches!(l.detail, LinkDetail::Cgroup { .. }));
        if by_id || !types.is_empty() {
            let found = cgroups::walk(env, &types);
            self.cgroups = found.paths;
            self.beyond = found.beyond;
            for (program, attached) in found.attached {
                self.unlinked.entry(program).or_default().push(attached);
            }
        }
        self.in_maps.search(loose());
        for (program, attached) in self.in_maps.of_sockets() {
            self.unlinked.entry(program).or_default().push(attached);
        }
        for id in self.in_maps.tables.keys() {
            self.maps.insert(*id, map_name(*id));
        }
        let tc = loose().any(|kind| kind == "sched_cls");
        let on_device = links.iter().any(|l| {
            matches!(
                l.detail,
                LinkDetail::Xdp { .. } | LinkDetail::Tcx { .. } | LinkDetail::Netkit { .. }
            )
        });
        if on_device || tc || loose().any(|kind| kind == "xdp") {
            self.search_devices(links, tc);
        }
        self.own_netns = std::fs::metadata(env.path("/proc/self/ns/net"))
            .ok()
            .map(|ns| ns.ino());
        let tracepoints = loose().any(|kind| kind == "tracepoint")
            || links
                .iter()
                .any(|l| matches!(l.detail, LinkDetail::PerfEvent(_)));
        if tracepoints
            && let Ok(tracefs) = env.tracefs()
            && let Ok(events) = slurp(&env.path(&tracefs).join("available_events"), buf)
        {
            self.systems.clear();
            for line in text::set_event(events) {
                if let SetEventLine::Event { system, event } = line {
                    self.systems
                        .entry(String::from_utf8_lossy(event).into_owned())
                        .and_modify(|system| *system = None)
                        .or_insert_with(|| Some(String::from_utf8_lossy(system).into_owned()));
                }
            }
        }
    }

    /// Devices of this network namespace only; a link's device index may be of another one, so
    /// it is named only where the kernel says that this very program sits on that device here.
    fn search_devices(&mut self, links: &[LinkInfo], tc: bool) {
        self.devices.clear();
        let devices = netlink::devices().unwrap_or_default();
        let names: HashMap<u32, String> = (devices.iter())
            .map(|d| (d.index, String::from_utf8_lossy(&d.name).into_owned()))
            .collect();
        let name = |index: u32| names.get(&index).cloned();
        let linked: HashSet<u32> = (links.iter())
            .filter(|l| matches!(l.detail, LinkDetail::Xdp { .. }))
            .map(|l| l.prog_id)
            .collect();
        for device in &devices {
            for (program, mode) in &device.xdp {
                let target = name(device.index).unwrap_or_default();
                if !linked.contains(program) {
                    self.put(*program, "xdp", format!("{target} ({mode})"));
                }
                self.devices.insert((device.index, *program), target);
            }
        }
        let mut found = Vec::new();
        for link in links {
            if let LinkDetail::Tcx {
                ifindex,
                attach_type,
            }
            | LinkDetail::Netkit {
                ifindex,
                attach_type,
            } = link.detail
                && let Some(name) = name(ifindex)
                && query::attached(ifindex, attach_type, &mut found).is_ok()
                && found.contains(&link.prog_id)
            {
                self.devices.insert((ifindex, link.prog_id), name);
            }
        }
        if !tc {
            return;
        }
        for filter in netlink::filters().unwrap_or_default() {
            let device = name(filter.device).unwrap_or_else(|| format!("device {}", filter.device));
            let label = match filter.name.as_slice() {
                [] => String::new(),
                name => format!(" ({})", String::from_utf8_lossy(name)),
            };
            let target = format!("{device} {}{label}", filter.at);
            self.put(filter.program, "tc", target);
        }
    }

    fn read_types(&mut self, types: Vec<(u32, u32)>) {
        if types.is_empty() {
            return;
        }
        let bytes = std::fs::read(format!("/{VMLINUX}")).unwrap_or_default();
        let btf = Btf::parse(&bytes).ok();
        for (object, id) in types {
            let vmlinux = ids::open(Object::Btf, object)
                .and_then(|fd| info::is_vmlinux_btf(fd.as_fd()))
                .unwrap_or(false);
            let name = btf.as_ref().filter(|_| vmlinux).and_then(|b| b.name(id));
            let name = match name {
                Some(name) => name.strip_prefix("btf_trace_").unwrap_or(name).to_owned(),
                // A module's types are numbered on from the kernel's, in a file of their own.
                None => format!("type {id} of BTF object {object}"),
            };
            self.functions.insert((object, id), name);
        }
    }

    pub(super) fn function(&self, program: u32, object: u32, id: u32) -> String {
        if self.targets.contains(&(program, object)) {
            return format!("a function of program {object}");
        }
        match self.functions.get(&(object, id)) {
            Some(name) => name.clone(),
            None if id == 0 => String::new(),
            None => format!("type {id} of BTF object {object}"),
        }
    }

    pub(super) fn functions(&self, link: u32, count: u32) -> String {
        let addresses = self.multi.get(&link).map_or(&[][..], Vec::as_slice);
        if addresses.is_empty() {
            return match count {
                0 => String::new(),
                n => format!("{n} functions"),
            };
        }
        let mut out = addresses
            .iter()
            .map(|a| self.symbol(*a))
            .collect::<Vec<_>>()
            .join(",");
        let more = count.saturating_sub(u32::try_from(addresses.len()).unwrap_or(u32::MAX));
        if more > 0 {
            out.push_str(&format!(" and {more} more"));
        }
        out
    }

    pub(super) fn symbol(&self, address: u64) -> String {
        match self.symbols.name(address) {
            Some(name) => name.to_owned(),
            None if address == 0 => String::new(),
            None => format!("{address:#x}"),
        }
    }

    pub(super) fn cgroup(&self, id: u64) -> String {
        match self.cgroups.get(&id) {
            Some(path) => path.clone(),
            // Set to zero when the cgroup goes (kernel/bpf/cgroup.c, `bpf_cgroup_link_auto_detach`).
            None if id == 0 => "cgroup removed".to_owned(),
            None => format!("cgroup {id}"),
        }
    }

    pub(super) fn device(&self, index: u32, program: u32) -> String {
        match self.devices.get(&(index, program)) {
            Some(name) => name.clone(),
            None if index == 0 => "device removed".to_owned(),
            None => format!("device {index} of a network namespace"),
        }
    }

    pub(super) fn netns(&self, ino: u32) -> String {
        match (ino, self.own_netns) {
            (0, _) => "network namespace removed".to_owned(),
            (_, Some(own)) if own == u64::from(ino) => format!("net:[{ino}] (stalltop's own)"),
            _ => format!("net:[{ino}]"),
        }
    }

    pub(super) fn map(&self, id: u32) -> String {
        let map = maps::in_words(id, self.maps.get(&id).map_or("", String::as_str));
        match self.in_maps.tables.get(&id) {
            Some(Table { ops, .. }) => format!("{ops}, {map}"),
            None => map,
        }
    }

    /// The hook of the kernel that a program of LSM was loaded for: where it is attached to a
    /// cgroup, the link does not say.
    pub(super) fn hook(&self, program: &ProgramInfo) -> Option<&str> {
        let key = (program.attach_btf_obj_id, program.attach_btf_id);
        self.functions.get(&key).map(String::as_str)
    }

    /// `system:name`, where only one system has an event of the name.
    pub(super) fn tracepoint(&self, name: &str) -> String {
        match self.systems.get(name) {
            Some(Some(system)) => format!("{system}:{name}"),
            _ => name.to_owned(),
        }
    }
}

/// A map's name; empty where it has none or is gone.
fn map_name(id: u32) -> String {
    let map = ids::open(Object::Map, id).and_then(|fd| info::map(fd.as_fd()));
    map.map(|map| map.name).unwrap_or_default()
}

/// Whether a tracing link's object id is a program's: for programs that trace or extend another
/// program the kernel puts that program's id there, else its BTF object's
/// (`bpf_trampoline_compute_key`, include/linux/bpf_verifier.h).
fn is_program_target(program: &ProgramInfo, object: u32) -> bool {
    names::program_type(program.kind) == Some("ext")
        || (program.attach_btf_obj_id != 0 && program.attach_btf_obj_id != object)
}
