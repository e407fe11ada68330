//! Kind 2, as a firewall makes it: a NET_RX handler that takes long in nftables rules.
//!
//! Datagrams over the loopback of a network namespace of this process's own, with rules of its own:
//! a chain of [`RULES`] that match nothing, gone through as often as the datagram's port says. The
//! handler runs inside send(2), at the end of which bottom halves are let on again, so the clock
//! around that call is the truth, to a few microseconds.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Injected, Trouble, about, now_ns};
use crate::sys::isolate;

/// Rules in the chain: about half a millisecond to a whole one.
const RULES: u32 = 20_000;
/// How often a datagram can go through it.
const STEPS: u16 = 80;
/// The port of a datagram that goes through it `n` times is so much more.
const PORT: u16 = 20_000;
/// How often a datagram goes through it to find out how long that takes, and how many do: the
/// quickest counts.
const TRIAL: u16 = 4;
const TRIALS: u32 = 8;

pub(super) struct Nft {
    socket: UdpSocket,
    /// Once through the chain, ns.
    step_ns: u64,
}

impl Nft {
    pub(super) fn new() -> io::Result<Self> {
        isolate::own_network().map_err(about("a network namespace of its own"))?;
        load(&ruleset()).map_err(about("nft"))?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        // Else somebody else could get the CPU before send(2) returns, where that is allowed.
        let _ = isolate::first_in_first_out();
        let mut nft = Self {
            socket,
            step_ns: u64::MAX,
        };
        for _ in 0..TRIALS {
            let step_ns = nft.send(TRIAL)?.duration_ns() / u64::from(TRIAL);
            nft.step_ns = nft.step_ns.min(step_ns.max(1));
        }
        Ok(nft)
    }

    fn send(&self, steps: u16) -> io::Result<Injected> {
        let begin_ns = now_ns();
        self.socket
            .send_to(&[0; 16], ("127.0.0.1", PORT + steps))
            .map_err(about("to send a datagram"))?;
        Ok(Injected {
            from_ns: begin_ns,
            begin_ns,
            end_ns: now_ns(),
        })
    }
}

impl Trouble for Nft {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        let steps = (duration_ns / self.step_ns).clamp(1, STEPS.into());
        let injected = self.send(steps as u16)?;
        // After an idle time caches are cold: a step takes longer than in the trials.
        let step_ns = injected.duration_ns() / steps;
        self.step_ns = (3 * self.step_ns + step_ns).div_ceil(4);
        Ok(Some(injected))
    }
}

/// Where the program is.
pub(super) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join("nft"))
        .find(|file| file.is_file())
}

fn ruleset() -> String {
    let mut text = String::from("table ip stalltop_selftest {\nchain long {\n");
    for _ in 0..RULES {
        // A source that no packet of this namespace has (RFC 5737).
        text.push_str("udp dport 9 ip saddr 192.0.2.1 counter drop\n");
    }
    text.push_str("}\nchain in {\ntype filter hook input priority 0;\n");
    for step in 0..=STEPS {
        let port = PORT + step;
        // Writing to a string does not fail.
        let _ = writeln!(text, "udp dport {port} drop\njump long");
    }
    text.push_str("}\n}\n");
    text
}

fn load(ruleset: &str) -> io::Result<()> {
    let program = program().ok_or_else(|| io::Error::other("it is not installed"))?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(ruleset.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(
        said.lines().next().unwrap_or("it failed").to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_goes_through_the_chain_as_often_as_it_says() {
        let text = ruleset();
        let (long, chain) = text.split_once("chain in {").unwrap();
        assert_eq!(long.matches("counter drop").count(), RULES as usize);
        for steps in [0, TRIAL, STEPS] {
            let drop = format!("udp dport {} drop", PORT + steps);
            let (before, _) = chain.split_once(&drop).unwrap();
            assert_eq!(before.matches("jump long").count(), usize::from(steps));
        }
    }
}
