//! Logins at other servers: `credentials.toml`, read and read again.
//!
//! The file holds passwords, so nobody else on this host may read it. It need not be there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::watched::{Files, Look, Reading, Unread, Watched, text_of};
use crate::config::parse_credentials;
use crate::courier::smtp::{Credentials, Logins};

/// Longest file that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// The file, in the last version that could be read.
#[derive(Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    watched: Watched<Logins>,
}

impl CredentialsFile {
    /// Reads `credentials.toml` in the configuration directory.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each; the operator is at fault.
    pub fn load(config_dir: &Path) -> Result<Self, Vec<String>> {
        let path = config_dir.join("credentials.toml");
        let watched = Watched::read(&path, || read(&path)).map_err(Unread::into_complaints)?;
        Ok(Self { path, watched })
    }

    /// Looks whether it has changed, and reads it if so.
    pub(super) fn look(&mut self, look: &mut Look) {
        self.watched.look(look, || read(&self.path));
    }

    /// What is in force.
    #[must_use]
    pub fn logins(&self) -> Arc<Logins> {
        Arc::clone(&self.watched.value)
    }

    /// Puts in force, for the couriers, what was read.
    pub(super) fn put_into(&self, logins: &ArcSwap<Logins>) {
        logins.store(self.logins());
    }
}

fn read(path: &Path) -> Reading<Logins> {
    let result = is_private(path).and_then(|()| text_of(path, OCTETS_MAX)).and_then(|text| {
        let found = parse_credentials(&text, path)
            .map_err(|errors| Unread::Wrong(errors.iter().map(ToString::to_string).collect()))?;
        let named = |(name, one): (String, crate::config::Credential)| {
            (name.clone(), Credentials { name, user: one.user, password: one.password })
        };
        Ok(found.into_iter().map(named).collect())
    });
    Reading { result, others: Files::new() }
}

fn is_private(path: &Path) -> Result<(), Unread> {
    // Whoever cannot look at it cannot read it either, and that is said there.
    let is_open = fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o007 != 0);
    if !is_open {
        return Ok(());
    }
    Err(Unread::Wrong(vec![format!(
        "{}: everybody on this host may read the passwords in it; chmod 0640, for root and the group that \
         postrider runs as",
        path.display()
    )]))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
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
        assert!(CredentialsFile::load(dir.path()).unwrap().logins().is_empty());
        write(&dir, GOOD, 0o640);
        let logins = CredentialsFile::load(dir.path()).unwrap().logins();
        assert_eq!(logins["relay1"].user, "ana");
        assert!(!format!("{logins:?}").contains("secret"));
        write(&dir, GOOD, 0o644);
        let errors = CredentialsFile::load(dir.path()).unwrap_err();
        assert!(errors[0].contains("chmod 0640"), "{errors:?}");
    }

    #[test]
    fn a_change_is_noticed_and_a_mistake_keeps_the_old_logins() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, GOOD, 0o600);
        let mut file = CredentialsFile::load(dir.path()).unwrap();
        let look = |file: &mut CredentialsFile| {
            let mut look = Look::default();
            file.look(&mut look);
            file.look(&mut look);
            look
        };
        assert_eq!(look(&mut file), Look::default());
        write(&dir, "[relay1]\nuser = \"ana\"\n", 0o600);
        let seen = look(&mut file);
        assert!(!seen.is_changed && seen.complaints.len() == 1, "{seen:?}");
        assert!(file.logins().contains_key("relay1"));
        write(&dir, &GOOD.replace("relay1", "relay2"), 0o600);
        assert!(look(&mut file).is_changed && file.logins().contains_key("relay2"));
    }
}
