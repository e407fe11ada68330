//! Every way to attach a program that this kernel has, made by somebody else's tool: stalltop shows
//! what it is attached to and who holds it, or that it does not know.

#[path = "live_tracing/tool.rs"]
mod tool;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stalltop_collectors::Env;
use stalltop_collectors::env::KernelVersion;
use stalltop_collectors::tracing::TracingCollector;
use stalltop_model::sample::{BpfProgram, HeldBy, Tracing};
use stalltop_tests::flood::in_own_network;
use stalltop_tests::tool::offset_in_file;
use stalltop_tests::{need, require};

use tool::{Tool, places};

fn scan() -> std::sync::Arc<Tracing> {
    TracingCollector::new(&Env::live()).scan()
}

/// What the tool's program is attached to, and how the tool holds it.
fn shown<'t>(tool: &Tool, tracing: &'t Tracing, name: &str) -> (Vec<(&'t str, &'t str)>, HeldBy) {
    let program = tool
        .program(tracing, name)
        .unwrap_or_else(|| panic!("{name} is not held by the tool"));
    let holder = program.holders.iter().find(|h| h.pid == tool.pid());
    (places(program), holder.unwrap().by)
}

fn named<'t>(tracing: &'t Tracing, name: &str) -> Option<&'t BpfProgram> {
    let programs = &tracing.bpf.value().unwrap().programs;
    programs.iter().find(|p| &*p.name == name)
}

/// A folder in bpffs or a cgroup, removed with what is in it when the test ends.
struct OwnFolder(PathBuf);

