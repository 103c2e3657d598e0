//! The client logs in (RFC 4954), where the operator has a login for the host.
//!
//! PLAIN (RFC 4616) if the host offers it, else LOGIN. A password is never said without TLS, and
//! never shown: the shell is told which octets are secret. What keeps a login from working is for
//! the operator to mend, so the mail waits, and another host of the same list may be asked.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Client, ClientState, ClientStep, Wait};
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
pub(super) enum AuthStage {
    /// `AUTH LOGIN`: 334 asks for the user.
    UserPrompt,
    /// The user: 334 asks for the password.
    PasswordPrompt,
    /// All that there was to say: 235.
    FinalReply,
}

impl Client {
    /// There is a login for this host, and it has not been made.
    pub(super) fn needs_login(&self) -> bool {
        self.plan.credentials.is_some() && !self.is_logged_in
    }

    /// Begins to log in.
    pub(super) fn log_in(&mut self) -> ClientStep {
        let Some(login) = &self.plan.credentials else { return self.begin_transaction() };
        let host = self.plan.peer_description();
        if !self.is_encrypted {
            let text = format!("the login {} is not made at {host} without TLS", login.name);
            return self.cannot_log_in(Failure::transient(7, 11, text));
        }
        let offers = |mechanism: &str| self.extensions.auth.iter().any(|offered| offered == mechanism);
        if offers("PLAIN") {
            let response = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
            return self.send_secret(AuthStage::FinalReply, &format!("AUTH PLAIN {response}"));
        }
        if offers("LOGIN") {
            return self.send_secret(AuthStage::UserPrompt, "AUTH LOGIN");
        }
        let offered = match self.extensions.auth.as_slice() {
            [] => "no login at all".to_owned(),
            mechanisms => format!("only {}", mechanisms.join(" ")),
        };
        let text = format!("the login {} needs PLAIN or LOGIN, and {host} offers {offered}", login.name);
        self.cannot_log_in(Failure::transient(7, 4, text))
    }

    /// The peer's answer.
    pub(super) fn on_auth_reply(&mut self, stage: AuthStage, reply: &Reply) -> ClientStep {
        let Some(login) = &self.plan.credentials else { return self.begin_transaction() };
        match stage {
            AuthStage::FinalReply if reply.is_positive() => {
                self.is_logged_in = true;
                self.begin_transaction()
            }
            AuthStage::UserPrompt if reply.code == 334 => {
                let user = STANDARD.encode(&login.user);
                self.send_secret(AuthStage::PasswordPrompt, &user)
            }
            AuthStage::PasswordPrompt if reply.code == 334 => {
                let password = STANDARD.encode(&login.password);
                self.send_secret(AuthStage::FinalReply, &password)
            }
            AuthStage::UserPrompt | AuthStage::PasswordPrompt | AuthStage::FinalReply => {
                let what = format!("the login {}", login.name);
                self.quit_after_refusal(reply, &what)
            }
        }
    }

    fn send_secret(&mut self, stage: AuthStage, line: &str) -> ClientStep {
        self.state = ClientState::Login(stage);
        ClientStep::SendSecret(format!("{line}\r\n").into_bytes(), Wait::Hello)
    }

    fn cannot_log_in(&mut self, failure: Failure) -> ClientStep {
        self.final_failure = Some(failure);
        self.quit()
    }
}
