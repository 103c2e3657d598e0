//! The file `postrider.toml`, read with what the host says of itself.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use super::watched_value::{
    FileWatch as _, PollResult, PollSettings, WatchedValue, wait_until_stable_at_start,
};
use crate::config::{Config, HostFacts};
use crate::inbound::SessionHooks;
use crate::mail::Domain;
use crate::sys::{host_name, is_hook_present};

/// Longest `postrider.toml` that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// Reads `postrider.toml` in the configuration directory, once nobody is writing it. Where it names no
/// host, the host is asked, which may take long: only for start-up.
///
/// # Errors
/// Everything that is wrong with it, a sentence each.
pub fn read_config(config_dir: &Path, looks: PollSettings) -> Result<Config, Vec<String>> {
    let mut configuration = ConfigFile::new(config_dir, host_name, looks);
    wait_until_stable_at_start(looks, &mut || configuration.poll()).map_err(|e| vec![e])?;
    let complaints = configuration.problems().to_vec();
    configuration.config().filter(|_| complaints.is_empty()).cloned().ok_or(complaints)
}

/// `postrider.toml`, looked at by the rule of `watched`.
pub(super) struct ConfigFile<'a> {
    file: PathBuf,
    hostname: Box<dyn Fn() -> Option<String> + 'a>,
    poll_settings: PollSettings,
    watched: WatchedValue<Config>,
}

impl<'a> ConfigFile<'a> {
    fn new(config_dir: &Path, hostname: impl Fn() -> Option<String> + 'a, looks: PollSettings) -> Self {
        let file = config_dir.join("postrider.toml");
        Self { file, hostname: Box::new(hostname), poll_settings: looks, watched: WatchedValue::default() }
    }

    /// For a look while the server runs: where the file names no host, it is `hostname`, which is in force.
    pub(super) fn for_reload(config_dir: &Path, hostname: &'a Domain, looks: PollSettings) -> Self {
        Self::new(config_dir, || Some(hostname.to_string()), looks)
    }

    /// Looks at the file; it is among the paths that are returned if it is changing.
    pub(super) fn poll(&mut self) -> Vec<PathBuf> {
        let Self { file, hostname, poll_settings: looks, watched } = self;
        watched.poll(*looks, &mut PollResult::default(), |reader| {
            let cannot = |e: &dyn Display| {
                vec![format!("{}: {e}; name the directory that has it with --config DIR", file.display())]
            };
            let text = reader.read_text(file, OCTETS_MAX).map_err(|e| cannot(&e))?;
            let text = text.ok_or_else(|| cannot(&io::Error::from(io::ErrorKind::NotFound)))?;
            Config::parse(&text, file, &HostFacts { hostname })
                .map_err(|errors| errors.iter().map(ToString::to_string).collect())
        });
        watched.changing_paths()
    }

    /// What is wrong with the file.
    pub(super) fn problems(&self) -> &[String] {
        self.watched.problems()
    }

    /// What it says.
    pub(super) fn config(&self) -> Option<&Config> {
        self.watched.value().map(AsRef::as_ref)
    }
}

/// Looks at the hooks.
///
/// # Errors
/// What is wrong with them, a sentence each. Mail is put off, or not judged, until it is mended.
pub fn check_hooks(config_dir: &Path) -> Result<(), Vec<String>> {
    let mut complaints = SessionHooks::installation_problems(config_dir);
    complaints.extend(is_hook_present(&alias_hook_path(config_dir)).err());
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Where the program is that knows more aliases.
pub(super) fn alias_hook_path(config_dir: &Path) -> PathBuf {
    config_dir.join("hooks/alias-resolve")
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
        let mut configuration = ConfigFile::for_reload(dir.path(), &hostname, PollSettings::IMMEDIATE);
        assert!(configuration.poll().is_empty());
        assert_eq!(configuration.config().unwrap().hostname, hostname);
    }
}
