//! Somebody else's monitoring tool: attaches what its arguments name, says for each whether that
//! worked, then holds it all until its standard input ends (or it is killed).
//!
//! Tests and recordings start it, on hosts and in virtual machines, to see that stalltop finds
//! what it holds. Each argument is KIND or KIND:TARGET; `hold` and its neighbours
//! list them.

mod functions;
mod places;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit, setrlimit};
use stalltop_tests::bpf::btf::{self, Types};
use stalltop_tests::bpf::{self, ProgramType, attach};

fn main() -> io::Result<()> {
    let mut held = Vec::new();
    for argument in std::env::args().skip(1) {
        let (kind, target) = argument.split_once(':').unwrap_or((&argument, ""));
        match hold(kind, target, &mut held) {
            Ok(()) => println!("held {argument}"),
            Err(error) => println!("not held {argument}: {error}"),
        }
    }
    println!("ready {}", std::process::id());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Every descriptor that must stay open is pushed to `held`, in the order it was made.
fn hold(kind: &str, target: &str, held: &mut Vec<OwnedFd>) -> io::Result<()> {
    match kind {
        // Loaded only: tc(8) and bpftool attach what is pinned. TC_ACT_OK is 0, XDP_PASS 2.
        "sched_cls" | "loaded_xdp" => {
            let (program, returns) = match kind {
                "sched_cls" => (ProgramType::SchedCls, 0),
                _ => (ProgramType::Xdp, 2),
            };
            held.push(bpf::load(program, kind, returns, 0, 0)?);
            Ok(())
        }
        "syscall" => {
            held.push(bpf::load_syscall(kind)?);
            Ok(())
        }
        // So many links of one program, or so many programs with a link each. Of iterators: nobody
        // reads them, so none ever runs.
        "many_links" | "many_programs" => {
            let count: u64 = target.parse().map_err(io::Error::other)?;
            raise_limit(2 * count + 64)?;
            let btf = Types::read()?.id("bpf_iter_task", btf::FUNCTION)?;
            let load = || bpf::load(ProgramType::Tracing, kind, 0, attach::TRACE_ITER, btf);
            let mut program = load()?;
            for n in 0..count {
                held.push(bpf::link(&program, None, 0, attach::TRACE_ITER)?);
                if kind == "many_programs" && n + 1 < count {
                    held.push(std::mem::replace(&mut program, load()?));
                }
            }
            held.push(program);
            Ok(())
        }
        // Links that come and go until this process ends.
        "fickle" => {
            let btf = Types::read()?.id("bpf_iter_task", btf::FUNCTION)?;
            std::thread::spawn(move || {
                loop {
                    let load =
                        |name| bpf::load(ProgramType::Tracing, name, 0, attach::TRACE_ITER, btf);
                    let link = load("fickle")
                        .and_then(|program| bpf::link(&program, None, 0, attach::TRACE_ITER));
                    drop(link);
                }
            });
            Ok(())
        }
        "map" => {
            held.push(bpf::map(if target.is_empty() { kind } else { target })?);
            Ok(())
        }
        // The last object made, pinned.
        "pin" => {
            let last = held
                .last()
                .ok_or_else(|| io::Error::other("nothing to pin"))?;
            bpf::pin(last, target)
        }
        // What somebody else pinned.
        "open" => {
            held.push(bpf::pinned(target)?);
            Ok(())
        }
        // A child that inherits everything made so far, and ends with this process.
        "child" => {
            for fd in held.iter() {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            let child = Command::new(std::env::current_exe()?)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            // Its standard input ends with this process.
            held.extend(child.stdin.map(OwnedFd::from));
            Ok(())
        }
        _ => functions::hold(kind, target, held)
            .or_else(|| places::hold(kind, target, held))
            .unwrap_or_else(|| Err(io::Error::other("no such kind"))),
    }
}

/// Lets this process have so many descriptors.
fn raise_limit(descriptors: u64) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(descriptors);
    limit.maximum = limit.maximum.map(|maximum| maximum.max(descriptors));
    Ok(setrlimit(Resource::Nofile, limit)?)
}
