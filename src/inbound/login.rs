//! Checks logins against the accounts, and delays clients that guess passwords.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::address_prefix::{client_prefix, network_prefix};
use super::circumstances::Circumstances;
use crate::auth::{self, Accounts, BackoffOutcome, LoginBackoff};
use crate::mail::{Failure, Mailbox};
use crate::observe::{CounterFamily, Metrics, maillog};
use crate::smtp::{Answer, Evidence, SaslCredentials, ScramStart, Verdict};
use crate::sys::{Clock, Mutex, Random};

/// Decides about logins.
pub struct LoginPolicy {
    accounts: Arc<Accounts>,
    backoff: Mutex<LoginBackoff>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    results: CounterFamily,
}

impl LoginPolicy {
    /// Checks logins against these accounts.
    #[must_use]
    pub fn new(
        accounts: Arc<Accounts>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: &Metrics,
    ) -> Self {
        let results = metrics.counter_family("login", "Logins tried, by result", "result");
        Self { accounts, backoff: Mutex::default(), clock, random, results }
    }

    /// There are users who can log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.accounts.has_logins()
    }

    /// Every user who can log in has SCRAM keys.
    #[must_use]
    pub fn all_have_scram(&self) -> bool {
        self.accounts.all_have_scram()
    }

    /// The data for a SCRAM exchange with `user`, whether the user exists or not.
    pub fn scram_start(&self, circumstances: &Circumstances<'_>, user: &str) -> Verdict {
        let octets: Vec<u8> = (0..3).flat_map(|_| self.random.bits().to_be_bytes()).collect();
        Verdict::new(Answer::ScramStart(Box::new(ScramStart {
            keys: self.accounts.scram_keys(user),
            nonce: STANDARD_NO_PAD.encode(octets),
            channel_binding: circumstances.channel_binding.map(<[u8]>::to_vec),
        })))
    }

    /// Whether the credentials are right. Writes the line of the mail log.
    pub fn decide(&self, circumstances: &Circumstances<'_>, login: &SaslCredentials) -> Verdict {
        let result = self.check(circumstances.address(), login);
        self.results.add_one(result.metric_label());
        maillog::login_attempted(
            circumstances.address(),
            &login.authentication_identity,
            result.maillog_result(),
        );
        result.verdict()
    }

    fn check(&self, address: IpAddr, login: &SaslCredentials) -> LoginResult {
        // RFC 4422 §2: no user has the right to act for another.
        let acts_for_another = login
            .authorization_identity
            .as_ref()
            .is_some_and(|authorization| *authorization != login.authentication_identity);
        if acts_for_another {
            return LoginResult::Failed("no user may act for another");
        }
        let user = &login.authentication_identity;
        let origin = auth::LoginOrigin { client: client_prefix(address), network: network_prefix(address) };
        if let Err(wait) = self.backoff.lock().admit(origin, user, self.clock.now()) {
            return LoginResult::Throttled(wait);
        }
        let check = match &login.evidence {
            Evidence::Password(password) => self.accounts.check_password(user, password.as_bytes(), address),
            Evidence::Proof { is_valid } => match Mailbox::parse(user) {
                Ok(user) if *is_valid => auth::PasswordCheck::Accepted(user),
                _ => auth::PasswordCheck::Rejected,
            },
        };
        let (outcome, result) = match check {
            // All spellings of a name are one user, for limits and hooks.
            auth::PasswordCheck::Accepted(user) => {
                (BackoffOutcome::Succeeded, LoginResult::Succeeded(user.case_mapped()))
            }
            auth::PasswordCheck::Rejected => {
                (BackoffOutcome::Failed, LoginResult::Failed("no such user, or another password"))
            }
            auth::PasswordCheck::Unavailable(why) => {
                (BackoffOutcome::Undecided, LoginResult::Unavailable(why))
            }
        };
        self.backoff.lock().record_outcome(origin, user, outcome, self.clock.now());
        result
    }
}

