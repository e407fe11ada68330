//! Building our own programs with cargo.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs `cargo build` with these arguments and the environment as given by `set`, and gives the
/// program that it made. The build's messages go to standard error.
///
/// # Errors
/// When cargo fails, or builds no program.
pub(crate) fn program(args: &[&str], set: &[(&str, &str)]) -> Result<PathBuf> {
    let built = cargo(&["build"], args, set)?;
    let program = built.into_iter().next_back().map(|built| built.path);
    program.with_context(|| format!("cargo build {} made no program", args.join(" ")))
}

/// What one integration test is made of.
pub(crate) struct Test {
    /// The program that runs its tests.
    pub(crate) program: PathBuf,
    /// The package's programs, which it may start.
    pub(crate) starts: Vec<PathBuf>,
}

/// As [`program`], with `cargo test --no-run`.
///
/// # Errors
/// When cargo fails, or builds no such test.
pub(crate) fn test(args: &[&str], set: &[(&str, &str)]) -> Result<Test> {
    let built = cargo(&["test", "--no-run"], args, set)?;
    let (tests, programs): (Vec<_>, Vec<_>) = built.into_iter().partition(|built| built.is_test);
    let test = tests.into_iter().next_back();
    Ok(Test {
        program: test
            .with_context(|| format!("cargo test {} made no test", args.join(" ")))?
            .path,
        starts: programs.into_iter().map(|built| built.path).collect(),
    })
}

struct Built {
    path: PathBuf,
    is_test: bool,
}

fn cargo(command: &[&str], args: &[&str], set: &[(&str, &str)]) -> Result<Vec<Built>> {
    let name = format!("cargo {} {}", command.join(" "), args.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo)
        .args(command)
        .arg("--message-format=json-render-diagnostics")
        .args(args)
        .envs(set.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo")?;
    let messages = build.stdout.take().context("cargo's standard output")?;
    let mut built = Vec::new();
    for line in BufReader::new(messages).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        if let Some(path) = message["executable"].as_str() {
            built.push(Built {
                path: PathBuf::from(path),
                is_test: message["profile"]["test"] == true,
            });
        }
    }
    ensure!(build.wait()?.success(), "{name}");
    Ok(built)
}
