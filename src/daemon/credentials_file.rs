//! The file `credentials.toml` with logins at other servers.
//!
//! The file holds passwords, so other users of this host must not be able to read it. It may be missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::file_reader::FileReader;
use super::local_domains::read_text_file;
use super::watched_value::{FileWatch, PollResult, PollSettings, WatchedValue};
use crate::config::parse_credentials;
use crate::courier::smtp::{Credentials, CredentialsByName};

/// Longest file that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// The file, in the last version that could be read.
#[derive(Debug, Clone)]
pub struct CredentialsFile {
    path: PathBuf,
    poll_settings: PollSettings,
    watched: WatchedValue<CredentialsByName>,
}

impl CredentialsFile {
    /// `credentials.toml` in the configuration directory, before the first poll.
    pub(super) fn new(config_dir: &Path, settings: PollSettings) -> Self {
        Self {
            path: config_dir.join("credentials.toml"),
            poll_settings: settings,
            watched: WatchedValue::default(),
        }
    }

    /// Reads the file if it has changed.
    pub(super) fn poll(&mut self) -> PollResult {
        let mut result = PollResult::default();
        self.watched.poll(self.poll_settings, &mut result, |reader| read_credentials(&self.path, reader));
        result
    }

    /// The path, while the file is changing.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.watched.changing_paths()
    }

    /// The problems of the file.
    pub(super) fn problems(&self) -> &[String] {
        self.watched.problems()
    }

    /// Reads the file at the next poll.
    pub(super) fn invalidate(&mut self) {
        self.watched.invalidate();
    }

    /// The logins in force.
    #[must_use]
    pub fn logins(&self) -> Arc<CredentialsByName> {
        self.watched.value().cloned().unwrap_or_default()
    }

    /// Puts the logins in force for the couriers.
    pub(super) fn publish_to(&self, logins: &ArcSwap<CredentialsByName>) {
        logins.store(self.logins());
    }
}

fn read_credentials(path: &Path, reader: &mut FileReader) -> Result<CredentialsByName, Vec<String>> {
    let Some(text) = read_text_file(path, OCTETS_MAX, reader)? else {
        return Ok(CredentialsByName::default());
    };
    check_permissions(path)?;
    let found = parse_credentials(&text, path)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let named = |(name, one): (String, crate::config::Credential)| {
        (name.clone(), Credentials { name, user: one.user, password: one.password })
    };
    Ok(found.into_iter().map(named).collect())
}

fn check_permissions(path: &Path) -> Result<(), Vec<String>> {
    // The fingerprint that is taken afterwards shows a file that has vanished.
    let is_open = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0);
    if !is_open {
        return Ok(());
    }
    Err(vec![format!(
        "{}: everybody on this host may read the passwords in it; chmod 0640, for root and the group that \
         postrider runs as",
        path.display()
    )])
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::time::Duration;

    use super::*;

    const GOOD: &str = "[relay1]\nuser = \"ana\"\npassword = \"secret\"\n";

    fn write(dir: &tempfile::TempDir, text: &str, mode: u32) {
        let path = dir.path().join("credentials.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_file_may_be_missing_but_not_readable_for_everyone() {
        let dir = tempfile::tempdir().unwrap();
        let load = || {
            let mut file = CredentialsFile::new(dir.path(), PollSettings::IMMEDIATE);
            file.poll();
            file
        };
        assert!(load().logins().is_empty());
        write(&dir, GOOD, 0o640);
        let logins = load().logins();
        assert_eq!(logins["relay1"].user, "ana");
        assert!(!format!("{logins:?}").contains("secret"));
        write(&dir, GOOD, 0o644);
        let file = load();
        let errors = file.problems();
        assert!(errors[0].contains("chmod 0640") && file.logins().is_empty(), "{errors:?}");
    }

    #[test]
    fn a_change_is_noticed_and_a_mistake_keeps_the_old_logins() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, GOOD, 0o600);
        let mut file = CredentialsFile::new(dir.path(), PollSettings { interval: Duration::from_hours(1) });
        let poll = |file: &mut CredentialsFile| {
            assert_eq!(file.poll(), PollResult::default(), "it may still be written");
            file.poll()
        };
        assert!(poll(&mut file).is_changed);
        assert_eq!(poll(&mut file), PollResult::default());
        write(&dir, "[relay1]\nuser = \"ana\"\n", 0o600);
        let seen = poll(&mut file);
        assert!(!seen.is_changed && seen.problems.len() == 1, "{seen:?}");
        assert!(file.logins().contains_key("relay1"));
        write(&dir, &GOOD.replace("relay1", "relay2"), 0o600);
        assert!(poll(&mut file).is_changed && file.logins().contains_key("relay2"));
    }
}
