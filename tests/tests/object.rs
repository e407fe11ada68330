//! The committed eBPF object is what its sources give: checked by hashes, without a toolchain.
//! `cargo xtask ebpf --check` rebuilds it and compares the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    object: String,
    compiler: String,
    linker: String,
    sources: BTreeMap<String, String>,
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
    #[serde(default)]
    dependencies: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn manifest() -> Manifest {
    let text = fs::read_to_string(root().join("probes/object/MANIFEST.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

fn walk(dir: &Path, out: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, out);
        } else if path
            .extension()
            .is_some_and(|ext| ext == "rs" || ext == "toml")
        {
            let path = path.strip_prefix(root()).unwrap();
            out.insert(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn the_object_is_the_one_the_manifest_tells_of() {
    let manifest = manifest();
    let object = sha256(&root().join("probes/object/stalltop.bpf.o"));
    assert_eq!(object, manifest.object, "run `cargo xtask ebpf`");
    assert!(
        manifest.compiler.starts_with("rustc "),
        "{}",
        manifest.compiler
    );
    assert!(
        manifest.linker.starts_with("bpf-linker "),
        "{}",
        manifest.linker
    );
}

#[test]
fn the_manifests_sources_are_those_of_the_tree() {
    let manifest = manifest();
    let mut files = BTreeSet::new();
    walk(&root().join("probes/wire"), &mut files);
    walk(&root().join("probes/ebpf"), &mut files);
    let listed: BTreeSet<_> = manifest.sources.keys().cloned().collect();
    assert_eq!(listed, files, "run `cargo xtask ebpf`");
    for (name, hash) in &manifest.sources {
        assert_eq!(
            &sha256(&root().join(name)),
            hash,
            "{name}: run `cargo xtask ebpf`"
        );
    }
}

#[test]
fn the_manifests_packages_are_those_of_the_lock_file() {
    let manifest = manifest();
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: Lock = toml::from_str(&text).unwrap();
    let find = |name: &str| lock.package.iter().find(|package| package.name == name);
    // What the eBPF crate uses, and what that uses as long as it is aya-ebpf's.
    let mut used = BTreeSet::new();
    let mut open = vec!["stalltop-ebpf"];
    while let Some(name) = open.pop() {
        for dependency in &find(name).unwrap().dependencies {
            if dependency.starts_with("aya-ebpf") && used.insert(dependency.clone()) {
                open.push(dependency);
            }
        }
    }
    let listed: BTreeSet<_> = manifest.lock.keys().cloned().collect();
    assert_eq!(listed, used);
    assert!(!used.is_empty());
    for (name, listed) in &manifest.lock {
        let package = find(name).unwrap();
        let locked = format!(
            "{} {}",
            package.version,
            package.checksum.as_deref().unwrap_or_default()
        );
        assert_eq!(&locked, listed, "{name}: run `cargo xtask ebpf`");
    }
}
