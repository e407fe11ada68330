//! Debian packages without installing them: a private apt configuration per suite, then
//! `apt-get download` and `dpkg -x`. The mirror is the machine's own, read from its apt sources;
//! nothing of the machine's package state is touched and root is not needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Signs every Debian release, of Debian's package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt configuration of our own: its sources, lists and downloads live in one folder.
pub(crate) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// One Debian suite (`trixie-security`, `trixie-backports`), whatever this machine runs,
    /// with no package taken as installed.
    pub(crate) fn suite(dir: &Path, suite: &str) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing: install the package debian-archive-keyring"
        );
        let mirror = mirror(suite.ends_with("-security"))?;
        fs::create_dir_all(dir)?;
        fs::write(
            dir.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
        )?;
        fs::write(dir.join("status"), "")?;
        let dir_name = dir.display();
        Self::new(
            dir,
            &format!(
                "APT::Architecture \"amd64\";\n\
                 Dir::Etc::sourcelist \"{dir_name}/sources.list\";\n\
                 Dir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::preferences \"/dev/null\";\n\
                 Dir::Etc::preferencesparts \"/dev/null\";\n\
                 Dir::State::status \"{dir_name}/status\";\n"
            ),
        )
    }

    /// This machine's own sources and installed packages, with lists of our own.
    pub(crate) fn host(dir: &Path) -> Result<Self> {
        Self::new(dir, "")
    }

    fn new(dir: &Path, settings: &str) -> Result<Self> {
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let config = dir.join("apt.conf");
        let dir = dir.display();
        fs::write(
            &config,
            format!(
                "{settings}\
                 Dir::State::lists \"{dir}/lists\";\n\
                 Dir::Cache \"{dir}\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Retries \"3\";\n\
                 APT::Sandbox::User \"\";\n"
            ),
        )?;
        let apt = Self { config };
        apt.output("apt-get", &["--quiet", "update"])?;
        Ok(apt)
    }

    /// The first package that `package` depends on whose name begins with `prefix`:
    /// what a metapackage such as `linux-image-cloud-amd64` stands for today.
    pub(crate) fn depends(&self, package: &str, prefix: &str) -> Result<String> {
        let text = self.output("apt-cache", &["depends", package])?;
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {prefix}*:\n{text}"))
    }

    /// The packages that installing `package` on this machine would add, itself included.
    /// Only simulated: what apt would remove for it stays.
    pub(crate) fn missing_for(&self, package: &str) -> Result<Vec<String>> {
        let text = self.output(
            "apt-get",
            &["install", "--simulate", "--no-install-recommends", package],
        )?;
        let names: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        ensure!(
            !names.is_empty(),
            "{package} seems installed already:\n{text}"
        );
        Ok(names)
    }

    /// `packages` and the libraries that they need, all the way down, whatever is installed here.
    /// What they need besides libraries (interpreters, say) is left out.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut args = vec!["depends", "--recurse", "--important", "--no-conflicts"];
        args.extend(["--no-breaks", "--no-replaces"]);
        args.extend(packages);
        let text = self.output("apt-cache", &args)?;
        let is_wanted = |name: &&str| {
            packages.contains(name)
                || (name.starts_with("lib") || *name == "zlib1g")
                    && !name.starts_with("libpython3-")
                    && !["-stdlib", "-minimal"]
                        .iter()
                        .any(|end| name.ends_with(end))
        };
        // Packages stand at the beginning of a line, what they depend on is indented.
        let mut names: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()))
            .filter(is_wanted)
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        ensure!(
            names.len() > packages.len(),
            "{packages:?} need no libraries:\n{text}"
        );
        Ok(names)
    }

    /// Downloads `packages` and unpacks them all below `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = into.join("debs");
        fs::create_dir_all(&debs)?;
        let mut args = vec!["--quiet", "download"];
        args.extend(packages.iter().map(String::as_str));
        run(self.command("apt-get").args(&args).current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            run(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(into))?;
        }
        fs::remove_dir_all(&debs)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args))
    }
}

/// Runs a command to its end; its standard output, or an error with all it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// Where this machine gets Debian (or its security updates) from.
fn mirror(security: bool) -> Result<String> {
    let variable = if security {
        "STALLTOP_DEBIAN_SECURITY_MIRROR"
    } else {
        "STALLTOP_DEBIAN_MIRROR"
    };
    if let Some(mirror) = std::env::var(variable).ok().filter(|url| !url.is_empty()) {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .trim_matches('"');
    let wanted = if security {
        format!("{codename}-security")
    } else {
        codename.to_owned()
    };
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    files.sort();
    if release.lines().any(|line| line == "ID=debian") {
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            let found = match file.extension().and_then(|ext| ext.to_str()) {
                Some("list") => from_lines(&text, &wanted),
                Some("sources") => from_stanzas(&text, &wanted),
                _ => None,
            };
            if let Some(mirror) = found {
                return Ok(mirror);
            }
        }
    }
    bail!(
        "no Debian mirror in this machine's apt sources (wanted the suite {wanted}): set {variable} to its URL"
    )
}

/// The one-line format of sources.list(5): `deb [options] uri suite component...`.
fn from_lines(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        (words.next()? == suite).then(|| uri.to_owned())
    })
}

/// The deb822 format of sources.list(5): stanzas of `Field: value...`.
fn from_stanzas(text: &str, suite: &str) -> Option<String> {
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let enabled = field("Enabled").is_none_or(|value| !value.eq_ignore_ascii_case("no"));
        let wanted = enabled
            && field("Suites")?
                .split_whitespace()
                .any(|name| name == suite);
        let uri = field("URIs")?.split_whitespace().next()?;
        wanted.then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{from_lines, from_stanzas};

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let lines = "# deb http://no.example/debian trixie main\n\
                     deb-src http://src.example/debian trixie main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian trixie main contrib\n\
                     deb http://sec.example/debian-security trixie-security main\n";
        assert_eq!(
            from_lines(lines, "trixie").as_deref(),
            Some("http://deb.example/debian")
        );
        assert_eq!(
            from_lines(lines, "trixie-security").as_deref(),
            Some("http://sec.example/debian-security")
        );
        assert_eq!(from_lines(lines, "bookworm"), None);

        let stanzas = "Types: deb\n# URIs: http://snapshot.example\nURIs: http://deb.example/debian\n\
                       Suites: trixie trixie-updates\nComponents: main\n\n\
                       Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: trixie-security\n\n\
                       Types: deb\nURIs: http://sec.example/\nSuites: trixie-security\n";
        assert_eq!(
            from_stanzas(stanzas, "trixie").as_deref(),
            Some("http://deb.example/debian")
        );
        assert_eq!(
            from_stanzas(stanzas, "trixie-security").as_deref(),
            Some("http://sec.example/")
        );
        assert_eq!(from_stanzas(stanzas, "sid"), None);
    }
}
