//! What a test needs of the machine it runs on, and what happens where the machine lacks it.
//!
//! A test that needs root, a tracepoint or a virtual machine says so by hand and is skipped;
//! with `STALLTOP_TEST_REQUIRE_ALL=1`, as CI has it, the same lack fails the test, so nothing
//! can be skipped there unseen.
//!
//! ```no_run
//! stalltop_tests::require!(stalltop_tests::need::root());
//! let tracing = stalltop_tests::require!(stalltop_tests::need::tracefs());
//! # let _ = tracing;
//! ```

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stalltop_collectors::Env;

/// The environment variable that turns a skipped test into a failed one when it is `1`.
pub const REQUIRE_ALL: &str = "STALLTOP_TEST_REQUIRE_ALL";

/// The value, or [`None`] after the reason was printed, when the test is to return at once.
/// Meant to be called through [`require!`](crate::require), which also returns.
///
/// # Panics
/// Where [`REQUIRE_ALL`] is `1` and the thing needed is missing.
pub fn or_skip<T, E: Display>(found: Result<T, E>) -> Option<T> {
    let all = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
    match decide(found, all) {
        Decision::Run(value) => Some(value),
        Decision::Skip(why) => {
            eprintln!("skipped: {why}");
            None
        }
        Decision::Fail(why) => panic!("{REQUIRE_ALL}=1 and this test cannot run: {why}"),
    }
}

enum Decision<T> {
    Run(T),
    Skip(String),
    Fail(String),
}

fn decide<T, E: Display>(found: Result<T, E>, all: bool) -> Decision<T> {
    match found {
        Ok(value) => Decision::Run(value),
        Err(why) if all => Decision::Fail(why.to_string()),
        Err(why) => Decision::Skip(why.to_string()),
    }
}

/// Unwraps what a test needs, or returns from the test: `let dir = require!(need::tracefs());`.
/// See [`need`](crate::need).
#[macro_export]
macro_rules! require {
    ($found:expr) => {
        match $crate::need::or_skip($found) {
            Some(value) => value,
            None => return,
        }
    };
}

/// No other test of this program beside it that takes this, until it is dropped: to be taken first,
/// so that what the test started is gone before the next one begins.
///
/// For tests that count what the whole process or the host does, or disturb a CPU: cargo runs one
/// test program after another, but the tests of one on several threads of one process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed says so itself.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Effective user id 0.
///
/// # Errors
/// What to do about it, for a person.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root (run the tests with sudo)".to_owned())
    }
}

/// A file or folder that must be there, whatever it is.
///
/// # Errors
/// The path, and why it cannot be used.
pub fn path(path: impl AsRef<Path>) -> Result<PathBuf, String> {
    let path = path.as_ref();
    match std::fs::metadata(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(why) => Err(format!("needs {}: {why}", path.display())),
    }
}

/// A program of `PATH`.
///
/// # Errors
/// The name of the program that is missing.
pub fn program(name: &str) -> Result<PathBuf, String> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("needs the program {name} in PATH"))
}

/// The folder where this host's tracefs is mounted.
///
/// # Errors
/// The command that mounts it.
pub fn tracefs() -> Result<PathBuf, String> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| dir.join("events").is_dir())
        .ok_or_else(|| {
            "needs tracefs, as root: mount -t tracefs tracefs /sys/kernel/tracing".to_owned()
        })
}

/// The folder where this host's bpffs is mounted.
///
/// # Errors
/// The command that mounts it.
pub fn bpffs() -> Result<PathBuf, String> {
    Env::live()
        .mount_of("bpf")
        .map(PathBuf::from)
        .ok_or_else(|| "needs bpffs, as root: mount -t bpf bpf /sys/fs/bpf".to_owned())
}

/// A tracepoint of this kernel, `system:name`: its folder below `events`.
///
/// # Errors
/// The tracepoint that this kernel lacks.
pub fn tracepoint(event: &str) -> Result<PathBuf, String> {
    let dir = tracefs()?.join("events").join(event.replacen(':', "/", 1));
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(format!("needs the tracepoint {event} (kernel without it)"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Decision, decide, path, program};

    #[test]
    fn a_lack_skips_by_hand_and_fails_in_ci() {
        assert!(matches!(decide(Ok::<_, String>(7), true), Decision::Run(7)));
        assert!(matches!(
            decide(Ok::<_, String>(7), false),
            Decision::Run(7)
        ));
        let lack = || Err::<(), _>("no such tracepoint");
        assert!(
            matches!(decide(lack(), false), Decision::Skip(why) if why == "no such tracepoint")
        );
        assert!(matches!(decide(lack(), true), Decision::Fail(why) if why == "no such tracepoint"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(path("/nonexistent/x").is_err_and(|why| why.contains("/nonexistent/x")));
        assert!(
            program("no-such-program-anywhere").is_err_and(|why| why.contains("no-such-program"))
        );
        assert!(program("sh").is_ok());
    }
}
