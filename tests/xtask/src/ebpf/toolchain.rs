//! A compiler with `core` for a BPF target, and bpf-linker; found or fetched, never installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::vm::apt::{Apt, run};
use crate::vm::cache;

/// The release of bpf-linker that is used; any other might build another object.
const LINKER_VERSION: &str = "0.10.4";

/// Where the compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// Debian's rustc-web, which ships `core` for bpfel-unknown-none
    Debian,
    /// rustup's nightly, which builds `core` from rust-src
    Nightly,
}

/// What is needed to build the object.
pub(crate) struct Toolchain {
    pub(crate) choice: Choice,
    /// cargo, with the arguments that pick the toolchain.
    cargo: Vec<OsString>,
    /// Environment of the build.
    environment: Vec<(&'static str, OsString)>,
    /// One line that names the compiler exactly.
    pub(crate) compiler: String,
    /// Name and version of the linker.
    pub(crate) linker_version: String,
}

impl Toolchain {
    /// The toolchain asked for, or the first that can be had.
    ///
    /// # Errors
    /// What to install, where neither can.
    pub(crate) fn find(choice: Option<Choice>) -> Result<Self> {
        match choice {
            Some(Choice::Debian) => Self::debian(),
            Some(Choice::Nightly) => Self::nightly(),
            None => Self::debian().or_else(|debian| {
                Self::nightly().map_err(|nightly| {
                    anyhow::anyhow!("no toolchain.\nDebian's: {debian:#}\nnightly: {nightly:#}")
                })
            }),
        }
    }

    /// cargo of this toolchain, with its environment set.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo[0]);
        command.args(&self.cargo[1..]);
        // The cargo that runs us has set these for its own toolchain.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn debian() -> Result<Self> {
        let _lock = cache::lock()?;
        let dir = folder()?.join("debian");
        cache::once(&dir, false, |into| {
            eprintln!("fetching Debian's rustc-web (126 MB)");
            let apt = Apt::host(&folder()?.join("apt"))?;
            let mut packages = apt.missing_for("cargo-web")?;
            packages.extend(apt.missing_for("libstd-rust-web-dev-bpf")?);
            packages.sort();
            packages.dedup();
            apt.unpack(&packages, into)
        })?;
        let usr = dir.join("usr");
        let rustc = usr.join("bin/rustc");
        let libraries = std::fs::read_dir(usr.join("lib"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .with_context(|| format!("no libraries in {}", usr.display()))?;
        let mut environment = vec![
            ("LD_LIBRARY_PATH", libraries.into_os_string()),
            ("RUSTC", rustc.clone().into_os_string()),
            // core for BPF has no stable release: this compiler is one all the same.
            ("RUSTC_BOOTSTRAP", "1".into()),
        ];
        let compiler = compiler(Command::new(&rustc).envs(environment.clone()))?;
        let (path, linker_version) = linker(&environment)?;
        environment.push(("PATH", path));
        Ok(Self {
            choice: Choice::Debian,
            cargo: vec![usr.join("bin/cargo").into_os_string()],
            environment,
            compiler,
            linker_version,
        })
    }

    fn nightly() -> Result<Self> {
        let sysroot =
            run(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
                .context("no nightly: rustup toolchain install nightly --component rust-src")?;
        let sysroot = Path::new(sysroot.trim());
        if !sysroot.join("lib/rustlib/src/rust/library").is_dir() {
            bail!("the nightly has no rust-src: rustup component add rust-src --toolchain nightly");
        }
        let compiler = compiler(&mut Command::new(sysroot.join("bin/rustc")))?;
        let mut environment = vec![("LD_LIBRARY_PATH", sysroot.join("lib").into_os_string())];
        let (path, linker_version) = linker(&environment)?;
        environment.push(("PATH", path));
        Ok(Self {
            choice: Choice::Nightly,
            cargo: ["rustup", "run", "nightly", "cargo"]
                .map(OsString::from)
                .to_vec(),
            environment,
            compiler,
            linker_version,
        })
    }
}

/// Where what was fetched and built stays: beside the kernels and the emulator.
fn folder() -> Result<PathBuf> {
    let vm = cache::dir()?;
    let dir = vm.with_file_name("ebpf");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// `rustc -vV` in one line.
fn compiler(rustc: &mut Command) -> Result<String> {
    let text = run(rustc.arg("-vV"))?;
    let llvm = text.lines().find(|line| line.starts_with("LLVM version"));
    let version = text.lines().next().context("rustc names no version")?;
    Ok(format!("{version}, {}", llvm.unwrap_or("LLVM unknown")))
}

/// A PATH on which bpf-linker of the right version comes first, and what it calls itself.
fn linker(environment: &[(&'static str, OsString)]) -> Result<(OsString, String)> {
    let wanted = format!("bpf-linker {LINKER_VERSION}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let says = |program: &Path| {
        run(Command::new(program)
            .envs(environment.to_vec())
            .arg("--version"))
        .ok()
        .filter(|text| text.trim() == wanted)
    };
    if std::env::split_paths(&path).any(|dir| says(&dir.join("bpf-linker")).is_some()) {
        return Ok((path, wanted));
    }
    let dir = folder()?.join(wanted.replace(' ', "-"));
    cache::once(&dir, false, |into| {
        eprintln!("building {wanted} (a few minutes)");
        let mut cargo = Command::new("cargo");
        cargo
            .args(["install", "bpf-linker", "--quiet", "--locked"])
            .args(["--version", LINKER_VERSION, "--root"])
            .arg(into)
            .env_remove("CARGO_BUILD_BUILD_DIR")
            .env("CARGO_TARGET_DIR", into.join("target"));
        run(&mut cargo)?;
        std::fs::remove_dir_all(into.join("target")).context("remove the linker's build")
    })?;
    let bin = dir.join("bin");
    says(&bin.join("bpf-linker")).with_context(|| format!("{wanted} does not run"))?;
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    Ok((path, wanted))
}
