//! probes/object/MANIFEST.toml: what the committed object was built from and by what.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::toolchain::Toolchain;

/// The committed object.
pub(crate) const OBJECT: &str = "probes/object/stalltop.bpf.o";
const MANIFEST: &str = "probes/object/MANIFEST.toml";

/// Everything in these folders goes into the object.
const FOLDERS: &[&str] = &["probes/wire", "probes/ebpf"];

/// Packages of this prefix that the eBPF crate uses are compiled into the object.
const LOCKED: &str = "aya-ebpf";

#[derive(Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// sha256 of the object.
    object: String,
    /// One line that names the compiler exactly.
    pub(crate) compiler: String,
    /// Name and version of the linker.
    pub(crate) linker: String,
    /// sha256 of every source, by path.
    sources: BTreeMap<String, String>,
    /// Version and checksum, as Cargo.lock has them, of every package compiled into it.
    lock: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Manifest {
    /// What the manifest of an object just built says.
    pub(crate) fn of(root: &Path, toolchain: &Toolchain, object: &[u8]) -> Result<Self> {
        let mut files = Vec::new();
        for folder in FOLDERS {
            walk(&root.join(folder), &mut files)?;
        }
        let mut sources = BTreeMap::new();
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
            sources.insert(name, sha256(&bytes));
        }
        let text = fs::read_to_string(root.join("Cargo.lock")).context("read Cargo.lock")?;
        let lock: Lock = toml::from_str(&text).context("parse Cargo.lock")?;
        let lock = lock
            .package
            .into_iter()
            .filter(|package| package.name.starts_with(LOCKED))
            .map(|package| {
                let checksum = package.checksum.unwrap_or_default();
                (package.name, format!("{} {checksum}", package.version))
            })
            .collect();
        Ok(Self {
            object: sha256(object),
            compiler: toolchain.compiler.clone(),
            linker: toolchain.linker_version.clone(),
            sources,
            lock,
        })
    }

    /// The committed one.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// Writes it beside the object.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(MANIFEST);
        let text = format!(
            "# What {OBJECT} was built from. Written by `cargo xtask ebpf`.\n{}",
            toml::to_string(self)?
        );
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Sources and packages that are not the same in both.
    pub(crate) fn sources_that_differ(&self, other: &Self) -> Vec<String> {
        let differ = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
            a.keys()
                .chain(b.keys())
                .filter(|name| a.get(*name) != b.get(*name))
                .cloned()
                .collect::<Vec<_>>()
        };
        let mut all = differ(&self.sources, &other.sources);
        all.extend(differ(&self.lock, &other.lock));
        all.sort();
        all.dedup();
        all
    }
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, out)?;
        } else if path
            .extension()
            .is_some_and(|ext| ext == "rs" || ext == "toml")
        {
            out.push(path);
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
