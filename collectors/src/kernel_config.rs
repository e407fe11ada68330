//! The running kernel's build configuration, where the host keeps it.

use std::io::Read;

use stalltop_model::Reason;

use crate::env::Env;
use crate::file;

/// The text of a kernel's `.config`.
#[derive(Debug)]
pub struct KernelConfig(Vec<u8>);

impl KernelConfig {
    /// Reads `/proc/config.gz` (`CONFIG_IKCONFIG_PROC`), `/boot/config-RELEASE`, or
    /// `/lib/modules/RELEASE/config`.
    ///
    /// # Errors
    /// [`Reason::NoFile`] naming the `/boot` file when there is none of them.
    pub fn find(env: &Env) -> Result<Self, Reason> {
        /// No configuration is near this; a gzip bomb would be.
        const LIMIT: u64 = 4 << 20;
        if let Ok(packed) = file::read(&env.path("/proc/config.gz")) {
            let mut text = Vec::new();
            let mut unpacked = flate2::read::GzDecoder::new(packed.as_slice()).take(LIMIT);
            if unpacked.read_to_end(&mut text).is_ok() {
                return Ok(Self(text));
            }
        }
        let release = file::read_text(&env.path("/proc/sys/kernel/osrelease"))?;
        let boot = file::read(&env.path(&format!("/boot/config-{release}")));
        boot.or_else(|missing| {
            file::read(&env.path(&format!("/lib/modules/{release}/config"))).map_err(|_| missing)
        })
        .map(Self)
    }

    /// The value of an option such as `CONFIG_HZ`; `None` where it is not set.
    pub fn get(&self, option: &str) -> Option<&str> {
        file::lines(&self.0).find_map(|line| {
            let value = line.strip_prefix(option.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()
        })
    }

    /// Whether an option is `y` or `m`.
    pub fn is_set(&self, option: &str) -> bool {
        matches!(self.get(option), Some("y" | "m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_whole() {
        let config = KernelConfig(
            b"CONFIG_HZ_250=y\n# CONFIG_PSI is not set\nCONFIG_HZ=250\nCONFIG_X=m\n".to_vec(),
        );
        assert_eq!(config.get("CONFIG_HZ"), Some("250"));
        assert!(!config.is_set("CONFIG_PSI"));
        assert!(config.is_set("CONFIG_X"));
        assert!(!config.is_set("CONFIG_HZ_25"));
    }

    #[test]
    fn no_configuration_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/sys/kernel")).unwrap();
        std::fs::write(dir.path().join("proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        let reason = KernelConfig::find(&Env::at(dir.path())).unwrap_err();
        assert!(
            reason
                .to_string()
                .ends_with("/boot/config-6.1.0 does not exist")
        );
        std::fs::create_dir_all(dir.path().join("boot")).unwrap();
        std::fs::write(dir.path().join("boot/config-6.1.0"), "CONFIG_HZ=1000\n").unwrap();
        let config = KernelConfig::find(&Env::at(dir.path())).unwrap();
        assert_eq!(config.get("CONFIG_HZ"), Some("1000"));
    }
}
