//! Hosts that are made up, and what traces on them.

use std::fs;
use std::path::PathBuf;

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal, Writer};
use stalltop_collectors::live::{Live, Options};
use stalltop_model::Reading;
use stalltop_model::change::{ChangeError, Plan, Request};
use stalltop_model::sample::{
    Attachment, BpfObjects, BpfProgram, HeldBy, Holder, Owner, OwnerKind, Tracing,
};

/// A made-up host.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.put(
            "proc/self/mountinfo",
            "1 2 0:3 / /sys/kernel/tracing rw - tracefs tracefs rw\n\
             1 2 0:4 / /sys/kernel/debug rw - debugfs debugfs rw\n",
        );
        tree.put("proc/sys/kernel/random/boot_id", "boot\n");
        tree.put("run/.keep", "");
        fs::create_dir_all(tree.path("sys/kernel/tracing/events")).unwrap();
        fs::create_dir_all(tree.path("sys/kernel/tracing/instances")).unwrap();
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// An event of the instance that `prefix` names (`instances/NAME/`, or nothing).
    pub(crate) fn event(&self, prefix: &str, event: &str, enable: &str) {
        let dir = format!("sys/kernel/tracing/{prefix}events/{event}");
        self.put(&format!("{dir}/enable"), &format!("{enable}\n"));
        self.put(&format!("{dir}/filter"), "none\n");
        self.put(&format!("{dir}/trigger"), "# Available triggers:\n");
    }

    pub(crate) fn env(&self) -> Env {
        Env::at(self.0.path())
    }

    pub(crate) fn bench(&self) -> Bench {
        let options = Options {
            env: self.env(),
            ..Options::default()
        };
        Bench {
            env: self.env(),
            writer: Live::writer(&options, None).unwrap(),
        }
    }
}

/// What plans and applies on a made-up host.
pub(crate) struct Bench {
    pub(crate) env: Env,
    pub(crate) writer: Writer,
}

impl Bench {
    pub(crate) fn plan(&self, request: &Request) -> Result<Plan, ChangeError> {
        let journal = Journal::read(&self.env, self.writer.journal()).unwrap();
        change::plan(&self.env, request, &journal, None)
    }
}

pub(crate) fn program(
    id: u32,
    kind: &str,
    target: &str,
    owner: OwnerKind,
    name: &str,
) -> BpfProgram {
    BpfProgram {
        id,
        kind: "kprobe".into(),
        name: "prog".into(),
        tag: "0".into(),
        loaded_at_ns: 0,
        uid: 0,
        maps: Vec::new(),
        attached: vec![Attachment {
            kind: kind.into(),
            target: target.into(),
            link: None,
        }],
        holders: vec![Holder {
            pid: 812,
            comm: "holder".into(),
            cmdline: "holder".into(),
            owner: Owner {
                kind: owner,
                name: name.into(),
                cgroup: "/".into(),
            },
            by: HeldBy::Link,
        }],
        pins: Vec::new(),
        ours: false,
    }
}

pub(crate) fn tracing(programs: Vec<BpfProgram>) -> Tracing {
    Tracing {
        bpf: Reading::Value(BpfObjects {
            programs,
            links: Vec::new(),
            holders: Reading::Value(()),
        }),
        ..Tracing::default()
    }
}
