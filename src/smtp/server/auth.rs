//! AUTH (RFC 4954): when it may come, and what goes back and forth.
//!
//! The part of the server machine that leads an exchange. What the octets of a message mean is
//! `sasl`'s to say, and whether the login is right the policy's.

use super::{Asked, Awaits, Server};
use crate::mail::Mailbox;
use crate::smtp::action::{Action, Question};
use crate::smtp::refusal::{not_an_exchange, our_fault, out_of_order};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Exchange, Mechanism, ScramFirst, ScramStart, Step, decode, encode};

impl Server {
    /// The names of the mechanisms to be announced now.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        self.offered().map(|mechanism| mechanism.name().to_owned()).collect()
    }

    /// RFC 8314 §3: a password is not even asked for in plain text.
    fn offered(&self) -> impl Iterator<Item = Mechanism> + '_ {
        Mechanism::ALL.into_iter().filter(|mechanism| {
            let Some(tls) = &self.tls else { return false };
            self.settings.logins_exist
                && match mechanism {
                    Mechanism::Plain | Mechanism::Login => true,
                    Mechanism::ScramSha256 => self.settings.scram_available,
                    Mechanism::ScramSha256Plus => self.settings.scram_available && tls.has_exporter(),
                }
        })
    }

    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Action {
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
        let Some(mechanism) = self.offered().find(|offered| offered.name() == mechanism) else {
            let names = self.mechanisms().join(" ");
            return self.refuse(Reply::new(504, 5, 4, format!("The mechanisms here are {names}")));
        };
        let is_binding_offered = self.offered().any(|offered| offered == Mechanism::ScramSha256Plus);
        let exchange = Exchange::begin(mechanism, is_binding_offered);
        match initial {
            Some(initial) => self.auth_message(exchange, initial.as_bytes()),
            None => self.challenge(exchange.prompt(), exchange),
        }
    }

    /// The client's response to 334.
    pub(super) fn auth_response(&mut self, exchange: Exchange, line: &[u8]) -> Action {
        if line == b"*" {
            return self.refuse(Reply::new(501, 7, 0, "As you like"));
        }
        self.auth_message(exchange, line)
    }

    fn auth_message(&mut self, exchange: Exchange, line: &[u8]) -> Action {
        match decode(line).and_then(|message| exchange.message(&message)) {
            Ok(Step::Challenge(challenge, next)) => self.challenge(&challenge, next),
            Ok(Step::ScramStart(first)) => {
                let question = Question::ScramStart { user: first.user().to_owned() };
                self.ask(question, Asked::ScramStart(first))
            }
            Ok(Step::Login(login, ours)) => self.ask(Question::Login(login), Asked::Login(ours)),
            Ok(Step::Done(user)) => self.welcome(user),
            Err(error) => self.refuse(not_an_exchange(error)),
        }
    }

    /// The policy gave what SCRAM needs.
    pub(super) fn scram_start(&mut self, first: ScramFirst, start: ScramStart) -> Action {
        match first.challenge(start) {
            Some((challenge, second)) => self.challenge(&challenge, Exchange::ScramProof(Box::new(second))),
            None => self.refuse(our_fault()),
        }
    }

    /// The policy knows who this is. What we have to prove comes first.
    pub(super) fn recognised(&mut self, user: Mailbox, ours: Option<Vec<u8>>) -> Action {
        match ours {
            Some(ours) => self.challenge(&ours, Exchange::Proven(user)),
            None => self.welcome(user),
        }
    }

    fn challenge(&mut self, challenge: &[u8], next: Exchange) -> Action {
        self.awaits = Awaits::AuthResponse(next);
        Action::Reply(Reply::plain(334, encode(challenge)))
    }

    fn welcome(&mut self, user: Mailbox) -> Action {
        self.login = Some(user);
        Action::Reply(Reply::new(235, 7, 0, "Welcome"))
    }
}
