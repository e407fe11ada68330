//! Somebody else's tool, as the tests start it.

use stalltop_model::sample::{BpfProgram, Tracing};
use stalltop_tests::tool;

/// `bpf-holder`, with what it holds as the tracing state has it.
pub(super) struct Tool(tool::Tool);

impl Tool {
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self(tool::Tool::start(
            env!("CARGO_BIN_EXE_bpf-holder"),
            arguments,
        ))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
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

/// Kind and target of what a program is attached to.
pub(super) fn places(program: &BpfProgram) -> Vec<(&str, &str)> {
    program
        .attached
        .iter()
        .map(|a| (&*a.kind, &*a.target))
        .collect()
}
