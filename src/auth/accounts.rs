//! The snapshot of all domains' users, and logins.

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

/// Every account of this host. Shared; a reload replaces what is inside.
#[derive(Debug)]
pub struct Accounts {
    snapshot: ArcSwap<AccountsSnapshot>,
    password_verifier: PasswordVerifier,
    decoy_keys: DecoyKeys,
    external_users: Option<Arc<dyn ExternalUsers>>,
}

/// What one load found.
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

/// Users who stand in no file of ours. Asked for those only, so a line in a file of ours always
/// counts.
pub trait ExternalUsers: fmt::Debug + Send + Sync {
    /// There is, or may be, somebody who could log in.
    fn has_logins(&self) -> bool;

    /// There is a mailbox of that name; its domain is one of ours.
    ///
    /// # Errors
    /// It cannot be found out now; says why, for the log.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, String>;

    /// Whether this is `user`, in the client's words, with that password; if so, the user's mailbox,
    /// which counts only in a domain of ours. `client` is where it comes from.
    fn check_password(&self, user: &str, password: &[u8], client: IpAddr) -> PasswordCheck;
}

/// How a login ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordCheck {
    /// This is the user.
    Accepted(Mailbox),
    /// Unknown, may not log in, or a wrong password: nobody learns which.
    Rejected,
    /// We could not find out; the client may try again. The text is for the log.
    Unavailable(String),
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(HashMap::new())
    }
}

