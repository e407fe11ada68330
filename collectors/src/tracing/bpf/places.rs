//! Names for what the kernel gives as numbers: type ids, cgroup ids, device indices, addresses.
//!
//! What cannot be named for certain is given as the number it is.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use stalltop_model::sample::Attachment;
use stalltop_probes::btf::{Btf, VMLINUX};
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, LinkDetail, LinkInfo, PerfEvent, ProgramInfo};
use stalltop_probes::sys::{names, query};

use super::maps::{self, Maps, Table};
use super::{cgroups, netlink};
use crate::Env;
use crate::tracing::instance::slurp;
use crate::tracing::text::{self, SetEventLine};

/// So many functions of a link are named, the others counted.
const MAX_FUNCTIONS: usize = 16;

/// The furthest that an address may be from the symbol before it to be in its function.
const MAX_FUNCTION: u64 = 1 << 20;

/// Names found so far.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Names of types of the kernel's BTF, by object and type id.
    functions: HashMap<(u32, u32), String>,
    /// Links and programs whose target is another program.
    targets: HashMap<(u32, u32), u32>,
    cgroups: HashMap<u64, String>,
    /// Device names where it is certain that the program sits on the device of that name.
    devices: HashMap<(u32, u32), String>,
    /// Functions of a multi link.
    multi: HashMap<u32, Vec<u64>>,
    symbols: HashMap<u64, String>,
    /// Systems by event; none where several systems have an event of that name.
    systems: HashMap<String, Option<String>>,
    maps: HashMap<u32, String>,
    /// Programs that sit in maps.
    pub(super) in_maps: Maps,
    own_netns: Option<u64>,
    /// Where programs sit without a link.
    pub(super) unlinked: Vec<(u32, Attachment)>,
}

impl Places {
    /// Looks up what links and programs need that is cheap or kept: types, maps, addresses.
    ///
    /// The kernel's BTF and kallsyms are megabytes: read only where a target or an address is new.
    pub(super) fn name(&mut self, programs: &[ProgramInfo], links: &[LinkInfo]) {
        let lsm = (programs.iter())
            .filter(|p| names::program_type(p.kind) == Some("lsm") && p.attach_btf_id != 0);
        let mut types: Vec<_> = lsm
            .map(|p| (p.attach_btf_obj_id, p.attach_btf_id))
            .collect();
        let mut addresses = HashSet::new();
        for link in links {
            match &link.detail {
                LinkDetail::Tracing {
                    target_obj_id,
                    target_btf_id,
                    ..
                } if *target_btf_id != 0 => {
                    // Both are listed by id.
                    let program = programs.binary_search_by_key(&link.prog_id, |p| p.id);
                    let program = program.ok().map(|at| &programs[at]);
                    // The object is a BTF object or, for what extends a program, that program.
                    match program {
                        Some(p) if is_program_target(p, *target_obj_id) => {
                            let key = (link.prog_id, *target_obj_id);
                            self.targets.insert(key, *target_obj_id);
                        }
                        _ => types.push((*target_obj_id, *target_btf_id)),
                    }
                }
                LinkDetail::KprobeMulti { .. } if !self.multi.contains_key(&link.id) => {
                    let found = ids::open(Object::Link, link.id)
                        .and_then(|fd| info::link_addresses(fd.as_fd(), MAX_FUNCTIONS));
                    let found = found.unwrap_or_default();
                    addresses.extend(found.iter().copied());
                    self.multi.insert(link.id, found);
                }
                LinkDetail::PerfEvent(PerfEvent::Kprobe { function, addr, .. })
                    if function.is_empty() && *addr != 0 =>
                {
                    addresses.insert(*addr);
                }
                LinkDetail::StructOps { map_id } | LinkDetail::Sockmap { map_id, .. } => {
                    self.maps.insert(*map_id, map_name(*map_id));
                }
                _ => {}
            }
        }
        types.retain(|key| !self.functions.contains_key(key));
        types.sort_unstable();
        types.dedup();
        self.read_types(types);
        addresses.retain(|address| !self.symbols.contains_key(address));
        self.read_symbols(&addresses);
    }

