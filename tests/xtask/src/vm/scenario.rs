//! Scenarios: the scripts of tests/vm. Each says in a line `# vm: OPTIONS` what machine it wants.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

use super::Options;

/// What the scripts share; no scenario.
const LIBRARY: &str = "lib";

/// A script of tests/vm.
pub(super) struct Scenario {
    /// The script.
    pub(super) script: PathBuf,
    /// What it sources.
    pub(super) library: PathBuf,
    /// The machine it asks for.
    pub(super) options: Options,
}

/// Options as a script has them.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// The scenario `name`.
///
/// # Errors
/// Where there is none of that name, with those there are; where its options are not understood.
pub(super) fn named(name: &str) -> Result<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm");
    let script = folder.join(format!("{name}.sh"));
    let names = names(&folder)?;
    if !names.iter().any(|known| known == name) {
        anyhow::bail!(
            "no scenario {name}; there are {}. A command of one word: sh -c {name}",
            names.join(", ")
        );
    }
    let text = fs::read_to_string(&script).with_context(|| format!("read {}", script.display()))?;
    Ok(Scenario {
        options: options(&text).with_context(|| script.display().to_string())?,
        library: folder.join(format!("{LIBRARY}.sh")),
        script,
    })
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sh")?.to_owned()))
        .filter(|name| name != LIBRARY)
        .collect();
    names.sort();
    Ok(names)
}

/// All lines `# vm: OPTIONS` together.
fn options(script: &str) -> Result<Options> {
    let words = script
        .lines()
        .filter_map(|line| line.strip_prefix("# vm: "))
        .flat_map(str::split_whitespace);
    Ok(Line::try_parse_from(words)?.options)
}

#[cfg(test)]
mod tests {
    use super::{Path, named, names, options};

    #[test]
    fn every_script_says_what_machine_it_wants() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm");
        let names = names(&folder).unwrap();
        assert!(names.iter().any(|name| name == "i2"), "{names:?}");
        for name in names {
            named(&name).unwrap();
        }
    }

    #[test]
    fn options_of_all_lines_are_taken_and_a_wrong_one_is_refused() {
        let text = "# A storm.\n# vm: --cpus 4 --program a\n# vm: --program b --tools\n";
        let found = options(text).unwrap();
        assert_eq!(found.cpus.as_deref(), Some("4"));
        assert_eq!(found.program, ["a", "b"]);
        assert!(found.tools);
        assert!(options("# vm: --no-such-option").is_err());
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = named("i9").err().unwrap().to_string();
        assert!(error.contains("no scenario i9; there are "), "{error}");
        assert!(error.contains(" i2"), "{error}");
    }
}