impl Accounts {
    /// The users of each domain.
    #[must_use]
    pub fn new(domains: HashMap<Domain, Arc<Users>>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(AccountsSnapshot::new(domains)),
            password_verifier: PasswordVerifier::new(),
            decoy_keys: DecoyKeys::new(&SystemRandom),
            external_users: None,
        }
    }

    /// The same, and others may log in too.
    #[must_use]
    pub fn with_external_users(self, others: Arc<dyn ExternalUsers>) -> Self {
        Self { external_users: Some(others), ..self }
    }

    /// The same, and what is made up about users who do not exist is made up in this way.
    #[must_use]
    pub fn with_decoy_keys(self, pretence: DecoyKeys) -> Self {
        Self { decoy_keys: pretence, ..self }
    }

    /// Puts other users in their place; whoever is asking just now still sees the old ones.
    pub fn replace(&self, domains: HashMap<Domain, Arc<Users>>) {
        self.snapshot.store(Arc::new(AccountsSnapshot::new(domains)));
    }

    /// There is anybody who could log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.snapshot.load().has_logins || self.external_users_have_logins()
    }

    /// Everybody who could log in can do so by SCRAM.
    #[must_use]
    pub fn all_have_scram(&self) -> bool {
        let everybody = self.snapshot.load();
        everybody.has_logins && everybody.all_have_scram && !self.external_users_have_logins()
    }

    fn external_users_have_logins(&self) -> bool {
        self.external_users.as_ref().is_some_and(|others| others.has_logins())
    }

    /// The mailbox belongs to a user.
    ///
    /// # Errors
    /// Others would have to be asked, and cannot; says why, for the log.
    pub fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
        match (self.snapshot.load().domains.get(&mailbox.domain), &self.external_users) {
            (None, _) => Ok(false),
            (Some(users), _) if users.contains(&mailbox.local_part) => Ok(true),
            (Some(_), Some(others)) => others.exists(mailbox),
            (Some(_), None) => Ok(false),
        }
    }

    /// The SCRAM keys of `user`, an address; of somebody who cannot log in by SCRAM, keys that look
    /// the same and that no password fits.
    #[must_use]
    pub fn scram_keys(&self, user: &str) -> ScramKeys {
        let mailbox = Mailbox::parse(user).ok();
        let everybody = self.snapshot.load();
        let account_of =
            |mailbox: &Mailbox| everybody.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        // Made up for everybody, so that the work is the same.
        let made_up = self.decoy_keys.keys_for(&match &mailbox {
            Some(Mailbox { local_part, domain }) => format!("{}@{domain}", local_part.comparison_key()),
            None => user.to_owned(),
        });
        account.and_then(|account| account.scram.clone()).unwrap_or(made_up)
    }

    /// Whether this is `user`, an address, with that password. Takes as long as a hash (some
    /// 40 ms), and waits for its turn: at most two are computed at once.
    pub fn check_password(&self, user: &str, password: &[u8], client: IpAddr) -> PasswordCheck {
        let mailbox = Mailbox::parse(user).ok();
        let everybody = self.snapshot.load_full();
        let account_of =
            |mailbox: &Mailbox| everybody.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        let is_ours = |mailbox: &Mailbox| everybody.domains.contains_key(&mailbox.domain);
        if account.is_none()
            && mailbox.as_ref().is_none_or(is_ours)
            && let Some(others) = &self.external_users
        {
            match others.check_password(user, password, client) {
                // The work of a wrong password of ours comes on top, so that time does not tell
                // whose users are where.
                PasswordCheck::Rejected => {}
                PasswordCheck::Accepted(mailbox) if !is_ours(&mailbox) => {}
                // Asked by another name, they answer for one who stands in a file of ours after all.
                PasswordCheck::Accepted(mailbox) if account_of(&mailbox).is_some() => {}
                answer @ (PasswordCheck::Accepted(_) | PasswordCheck::Unavailable(_)) => return answer,
            }
        }
        let kept = account.and_then(|account| account.stored_password());
        match (self.password_verifier.verify(&password::prepare_candidate(password), kept), mailbox) {
            (Some(true), Some(mailbox)) => PasswordCheck::Accepted(mailbox),
            (Some(_), _) => PasswordCheck::Rejected,
            (None, _) => PasswordCheck::Unavailable("too many logins at once".to_owned()),
        }
    }

    /// Hashes computed so far: what a test counts instead of milliseconds.
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
    fn a_user_logs_in_by_every_spelling_of_the_address() {
        let accounts = accounts();
        for user in ["ana@bücher.example", "ANA@xn--bcher-kva.example"] {
            assert_eq!(
                accounts.check_password(user, b"correct horse", CLIENT),
                PasswordCheck::Accepted(Mailbox::parse(user).unwrap())
            );
        }
    }

    #[test]
    fn nobody_learns_from_work_or_words_who_exists() {
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

    /// Others, with one password for all of them.
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
                // By a name of theirs, which may be somebody's who stands in a file of ours.
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
    fn others_are_asked_for_whom_no_file_of_ours_names() {
        let accounts = accounts().with_external_users(Arc::new(FixedExternalUsers));
        let login = |user: &str, password: &str| accounts.check_password(user, password.as_bytes(), CLIENT);
        let bo = Mailbox::parse("bo@bücher.example").unwrap();
        assert_eq!(login("bo@bücher.example", "open sesame"), PasswordCheck::Accepted(bo));
        assert_eq!(login("bo@bücher.example", "busy"), PasswordCheck::Unavailable("out".to_owned()));
        assert_eq!(accounts.hashes_computed(), 0, "the work was somebody else's");
        for (n, user) in ["ana@bücher.example", "reports@bücher.example"].into_iter().enumerate() {
            assert_eq!(login(user, "open sesame"), PasswordCheck::Rejected, "{user} is ours");
            assert_eq!(accounts.hashes_computed(), n as u64 + 1);
        }
        assert_eq!(login("bo@bücher.example", "wrong"), PasswordCheck::Rejected);
        assert_eq!(accounts.hashes_computed(), 3, "a wrong login is the same work wherever the user is");
        for elsewhere in ["bo@there.example", "bo"] {
            assert_eq!(
                login(elsewhere, "open sesame"),
                PasswordCheck::Rejected,
                "{elsewhere} is in no domain of ours"
            );
        }
        for ours in ["their-ana", "their-reports"] {
            assert_eq!(
                login(ours, "open sesame"),
                PasswordCheck::Rejected,
                "{ours} is one of ours by another name"
            );
        }
        assert!(matches!(login("their-bo", "open sesame"), PasswordCheck::Accepted(_)));
        assert!(Accounts::default().with_external_users(Arc::new(FixedExternalUsers)).has_logins());
    }

    #[test]
    fn others_have_mailboxes_in_domains_of_ours() {
        let accounts = accounts().with_external_users(Arc::new(FixedExternalUsers));
        let exists = |address: &str| accounts.exists(&Mailbox::parse(address).unwrap());
        assert_eq!(exists("bo@bücher.example"), Ok(true));
        assert_eq!(exists("eve@bücher.example"), Ok(false));
        assert_eq!(exists("later@bücher.example"), Err("out".to_owned()));
        assert_eq!(exists("later@there.example"), Ok(false), "nobody is asked about another's domain");
        assert_eq!(exists("ana@bücher.example"), Ok(true));
    }

    #[test]
    fn who_only_receives_cannot_log_in() {
        assert!(accounts().has_logins());
        let users = Users::parse("reports: receive-only\n", Path::new("users")).unwrap();
        let here = Domain::parse("here.example").unwrap();
        assert!(!Accounts::new(HashMap::from([(here, Arc::new(users))])).has_logins());
    }

    #[test]
    fn scram_is_for_when_everybody_has_its_keys() {
        let keys = scram::to_text(&scram::derive_keys(b"pencil", b"saltsalt".to_vec(), 4096));
        let with = |text: &str| {
            let users = Users::parse(text, Path::new("users")).unwrap();
            Accounts::new(HashMap::from([(Domain::parse("here.example").unwrap(), Arc::new(users))]))
        };
        let both = with(&format!("ana: {keys}\nreports: receive-only\n"));
        assert!(both.all_have_scram());
        assert!(!accounts().all_have_scram(), "ana has a hash only");
        assert!(!with("reports: receive-only\n").all_have_scram(), "nobody logs in");
        assert!(
            !both.with_external_users(Arc::new(FixedExternalUsers)).all_have_scram(),
            "of others we have no keys"
        );
        let login = with(&format!("ana: {keys}\n")).check_password("ana@here.example", b"pencil", CLIENT);
        assert!(matches!(login, PasswordCheck::Accepted(_)), "a password will do where there are keys only");
    }

    #[test]
    fn keys_are_made_up_for_whoever_cannot_log_in_the_same_each_time() {
        let accounts = accounts();
        for user in ["bo@bücher.example", "reports@bücher.example", "ana@there.example", "ana", ""] {
            let keys = accounts.scram_keys(user);
            assert_eq!(accounts.scram_keys(user), keys, "{user}");
            assert_eq!((keys.salt.len(), keys.iterations), (16, scram::ITERATIONS), "as ours are");
        }
        let keys = accounts.scram_keys("bo@bücher.example");
        assert_eq!(accounts.scram_keys("BO@xn--bcher-kva.example"), keys, "in every spelling");
        assert_ne!(accounts.scram_keys("eve@bücher.example").salt, keys.salt);
        assert_eq!(accounts.hashes_computed(), 0);
    }

    #[test]
    fn a_reload_replaces_everybody() {
        let accounts = accounts();
        let ana = Mailbox::parse("ana@bücher.example").unwrap();
        assert_eq!(accounts.exists(&ana), Ok(true));
        assert_eq!(accounts.exists(&Mailbox::parse("reports@bücher.example").unwrap()), Ok(true));
        assert_eq!(accounts.exists(&Mailbox::parse("ana@there.example").unwrap()), Ok(false));
        accounts.replace(HashMap::new());
        assert_eq!(accounts.exists(&ana), Ok(false));
    }
}