    /// Looks through cgroups, network devices and events: the dear part.
    pub(super) fn search(
        &mut self,
        env: &Env,
        programs: &[ProgramInfo],
        links: &[LinkInfo],
        buf: &mut Vec<u8>,
    ) {
        self.unlinked.clear();
        let linked: HashSet<u32> = links.iter().map(|l| l.prog_id).collect();
        let loose = || {
            let loose = programs.iter().filter(|p| !linked.contains(&p.id));
            loose.filter_map(|p| names::program_type(p.kind))
        };
        let types = cgroups::attach_types(loose());
        let by_id = links
            .iter()
            .any(|l| matches!(l.detail, LinkDetail::Cgroup { .. }));
        if by_id || !types.is_empty() {
            let found = cgroups::walk(env, &types);
            self.cgroups = found.paths;
            self.unlinked.extend(found.attached);
        }
        self.in_maps.search(loose());
        self.unlinked.extend(self.in_maps.of_sockets());
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
        let name = |index: u32| {
            let device = devices.iter().find(|d| d.index == index);
            device.map(|d| String::from_utf8_lossy(&d.name).into_owned())
        };
        for device in &devices {
            for (program, mode) in &device.xdp {
                let target = String::from_utf8_lossy(&device.name).into_owned();
                self.devices
                    .insert((device.index, *program), target.clone());
                let linked = links
                    .iter()
                    .any(|l| l.prog_id == *program && matches!(l.detail, LinkDetail::Xdp { .. }));
                if !linked {
                    self.unlinked.push((
                        *program,
                        Attachment {
                            kind: "xdp".into(),
                            target: format!("{target} ({mode})").into(),
                            link: None,
                        },
                    ));
                }
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
            self.unlinked.push((
                filter.program,
                Attachment {
                    kind: "tc".into(),
                    target: format!("{device} {}{label}", filter.at).into(),
                    link: None,
                },
            ));
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

    fn read_symbols(&mut self, addresses: &HashSet<u64>) {
        if addresses.is_empty() {
            return;
        }
        let Ok(file) = std::fs::File::open("/proc/kallsyms") else {
            return;
        };
        let mut best: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
        for line in BufReader::with_capacity(64 * 1024, file).split(b'\n') {
            let Ok(line) = line else {
                break;
            };
            let Some((address, symbol)) = kallsyms_line(&line) else {
                continue;
            };
            for wanted in addresses {
                if address <= *wanted
                    && *wanted - address < MAX_FUNCTION
                    && best.get(wanted).is_none_or(|(a, _)| *a < address)
                {
                    best.insert(*wanted, (address, symbol.to_vec()));
                }
            }
        }
        for (wanted, (address, symbol)) in best {
            let symbol = String::from_utf8_lossy(&symbol);
            let name = match wanted - address {
                0 => symbol.into_owned(),
                offset => format!("{symbol}+{offset:#x}"),
            };
            self.symbols.insert(wanted, name);
        }
    }

    pub(super) fn function(&self, program: u32, object: u32, id: u32) -> String {
        if let Some(target) = self.targets.get(&(program, object)) {
            return format!("a function of program {target}");
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
        match self.symbols.get(&address) {
            Some(name) => name.clone(),
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

/// One line of /proc/kallsyms: address and name of a function.
fn kallsyms_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = crate::file::words(line);
    let address = std::str::from_utf8(words.next()?).ok()?;
    let address = u64::from_str_radix(address, 16).ok().filter(|a| *a != 0)?;
    let kind = words.next()?;
    let symbol = words.next()?;
    matches!(kind, b"t" | b"T" | b"w" | b"W").then_some((address, symbol))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hidden_addresses_and_data_name_nothing() {
        assert_eq!(
            kallsyms_line(b"ffffffff81000000 T _text"),
            Some((0xffff_ffff_8100_0000, &b"_text"[..]))
        );
        assert_eq!(kallsyms_line(b"0000000000000000 T _text"), None);
        assert_eq!(kallsyms_line(b"ffffffff81000000 d data"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = kallsyms_line(&bytes);
        }
    }
}