impl OwnFolder {
    fn new(below: &Path, name: &str) -> Self {
        let path = below.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn probes_of_files_and_events() {
    require!(need::root());
    require!(need::tracepoint("sched:sched_process_hang"));
    let own = std::env::current_exe().unwrap();
    let own = own.display();
    let kernel = Env::live().kernel;
    let probed = offset_in_file(programs_of_a_network_namespace);
    let mut arguments = vec![format!("uretprobe:{own}@{probed:#x}")];
    let place = format!("{own}+{probed:#x}");
    let mut expected = vec![("uretprobe", vec![("uretprobe", &*place)], HeldBy::PerfEvent)];
    if kernel >= KernelVersion(5, 15) {
        arguments.push("closed_event:sched:sched_process_hang".into());
        let event = vec![("tracepoint", "sched:sched_process_hang")];
        expected.push(("closed_event", event, HeldBy::Link));
    }
    // Of a link on many places it is told since 6.8.
    let many = format!("{own}, 2 places");
    if kernel >= KernelVersion(6, 8) {
        let second = offset_in_file(probes_of_files_and_events);
        arguments.push(format!("uprobe_multi:{own}@{probed:#x},{second:#x}"));
        expected.push(("uprobe_multi", vec![("uprobe_multi", &*many)], HeldBy::Link));
    }
    let arguments: Vec<_> = arguments.iter().map(|a| &**a).collect();
    let tool = Tool::start(&arguments);
    let tracing = scan();
    for (name, places, by) in expected {
        assert_eq!(shown(&tool, &tracing, name), (places, by), "{name}");
    }
}

#[test]
fn programs_of_a_network_namespace() {
    require!(need::root());
    in_own_network(None, || {
        let kernel = Env::live().kernel;
        let namespace = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let mut arguments = vec!["flow_dissector", "sk_lookup"];
        if kernel >= KernelVersion(6, 4) {
            arguments.push("netfilter");
        }
        if kernel >= KernelVersion(6, 6) {
            arguments.push("tcx:lo");
        }
        let tool = Tool::start(&arguments);
        let tracing = scan();
        let other = format!("net:[{namespace}]");
        for (name, kind) in [
            ("flow_dissector", "flow_dissector"),
            ("sk_lookup", "sk_lookup"),
        ] {
            let (places, by) = shown(&tool, &tracing, name);
            assert_eq!((places, by), (vec![(kind, &*other)], HeldBy::Link));
        }
        if kernel >= KernelVersion(6, 4) {
            let expected = (
                vec![("netfilter", "ipv4 input priority -128")],
                HeldBy::Link,
            );
            assert_eq!(shown(&tool, &tracing, "netfilter"), expected);
        }
        if kernel >= KernelVersion(6, 6) {
            let expected = (vec![("tcx_ingress", "lo")], HeldBy::Link);
            assert_eq!(shown(&tool, &tracing, "tcx"), expected);
        }
    })
    .unwrap();
}

#[test]
fn a_program_of_a_cgroup_without_a_link() {
    require!(need::root());
    let env = Env::live();
    let mount = require!(env.mount_of("cgroup2").ok_or("needs a cgroup2 mount"));
    let group = OwnFolder::new(Path::new(mount), "stalltop-attachments");
    let name = group.0.file_name().unwrap().to_str().unwrap();
    let target = format!("/{name}");
    let tool = Tool::start(&[&format!("cgroup_legacy:{}", group.0.display())]);
    let expected = [("cgroup_inet_ingress", &*target)];
    let tracing = scan();
    let held = shown(&tool, &tracing, "cgroup_legacy");
    assert_eq!(held, (expected.to_vec(), HeldBy::Program));
    // The cgroup keeps it: who loaded it, the kernel does not tell.
    drop(tool);
    let tracing = scan();
    let left = (tracing.bpf.value().unwrap().programs.iter())
        .find(|p| places(p) == expected)
        .unwrap();
    assert_eq!(
        (&*left.name, left.holders.len(), left.pins.len()),
        ("cgroup_legacy", 0, 0)
    );
}

/// Of these the kernel does not say what they are attached to: nothing is made up.
#[test]
fn what_is_not_known_is_not_guessed() {
    require!(need::root());
    let tool = Tool::start(&["socket_filter", "sk_msg", "loose_filter"]);
    let tracing = scan();
    for name in ["socket_filter", "sk_msg"] {
        assert_eq!(shown(&tool, &tracing, name), (vec![], HeldBy::Program));
    }
    let loose = named(&tracing, "loose_filter").unwrap();
    assert_eq!(
        (places(loose), loose.holders.len(), loose.pins.len()),
        (vec![], 0, 0)
    );
    assert!(loose.loaded_at_ns > 0);
}

#[test]
fn a_child_that_inherits_holds_what_its_parent_holds() {
    require!(need::root());
    let tool = Tool::start(&["raw_tracepoint:sched_process_hang", "child"]);
    let tracing = scan();
    let program = tool.program(&tracing, "raw_tracepoint").unwrap();
    let holders: Vec<_> = program.holders.iter().map(|h| (&*h.comm, h.by)).collect();
    assert_eq!(holders, [("bpf-holder", HeldBy::Link); 2], "{program:?}");
    // Also where the parent is gone first: the child is started before it ends.
    assert!(program.holders.iter().any(|h| h.pid == tool.pid()));
}

#[test]
fn who_only_opened_a_pin_is_a_holder() {
    require!(need::root());
    let env = Env::live();
    let bpffs = require!(
        env.mount_of("bpf")
            .ok_or("needs bpffs: mount -t bpf bpf /sys/fs/bpf")
    );
    let pins = OwnFolder::new(Path::new(bpffs), "stalltop-attachments");
    let pin = pins.0.join("program").display().to_string();
    let maker = Tool::start(&["sched_cls", &format!("pin:{pin}")]);
    drop(maker);
    let opener = Tool::start(&[&format!("open:{pin}")]);
    let tracing = scan();
    let program = opener.program(&tracing, "sched_cls").unwrap();
    assert_eq!(program.pins, [pin.into()]);
    let holders: Vec<_> = program.holders.iter().map(|h| (h.pid, h.by)).collect();
    assert_eq!(holders, [(opener.pid(), HeldBy::Program)]);
}
