//! Interprets the replies in a transaction, for each recipient and for the connection.

use super::commands::PendingCommand;
use super::plan::Protocol;
use super::{Client, ClientState, ClientStep, Wait};
use crate::mail::{Failure, Outcome, Reason};
use crate::smtp::Reply;

impl Client {
    /// Takes the reply to the oldest unanswered command (RFC 2920 §3.1: replies come in order).
    pub(super) fn on_transaction(&mut self, reply: &Reply) -> ClientStep {
        match self.pending_commands.pop_front() {
            Some(PendingCommand::Rset) if reply.is_positive() => self.is_in_transaction = false,
            Some(PendingCommand::Rset) => return self.interrupted(&format!("RSET was refused: {reply}")),
            Some(PendingCommand::Mail) => self.on_mail(reply),
            Some(PendingCommand::Rcpt(n)) => self.on_rcpt(n, reply),
            Some(PendingCommand::Data) => return self.on_data(reply),
            None => return self.interrupted(&format!("a reply that nothing asked for: {reply}")),
        }
        match self.pending_commands.front() {
            Some(asked) => ClientStep::Receive(asked.wait()),
            None => self.next_group(),
        }
    }

    fn on_mail(&mut self, reply: &Reply) {
        let was_untested = std::mem::replace(&mut self.is_reuse_unconfirmed, false);
        if reply.is_positive() {
            self.is_in_transaction = true;
            return;
        }
        // RFC 3207 §4: the peer requires the TLS that it offered and that failed. It refuses this
        // connection, not the sender.
        let wants_tls = reply.code == 530 && self.extensions.starttls && !self.is_encrypted;
        match reply.to_failure(&self.plan.remote_mta_name(), "the sender") {
            Failure::Permanent(reason) if wants_tls => {
                self.progress.leave_all_to_other_hosts(&Failure::Transient(reason));
            }
            failure @ Failure::Permanent(_) => self.progress.settle_remaining(&failure.into()),
            // No transaction took place: another host may accept the message.
            failure @ Failure::Transient(_) => {
                // Some peers refuse MAIL after a number of messages and mean the connection.
                self.is_stale = was_untested;
                self.progress.leave_all_to_other_hosts(&failure);
            }
        }
    }

    fn on_rcpt(&mut self, n: usize, reply: &Reply) {
        // RFC 5321 §4.5.3.1.10: the recipient waits for the next transaction on the same connection.
        if reply.is_too_many_recipients() && self.progress.has_accepted() {
            return;
        }
        // A recipient with an answer (MAIL was refused) keeps it whatever follows in the group.
        if reply.is_positive() {
            return self.progress.set_accepted(n);
        }
        let failure = match reply.to_failure(&self.plan.remote_mta_name(), "the recipient") {
            // RFC 5321 §4.5.3.1.10: some servers send 552 instead of 452 for too many recipients. In LMTP
            // 552 is a full mailbox, and the server has decided that it is permanent.
            Failure::Permanent(reason) if reply.code == 552 && self.plan.protocol == Protocol::Smtp => {
                Failure::Transient(reason)
            }
            failure => failure,
        };
        self.progress.settle(n, failure.into());
    }

    fn on_data(&mut self, reply: &Reply) -> ClientStep {
        match (reply.code / 100 == 3, self.progress.has_accepted()) {
            (true, true) => {
                self.state = ClientState::Message;
                ClientStep::SendMessage
            }
            // RFC 2920 §3.1: the peer waits for a message, but no recipient was accepted.
            (true, false) => match self.plan.protocol {
                Protocol::Smtp => {
                    self.state = ClientState::LoneDot;
                    ClientStep::Send(b".\r\n".to_vec(), Wait::Dot)
                }
                // RFC 2033 §4.2: without recipients there are no replies to the dot.
                Protocol::Lmtp => {
                    (self.is_usable, self.state) = (false, ClientState::Closed);
                    ClientStep::Quit(b".\r\nQUIT\r\n".to_vec())
                }
            },
            (false, _) => {
                let failure = reply.to_failure(&self.plan.remote_mta_name(), "DATA");
                self.progress.settle_remaining(&failure.into());
                self.finish()
            }
        }
    }

    /// Takes a reply before the end of the message.
    pub(super) fn on_early_reply(&mut self, reply: &Reply) -> ClientStep {
        let failure = reply.to_failure(&self.plan.remote_mta_name(), "the message before its end");
        self.progress.settle_remaining(&failure.into());
        self.state = ClientState::Closed;
        // A command would become part of the message.
        ClientStep::Close
    }

    pub(super) fn on_dot(&mut self, reply: &Reply) -> ClientStep {
        let outcome = if reply.is_positive() {
            let (subject, detail) = reply.status.map_or((0, 0), |status| (status.subject, status.detail));
            let mut reason = Reason::new(subject, detail, "accepted")
                .with_response(self.plan.remote_mta_name(), reply.printable_text());
            if self.extensions.dsn {
                reason = reason.with_dsn_accepted();
            }
            Outcome::Delivered(reason)
        } else {
            reply.to_failure(&self.plan.remote_mta_name(), "the message").into()
        };
        match self.plan.protocol {
            // RFC 2033 §4.2: one reply for each accepted recipient, in the order of RCPT.
            Protocol::Lmtp => self.progress.settle_accepted(&outcome, 1),
            Protocol::Smtp if reply.is_positive() => self.progress.settle_accepted(&outcome, usize::MAX),
            // The refusal of a message also applies to the recipients of the next transaction.
            Protocol::Smtp => self.progress.settle_remaining(&outcome),
        }
        if self.progress.has_accepted() {
            return ClientStep::Receive(Wait::Dot);
        }
        self.is_in_transaction = false;
        self.transaction_count += 1;
        // RFC 5321 §3.8: 421 answers the message and ends the connection.
        if reply.code == 421 { self.quit() } else { self.finish() }
    }

    /// Ends the transaction. Begins another one for recipients that it had no room for, if the peer takes
    /// one. Each transaction answers at least one recipient, so that this ends.
    pub(super) fn finish(&mut self) -> ClientStep {
        self.is_usable = true;
        if self.progress.has_waiting() && self.has_transactions_left() {
            return self.begin_transactions();
        }
        self.quit()
    }
}
