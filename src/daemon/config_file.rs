//! Reads the file `postrider.toml`, and completes it with the name of the host.

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

/// Reads `postrider.toml` in the configuration directory, once it stays the same. If it has no `hostname`,
/// the host's resolver is asked, which may take long: only for a start.
///
/// # Errors
/// Every problem of the file, a sentence each.
pub fn read_config(config_dir: &Path, settings: PollSettings) -> Result<Config, Vec<String>> {
    let mut configuration = ConfigFile::new(config_dir, host_name, settings);
    wait_until_stable_at_start(settings, &mut || configuration.poll()).map_err(|e| vec![e])?;
    let problems = configuration.problems().to_vec();
    configuration.config().filter(|_| problems.is_empty()).cloned().ok_or(problems)
}

/// `postrider.toml`, read by the rule of `watched_value`.
pub(super) struct ConfigFile<'a> {
    file: PathBuf,
    hostname: Box<dyn Fn() -> Option<String> + 'a>,
    poll_settings: PollSettings,
    watched: WatchedValue<Config>,
}

impl<'a> ConfigFile<'a> {
    fn new(config_dir: &Path, hostname: impl Fn() -> Option<String> + 'a, settings: PollSettings) -> Self {
        let file = config_dir.join("postrider.toml");
        Self { file, hostname: Box::new(hostname), poll_settings: settings, watched: WatchedValue::default() }
    }

    /// For a reload: if the file has no `hostname`, it is `hostname`, which is in force.
    pub(super) fn for_reload(config_dir: &Path, hostname: &'a Domain, settings: PollSettings) -> Self {
        Self::new(config_dir, || Some(hostname.to_string()), settings)
    }

    /// Polls the file; returns its path if it is changing.
    pub(super) fn poll(&mut self) -> Vec<PathBuf> {
        let Self { file, hostname, poll_settings: settings, watched } = self;
        watched.poll(*settings, &mut PollResult::default(), |reader| {
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

    /// The problems of the file.
    pub(super) fn problems(&self) -> &[String] {
        self.watched.problems()
    }

    /// The configuration in the file.
    pub(super) fn config(&self) -> Option<&Config> {
        self.watched.value().map(AsRef::as_ref)
    }
}

/// Checks the operator's hooks.
///
/// # Errors
/// The problems of the hooks, a sentence each. Until they are mended, mail is deferred or not judged.
pub fn check_hooks(config_dir: &Path) -> Result<(), Vec<String>> {
    let mut problems = SessionHooks::installation_problems(config_dir);
    problems.extend(is_hook_present(&alias_hook_path(config_dir)).err());
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The path of the hook that resolves further aliases.
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
