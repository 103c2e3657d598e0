//! The client logs in (RFC 4954), where the operator has a login for the host.
//!
//! PLAIN (RFC 4616) if the host offers it, else LOGIN. A password is never said without TLS, and
//! never shown: the shell is told which octets are secret. What keeps a login from working is for
//! the operator to mend, so the mail waits, and another host of the same list may be asked.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Client, State, Step, Wait};
use crate::mail::Failure;
use crate::smtp::Reply;

/// What to log in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What the operator calls them: for sentences.
    pub name: String,
    /// The user at the host.
    pub user: String,
    /// The user's password; never shown, not even by `Debug`.
    pub password: String,
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What the peer is to answer next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// `AUTH LOGIN`: 334 asks for the user.
    User,
    /// The user: 334 asks for the password.
    Password,
    /// All that there was to say: 235.
    Verdict,
}

impl Client {
    /// There is a login for this host, and it has not been made.
    pub(super) fn must_log_in(&self) -> bool {
        self.plan.login.is_some() && !self.is_logged_in
    }

    /// Begins to log in.
    pub(super) fn log_in(&mut self) -> Step {
        let Some(login) = &self.plan.login else { return self.begin_transaction() };
        let host = self.plan.place();
        if !self.is_encrypted {
            let text = format!("the login {} is not made at {host} without TLS", login.name);
            return self.cannot_log_in(Failure::transient(7, 11, text));
        }
        let offers = |mechanism: &str| self.offers.auth.iter().any(|offered| offered == mechanism);
        if offers("PLAIN") {
            let response = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
            return self.say_secretly(Login::Verdict, &format!("AUTH PLAIN {response}"));
        }
        if offers("LOGIN") {
            return self.say_secretly(Login::User, "AUTH LOGIN");
        }
        let offered = match self.offers.auth.as_slice() {
            [] => "no login at all".to_owned(),
            mechanisms => format!("only {}", mechanisms.join(" ")),
        };
        let text = format!("the login {} needs PLAIN or LOGIN, and {host} offers {offered}", login.name);
        self.cannot_log_in(Failure::transient(7, 4, text))
    }

    /// The peer's answer.
    pub(super) fn on_login(&mut self, stage: Login, reply: &Reply) -> Step {
        let Some(login) = &self.plan.login else { return self.begin_transaction() };
        match stage {
            Login::Verdict if reply.is_positive() => {
                self.is_logged_in = true;
                self.begin_transaction()
            }
            Login::User if reply.code == 334 => {
                let user = STANDARD.encode(&login.user);
                self.say_secretly(Login::Password, &user)
            }
            Login::Password if reply.code == 334 => {
                let password = STANDARD.encode(&login.password);
                self.say_secretly(Login::Verdict, &password)
            }
            Login::User | Login::Password | Login::Verdict => {
                let what = format!("the login {}", login.name);
                self.move_on(reply, &what)
            }
        }
    }

    fn say_secretly(&mut self, stage: Login, line: &str) -> Step {
        self.state = State::Login(stage);
        Step::SendSecret(format!("{line}\r\n").into_bytes(), Wait::Hello)
    }

    fn cannot_log_in(&mut self, failure: Failure) -> Step {
        self.why = Some(failure);
        self.quit()
    }
}
