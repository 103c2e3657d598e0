//! Logs in (RFC 4954), if the operator has credentials for the host.
//!
//! PLAIN (RFC 4616) if the host offers it, else LOGIN. A password is not sent without TLS, and the caller
//! gets steps that say which octets are secret. A login that fails is for the operator to correct: the
//! message waits, and another host of the same list may be tried.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Client, ClientState, ClientStep, Wait};
use crate::mail::Failure;
use crate::smtp::Reply;

/// Credentials for a host.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The operator's name for them, for sentences.
    pub name: String,
    /// The user at the host.
    pub user: String,
    /// The user's password; never shown, not even by `Debug`.
    pub password: String,
}

/// Omits the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The reply that is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthStage {
    /// After `AUTH LOGIN`: 334 prompts for the user.
    UserPrompt,
    /// After the user: 334 prompts for the password.
    PasswordPrompt,
    /// After the last response: 235.
    FinalReply,
}

impl Client {
    /// There are credentials for this host, and the client has not logged in.
    pub(super) fn needs_login(&self) -> bool {
        self.plan.credentials.is_some() && !self.is_logged_in
    }

    /// Begins the login.
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

    /// Takes the reply of the peer.
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
