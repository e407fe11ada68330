//! Somebody else's tool, as the tests start it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use procfs::process::Process;

/// `bpf-holder`: somebody else's tool. It ends with its standard input, or is killed when dropped.
#[derive(Debug)]
pub struct Tool(Child);

impl Tool {
    /// Starts it, and waits until it holds what `arguments` say. `built` is where cargo has built
    /// it; in a virtual machine it is brought along, in PATH.
    ///
    /// # Panics
    /// Where it does not start, or cannot hold one of them.
    #[must_use]
    pub fn start(built: &str, arguments: &[&str]) -> Self {
        let built = Path::new(built);
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
            .expect("bpf-holder starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let tool = Self(child);
        for line in out.lines() {
            let line = line.expect("text");
            if line.starts_with("ready ") {
                return tool;
            }
            assert!(!line.starts_with("not held"), "{line}");
        }
        panic!("bpf-holder ended early");
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a function lies in the file of this program: a place for a uprobe. One in the middle of an
/// instruction would be refused (kernel/events/uprobes.c, `ENOTSUPP`).
///
/// # Panics
/// Where `/proc/self/maps` does not have it.
#[must_use]
pub fn offset_in_file(function: fn()) -> u64 {
    let address = function as usize as u64;
    let maps = Process::myself().and_then(|own| own.maps());
    let maps = maps.expect("/proc/self/maps");
    let map = maps
        .iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))
        .expect("its code is mapped");
    map.offset + (address - map.address.0)
}
