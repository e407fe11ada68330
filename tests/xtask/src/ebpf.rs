//! `cargo xtask ebpf`: rebuilds probes/object/stalltop.bpf.o and its manifest from the sources in
//! probes/wire and probes/ebpf, or checks that doing so would change nothing.

mod build;
mod manifest;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use manifest::Manifest;
use toolchain::{Choice, Toolchain};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rebuild and compare with what is committed instead of replacing it
    #[arg(long)]
    check: bool,
    /// Which compiler: Debian's packages (fetched, not installed), or a rustup nightly with
    /// rust-src; by default the one of the two that is there or can be had, Debian's first
    #[arg(long, value_enum)]
    toolchain: Option<Choice>,
    /// Write the object here instead, and leave the committed one and the manifest as they are
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = root()?;
    let toolchain = Toolchain::find(args.toolchain)?;
    println!("compiler  {}", toolchain.compiler);
    println!("linker    {}", toolchain.linker_version);
    let object = build::object(&root, &toolchain)?;
    let bytes = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    if let Some(output) = &args.output {
        fs::write(output, &bytes).with_context(|| format!("write {}", output.display()))?;
        println!("wrote     {}, {} bytes", output.display(), bytes.len());
        return Ok(());
    }
    let new = Manifest::of(&root, &toolchain, &bytes)?;
    if args.check {
        return check(&root, &new, &bytes);
    }
    let committed = root.join(manifest::OBJECT);
    fs::write(&committed, &bytes).with_context(|| format!("write {}", committed.display()))?;
    new.write(&root)?;
    println!("wrote     {}, {} bytes", manifest::OBJECT, bytes.len());
    Ok(())
}

/// Fails unless what is committed is what the sources give.
fn check(root: &Path, new: &Manifest, bytes: &[u8]) -> Result<()> {
    let committed = Manifest::read(root)?;
    let stale = committed.sources_that_differ(new);
    ensure!(
        stale.is_empty(),
        "the committed object was built from other sources ({}): run `cargo xtask ebpf`",
        stale.join(", ")
    );
    if committed.compiler != new.compiler || committed.linker != new.linker {
        println!(
            "sources agree; the object was built by another compiler or linker ({}, {}), so its \
             bytes are not compared",
            committed.compiler, committed.linker
        );
        return Ok(());
    }
    let path = root.join(manifest::OBJECT);
    let old = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    if old != bytes {
        bail!("same sources, same compiler, yet another object: run `cargo xtask ebpf`");
    }
    println!("sources and object agree, byte by byte");
    Ok(())
}

/// The workspace's root.
fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .context("find the workspace")
}
