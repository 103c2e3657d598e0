//! The snapshot of all domains' users, and logins.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::hash::Hasher;
use super::password;
use super::scram::Pretence;
use super::users::Users;
use crate::mail::{Domain, Mailbox, ScramKeys};
use crate::sys::SystemRandom;

/// Every account of this host. Shared; a reload replaces what is inside.
#[derive(Debug)]
pub struct Accounts {
    everybody: ArcSwap<Everybody>,
    hasher: Hasher,
    pretence: Pretence,
    others: Option<Arc<dyn OtherUsers>>,
}

/// What one load found.
#[derive(Debug)]
struct Everybody {
    domains: HashMap<Domain, Arc<Users>>,
    has_logins: bool,
    all_have_scram: bool,
}

impl Everybody {
    fn new(domains: HashMap<Domain, Arc<Users>>) -> Self {
        let has_logins = domains.values().any(|users| users.has_logins());
        let all_have_scram = domains.values().all(|users| users.all_have_scram());
        Self { domains, has_logins, all_have_scram }
    }
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
    /// which counts only in a domain of ours. `client` is where it comes from.
    fn login(&self, user: &str, password: &[u8], client: IpAddr) -> Login;
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
        Self {
            everybody: ArcSwap::from_pointee(Everybody::new(domains)),
            hasher: Hasher::new(),
            pretence: Pretence::new(&SystemRandom),
            others: None,
        }
    }

    /// The same, and others may log in too.
    #[must_use]
    pub fn with_others(self, others: Arc<dyn OtherUsers>) -> Self {
        Self { others: Some(others), ..self }
    }

    /// The same, and what is made up about users who do not exist is made up in this way.
    #[must_use]
    pub fn with_pretence(self, pretence: Pretence) -> Self {
        Self { pretence, ..self }
    }

    /// Puts other users in their place; whoever is asking just now still sees the old ones.
    pub fn replace(&self, domains: HashMap<Domain, Arc<Users>>) {
        self.everybody.store(Arc::new(Everybody::new(domains)));
    }

    /// There is anybody who could log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.everybody.load().has_logins || self.others_have_logins()
    }

    /// Everybody who could log in can do so by SCRAM.
    #[must_use]
    pub fn all_have_scram(&self) -> bool {
        let everybody = self.everybody.load();
        everybody.has_logins && everybody.all_have_scram && !self.others_have_logins()
    }

    fn others_have_logins(&self) -> bool {
        self.others.as_ref().is_some_and(|others| others.has_logins())
    }

    /// The mailbox belongs to a user.
    ///
    /// # Errors
    /// Others would have to be asked, and cannot; says why, for the log.
    pub fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
        match (self.everybody.load().domains.get(&mailbox.domain), &self.others) {
            (None, _) => Ok(false),
            (Some(users), _) if users.has(&mailbox.local_part) => Ok(true),
            (Some(_), Some(others)) => others.exists(mailbox),
            (Some(_), None) => Ok(false),
        }
    }

    /// The SCRAM keys of `user`, an address; of somebody who cannot log in by SCRAM, keys that look
    /// the same and that no password fits.
    #[must_use]
    pub fn scram_keys(&self, user: &str) -> ScramKeys {
        let mailbox = Mailbox::parse(user).ok();
        let everybody = self.everybody.load();
        let account_of =
            |mailbox: &Mailbox| everybody.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        // Made up for everybody, so that the work is the same.
        let made_up = self.pretence.keys(&match &mailbox {
            Some(Mailbox { local_part, domain }) => format!("{}@{domain}", local_part.key()),
            None => user.to_owned(),
        });
        account.and_then(|account| account.scram.clone()).unwrap_or(made_up)
    }

    /// Whether this is `user`, an address, with that password. Takes as long as a hash (some
    /// 40 ms), and waits for its turn: at most two are computed at once.
    pub fn login(&self, user: &str, password: &[u8], client: IpAddr) -> Login {
        let mailbox = Mailbox::parse(user).ok();
        let everybody = self.everybody.load_full();
        let account_of =
            |mailbox: &Mailbox| everybody.domains.get(&mailbox.domain)?.account(&mailbox.local_part);
        let account = mailbox.as_ref().and_then(account_of);
        let is_ours = |mailbox: &Mailbox| everybody.domains.contains_key(&mailbox.domain);
        if account.is_none()
            && mailbox.as_ref().is_none_or(is_ours)
            && let Some(others) = &self.others
        {
            match others.login(user, password, client) {
                // The work of a wrong password of ours comes on top, so that time does not tell
                // whose users are where.
                Login::Wrong => {}
                Login::Yes(mailbox) if !is_ours(&mailbox) => {}
                // Asked by another name, they answer for one who stands in a file of ours after all.
                Login::Yes(mailbox) if account_of(&mailbox).is_some() => {}
                answer @ (Login::Yes(_) | Login::Unavailable(_)) => return answer,
            }
        }
        let kept = account.and_then(|account| account.kept());
        match (self.hasher.is_right(&password::tried(password), kept), mailbox) {
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
                accounts.login(user, b"correct horse", CLIENT),
                Login::Yes(Mailbox::parse(user).unwrap())
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
            assert_eq!(accounts.login(user, password.as_bytes(), CLIENT), Login::Wrong, "{user:?}");
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

        fn login(&self, user: &str, password: &[u8], _: IpAddr) -> Login {
            match (Mailbox::parse(user), password) {
                (Ok(user), b"open sesame") => Login::Yes(user),
                // By a name of theirs, which may be somebody's who stands in a file of ours.
                (Err(_), b"open sesame") if user.starts_with("their-") => {
                    let user = user.trim_start_matches("their-");
                    Login::Yes(Mailbox::parse(&format!("{user}@bücher.example")).unwrap())
                }
                (Err(_), b"open sesame") => Login::Yes(Mailbox::parse("bo@there.example").unwrap()),
                (_, b"busy") => Login::Unavailable("out".to_owned()),
                _ => Login::Wrong,
            }
        }
    }

    #[test]
    fn others_are_asked_for_whom_no_file_of_ours_names() {
        let accounts = accounts().with_others(Arc::new(Neighbours));
        let login = |user: &str, password: &str| accounts.login(user, password.as_bytes(), CLIENT);
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
        for ours in ["their-ana", "their-reports"] {
            assert_eq!(login(ours, "open sesame"), Login::Wrong, "{ours} is one of ours by another name");
        }
        assert!(matches!(login("their-bo", "open sesame"), Login::Yes(_)));
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
    fn scram_is_for_when_everybody_has_its_keys() {
        let keys = scram::to_text(&scram::keys(b"pencil", b"saltsalt".to_vec(), 4096));
        let with = |text: &str| {
            let users = Users::parse(text, Path::new("users")).unwrap();
            Accounts::new(HashMap::from([(Domain::parse("here.example").unwrap(), Arc::new(users))]))
        };
        let both = with(&format!("ana: {keys}\nreports: receive-only\n"));
        assert!(both.all_have_scram());
        assert!(!accounts().all_have_scram(), "ana has a hash only");
        assert!(!with("reports: receive-only\n").all_have_scram(), "nobody logs in");
        assert!(!both.with_others(Arc::new(Neighbours)).all_have_scram(), "of others we have no keys");
        let login = with(&format!("ana: {keys}\n")).login("ana@here.example", b"pencil", CLIENT);
        assert!(matches!(login, Login::Yes(_)), "a password will do where there are keys only");
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
        assert_eq!(accounts.hash_runs(), 0);
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
