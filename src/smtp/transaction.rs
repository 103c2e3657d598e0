//! One mail transaction: what MAIL and RCPT have said so far (RFC 5321 §3.3).

use std::collections::HashSet;

use crate::mail::{Destination, Mailbox, Recipient, ReversePath, SenderFacts, TlsInfo};

use super::body::BodyReader;
use super::command::HelloName;
use super::parameters::{MailParameters, RecipientParameters};

/// A transaction that is under way: all that the envelope and the stamp need to know of it.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// What the client asked for in MAIL.
    pub parameters: MailParameters,
    /// What was found out about the sender: the answer to the question about MAIL.
    pub sender: SenderFacts,
    /// Final destinations, after aliases, in the order of RCPT; none twice.
    pub recipients: Vec<Recipient>,
    /// What the client calls itself.
    pub hello: HelloName,
    /// It said EHLO, not HELO.
    pub is_esmtp: bool,
    /// The user that has logged in.
    pub login: Option<Mailbox>,
    /// The TLS session, if there is one.
    pub tls: Option<TlsInfo>,
    /// Forward-paths that were accepted: what `recipients_max` counts.
    pub accepted_count: usize,
    /// What has read the message so far, if it comes in chunks and the first one is here.
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

    /// One more forward-path is accepted. Who is a recipient already does not become one twice.
    ///
    /// RFC 3461 §5.2.7: what the sender wants to hear goes with everybody behind an alias. ORCPT
    /// stays as the client wrote it; where it wrote none, none is made up.
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

/// What a session knows of its client when a transaction begins.
pub(super) struct TransactionOrigin {
    pub(super) hello: HelloName,
    pub(super) is_esmtp: bool,
    pub(super) login: Option<Mailbox>,
    pub(super) tls: Option<TlsInfo>,
}
