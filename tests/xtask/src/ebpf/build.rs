//! Building the object, so that the same compiler gives the same bytes wherever the tree lies.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::toolchain::{Choice, Toolchain};
use crate::vm::apt::run;

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object; where it lies.
pub(crate) fn object(root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let target = root.join("target/ebpf");
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_default();
    let flags = [
        // aya-ebpf's bindings differ by the CPU the program will run on only for struct pt_regs,
        // which no program here uses: one object serves all.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("--remap-path-prefix={}=.", root.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", "stalltop-ebpf", "--target", TARGET]);
    if toolchain.choice == Choice::Nightly {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo
        .current_dir(root)
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Said here, so that the workspace's profile can change without changing the object.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false");
    run(&mut cargo)?;
    let object = target.join(TARGET).join("release/stalltop-ebpf");
    ensure!(object.is_file(), "cargo built no {}", object.display());
    Ok(object)
}
