//! What a machine is made of, fetched once: a kernel, the emulator, a static busybox.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::Apt;
use super::cache;

/// A kernel by the name it goes by here, and the Debian suite whose cloud kernel it is.
pub(crate) struct Kernel {
    /// The first two numbers of its version.
    pub(crate) name: &'static str,
    suite: &'static str,
}

/// The kernels to be had. 4.19, 5.4 and 5.15 are in no suite of Debian's any more.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye-security",
    },
    Kernel {
        name: "6.1",
        suite: "bookworm-security",
    },
    Kernel {
        name: "6.12",
        suite: "trixie-security",
    },
    Kernel {
        name: "7.2",
        suite: "trixie-backports",
    },
];

/// What `fetch` without a name gets: the kernels that the tests boot.
pub(crate) const TESTED: &[&str] = &["5.10", "6.1", "6.12"];

/// A kernel image and its modules, unpacked.
pub(crate) struct Image {
    /// `uname -r`.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) vmlinuz: PathBuf,
    /// What it was built with.
    pub(crate) config: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The emulator, unpacked or installed.
pub(crate) struct Qemu {
    /// `qemu-system-x86_64`.
    pub(crate) program: PathBuf,
    /// Where its libraries are when it is not installed.
    pub(crate) libraries: Option<std::ffi::OsString>,
    /// Where its firmware is when it is not installed.
    pub(crate) firmware: Vec<PathBuf>,
}

/// The kernel `name`, from the cache or fetched now; `again` fetches today's.
pub(crate) fn kernel(name: &str, again: bool) -> Result<Image> {
    let kernel = KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .with_context(|| {
            let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
            format!("no kernel {name} here; there are {}", names.join(", "))
        })?;
    let dir = cache::dir()?.join("kernel").join(name);
    cache::once(&dir, again, |into| {
        let apt = Apt::suite(&cache::dir()?.join("apt").join(kernel.suite), kernel.suite)?;
        let package = apt.depends("linux-image-cloud-amd64", "linux-image-")?;
        eprintln!("fetching {package}");
        apt.unpack(&[package], into)
    })?;
    let boot = dir.join("boot");
    let release = fs::read_dir(&boot)
        .with_context(|| format!("read {}", boot.display()))?
        .flatten()
        .find_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix("vmlinuz-")?
                    .to_owned(),
            )
        })
        .with_context(|| format!("no vmlinuz in {}", boot.display()))?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .map(|path| dir.join(path).join(&release))
        .find(|path| path.is_dir())
        .with_context(|| format!("no modules in {}", dir.display()))?;
    Ok(Image {
        vmlinuz: boot.join(format!("vmlinuz-{release}")),
        config: boot.join(format!("config-{release}")),
        modules,
        release,
    })
}

/// The installed emulator, or else Debian's, with the libraries this machine lacks.
pub(crate) fn qemu(again: bool) -> Result<Qemu> {
    const NAME: &str = "qemu-system-x86_64";
    let installed = Path::new("/usr/bin").join(NAME);
    if installed.is_file() {
        return Ok(Qemu {
            program: installed,
            libraries: None,
            firmware: Vec::new(),
        });
    }
    let dir = cache::dir()?.join("qemu");
    cache::once(&dir, again, |into| {
        let apt = Apt::host(&cache::dir()?.join("apt/host"))?;
        let packages = apt.missing_for("qemu-system-x86")?;
        eprintln!(
            "fetching qemu-system-x86 and {} libraries",
            packages.len() - 1
        );
        apt.unpack(&packages, into)
    })?;
    let mut libraries = Vec::new();
    for lib in ["usr/lib", "lib"] {
        let lib = dir.join(lib);
        for entry in fs::read_dir(&lib).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
                libraries.push(entry.path());
            }
        }
        libraries.push(lib);
    }
    Ok(Qemu {
        program: dir.join("usr/bin").join(NAME),
        libraries: Some(std::env::join_paths(libraries)?),
        firmware: vec![dir.join("usr/share/qemu"), dir.join("usr/share/seabios")],
    })
}

/// A busybox that needs no libraries: the guest's whole user space.
pub(crate) fn busybox(again: bool) -> Result<PathBuf> {
    let dir = cache::dir()?.join("busybox");
    cache::once(&dir, again, |into| {
        let apt = Apt::host(&cache::dir()?.join("apt/host"))?;
        eprintln!("fetching busybox-static");
        apt.unpack(&["busybox-static".to_owned()], into)
    })?;
    ["bin/busybox", "usr/bin/busybox"]
        .into_iter()
        .map(|path| dir.join(path))
        .find(|path| path.is_file())
        .with_context(|| format!("no busybox in {}", dir.display()))
}
