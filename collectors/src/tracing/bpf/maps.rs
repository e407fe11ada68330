//! Programs that a map attaches without a link: of its sockets, or, in a `struct_ops` map, in place
//! of functions of the kernel.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};

use stalltop_model::sample::Attachment;
use stalltop_probes::btf::{Btf, StructOps, VMLINUX};
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, MapInfo};
use stalltop_probes::sys::{names, query, run};

/// At most so many maps are looked at.
const MAX_MAPS: usize = 20_000;

/// The largest value of a map that is read: those of the kernel have a page or two.
const MAX_VALUE: usize = 1 << 16;

/// What a map of sockets can run (net/core/sock_map.c, `sock_map_prog_lookup`): parser and
/// verdicts of streams, messages, verdicts.
const OF_SOCKETS: [u32; 4] = [4, 5, 7, 38];

/// `BPF_STRUCT_OPS_STATE_INUSE`: the kernel uses it, and no link says so
/// (include/linux/bpf.h, `enum bpf_struct_ops_state`).
const IN_USE: u32 = 1;

/// A `struct_ops` map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The kernel's structure that it fills: `tcp_congestion_ops`.
    pub(super) ops: String,
    /// Its programs.
    pub(super) programs: Vec<u32>,
    /// Whether it is in use without a link.
    pub(super) in_use: bool,
}

/// What was found in maps, and what is kept to find it.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// By the type of the value.
    layouts: HashMap<u32, Option<StructOps>>,
    /// `struct_ops` maps.
    pub(super) tables: HashMap<u32, Table>,
    /// Programs of maps of sockets: program, map, attach type.
    sockets: Vec<(u32, MapInfo, u32)>,
    /// Maps that attach a program, by its id.
    of_program: HashMap<u32, Vec<u32>>,
    /// What was not looked at, if anything.
    pub(super) beyond: Option<String>,
}

impl Maps {
    /// Looks through all maps, where `kinds` of programs without a link need it.
    ///
    /// Of maps of sockets the kernel tells since 5.17 (`sock_map_bpf_prog_query`).
    pub(super) fn search<'k>(&mut self, mut kinds: impl Iterator<Item = &'k str>) {
        self.tables.clear();
        self.sockets.clear();
        self.of_program.clear();
        self.beyond = None;
        if !kinds.any(|kind| matches!(kind, "sk_msg" | "sk_skb" | "struct_ops")) {
            return;
        }
        let mut all = Vec::new();
        // What was listed until it failed is as good as any.
        let _ = ids::all(Object::Map, &mut all);
        let mut found = Vec::new();
        let mut btf = None;
        if all.len() > MAX_MAPS {
            self.beyond = Some(format!("the first {MAX_MAPS} maps"));
        }
        for id in all.into_iter().take(MAX_MAPS) {
            let Ok(fd) = ids::open(Object::Map, id) else {
                continue;
            };
            let Ok(map) = info::map(fd.as_fd()) else {
                continue;
            };
            match names::map_type(map.kind) {
                Some("sockmap" | "sockhash") => {
                    for kind in OF_SOCKETS {
                        let told = query::attached(fd.as_raw_fd() as u32, kind, &mut found);
                        if told.is_ok() {
                            let of = found.iter().map(|id| (*id, map.clone(), kind));
                            self.sockets.extend(of);
                        }
                    }
                }
                Some("struct_ops") => {
                    let value_type = map.kernel_value_type;
                    let layout = self.layouts.entry(value_type).or_insert_with(|| {
                        // Megabytes: read once for all maps, and only for a type that is new.
                        let bytes = btf.get_or_insert_with(|| {
                            std::fs::read(format!("/{VMLINUX}")).unwrap_or_default()
                        });
                        Btf::parse(bytes).ok()?.struct_ops(value_type)
                    });
                    let size = map.value_size as usize;
                    let mut value = vec![0; size.min(MAX_VALUE)];
                    if let Some(layout) = layout
                        && size <= MAX_VALUE
                        && run::get(fd.as_fd(), 0, &mut value).is_ok()
                    {
                        self.tables.insert(id, table(layout, &value));
                    }
                }
                _ => {}
            }
        }
        for (map, table) in &self.tables {
            for program in &table.programs {
                self.of_program.entry(*program).or_default().push(*map);
            }
        }
        for (program, map, _) in &self.sockets {
            self.of_program.entry(*program).or_default().push(map.id);
        }
    }

    /// What sits in maps of sockets.
    pub(super) fn of_sockets(&self) -> impl Iterator<Item = (u32, Attachment)> {
        self.sockets.iter().map(|(program, map, kind)| {
            let attachment = Attachment {
                kind: names::attach_type(*kind).unwrap_or("sockmap").into(),
                target: in_words(map.id, &map.name).into(),
                link: None,
            };
            (*program, attachment)
        })
    }

    /// Maps that attach a program.
    pub(super) fn of_program(&self, program: u32) -> &[u32] {
        self.of_program.get(&program).map_or(&[], Vec::as_slice)
    }
}

/// A map as it is named in a target.
pub(super) fn in_words(id: u32, name: &str) -> String {
    match name {
        "" => format!("map {id}"),
        name => format!("map {id} ({name})"),
    }
}

/// Reads a value as the kernel gives it to user space: its state, and in place of each pointer to
/// a function the id of the program (kernel/bpf/bpf_struct_ops.c,
/// `bpf_struct_ops_map_sys_lookup_elem`).
fn table(layout: &StructOps, value: &[u8]) -> Table {
    let word = |at: usize| value.get(at..)?.first_chunk().copied();
    let programs = layout.functions.iter().filter_map(|at| {
        let id = u64::from_ne_bytes(value.get(*at as usize..)?.first_chunk().copied()?);
        u32::try_from(id).ok().filter(|id| *id != 0)
    });
    Table {
        ops: layout.name.clone(),
        programs: programs.collect(),
        in_use: word(4).map(u32::from_ne_bytes) == Some(IN_USE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_programs_where_functions_are() {
        let layout = StructOps {
            name: "tcp_congestion_ops".into(),
            functions: vec![64, 80, 4096],
        };
        let mut value = vec![0; 96];
        value[4] = 1;
        value[64] = 7;
        // No function is there: flags, a name.
        value[72] = 9;
        let table = table(&layout, &value);
        assert_eq!(table.programs, [7]);
        assert!(table.in_use);
        assert_eq!(in_words(3, ""), "map 3");
    }
}
