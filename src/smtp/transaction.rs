//! One mail transaction: what MAIL and RCPT have said so far (RFC 5321 §3.3).

use std::collections::HashSet;

use crate::mail::{Destination, Mailbox, Recipient, ReversePath, SenderFacts, TlsInfo};

use super::body::BodyReader;
use super::command::HelloName;
use super::parameters::{MailParameters, RecipientParameters};

/// An open transaction, with all that the envelope needs.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// What was found out about the sender: the answer to the question about MAIL. It ends with the
    /// transaction.
    pub sender: SenderFacts,
    /// Final destinations, after aliases, in the order of RCPT; none twice.
    pub recipients: Vec<Recipient>,
    /// The name from HELO or EHLO.
    pub hello: HelloName,
    /// The client sent EHLO, not HELO.
    pub is_esmtp: bool,
    /// The user that has logged in.
    pub login: Option<Mailbox>,
    /// The TLS session, if there is one.
    pub tls: Option<TlsInfo>,
    /// The number of accepted forward-paths, which `recipients_max` limits.
    pub accepted_count: usize,
    /// The reader of a message in chunks, from its first chunk on.
    pub(super) chunk_reader: Option<BodyReader>,
    seen_destinations: HashSet<Destination>,
}

impl Transaction {
    pub(super) fn new(
        begun: TransactionOrigin,
        reverse_path: ReversePath,
        parameters: MailParameters,
        sender: SenderFacts,
    ) -> Self {
        let TransactionOrigin { hello, is_esmtp, login, tls } = begun;
        Self {
            reverse_path,
            parameters,
            sender,
            recipients: Vec::new(),
            hello,
            is_esmtp,
            login,
            tls,
            accepted_count: 0,
            chunk_reader: None,
            seen_destinations: HashSet::new(),
        }
    }

    /// Adds the recipients behind an accepted forward-path. A destination that the transaction has already
    /// is not added again.
    ///
    /// RFC 3461 §5.2.7: every recipient behind an alias gets the NOTIFY of the alias, and its ORCPT, if the
    /// client sent one.
    pub(super) fn add_recipients(&mut self, recipients: Vec<Recipient>, parameters: &RecipientParameters) {
        self.accepted_count += 1;
        for recipient in recipients {
            if self.seen_destinations.insert(recipient.destination.clone()) {
                let RecipientParameters { notify, orcpt } = parameters.clone();
                self.recipients.push(Recipient { notify, orcpt, ..recipient });
            }
        }
    }
}

/// What the session has established when a transaction begins.
pub(super) struct TransactionOrigin {
    pub(super) hello: HelloName,
    pub(super) is_esmtp: bool,
    pub(super) login: Option<Mailbox>,
    pub(super) tls: Option<TlsInfo>,
}
