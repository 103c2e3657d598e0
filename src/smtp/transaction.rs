//! One mail transaction: what MAIL and RCPT have said so far (RFC 5321 §3.3).

use std::collections::HashSet;

use crate::mail::{Destination, Mailbox, Recipient, ReversePath, TlsFacts};

use super::body::BodyReader;
use super::command::Hello;
use super::parameters::{MailParameters, RecipientParameters};

/// A transaction that is under way: all that the envelope and the stamp need to know of it.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// What the client asked for in MAIL.
    pub parameters: MailParameters,
    /// Final destinations, after aliases, in the order of RCPT; none twice.
    pub recipients: Vec<Recipient>,
    /// What the client calls itself.
    pub hello: Hello,
    /// It said EHLO, not HELO.
    pub is_esmtp: bool,
    /// The user that has logged in.
    pub login: Option<Mailbox>,
    /// The TLS session, if there is one.
    pub tls: Option<TlsFacts>,
    /// Forward-paths that were accepted: what `recipients_max` counts.
    pub accepted: usize,
    /// What has read the message so far, if it comes in chunks and the first one is here.
    pub(super) chunks: Option<BodyReader>,
    seen: HashSet<Destination>,
}

impl Transaction {
    pub(super) fn new(begun: Begun, reverse_path: ReversePath, parameters: MailParameters) -> Self {
        let Begun { hello, is_esmtp, login, tls } = begun;
        Self {
            reverse_path,
            parameters,
            recipients: Vec::new(),
            hello,
            is_esmtp,
            login,
            tls,
            accepted: 0,
            chunks: None,
            seen: HashSet::new(),
        }
    }

    /// One more forward-path is accepted. Who is a recipient already does not become one twice.
    ///
    /// RFC 3461 §5.2.7: what the sender wants to hear goes with everybody behind an alias. ORCPT
    /// stays as the client wrote it; where it wrote none, none is made up.
    pub(super) fn accept(&mut self, recipients: Vec<Recipient>, parameters: &RecipientParameters) {
        self.accepted += 1;
        for recipient in recipients {
            if self.seen.insert(recipient.destination.clone()) {
                let RecipientParameters { notify, orcpt } = parameters.clone();
                self.recipients.push(Recipient { notify, orcpt, ..recipient });
            }
        }
    }
}

/// What a session knows of its client when a transaction begins.
pub(super) struct Begun {
    pub(super) hello: Hello,
    pub(super) is_esmtp: bool,
    pub(super) login: Option<Mailbox>,
    pub(super) tls: Option<TlsFacts>,
}
