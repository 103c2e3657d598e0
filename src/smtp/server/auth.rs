//! AUTH (RFC 4954): when it is allowed, and the exchange that it begins.
//!
//! `sasl` parses the messages of the exchange; the caller decides whether the login is right.

use super::{PendingQuestion, Server, ServerStage};
use crate::mail::Mailbox;
use crate::smtp::action::{Question, ServerAction};
use crate::smtp::refusal::sasl_error;
use crate::smtp::reply_table as table;
use crate::smtp::sasl::{Exchange, Mechanism, SaslStep, ScramFirst, ScramStart, decode, encode};

impl Server {
    /// The names of the mechanisms that EHLO announces now.
    pub(super) fn mechanism_names(&self) -> Vec<String> {
        self.offered_mechanisms().map(|mechanism| mechanism.name().to_owned()).collect()
    }

    /// RFC 8314 §3: without TLS no mechanism is offered.
    fn offered_mechanisms(&self) -> impl Iterator<Item = Mechanism> + '_ {
        Mechanism::ALL.into_iter().filter(|mechanism| {
            let Some(tls) = &self.tls else { return false };
            self.settings.has_users
                && match mechanism {
                    Mechanism::Plain | Mechanism::Login => true,
                    Mechanism::ScramSha256 => self.settings.has_scram,
                    Mechanism::ScramSha256Plus => self.settings.has_scram && tls.has_channel_binding(),
                }
        })
    }

    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> ServerAction {
        if !self.settings.has_users {
            return self.refuse(table::NO_AUTH);
        }
        if self.login.is_some() {
            return self.refuse(table::ALREADY_AUTHENTICATED);
        }
        if self.transaction.is_some() {
            return self.refuse(table::AUTH_IN_TRANSACTION);
        }
        if self.tls.is_none() {
            return self.refuse(table::AUTH_NEEDS_TLS);
        }
        if !self.is_esmtp() {
            return self.refuse(table::EHLO_FIRST);
        }
        let Some(mechanism) = self.offered_mechanisms().find(|offered| offered.name() == mechanism) else {
            let offered = self.mechanism_names();
            return self.refuse(table::unknown_mechanism(&offered));
        };
        let is_binding_offered =
            self.offered_mechanisms().any(|offered| offered == Mechanism::ScramSha256Plus);
        let exchange = Exchange::begin(mechanism, is_binding_offered);
        match initial {
            Some(initial) => self.auth_message(exchange, initial.as_bytes()),
            None => self.challenge(exchange.prompt(), exchange),
        }
    }

    /// The client's response to 334.
    pub(super) fn auth_response(&mut self, exchange: Exchange, line: &[u8]) -> ServerAction {
        if line == b"*" {
            return self.refuse(table::AUTH_CANCELLED);
        }
        self.auth_message(exchange, line)
    }

    fn auth_message(&mut self, exchange: Exchange, line: &[u8]) -> ServerAction {
        match decode(line).and_then(|message| exchange.message(&message)) {
            Ok(SaslStep::Challenge(challenge, next)) => self.challenge(&challenge, next),
            Ok(SaslStep::ScramStart(first)) => {
                let question = Question::ScramStart { user: first.user().to_owned() };
                self.ask(question, PendingQuestion::ScramStart(first))
            }
            Ok(SaslStep::Login(login, server_proof)) => {
                self.ask(Question::Login(login), PendingQuestion::Login(server_proof))
            }
            Ok(SaslStep::LoggedIn(user)) => self.log_in(user),
            Err(error) => self.refuse(sasl_error(error)),
        }
    }

    /// Goes on with a SCRAM exchange.
    pub(super) fn scram_start(&mut self, first: ScramFirst, start: ScramStart) -> ServerAction {
        match first.challenge(start) {
            Some((challenge, second)) => self.challenge(&challenge, Exchange::ScramProof(Box::new(second))),
            None => self.refuse(table::LOCAL_ERROR),
        }
    }

    /// The login is right. `server_proof` is the proof of the server, which the client gets first.
    pub(super) fn authenticated(&mut self, user: Mailbox, server_proof: Option<Vec<u8>>) -> ServerAction {
        match server_proof {
            Some(server_proof) => self.challenge(&server_proof, Exchange::ServerProofSent(user)),
            None => self.log_in(user),
        }
    }

    fn challenge(&mut self, challenge: &[u8], next: Exchange) -> ServerAction {
        self.stage = ServerStage::AuthResponse(next);
        ServerAction::Reply(table::auth_challenge(encode(challenge)))
    }

    fn log_in(&mut self, user: Mailbox) -> ServerAction {
        self.login = Some(user);
        ServerAction::Reply(table::AUTHENTICATED.into())
    }
}
