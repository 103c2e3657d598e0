//! What comes before mail: the greeting, HELO and EHLO, and STARTTLS.

use std::num::NonZeroU32;

use super::{Awaits, Greeted, Server};
use crate::mail::TlsFacts;
use crate::smtp::action::Action;
use crate::smtp::command::Hello;
use crate::smtp::extension::{Extensions, Limits};
use crate::smtp::refusal::out_of_order;
use crate::smtp::reply::Reply;

impl Server {
    /// The first words. RFC 2034 §4: without an enhanced status.
    pub fn greeting(&mut self) -> Action {
        Action::Reply(Reply::plain(220, format!("{} ESMTP postrider", self.name())))
    }

    pub(super) fn helo(&mut self, hello: Hello) -> Action {
        self.greet(hello, false);
        Action::Reply(Reply::plain(250, self.name()))
    }

    pub(super) fn ehlo(&mut self, hello: Hello) -> Action {
        self.greet(hello, true);
        let mut reply = Reply::plain(250, self.name());
        reply.lines.extend(self.extensions().to_lines());
        Action::Reply(reply)
    }

    /// RFC 5321 §4.1.4: EHLO and HELO clear the transaction.
    fn greet(&mut self, hello: Hello, is_esmtp: bool) {
        self.transaction = None;
        self.hello = Some(Greeted { hello, is_esmtp });
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
            // A session may hold as many transactions as it has time for.
            limits: Limits { rcpt_max: self.rcpt_max(), ..Limits::default() },
            starttls: self.settings.tls_available && self.tls.is_none(),
            auth: self.mechanisms(),
            help: true,
        }
    }

    fn rcpt_max(&self) -> Option<NonZeroU32> {
        u32::try_from(self.settings.recipients_max).ok().and_then(NonZeroU32::new)
    }

    pub(super) fn starttls(&mut self) -> Action {
        if self.tls.is_some() {
            return self.refuse(out_of_order("This is TLS already"));
        }
        if !self.settings.tls_available {
            return self.refuse(Reply::new(502, 5, 1, "STARTTLS is not available"));
        }
        self.awaits = Awaits::Handshake;
        Action::StartTls(Reply::new(220, 0, 0, "Go ahead with TLS"))
    }

    /// The handshake after [`Action::StartTls`] is over; `None` if it failed.
    pub fn tls(&mut self, facts: Option<TlsFacts>) -> Action {
        if !matches!(self.awaits, Awaits::Handshake) {
            return self.broken();
        }
        let Some(facts) = facts else {
            // In the middle of a handshake there is nothing to be said that would be understood.
            self.awaits = Awaits::Nothing;
            return Action::Close;
        };
        // RFC 3207 §4.2: what was said in plain text may have been said by anybody.
        self.tls = Some(facts);
        self.hello = None;
        self.login = None;
        self.transaction = None;
        self.awaits = Awaits::Command;
        Action::Continue
    }
}
