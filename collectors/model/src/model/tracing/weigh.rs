//! How much memory a tracing state takes.

use std::collections::HashSet;

use crate::Name;
use crate::sample::{Holder, Tracing};

/// Bytes so far. Names are shared within a state, and counted once.
#[derive(Default)]
struct Weight {
    bytes: usize,
    names: HashSet<*const u8>,
}

impl Weight {
    fn name(&mut self, name: &Name) {
        if self.names.insert(name.as_ptr()) {
            // Behind the two counters of an Arc.
            self.bytes += 16 + name.len();
        }
    }

    fn names<'a>(&mut self, names: impl IntoIterator<Item = &'a Name>) {
        names.into_iter().for_each(|name| self.name(name));
    }

    fn slice<T>(&mut self, values: &[T]) {
        self.bytes += size_of_val(values);
    }

    fn holders(&mut self, holders: &[Holder]) {
        self.slice(holders);
        for holder in holders {
            let Holder { comm, cmdline, .. } = holder;
            self.names([comm, cmdline, &holder.owner.name, &holder.owner.cgroup]);
        }
    }
}

/// What a state takes, bytes.
pub(super) fn weigh(tracing: &Tracing) -> usize {
    let mut weight = Weight {
        bytes: size_of::<Tracing>(),
        ..Weight::default()
    };
    if let Some(tracefs) = tracing.tracefs.value() {
        weight.slice(&tracefs.instances);
        for instance in &tracefs.instances {
            weight.name(&instance.name);
            weight.slice(&instance.events);
            for event in &instance.events {
                weight.names([&event.system, &event.name]);
                weight.names(&event.filter);
                weight.slice(&event.triggers);
                weight.names(&event.triggers);
            }
            weight.slice(&instance.disagreement);
            weight.names(&instance.disagreement);
            if let Some(readers) = instance.readers.value() {
                weight.holders(readers);
            }
        }
        weight.slice(&tracefs.dynamic);
        for event in &tracefs.dynamic {
            weight.names([&event.group, &event.name, &event.definition]);
        }
    }
    if let Some(kprobes) = tracing.kprobes.value() {
        weight.slice(&kprobes.list);
        for probe in &kprobes.list {
            weight.name(&probe.symbol);
            weight.names(&probe.module);
        }
    }
    if let Some(bpf) = tracing.bpf.value() {
        weight.slice(&bpf.programs);
        for program in &bpf.programs {
            weight.names([&program.kind, &program.name, &program.tag]);
            weight.slice(&program.maps);
            weight.slice(&program.attached);
            for attached in &program.attached {
                weight.names([&attached.kind, &attached.target]);
            }
            weight.holders(&program.holders);
            weight.slice(&program.pins);
            weight.names(&program.pins);
        }
        weight.slice(&bpf.links);
        for link in &bpf.links {
            weight.names([&link.kind, &link.target]);
            weight.holders(&link.holders);
            weight.slice(&link.pins);
            weight.names(&link.pins);
        }
    }
    if let Some(users) = tracing.perf.value() {
        weight.slice(users);
        for user in users {
            weight.names([&user.kind, &user.event]);
            weight.holders(std::slice::from_ref(&user.holder));
        }
    }
    weight.bytes
}
