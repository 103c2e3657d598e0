//! MAIL and RCPT: who sends, and to whom (RFC 5321 §3.3).

use super::{PendingQuestion, ReceivedHello, Server, ServerKind};
use crate::mail::{ForwardPath, Recipient, ReversePath, SenderFacts};
use crate::smtp::action::{Question, ServerAction};
use crate::smtp::parameters::{MailParameters, RecipientParameters};
use crate::smtp::refusal::{not_ascii, out_of_order, too_big};
use crate::smtp::reply::Reply;
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

    /// All that the machine itself has to say against a MAIL command.
    fn check_mail(&self, parameters: &MailParameters, is_ascii: bool) -> Result<(), Reply> {
        if self.hello.is_none() {
            return Err(out_of_order("Say EHLO first"));
        }
        if self.transaction.is_some() {
            return Err(out_of_order("There is a transaction already; RSET ends it"));
        }
        // RFC 6409 §4.3, RFC 4954 §6.
        if self.settings.kind == ServerKind::Submission && self.login.is_none() {
            let text = if self.tls.is_some() { "Log in first" } else { "Log in first; that takes TLS" };
            return Err(Reply::new(530, 7, 0, text));
        }
        // RFC 5321 §2.2.1: who said HELO has been offered no extension.
        if !self.is_esmtp() && *parameters != MailParameters::default() {
            return Err(parameters_need_ehlo());
        }
        // RFC 6531 §3.5.
        if !is_ascii && !parameters.smtputf8 {
            return Err(not_ascii());
        }
        let octets_max = self.settings.message_octets_max;
        if octets_max > 0 && parameters.size.is_some_and(|size| size > octets_max) {
            return Err(too_big());
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
        ServerAction::Reply(Reply::new(250, 1, 0, "Sender is fine"))
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

    /// All that the machine itself has to say against a RCPT command.
    fn check_rcpt(&self, parameters: &RecipientParameters, is_ascii: bool) -> Result<(), Reply> {
        let Some(transaction) = &self.transaction else {
            return Err(out_of_order("MAIL comes before RCPT"));
        };
        if transaction.chunk_reader.is_some() {
            return Err(out_of_order("The message is on its way; RSET ends it"));
        }
        if transaction.accepted_count >= self.settings.recipients_max {
            // RFC 5321 §4.5.3.1.10: the client sends the message again to the rest.
            return Err(Reply::new(452, 5, 3, "Too many recipients, the others in another transaction"));
        }
        if !self.is_esmtp() && *parameters != RecipientParameters::default() {
            return Err(parameters_need_ehlo());
        }
        if !is_ascii && !transaction.parameters.smtputf8 {
            return Err(not_ascii());
        }
        Ok(())
    }

    pub(super) fn accept_recipients(
        &mut self,
        recipients: Vec<Recipient>,
        parameters: &RecipientParameters,
    ) -> ServerAction {
        if recipients.is_empty() {
            return self.refuse(Reply::new(550, 1, 1, "There is nobody behind this address"));
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.add_recipients(recipients, parameters);
        }
        ServerAction::Reply(Reply::new(250, 1, 5, "Recipient is fine"))
    }
}

fn parameters_need_ehlo() -> Reply {
    Reply::new(555, 5, 4, "Parameters take EHLO")
}