/// How a login ended.
enum LoginResult {
    Succeeded(Mailbox),
    /// The reason is not in the reply.
    Failed(&'static str),
    /// Not checked: too many logins have failed.
    Throttled(Duration),
    /// The reason is not in the reply.
    Unavailable(String),
}

impl LoginResult {
    fn metric_label(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::Throttled(_) => "throttled",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn maillog_result(&self) -> maillog::LoginEvent {
        match self {
            Self::Succeeded(_) => maillog::LoginEvent::Succeeded,
            Self::Failed(_) => maillog::LoginEvent::Failed,
            Self::Throttled(_) => maillog::LoginEvent::Throttled,
            Self::Unavailable(_) => maillog::LoginEvent::Unavailable,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Succeeded(user) => Verdict::new(Answer::User(user)),
            Self::Failed(why) => Verdict::new(Answer::WrongLogin).with_reason(why),
            Self::Throttled(wait) => {
                // Rounded up: a login after that many seconds is checked.
                let seconds = wait.as_millis().div_ceil(1000);
                let text = format!("Too many wrong logins from your address, wait {seconds} seconds");
                Verdict::refused(Failure::transient(7, 0, text)).with_reason("too many wrong logins")
            }
            Self::Unavailable(why) => {
                let text = "Logins cannot be checked now, try again later";
                Verdict::refused(Failure::transient(7, 0, text)).with_reason(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::auth::Users;
    use crate::fakes::{SeededRandom, TestClock};
    use crate::mail::Domain;

    /// RFC 7677 §3: the password is "pencil".
    const ANA: &str = "ana: SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                       $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";

    struct Fixture {
        logins: LoginPolicy,
        clock: Arc<TestClock>,
    }

    fn fixture() -> Fixture {
        let users = Users::parse(ANA, Path::new("users")).unwrap();
        let domains = HashMap::from([(Domain::parse("here.example").unwrap(), Arc::new(users))]);
        let clock = Arc::new(TestClock::default());
        let random = Arc::new(SeededRandom::default());
        let accounts = Arc::new(Accounts::new(domains));
        let logins = LoginPolicy::new(accounts, Arc::clone(&clock) as _, random, &Metrics::default());
        Fixture { logins, clock }
    }

    fn client(address: &str) -> Circumstances<'static> {
        Circumstances {
            channel_binding: Some(&[7; 32]),
            ..Circumstances::at_connection((address.parse::<IpAddr>().unwrap(), 25).into())
        }
    }

    impl Fixture {
        /// The result as a text.
        fn login_result(&self, from: &str, evidence: Evidence) -> String {
            let login = SaslCredentials {
                authorization_identity: None,
                authentication_identity: "ana@here.example".to_owned(),
                evidence,
            };
            match self.logins.decide(&client(from), &login).answer {
                Answer::User(user) => user.to_string(),
                Answer::WrongLogin => "wrong".to_owned(),
                Answer::Refused(Failure::Transient(reason)) => reason.text,
                other => panic!("{other:?}"),
            }
        }
    }

    fn password(password: &str) -> Evidence {
        Evidence::Password(password.to_owned())
    }

    #[test]
    fn a_client_that_guesses_waits_and_the_user_can_log_in_from_elsewhere() {
        let fixture = fixture();
        for n in 0..3 {
            assert_eq!(fixture.login_result(&format!("2001:db8::{n}"), password("pen")), "wrong");
            assert_eq!(fixture.login_result("2001:db8::1", Evidence::Proof { is_valid: false }), "wrong");
        }
        let hashes = fixture.logins.accounts.hashes_computed();
        let wait = "Too many wrong logins from your address, wait 5 seconds";
        assert_eq!(fixture.login_result("2001:db8::1", password("pencil")), wait);
        assert_eq!(
            fixture.login_result("2001:db8::9", Evidence::Proof { is_valid: true }),
            wait,
            "the same /64"
        );
        assert_eq!(
            fixture.logins.accounts.hashes_computed(),
            hashes,
            "no hash is computed for a client that has to wait"
        );
        assert_eq!(fixture.login_result("2001:db8:0:1::1", password("pencil")), "ana@here.example");
        fixture.clock.advance(Duration::from_secs(5));
        assert_eq!(fixture.login_result("2001:db8::1", password("pencil")), "ana@here.example");
    }

    #[test]
    fn a_nonce_is_never_used_again_and_unknown_users_have_keys() {
        let fixture = fixture();
        let start = |user: &str| match fixture.logins.scram_start(&client("192.0.2.1"), user).answer {
            Answer::ScramStart(start) => *start,
            other => panic!("{other:?}"),
        };
        let (first, second) = (start("ana@here.example"), start("ana@here.example"));
        assert_eq!((first.keys.iterations, first.keys.salt.len()), (4096, 16));
        assert_ne!(first.nonce, second.nonce);
        assert_eq!(first.nonce.len(), 32);
        assert_eq!(first.channel_binding, Some(vec![7; 32]));
        assert_eq!(start("nobody@here.example").keys.salt.len(), 16);
    }

    #[test]
    fn an_overload_of_the_server_does_not_count_as_a_failed_login() {
        let busy = LoginResult::Unavailable("too many logins at once".to_owned());
        assert_eq!(
            (busy.maillog_result(), busy.metric_label()),
            (maillog::LoginEvent::Unavailable, "unavailable")
        );
        assert!(matches!(busy.verdict().answer, Answer::Refused(Failure::Transient(_))));
    }

    #[test]
    fn no_user_can_act_for_another() {
        let fixture = fixture();
        let login = |authorization: &str| SaslCredentials {
            authorization_identity: Some(authorization.to_owned()),
            authentication_identity: "ana@here.example".to_owned(),
            evidence: password("pencil"),
        };
        let answer =
            |authorization| fixture.logins.decide(&client("192.0.2.1"), &login(authorization)).answer;
        assert_eq!(answer("bo@here.example"), Answer::WrongLogin);
        assert!(matches!(answer("ana@here.example"), Answer::User(_)));
    }
}
