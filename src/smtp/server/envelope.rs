//! MAIL and RCPT: the sender and the recipients (RFC 5321 §3.3).

use super::{PendingQuestion, ReceivedHello, Server, ServerKind};
use crate::mail::{ForwardPath, Recipient, ReversePath, SenderFacts};
use crate::smtp::action::{Question, ServerAction};
use crate::smtp::parameters::{MailParameters, RecipientParameters};
use crate::smtp::reply_table::{self as table, FixedReply};
use crate::smtp::transaction::{Transaction, TransactionOrigin};

impl Server {
    pub(super) fn mail(
        &mut self,
        reverse_path: ReversePath,
        parameters: MailParameters,
        is_ascii: bool,
    ) -> ServerAction {
        self.command_paths.reverse_path = Some(reverse_path.clone());
        if let Err(reply) = self.check_mail(&parameters, is_ascii) {
            return self.refuse(reply);
        }
        let asked = PendingQuestion::Sender(reverse_path.clone(), parameters.clone());
        self.ask(Question::Sender { reverse_path, parameters }, asked)
    }

    /// The checks of MAIL that need no question.
    fn check_mail(&self, parameters: &MailParameters, is_ascii: bool) -> Result<(), FixedReply> {
        if self.hello.is_none() {
            return Err(table::EHLO_FIRST);
        }
        if self.transaction.is_some() {
            return Err(table::MAIL_IN_TRANSACTION);
        }
        // RFC 6409 §4.3, RFC 4954 §6.
        if self.settings.kind == ServerKind::Submission && self.login.is_none() {
            let has_tls = self.tls.is_some();
            return Err(if has_tls { table::LOGIN_REQUIRED } else { table::TLS_AND_LOGIN_REQUIRED });
        }
        // RFC 5321 §2.2.1: a client that sent HELO was offered no extension.
        if !self.is_esmtp() && *parameters != MailParameters::default() {
            return Err(table::PARAMETERS_NEED_EHLO);
        }
        // RFC 6531 §3.5.
        if !is_ascii && !parameters.smtputf8 {
            return Err(table::SMTPUTF8_REQUIRED);
        }
        let octets_max = self.settings.message_octets_max;
        if octets_max > 0 && parameters.size.is_some_and(|size| size > octets_max) {
            return Err(table::TOO_LARGE);
        }
        Ok(())
    }

    pub(super) fn begin_transaction(
        &mut self,
        reverse_path: ReversePath,
        parameters: MailParameters,
        sender: SenderFacts,
    ) -> ServerAction {
        let Some(ReceivedHello { hello, is_esmtp }) = &self.hello else { return self.close_with_fault() };
        let begun = TransactionOrigin {
            hello: hello.clone(),
            is_esmtp: *is_esmtp,
            login: self.login.clone(),
            tls: self.tls.clone(),
        };
        self.transaction = Some(Transaction::new(begun, reverse_path, parameters, sender));
        ServerAction::Reply(table::SENDER_ACCEPTED.into())
    }

    pub(super) fn rcpt(
        &mut self,
        forward_path: ForwardPath,
        parameters: RecipientParameters,
        is_ascii: bool,
    ) -> ServerAction {
        self.command_paths.forward_path = Some(forward_path.clone());
        if let Err(reply) = self.check_rcpt(&parameters, is_ascii) {
            return self.refuse(reply);
        }
        self.ask(Question::Recipient(forward_path), PendingQuestion::Recipient(parameters))
    }

    /// The checks of RCPT that need no question.
    fn check_rcpt(&self, parameters: &RecipientParameters, is_ascii: bool) -> Result<(), FixedReply> {
        let Some(transaction) = &self.transaction else {
            return Err(table::MAIL_FIRST);
        };
        if transaction.chunk_reader.is_some() {
            return Err(table::RCPT_AFTER_BDAT);
        }
        if transaction.accepted_count >= self.settings.recipients_max {
            return Err(table::TOO_MANY_RECIPIENTS);
        }
        if !self.is_esmtp() && *parameters != RecipientParameters::default() {
            return Err(table::PARAMETERS_NEED_EHLO);
        }
        if !is_ascii && !transaction.parameters.smtputf8 {
            return Err(table::SMTPUTF8_REQUIRED);
        }
        Ok(())
    }

    pub(super) fn accept_recipients(
        &mut self,
        recipients: Vec<Recipient>,
        parameters: &RecipientParameters,
    ) -> ServerAction {
        if recipients.is_empty() {
            return self.refuse(table::NO_SUCH_RECIPIENT);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.add_recipients(recipients, parameters);
        }
        ServerAction::Reply(table::RECIPIENT_ACCEPTED.into())
    }
}
