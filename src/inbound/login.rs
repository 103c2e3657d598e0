//! Is this the user? Asks the accounts, and refuses what SASL allows but we have no use for.

use std::sync::Arc;

use crate::auth::{self, Accounts};
use crate::mail::Failure;
use crate::observe::{CounterFamily, Metrics};
use crate::smtp::{Answer, Login, Verdict};

/// Answers for logins.
pub struct Logins {
    accounts: Arc<Accounts>,
    tried: CounterFamily,
}

impl Logins {
    /// Logins are checked against these accounts.
    #[must_use]
    pub fn new(accounts: Arc<Accounts>, metrics: &Metrics) -> Self {
        Self { accounts, tried: metrics.family("login", "Logins tried, by result", "result") }
    }

    /// There is somebody who could log in.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.accounts.has_logins()
    }

    /// Is it the user?
    pub fn decide(&self, login: &Login) -> Verdict {
        // RFC 4616 §2: acting for somebody else is a right that nobody has here.
        let acts_for_another =
            login.authorization.as_ref().is_some_and(|authorization| *authorization != login.authentication);
        if acts_for_another {
            self.tried.add_one("wrong");
            return Verdict::new(Answer::WrongLogin).because("nobody may act for somebody else");
        }
        match self.accounts.login(&login.authentication, login.password.as_bytes()) {
            auth::Login::Yes(mailbox) => {
                self.tried.add_one("right");
                Verdict::new(Answer::User(mailbox))
            }
            auth::Login::Wrong => {
                self.tried.add_one("wrong");
                Verdict::new(Answer::WrongLogin).because("no such user, or another password")
            }
            auth::Login::Unavailable(why) => {
                self.tried.add_one("unavailable");
                Verdict::refused(Failure::transient(7, 0, "Logins cannot be checked now, try again later"))
                    .because(why)
            }
        }
    }
}
