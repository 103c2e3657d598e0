//! Logins at other servers: `credentials.toml`, read and read again.
//!
//! The file holds passwords, so nobody else on this host may read it. It need not be there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::domains::text_of;
use super::reader::FileReader;
use super::watched::{Look, Looks, Unit, Watched};
use crate::config::parse_credentials;
use crate::courier::smtp::{Credentials, Logins};

/// Longest file that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// The file, in the last version that could be read.
#[derive(Debug, Clone)]
pub struct CredentialsFile {
    path: PathBuf,
    looks: Looks,
    watched: Watched<Logins>,
}

impl CredentialsFile {
    /// `credentials.toml` in the configuration directory, before the first look.
    pub(super) fn unread(config_dir: &Path, looks: Looks) -> Self {
        Self { path: config_dir.join("credentials.toml"), looks, watched: Watched::default() }
    }

    /// Looks whether it has changed, and reads it if so.
    pub(super) fn look(&mut self) -> Look {
        let mut look = Look::default();
        self.watched.look(self.looks, &mut look, |reader| read(&self.path, reader));
        look
    }

    /// What is changing and not believed yet.
    pub(super) fn changing(&self) -> Vec<PathBuf> {
        self.watched.changing()
    }

    /// What is wrong with the file as it is.
    pub(super) fn complaints(&self) -> &[String] {
        self.watched.complaints()
    }

    /// Reads the file at the next look.
    pub(super) fn distrust(&mut self) {
        self.watched.distrust();
    }

    /// What is in force.
    #[must_use]
    pub fn logins(&self) -> Arc<Logins> {
        self.watched.value().cloned().unwrap_or_default()
    }

    /// Puts in force, for the couriers, what was read.
    pub(super) fn put_into(&self, logins: &ArcSwap<Logins>) {
        logins.store(self.logins());
    }
}

fn read(path: &Path, reader: &mut FileReader) -> Result<Logins, Vec<String>> {
    let Some(text) = text_of(path, OCTETS_MAX, reader)? else { return Ok(Logins::default()) };
    is_private(path)?;
    let found = parse_credentials(&text, path)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let named = |(name, one): (String, crate::config::Credential)| {
        (name.clone(), Credentials { name, user: one.user, password: one.password })
    };
    Ok(found.into_iter().map(named).collect())
}

fn is_private(path: &Path) -> Result<(), Vec<String>> {
    // A file that vanished meanwhile is noticed by the fingerprint that is taken afterwards.
    let is_open = fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o007 != 0);
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
    fn the_file_may_be_missing_and_may_not_be_open_to_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let load = || {
            let mut file = CredentialsFile::unread(dir.path(), Looks::AT_ONCE);
            file.look();
            file
        };
        assert!(load().logins().is_empty());
        write(&dir, GOOD, 0o640);
        let logins = load().logins();
        assert_eq!(logins["relay1"].user, "ana");
        assert!(!format!("{logins:?}").contains("secret"));
        write(&dir, GOOD, 0o644);
        let file = load();
        let errors = file.complaints();
        assert!(errors[0].contains("chmod 0640") && file.logins().is_empty(), "{errors:?}");
    }

    #[test]
    fn a_change_is_noticed_and_a_mistake_keeps_the_old_logins() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, GOOD, 0o600);
        let mut file = CredentialsFile::unread(dir.path(), Looks { pause: Duration::from_hours(1) });
        let look = |file: &mut CredentialsFile| {
            assert_eq!(file.look(), Look::default(), "it may still be written");
            file.look()
        };
        assert!(look(&mut file).is_changed);
        assert_eq!(look(&mut file), Look::default());
        write(&dir, "[relay1]\nuser = \"ana\"\n", 0o600);
        let seen = look(&mut file);
        assert!(!seen.is_changed && seen.complaints.len() == 1, "{seen:?}");
        assert!(file.logins().contains_key("relay1"));
        write(&dir, &GOOD.replace("relay1", "relay2"), 0o600);
        assert!(look(&mut file).is_changed && file.logins().contains_key("relay2"));
    }
}
