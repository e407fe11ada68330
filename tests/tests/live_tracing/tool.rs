//! Somebody else's tool, as the tests start it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stalltop_model::sample::{BpfProgram, Tracing};

/// `bpf-holder`: somebody else's tool. It ends with its standard input, or is killed with the test.
pub(super) struct Tool(Child);

impl Tool {
    pub(super) fn start(arguments: &[&str]) -> Self {
        // In a virtual machine it is brought along, in PATH.
        let built = Path::new(env!("CARGO_BIN_EXE_bpf-holder"));
        let program = if built.exists() {
            built
        } else {
            Path::new("bpf-holder")
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let tool = Self(child);
        for line in out.lines() {
            let line = line.unwrap();
            if line.starts_with("ready ") {
                return tool;
            }
            assert!(!line.starts_with("not held"), "{line}");
        }
        panic!("bpf-holder ended early");
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The programs that it holds, by name: `bpf-holder` names them after the kind.
    pub(super) fn program<'t>(&self, tracing: &'t Tracing, name: &str) -> Option<&'t BpfProgram> {
        tracing
            .bpf
            .value()
            .unwrap()
            .programs
            .iter()
            .find(|p| &*p.name == name && p.holders.iter().any(|h| h.pid == self.pid()))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kind and target of what a program is attached to.
pub(super) fn places(program: &BpfProgram) -> Vec<(&str, &str)> {
    program
        .attached
        .iter()
        .map(|a| (&*a.kind, &*a.target))
        .collect()
}
