//! The snapshot of all domains' users, and logins.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::hash::Hasher;
use super::users::Users;
use crate::mail::{Domain, Mailbox};

/// Every account of this host. Shared; a reload replaces what is inside.
#[derive(Debug)]
pub struct Accounts {
    domains: ArcSwap<HashMap<Domain, Arc<Users>>>,
    hasher: Hasher,
    others: Option<Arc<dyn OtherUsers>>,
}

/// Users who stand in no file of ours. Asked for those only, so a line in a file of ours always
/// counts.
pub trait OtherUsers: fmt::Debug + Send + Sync {
    /// There is, or may be, somebody who could log in.
    fn has_logins(&self) -> bool;

    /// There is a mailbox of that name; its domain is one of ours.
    ///
    /// # Errors
    /// It cannot be found out now; says why, for the log.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, String>;

    /// Whether this is `user`, in the client's words, with that password; if so, the user's mailbox,
    /// which counts only in a domain of ours.
    fn login(&self, user: &str, password: &[u8]) -> Login;
}

/// How a login ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// This is the user.
    Yes(Mailbox),
    /// Unknown, may not log in, or a wrong password: nobody learns which.
    Wrong,
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
        Self { domains: ArcSwap::from_pointee(domains), hasher: Hasher::new(), others: None }
    }

    /// The same, and others may log in too.
    #[must_use]
    pub fn with_others(self, others: Arc<dyn OtherUsers>) -> Self {
        Self { others: Some(others), ..self }
    }

    /// Puts other users in their place; whoever is asking just now still sees the old ones.
    pub fn replace(&self, domains: HashMap<Domain, Arc<Users>>) {
        self.domains.store(Arc::new(domains));
    }

    /// There is anybody who could log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.domains.load().values().any(|users| users.has_logins())
            || self.others.as_ref().is_some_and(|others| others.has_logins())
    }

    /// The mailbox belongs to a user.
    ///
    /// # Errors
    /// Others would have to be asked, and cannot; says why, for the log.
    pub fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
        match (self.domains.load().get(&mailbox.domain), &self.others) {
            (None, _) => Ok(false),
            (Some(users), _) if users.has(&mailbox.local_part) => Ok(true),
            (Some(_), Some(others)) => others.exists(mailbox),
            (Some(_), None) => Ok(false),
        }
    }

    /// Whether this is `user`, an address, with that password. Takes as long as a hash (some
    /// 40 ms), and waits for its turn: at most two are computed at once.
    pub fn login(&self, user: &str, password: &[u8]) -> Login {
        let mailbox = Mailbox::parse(user).ok();
        let domains = self.domains.load_full();
        let account =
            mailbox.as_ref().and_then(|mailbox| domains.get(&mailbox.domain)?.account(&mailbox.local_part));
        let is_ours = |mailbox: &Mailbox| domains.contains_key(&mailbox.domain);
        if account.is_none()
            && mailbox.as_ref().is_none_or(is_ours)
            && let Some(others) = &self.others
        {
            match others.login(user, password) {
                // The work of a wrong password of ours comes on top, so that time does not tell
                // whose users are where.
                Login::Wrong => {}
                Login::Yes(mailbox) if !is_ours(&mailbox) => {}
                answer @ (Login::Yes(_) | Login::Unavailable(_)) => return answer,
            }
        }
        let hash = account.and_then(|account| account.hash.as_deref());
        match (self.hasher.is_right(password, hash), mailbox) {
            (Some(true), Some(mailbox)) => Login::Yes(mailbox),
            (Some(_), _) => Login::Wrong,
            (None, _) => Login::Unavailable("too many logins at once".to_owned()),
        }
    }

    /// Hashes computed so far: what a test counts instead of milliseconds.
    #[must_use]
    pub fn hash_runs(&self) -> u64 {
        self.hasher.runs()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::hash_password;
    use super::*;

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
            assert_eq!(accounts.login(user, b"correct horse"), Login::Yes(Mailbox::parse(user).unwrap()));
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
            assert_eq!(accounts.login(user, password.as_bytes()), Login::Wrong, "{user:?}");
            assert_eq!(accounts.hash_runs(), n as u64 + 1, "one hash each, for {user:?} too");
        }
    }

    /// Others, with one password for all of them.
    #[derive(Debug)]
    struct Neighbours;

    impl OtherUsers for Neighbours {
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

        fn login(&self, user: &str, password: &[u8]) -> Login {
            match (Mailbox::parse(user), password) {
                (Ok(user), b"open sesame") => Login::Yes(user),
                (Err(_), b"open sesame") => Login::Yes(Mailbox::parse("bo@there.example").unwrap()),
                (_, b"busy") => Login::Unavailable("out".to_owned()),
                _ => Login::Wrong,
            }
        }
    }

    #[test]
    fn others_are_asked_for_whom_no_file_of_ours_names() {
        let accounts = accounts().with_others(Arc::new(Neighbours));
        let login = |user: &str, password: &str| accounts.login(user, password.as_bytes());
        let bo = Mailbox::parse("bo@bücher.example").unwrap();
        assert_eq!(login("bo@bücher.example", "open sesame"), Login::Yes(bo));
        assert_eq!(login("bo@bücher.example", "busy"), Login::Unavailable("out".to_owned()));
        assert_eq!(accounts.hash_runs(), 0, "the work was somebody else's");
        for (n, user) in ["ana@bücher.example", "reports@bücher.example"].into_iter().enumerate() {
            assert_eq!(login(user, "open sesame"), Login::Wrong, "{user} is ours");
            assert_eq!(accounts.hash_runs(), n as u64 + 1);
        }
        assert_eq!(login("bo@bücher.example", "wrong"), Login::Wrong);
        assert_eq!(accounts.hash_runs(), 3, "a wrong login is the same work wherever the user is");
        for elsewhere in ["bo@there.example", "bo"] {
            assert_eq!(login(elsewhere, "open sesame"), Login::Wrong, "{elsewhere} is in no domain of ours");
        }
        assert!(Accounts::default().with_others(Arc::new(Neighbours)).has_logins());
    }

    #[test]
    fn others_have_mailboxes_in_domains_of_ours() {
        let accounts = accounts().with_others(Arc::new(Neighbours));
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
