//! The snapshot of the users of all domains, and the check of their logins.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::hash::PasswordVerifier;
use super::password;
use super::scram::DecoyKeys;
use super::users::Users;
use crate::mail::{Domain, Mailbox, ScramKeys};
use crate::sys::SystemRandom;

/// All accounts of this host. Sessions share it; a reload replaces its contents.
#[derive(Debug)]
pub struct Accounts {
    snapshot: ArcSwap<AccountsSnapshot>,
    password_verifier: PasswordVerifier,
    decoy_keys: DecoyKeys,
    external_users: Option<Arc<dyn ExternalUsers>>,
}

/// The users of all domains, as one reload has read them.
#[derive(Debug)]
struct AccountsSnapshot {
    domains: HashMap<Domain, Arc<Users>>,
    has_logins: bool,
    all_have_scram: bool,
}

impl AccountsSnapshot {
    fn new(domains: HashMap<Domain, Arc<Users>>) -> Self {
        let has_logins = domains.values().any(|users| users.has_logins());
        let all_have_scram = domains.values().all(|users| users.all_have_scram());
        Self { domains, has_logins, all_have_scram }
    }
}

/// Users of another service, such as Dovecot. It is asked only about users that are in no users file, so that a
/// users file always takes precedence.
pub trait ExternalUsers: fmt::Debug + Send + Sync {
    /// Whether any of these users can, or may be able to, log in.
    fn has_logins(&self) -> bool;

    /// Whether this mailbox exists; its domain is local.
    ///
    /// # Errors
    /// The service does not answer: why, for the log.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, String>;

    /// Checks the password of `user`, a name as the client has written it. An accepted mailbox counts only if its
    /// domain is local. `client` is the address of the client.
    fn check_password(&self, user: &str, password: &[u8], client: IpAddr) -> PasswordCheck;
}

/// The result of a password check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordCheck {
    /// The password is right.
    Accepted(Mailbox),
    /// The user is unknown or may not log in, or the password is wrong; the client does not learn which.
    Rejected,
    /// The password could not be checked; the client may try again. The text is for the log.
    Unavailable(String),
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(HashMap::new())
    }
}

