//! The commands before mail: the greeting, HELO and EHLO, and STARTTLS.

use std::num::NonZeroU32;

use super::{ReceivedHello, Server, ServerStage};
use crate::mail::TlsInfo;
use crate::smtp::action::ServerAction;
use crate::smtp::command::HelloName;
use crate::smtp::extension::{Extensions, LimitsExtension};
use crate::smtp::reply_table as table;

impl Server {
    /// The greeting, for a connection that has just been accepted.
    pub fn greeting(&mut self) -> ServerAction {
        ServerAction::Reply(table::greeting(self.hostname()))
    }

    pub(super) fn helo(&mut self, hello: HelloName) -> ServerAction {
        self.set_hello(hello, false);
        ServerAction::Reply(table::hello(self.hostname(), Vec::new()))
    }

    pub(super) fn ehlo(&mut self, hello: HelloName) -> ServerAction {
        self.set_hello(hello, true);
        ServerAction::Reply(table::hello(self.hostname(), self.extensions().to_lines()))
    }

    /// RFC 5321 §4.1.4: EHLO and HELO clear the transaction.
    fn set_hello(&mut self, hello: HelloName, is_esmtp: bool) {
        self.transaction = None;
        self.hello = Some(ReceivedHello { hello, is_esmtp });
    }

    fn extensions(&self) -> Extensions {
        Extensions {
            pipelining: true,
            size: Some(self.settings.message_octets_max),
            eight_bit_mime: true,
            enhanced_status_codes: true,
            smtputf8: true,
            chunking: true,
            dsn: true,
            // The number of transactions in a session is not limited.
            limits: LimitsExtension { rcpt_max: self.rcpt_max(), ..LimitsExtension::default() },
            starttls: self.settings.has_tls && self.tls.is_none(),
            auth: self.mechanism_names(),
            help: true,
        }
    }

    fn rcpt_max(&self) -> Option<NonZeroU32> {
        u32::try_from(self.settings.recipients_max).ok().and_then(NonZeroU32::new)
    }

    pub(super) fn starttls(&mut self) -> ServerAction {
        if self.tls.is_some() {
            return self.refuse(table::ALREADY_TLS);
        }
        if !self.settings.has_tls {
            return self.refuse(table::NO_STARTTLS);
        }
        self.stage = ServerStage::Handshake;
        ServerAction::StartTls(table::STARTTLS_READY.into())
    }

    /// Ends the handshake after [`ServerAction::StartTls`]; `None` if it failed.
    pub fn handshake_done(&mut self, facts: Option<TlsInfo>) -> ServerAction {
        if !matches!(self.stage, ServerStage::Handshake) {
            return self.close_with_fault();
        }
        let Some(facts) = facts else {
            // A client in the middle of a handshake would not understand a reply.
            self.stage = ServerStage::Closed;
            return ServerAction::Close;
        };
        // RFC 3207 §4.2: what came in plain text may have been sent by a third party.
        self.tls = Some(facts);
        self.hello = None;
        self.login = None;
        self.transaction = None;
        self.stage = ServerStage::Command;
        ServerAction::Continue
    }
}
