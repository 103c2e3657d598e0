//! AUTH (RFC 4954): when it may come, and what goes back and forth.
//!
//! The part of the server machine that leads an exchange. What the octets of a response mean is
//! `sasl`'s to say, and whether the login is right the policy's.

use super::{Asked, Awaits, Server};
use crate::mail::Mailbox;
use crate::smtp::action::{Action, Question};
use crate::smtp::refusal::out_of_order;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Login;

impl Server {
    /// The mechanisms to be announced now.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        // RFC 8314 §3: a password is not even asked for in plain text.
        if self.settings.logins_exist && self.tls.is_some() { vec!["PLAIN".to_owned()] } else { Vec::new() }
    }

    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Action {
        if !self.settings.logins_exist {
            return self.refuse(Reply::new(502, 5, 1, "Nobody can log in here"));
        }
        if self.login.is_some() {
            return self.refuse(out_of_order("You are logged in already"));
        }
        // RFC 4954 §4.
        if self.transaction.is_some() {
            return self.refuse(out_of_order("Not during a transaction"));
        }
        if self.tls.is_none() {
            return self.refuse(Reply::new(538, 7, 11, "Only over TLS"));
        }
        if !self.is_esmtp() {
            return self.refuse(out_of_order("Say EHLO first"));
        }
        if mechanism != "PLAIN" {
            return self.refuse(Reply::new(504, 5, 4, "The only mechanism here is PLAIN"));
        }
        match initial {
            Some(initial) => self.login_with(initial.as_bytes()),
            None => {
                self.awaits = Awaits::AuthResponse;
                Action::Reply(Reply::plain(334, ""))
            }
        }
    }

    pub(super) fn auth_response(&mut self, line: &[u8]) -> Action {
        if line == b"*" {
            return self.refuse(Reply::new(501, 7, 0, "As you like"));
        }
        self.login_with(line)
    }

    fn login_with(&mut self, base64: &[u8]) -> Action {
        match Login::parse_plain(base64) {
            Ok(login) => self.ask(Question::Login(login), Asked::Login),
            Err(error) => self.refuse(Reply::new(501, 5, 2, error.to_string())),
        }
    }

    /// The policy knows who this is.
    pub(super) fn welcome(&mut self, user: Mailbox) -> Action {
        self.login = Some(user);
        Action::Reply(Reply::new(235, 7, 0, "Welcome"))
    }
}
