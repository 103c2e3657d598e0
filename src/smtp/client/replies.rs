//! What the replies in a transaction mean, for each recipient and for the connection.

use super::commands::Asked;
use super::plan::Protocol;
use super::{Client, State, Step, Wait};
use crate::mail::{Failure, Outcome, Reason};
use crate::smtp::Reply;

impl Client {
    /// The reply to the oldest command that has none yet (RFC 2920 §3.1: they come in order).
    pub(super) fn on_transaction(&mut self, reply: &Reply) -> Step {
        match self.asked.pop_front() {
            Some(Asked::Rset) if reply.is_positive() => self.is_in_transaction = false,
            Some(Asked::Rset) => return self.interrupted(&format!("RSET was refused: {reply}")),
            Some(Asked::Mail) => self.on_mail(reply),
            Some(Asked::Rcpt(n)) => self.on_rcpt(n, reply),
            Some(Asked::Data) => return self.on_data(reply),
            None => return self.interrupted(&format!("a reply that nothing asked for: {reply}")),
        }
        match self.asked.front() {
            Some(asked) => Step::Receive(asked.wait()),
            None => self.next_group(),
        }
    }

    fn on_mail(&mut self, reply: &Reply) {
        let was_untested = std::mem::replace(&mut self.is_untested, false);
        if reply.is_positive() {
            self.is_in_transaction = true;
            return;
        }
        // RFC 3207 §4: it asks for the TLS that it offered and that did not work out. That is a refusal of
        // this connection and not of the sender.
        let wants_tls = reply.code == 530 && self.offers.starttls && !self.is_encrypted;
        match reply.to_failure(&self.plan.host_said(), "the sender") {
            Failure::Permanent(reason) if wants_tls => {
                self.fates.leave_all_open(&Failure::Transient(reason));
            }
            failure @ Failure::Permanent(_) => self.fates.answer_unsettled(&failure.into()),
            // No transaction took place: another host may be in a better mood.
            failure @ Failure::Transient(_) => {
                // Some say so after so many messages, and mean the connection.
                self.is_stale = was_untested;
                self.fates.leave_all_open(&failure);
            }
        }
    }

    fn on_rcpt(&mut self, n: usize, reply: &Reply) {
        // RFC 5321 §4.5.3.1.10: the next transaction takes them, in the same connection.
        if reply.is_too_many_recipients() && self.fates.has_accepted() {
            return;
        }
        // Whoever is settled already (MAIL was refused) is not unsettled by what follows in the group.
        if reply.is_positive() {
            return self.fates.accept(n);
        }
        let failure = match reply.to_failure(&self.plan.host_said(), "the recipient") {
            // RFC 5321 §4.5.3.1.10: some servers say 552 where they mean 452, too many at once. In LMTP it
            // is a mailbox that is full, and whether that may be tried again the server has decided.
            Failure::Permanent(reason) if reply.code == 552 && self.plan.protocol == Protocol::Smtp => {
                Failure::Transient(reason)
            }
            failure => failure,
        };
        self.fates.answer(n, failure.into());
    }

    fn on_data(&mut self, reply: &Reply) -> Step {
        match (reply.code / 100 == 3, self.fates.has_accepted()) {
            (true, true) => {
                self.state = State::Message;
                Step::SendMessage
            }
            // RFC 2920 §3.1: it waits for a message that nobody is to get.
            (true, false) => match self.plan.protocol {
                Protocol::Smtp => {
                    self.state = State::LoneDot;
                    Step::Send(b".\r\n".to_vec(), Wait::Dot)
                }
                // RFC 2033 §4.2: for nobody, there are no replies.
                Protocol::Lmtp => {
                    (self.is_sound, self.state) = (false, State::Over);
                    Step::Quit(b".\r\nQUIT\r\n".to_vec())
                }
            },
            (false, _) => {
                let failure = reply.to_failure(&self.plan.host_said(), "DATA");
                self.fates.answer_unsettled(&failure.into());
                self.finish()
            }
        }
    }

    /// The peer did not wait for the end of the message.
    pub(super) fn on_early_reply(&mut self, reply: &Reply) -> Step {
        let failure = reply.to_failure(&self.plan.host_said(), "the message before its end");
        self.fates.answer_unsettled(&failure.into());
        self.state = State::Over;
        // What we say now would be part of the message.
        Step::Close
    }

    pub(super) fn on_dot(&mut self, reply: &Reply) -> Step {
        let outcome = if reply.is_positive() {
            let (subject, detail) = reply.status.map_or((0, 0), |status| (status.subject, status.detail));
            let mut reason =
                Reason::new(subject, detail, "accepted").with_remote(self.plan.host_said(), reply.said());
            if self.offers.dsn {
                reason = reason.with_dsn_taken();
            }
            Outcome::Delivered(reason)
        } else {
            reply.to_failure(&self.plan.host_said(), "the message").into()
        };
        match self.plan.protocol {
            // RFC 2033 §4.2: one reply for each recipient that RCPT was accepted for, in that order.
            Protocol::Lmtp => self.fates.answer_accepted(&outcome, 1),
            Protocol::Smtp if reply.is_positive() => self.fates.answer_accepted(&outcome, usize::MAX),
            // A message that is refused is so for those, too, who would have been named next.
            Protocol::Smtp => self.fates.answer_unsettled(&outcome),
        }
        if self.fates.has_accepted() {
            return Step::Receive(Wait::Dot);
        }
        self.is_in_transaction = false;
        self.transactions += 1;
        // RFC 5321 §3.8: it answers the message, and is the end of the connection.
        if reply.code == 421 { self.quit() } else { self.finish() }
    }

    /// The transaction is over: another for those for whom it had no room, if the peer takes one. Each
    /// transaction has answers for at least one recipient, so that there is an end.
    pub(super) fn finish(&mut self) -> Step {
        self.is_sound = true;
        if self.fates.has_waiting() && self.has_transactions_left() {
            return self.go_ahead();
        }
        self.quit()
    }
}
