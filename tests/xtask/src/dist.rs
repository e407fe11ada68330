//! `cargo xtask dist`: the release binary that a person copies to a host: fully static, so that
//! it runs whatever libraries that host has.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use crate::build;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build for this target; the compiler's own if none is given
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let target = match args.target {
        Some(target) => target,
        None => host()?,
    };
    // With --target, the flag reaches the binary but not the build scripts.
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{given} -C target-feature=+crt-static");
    let program = build::program(
        &[
            "--release",
            "--locked",
            "--package",
            "stalltop",
            "--target",
            &target,
        ],
        &[("RUSTFLAGS", flags.trim())],
    )?;
    let bytes = fs::read(&program).with_context(|| program.display().to_string())?;
    ensure!(is_static(&bytes)?, "{} is not static", program.display());
    let mebibytes = bytes.len() as f64 / f64::from(1 << 20);
    println!("{} static, {mebibytes:.1} MiB", program.display());
    Ok(())
}

/// The target that the compiler runs on itself.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    String::from_utf8(output.stdout)?
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc -vV names no host")
}

/// Whether the kernel starts this program without a loader: no `PT_INTERP` (elf(5)), which a
/// static-pie has not either.
fn is_static(file: &[u8]) -> Result<bool> {
    let header = FileHeader64::<Endianness>::parse(file)?;
    let endian = header.endian()?;
    let segments: &[elf::ProgramHeader64<Endianness>] = header.program_headers(endian, file)?;
    ensure!(
        !segments.is_empty(),
        "an ELF file without segments is no program"
    );
    Ok(segments
        .iter()
        .all(|segment| segment.p_type(endian) != PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own).unwrap());
        assert!(is_static(b"not a program").is_err());
    }
}
