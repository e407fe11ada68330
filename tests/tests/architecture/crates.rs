//! What cargo says of our crates.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::sources;

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(sources::root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Each package of the tree, also those outside the workspace, with everything that its manifest
/// names: normal, build and development dependencies, for any target.
pub(crate) fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for manifest in sources::files("", "Cargo.toml") {
        let text = cargo(&[
            "metadata",
            "--no-deps",
            "--format-version=1",
            "--manifest-path",
            &manifest,
        ]);
        let metadata: Value = serde_json::from_str(&text).expect("cargo writes JSON");
        for package in metadata["packages"].as_array().expect("packages") {
            let name = package["name"].as_str().expect("a name");
            let uses = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            found.insert(name.to_owned(), uses);
        }
    }
    found
}

/// The packages that `package` is built with on this target, itself included, with the features
/// it has when built alone.
pub(crate) fn reached(package: &str) -> BTreeSet<String> {
    let text = cargo(&[
        "tree",
        "--locked",
        "--package",
        package,
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
    ]);
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
