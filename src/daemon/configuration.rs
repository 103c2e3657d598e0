//! The file `postrider.toml`, read with what the host says of itself.

use std::path::{Path, PathBuf};

use crate::config::{Config, HostFacts};
use crate::inbound::Hooks;
use crate::mail::Domain;
use crate::sys::{host_name, is_hook_there, read_text};

/// Longest `postrider.toml` that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// Reads `postrider.toml` in the configuration directory. Where it names no host, the host is asked,
/// which may take long: only for start-up.
///
/// # Errors
/// Everything that is wrong with it, a sentence each.
pub fn read_config(config_dir: &Path) -> Result<Config, Vec<String>> {
    read(config_dir, &host_name)
}

/// The same while the server runs: where the file names no host, it is `hostname`, which is in force.
///
/// # Errors
/// Everything that is wrong with it, a sentence each.
pub(super) fn read_config_again(config_dir: &Path, hostname: &Domain) -> Result<Config, Vec<String>> {
    read(config_dir, &|| Some(hostname.to_string()))
}

/// Looks at the hooks.
///
/// # Errors
/// What is wrong with them, a sentence each. Mail is put off, or not judged, until it is mended.
pub fn check_hooks(config_dir: &Path) -> Result<(), Vec<String>> {
    let mut complaints = Hooks::complaints(config_dir);
    complaints.extend(is_hook_there(&alias_hook(config_dir)).err());
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Where the program is that knows more aliases.
pub(super) fn alias_hook(config_dir: &Path) -> PathBuf {
    config_dir.join("hooks/alias-resolve")
}

fn read(config_dir: &Path, hostname: &dyn Fn() -> Option<String>) -> Result<Config, Vec<String>> {
    let file = config_dir.join("postrider.toml");
    let text = read_text(&file, OCTETS_MAX).map_err(|e| {
        vec![format!("{}: {e}; name the directory that has it with --config DIR", file.display())]
    })?;
    Config::parse(&text, &file, &HostFacts { hostname })
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use super::*;

    #[test]
    fn a_reload_does_not_ask_for_the_name_that_is_in_force() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("postrider.toml"), "").unwrap();
        let hostname = Domain::parse("bücher.example").unwrap();
        assert_eq!(read_config_again(dir.path(), &hostname).unwrap().hostname, hostname);
    }
}