impl Accounts {
    /// Accounts with the users of each local domain.
    #[must_use]
    pub fn new(domains: HashMap<Domain, Arc<Users>>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(AccountsSnapshot::new(domains)),
            password_verifier: PasswordVerifier::new(),
            decoy_keys: DecoyKeys::new(&SystemRandom),
            external_users: None,
        }
    }

    /// These accounts, together with the users of another service.
    #[must_use]
    pub fn with_external_users(self, external_users: Arc<dyn ExternalUsers>) -> Self {
        Self { external_users: Some(external_users), ..self }
    }

    /// These accounts, with decoy keys from this secret for unknown users.
    #[must_use]
    pub fn with_decoy_keys(self, decoy_keys: DecoyKeys) -> Self {
        Self { decoy_keys, ..self }
    }

    /// Replaces the users of all domains; a check that is under way still uses the old ones.
    pub fn replace(&self, domains: HashMap<Domain, Arc<Users>>) {
        self.snapshot.store(Arc::new(AccountsSnapshot::new(domains)));
    }

    /// Whether any user can log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.snapshot.load().has_logins || self.external_users_have_logins()
    }

    /// Whether all users that can log in can do so by SCRAM.
    #[must_use]
    pub fn all_have_scram(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.has_logins && snapshot.all_have_scram && !self.external_users_have_logins()
    }

    fn external_users_have_logins(&self) -> bool {
        self.external_users.as_ref().is_some_and(|others| others.has_logins())
    }

    /// Whether the mailbox belongs to a user.
    ///
    /// # Errors
    /// The other service would decide this and does not answer: why, for the log.
    pub fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
        match (self.snapshot.load().domains.get(&mailbox.domain), &self.external_users) {
            (None, _) => Ok(false),
            (Some(users), _) if users.contains(&mailbox.local_part) => Ok(true),
            (Some(_), Some(others)) => others.exists(mailbox),
            (Some(_), None) => Ok(false),
        }
    }

    /// The SCRAM keys of `user`, an address. For a user that cannot log in by SCRAM: decoy keys, which no password
    /// matches.
    #[must_use]
    pub fn scram_keys(&self, user: &str) -> ScramKeys {
        let mailbox = Mailbox::parse(user).ok();
        let snapshot = self.snapshot.load();
        let account_of =
            |mailbox: &Mailbox| snapshot.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        // Computed for every user, so that the time does not show who exists.
        let decoy = self.decoy_keys.keys_for(&match &mailbox {
            Some(Mailbox { local_part, domain }) => format!("{}@{domain}", local_part.comparison_key()),
            None => user.to_owned(),
        });
        account.and_then(|account| account.scram.clone()).unwrap_or(decoy)
    }

    /// Checks the password of `user`, an address. Computes a hash, about 40 ms for those that are made here, and may
    /// wait for others, because at most two are computed at once; or asks the other service, which may take
    /// some seconds.
    pub fn check_password(&self, user: &str, password: &[u8], client: IpAddr) -> PasswordCheck {
        let mailbox = Mailbox::parse(user).ok();
        let snapshot = self.snapshot.load_full();
        let account_of =
            |mailbox: &Mailbox| snapshot.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        let is_local = |mailbox: &Mailbox| snapshot.domains.contains_key(&mailbox.domain);
        if account.is_none()
            && mailbox.as_ref().is_none_or(is_local)
            && let Some(external_users) = &self.external_users
        {
            match external_users.check_password(user, password, client) {
                // A hash is computed below, so that the time does not show in which service a user is.
                PasswordCheck::Rejected => {}
                PasswordCheck::Accepted(mailbox) if !is_local(&mailbox) => {}
                // The service knows the user by a second name, but the user is in a users file, which takes
                // precedence.
                PasswordCheck::Accepted(mailbox) if account_of(&mailbox).is_some() => {}
                answer @ (PasswordCheck::Accepted(_) | PasswordCheck::Unavailable(_)) => return answer,
            }
        }
        let stored = account.and_then(|account| account.stored_password());
        match (self.password_verifier.verify(&password::prepare_candidate(password), stored), mailbox) {
            (Some(true), Some(mailbox)) => PasswordCheck::Accepted(mailbox),
            (Some(_), _) => PasswordCheck::Rejected,
            (None, _) => PasswordCheck::Unavailable("too many logins at once".to_owned()),
        }
    }

    /// How many hashes were computed so far: a test counts them instead of measuring time.
    #[must_use]
    pub fn hashes_computed(&self) -> u64 {
        self.password_verifier.hashes_computed()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::hash::hash_password;
    use super::super::scram;
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn accounts() -> Accounts {
        let hash = hash_password(b"correct horse").unwrap();
        let text = format!("ana: {hash}\nreports: receive-only\n");
        let users = Users::parse(&text, Path::new("users")).unwrap();
        Accounts::new(HashMap::from([(Domain::parse("bücher.example").unwrap(), Arc::new(users))]))
    }

    #[test]
    fn a_user_can_log_in_with_every_spelling_of_the_address() {
        let accounts = accounts();
        for user in ["ana@bücher.example", "ANA@xn--bcher-kva.example"] {
            assert_eq!(
                accounts.check_password(user, b"correct horse", CLIENT),
                PasswordCheck::Accepted(Mailbox::parse(user).unwrap())
            );
        }
    }

    #[test]
    fn a_failed_login_costs_one_hash_whether_or_not_the_user_exists() {
        let accounts = accounts();
        for (n, (user, password)) in [
            ("ana@bücher.example", "wrong"),
            ("bo@bücher.example", "correct horse"),
            ("reports@bücher.example", ""),
            ("ana@there.example", "correct horse"),
            ("ana", "correct horse"),
            ("", ""),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(
                accounts.check_password(user, password.as_bytes(), CLIENT),
                PasswordCheck::Rejected,
                "{user:?}"
            );
            assert_eq!(accounts.hashes_computed(), n as u64 + 1, "one hash each, for {user:?} too");
        }
    }

    /// Users of another service, with one password for all of them.
    #[derive(Debug)]
    struct FixedExternalUsers;

    impl ExternalUsers for FixedExternalUsers {
        fn has_logins(&self) -> bool {
            true
        }

        fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
            match mailbox.local_part.as_str() {
                "bo" => Ok(true),
                "later" => Err("out".to_owned()),
                _ => Ok(false),
            }
        }

        fn check_password(&self, user: &str, password: &[u8], _: IpAddr) -> PasswordCheck {
            match (Mailbox::parse(user), password) {
                (Ok(user), b"open sesame") => PasswordCheck::Accepted(user),
                // A second name, which may belong to a user in a users file.
                (Err(_), b"open sesame") if user.starts_with("their-") => {
                    let user = user.trim_start_matches("their-");
                    PasswordCheck::Accepted(Mailbox::parse(&format!("{user}@bücher.example")).unwrap())
                }
                (Err(_), b"open sesame") => {
                    PasswordCheck::Accepted(Mailbox::parse("bo@there.example").unwrap())
                }
                (_, b"busy") => PasswordCheck::Unavailable("out".to_owned()),
                _ => PasswordCheck::Rejected,
            }
        }
    }

    #[test]
    fn external_users_are_asked_only_about_users_that_are_in_no_file() {
        let accounts = accounts().with_external_users(Arc::new(FixedExternalUsers));
        let login = |user: &str, password: &str| accounts.check_password(user, password.as_bytes(), CLIENT);
        let bo = Mailbox::parse("bo@bücher.example").unwrap();
        assert_eq!(login("bo@bücher.example", "open sesame"), PasswordCheck::Accepted(bo));
        assert_eq!(login("bo@bücher.example", "busy"), PasswordCheck::Unavailable("out".to_owned()));
        assert_eq!(accounts.hashes_computed(), 0, "the other service did the work");
        for (n, user) in ["ana@bücher.example", "reports@bücher.example"].into_iter().enumerate() {
            assert_eq!(login(user, "open sesame"), PasswordCheck::Rejected, "{user} is in a users file");
            assert_eq!(accounts.hashes_computed(), n as u64 + 1);
        }
        assert_eq!(login("bo@bücher.example", "wrong"), PasswordCheck::Rejected);
        assert_eq!(accounts.hashes_computed(), 3, "a wrong password costs one hash in either service");
        for remote in ["bo@there.example", "bo"] {
            assert_eq!(
                login(remote, "open sesame"),
                PasswordCheck::Rejected,
                "{remote} is in no local domain"
            );
        }
        for second_name in ["their-ana", "their-reports"] {
            assert_eq!(
                login(second_name, "open sesame"),
                PasswordCheck::Rejected,
                "{second_name} belongs to a user in a users file"
            );
        }
        assert!(matches!(login("their-bo", "open sesame"), PasswordCheck::Accepted(_)));
        assert!(Accounts::default().with_external_users(Arc::new(FixedExternalUsers)).has_logins());
    }

    #[test]
    fn external_users_have_mailboxes_in_local_domains() {
        let accounts = accounts().with_external_users(Arc::new(FixedExternalUsers));
        let exists = |address: &str| accounts.exists(&Mailbox::parse(address).unwrap());
        assert_eq!(exists("bo@bücher.example"), Ok(true));
        assert_eq!(exists("eve@bücher.example"), Ok(false));
        assert_eq!(exists("later@bücher.example"), Err("out".to_owned()));
        assert_eq!(exists("later@there.example"), Ok(false), "remote domains are not looked up");
        assert_eq!(exists("ana@bücher.example"), Ok(true));
    }

    #[test]
    fn a_user_that_only_receives_cannot_log_in() {
        assert!(accounts().has_logins());
        let users = Users::parse("reports: receive-only\n", Path::new("users")).unwrap();
        let here = Domain::parse("here.example").unwrap();
        assert!(!Accounts::new(HashMap::from([(here, Arc::new(users))])).has_logins());
    }

    #[test]
    fn scram_is_available_only_if_all_logins_have_its_keys() {
        let keys = scram::to_text(&scram::derive_keys(b"pencil", b"saltsalt".to_vec(), 4096));
        let with = |text: &str| {
            let users = Users::parse(text, Path::new("users")).unwrap();
            Accounts::new(HashMap::from([(Domain::parse("here.example").unwrap(), Arc::new(users))]))
        };
        let both = with(&format!("ana: {keys}\nreports: receive-only\n"));
        assert!(both.all_have_scram());
        assert!(!accounts().all_have_scram(), "ana has a hash only");
        assert!(!with("reports: receive-only\n").all_have_scram(), "no user can log in");
        assert!(
            !both.with_external_users(Arc::new(FixedExternalUsers)).all_have_scram(),
            "external users have no keys here"
        );
        let login = with(&format!("ana: {keys}\n")).check_password("ana@here.example", b"pencil", CLIENT);
        assert!(matches!(login, PasswordCheck::Accepted(_)), "a password can be checked with SCRAM keys");
    }

    #[test]
    fn decoy_keys_of_an_unknown_user_are_the_same_each_time() {
        let accounts = accounts();
        for user in ["bo@bücher.example", "reports@bücher.example", "ana@there.example", "ana", ""] {
            let keys = accounts.scram_keys(user);
            assert_eq!(accounts.scram_keys(user), keys, "{user}");
            assert_eq!((keys.salt.len(), keys.iterations), (16, scram::ITERATIONS), "like real keys");
        }
        let keys = accounts.scram_keys("bo@bücher.example");
        assert_eq!(accounts.scram_keys("BO@xn--bcher-kva.example"), keys, "in every spelling");
        assert_ne!(accounts.scram_keys("eve@bücher.example").salt, keys.salt);
        assert_eq!(accounts.hashes_computed(), 0);
    }

    #[test]
    fn a_reload_replaces_all_users() {
        let accounts = accounts();
        let ana = Mailbox::parse("ana@bücher.example").unwrap();
        assert_eq!(accounts.exists(&ana), Ok(true));
        assert_eq!(accounts.exists(&Mailbox::parse("reports@bücher.example").unwrap()), Ok(true));
        assert_eq!(accounts.exists(&Mailbox::parse("ana@there.example").unwrap()), Ok(false));
        accounts.replace(HashMap::new());
        assert_eq!(accounts.exists(&ana), Ok(false));
    }
}
