//! The SMTP and LMTP client as a state machine without a socket.
//!
//! It takes replies and returns steps. It decides which command may be sent when, what each reply means for
//! each recipient, and when another host should be tried. The end of input, a timeout and a failed
//! handshake are inputs, too. No reply of a peer makes it panic.
//!
//! It guarantees: every recipient has a [`RecipientResult`] at the end; a recipient that the reply to the
//! final dot accepted stays delivered whatever happens later; what a peer said before TLS has no effect
//! after it; no 8-bit octet goes to a peer that did not offer 8BITMIME.
//!
//! It does not send the message (the caller streams it), hold the connection, choose hosts, or decide
//! whether the TLS of a connection is good enough (the caller does at [`ClientStep::CheckEncryption`]).
//!
//! A connection can carry several messages: when one is decided, [`Client::begin_message`] takes the next,
//! as long as [`Client::is_reusable`] is true.
//!
//! Called by `courier/smtp` and `courier/lmtp`, one client for each connection. LMTP differs in two things:
//! the verb LHLO, and one reply to the final dot for each accepted recipient (`replies`).
//!
//! - `plan`: the message, the recipients and the host
//! - `step`: what the caller does next
//! - `commands`: writes the commands of a transaction
//! - `replies`: interprets the replies in a transaction
//! - `recipient_progress`: what became of each recipient
//! - `auth`: logs in
//!
//! This file has the connection: greeting, EHLO, TLS, the transactions, and the end.
//!
//! Standards: RFC 5321, 1870 (SIZE), 2033 (LMTP), 2920 (PIPELINING), 3207 (STARTTLS), 3461 (DSN), 4954
//! (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422 (LIMITS).

mod auth;
mod commands;
mod plan;
mod recipient_progress;
mod replies;
mod step;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::auth::AuthStage;
use self::commands::{NextCommand, PendingCommand};
use self::recipient_progress::TransactionProgress;
use super::extension::Extensions;
use super::reply::Reply;
use crate::mail::{Domain, Failure};

pub use self::auth::Credentials;
pub use self::plan::{Encryption, Plan, PlannedRecipient, Protocol};
pub use self::recipient_progress::RecipientResult;
pub use self::step::{ClientStep, Wait};

/// One connection to one host.
#[derive(Debug)]
pub struct Client {
    plan: Plan,
    state: ClientState,
    extensions: Extensions,
    progress: TransactionProgress,
    next: NextCommand,
    pending_commands: VecDeque<PendingCommand>,
    is_encrypted: bool,
    is_logged_in: bool,
    refused_starttls: Option<Reply>,
    /// Domains of the recipients that this transaction has named.
    named_domains: Vec<Domain>,
    /// Transactions that ended.
    transaction_count: u32,
    /// MAIL was accepted, and the transaction has not ended.
    is_in_transaction: bool,
    /// The peer has refused nothing that concerns the connection: it can be used again.
    is_usable: bool,
    /// The connection has carried a message before, and the peer has not answered MAIL since.
    is_reuse_unconfirmed: bool,
    is_stale: bool,
    /// The peer has sent a reply.
    has_received_reply: bool,
    /// The reason for recipients without an answer at the end.
    final_failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    EncryptionKnown,
    Login(AuthStage),
    Transaction,
    Message,
    Dot,
    /// All recipients were refused, but 354 came.
    LoneDot,
    Closed,
}

impl Client {
    /// Begins a connection.
    pub fn new(plan: Plan) -> (Self, ClientStep) {
        let progress = TransactionProgress::new(plan.recipients.len());
        let mut client = Self {
            plan,
            state: ClientState::Greeting,
            extensions: Extensions::default(),
            progress,
            next: NextCommand::Mail,
            pending_commands: VecDeque::new(),
            is_encrypted: false,
            is_logged_in: false,
            refused_starttls: None,
            named_domains: Vec::new(),
            transaction_count: 0,
            is_in_transaction: false,
            is_usable: false,
            is_reuse_unconfirmed: false,
            is_stale: false,
            has_received_reply: false,
            final_failure: None,
        };
        match client.plan.encryption {
            Encryption::ImplicitTls => {
                client.state = ClientState::Handshake;
                (client, ClientStep::StartTls)
            }
            Encryption::Opportunistic | Encryption::Never => (client, ClientStep::Receive(Wait::Greeting)),
        }
    }

    /// Takes a reply of the peer.
    pub fn reply(&mut self, reply: &Reply) -> ClientStep {
        self.has_received_reply = true;
        // RFC 5321 §3.8: 421 may come at any time, and the connection is over. After the final dot it
        // answers the message, which is then not given to another host; in LMTP it answers one recipient,
        // and recipients without a reply when the connection ends are deferred.
        if reply.code == 421 && self.state != ClientState::Dot {
            return self
                .close(reply.to_failure(&self.plan.remote_mta_name(), "to go on").with_destination_scope());
        }
        match self.state {
            ClientState::Greeting if reply.is_positive() => self.send_hello(ClientState::Ehlo),
            ClientState::Greeting => self.quit_after_refusal(reply, "the session"),
            ClientState::Ehlo => self.on_ehlo(reply),
            ClientState::Helo if reply.is_positive() => self.check_encryption(),
            ClientState::Helo => self.quit_after_refusal(reply, "HELO"),
            ClientState::StartTls if reply.code == 220 => {
                self.state = ClientState::Handshake;
                ClientStep::StartTls
            }
            // RFC 3207 §4: the refusal does not affect the connection. The caller decides whether plain
            // text is good enough.
            ClientState::StartTls => {
                self.refused_starttls = Some(reply.clone());
                self.check_encryption()
            }
            ClientState::Login(stage) => self.on_auth_reply(stage, reply),
            ClientState::Transaction => self.on_transaction(reply),
            ClientState::Message => self.on_early_reply(reply),
            ClientState::Dot => self.on_dot(reply),
            ClientState::LoneDot => self.finish(),
            ClientState::Handshake | ClientState::EncryptionKnown | ClientState::Closed => {
                self.interrupted(&format!("a reply that nothing asked for: {reply}"))
            }
        }
    }

    /// The handshake succeeded.
    pub fn handshake_succeeded(&mut self) -> ClientStep {
        self.is_encrypted = true;
        if self.plan.encryption == Encryption::ImplicitTls {
            self.state = ClientState::Greeting;
            return ClientStep::Receive(Wait::Greeting);
        }
        // RFC 3207 §4.2: the extensions that were offered before are forgotten.
        self.extensions = Extensions::default();
        self.send_hello(ClientState::Ehlo)
    }

    /// The handshake failed; `why` is the text of the TLS library.
    pub fn handshake_failed(&mut self, why: &str) -> ClientStep {
        self.close(
            Failure::transient(
                7,
                5,
                format!("TLS handshake with {} failed: {why}", self.plan.peer_description()),
            )
            .with_destination_scope(),
        )
    }

    /// The reply by which the peer refused the STARTTLS that it offered; the connection is in plain text.
    #[must_use]
    pub fn refused_starttls(&self) -> Option<&Reply> {
        self.refused_starttls.as_ref()
    }

    /// Leaves a recipient, given by its position in the plan, without an answer from this host, because the
    /// connection is not good enough for it.
    pub fn withhold(&mut self, recipient: usize, failure: Failure) {
        self.progress.leave_to_other_hosts(recipient, failure);
    }

    /// Begins the transaction for all recipients that were not withheld.
    pub fn begin_transactions(&mut self) -> ClientStep {
        self.is_usable = false;
        self.refuse_unsendable();
        if self.needs_login() && self.progress.has_waiting() {
            return self.log_in();
        }
        self.begin_transaction()
    }

    fn begin_transaction(&mut self) -> ClientStep {
        self.state = ClientState::Transaction;
        self.next = if self.is_in_transaction { NextCommand::Rset } else { NextCommand::Mail };
        self.next_group()
    }

    /// Begins the next message, for the same host, with the same EHLO name. The results of the message
    /// before are forgotten.
    pub fn begin_message(&mut self, plan: Plan) -> ClientStep {
        self.progress = TransactionProgress::new(plan.recipients.len());
        self.plan = plan;
        self.pending_commands.clear();
        (self.is_reuse_unconfirmed, self.final_failure) = (true, None);
        self.check_encryption()
    }

    /// After [`ClientStep::Quit`]: the connection can carry another message. Not if the client has logged
    /// in on it, because the next message may need other credentials.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_usable && !self.is_logged_in && self.has_transactions_left()
    }

    /// The connection had carried a message before, and failed before this message was begun. Try a new
    /// connection, and conclude nothing about the host.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// The peer has sent a reply on this connection.
    #[must_use]
    pub fn has_received_reply(&self) -> bool {
        self.has_received_reply
    }

    /// RFC 9422 §4.1.
    fn has_transactions_left(&self) -> bool {
        self.extensions.limits.mail_max.is_none_or(|max| self.transaction_count < max.get())
    }

    /// The message is written, its final dot included.
    pub fn message_sent(&mut self) -> ClientStep {
        self.state = ClientState::Dot;
        ClientStep::Receive(Wait::Dot)
    }

    /// The message cannot be sent for a local reason: no other host is tried. The final dot must not be
    /// written.
    pub fn abandon(&mut self, failure: &Failure) -> ClientStep {
        self.progress.settle_remaining(&failure.clone().into());
        self.state = ClientState::Closed;
        ClientStep::Close
    }

    /// The connection ended, timed out, or carries something else than SMTP.
    pub fn interrupted(&mut self, why: &str) -> ClientStep {
        let host = self.plan.peer_description();
        let failure = |end: &str| {
            let stage = self.stage();
            Failure::transient(4, 2, format!("the conversation with {host} broke off at {stage}: {why}{end}"))
        };
        match self.state {
            // It is unknown whether the peer took the message. If it did, a copy to another host would be a
            // duplicate; a later attempt may find the same host in a clearer state (RFC 1047).
            ClientState::Dot => {
                let failure = failure("; whether it took the message is unknown");
                self.abandon(&failure)
            }
            // The message may be the cause of the failure, not the host.
            _ if self.is_in_transaction => {
                let failure = failure("");
                self.close(failure)
            }
            _ => {
                let failure = failure("").with_destination_scope();
                self.close(failure)
            }
        }
    }

    /// The result for each recipient, in the order of the plan. Complete after [`ClientStep::Quit`] and
    /// [`ClientStep::Close`].
    #[must_use]
    pub fn results(&self) -> Vec<RecipientResult> {
        let no_end = || {
            let text = format!("the conversation with {} had no end", self.plan.peer_description());
            Failure::transient(4, 2, text)
        };
        self.progress.results(self.is_usable, &self.final_failure.clone().unwrap_or_else(no_end))
    }

    /// The stage of the session, for a sentence.
    fn stage(&self) -> &'static str {
        match (self.state, self.pending_commands.front()) {
            (ClientState::Greeting, _) => "the greeting",
            (ClientState::Ehlo, _) => self.hello_verb(),
            (ClientState::Helo, _) => "HELO",
            (ClientState::StartTls | ClientState::Handshake, _) => "STARTTLS",
            (ClientState::Login(_), _) => "AUTH",
            (ClientState::Transaction, Some(PendingCommand::Rcpt(_))) => "RCPT",
            (ClientState::Transaction, Some(PendingCommand::Data)) => "DATA",
            (ClientState::EncryptionKnown | ClientState::Transaction, _) => "MAIL",
            (ClientState::Message, _) => "the message",
            (ClientState::Dot | ClientState::LoneDot, _) => "the final dot",
            (ClientState::Closed, _) => "the end",
        }
    }

    fn send_hello(&mut self, state: ClientState) -> ClientStep {
        self.state = state;
        let verb = if state == ClientState::Helo { "HELO" } else { self.hello_verb() };
        // RFC 5321 §4.1.4; the name is sent in A-labels.
        ClientStep::Send(format!("{verb} {}\r\n", self.plan.hello.as_ascii()).into_bytes(), Wait::Hello)
    }

    const fn hello_verb(&self) -> &'static str {
        match self.plan.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        }
    }

    fn on_ehlo(&mut self, reply: &Reply) -> ClientStep {
        match self.plan.protocol {
            // RFC 5321 §3.2: a server without extensions.
            Protocol::Smtp if reply.is_permanent() => return self.send_hello(ClientState::Helo),
            Protocol::Smtp | Protocol::Lmtp if !reply.is_positive() => {
                return self.quit_after_refusal(reply, self.hello_verb());
            }
            Protocol::Smtp | Protocol::Lmtp => {}
        }
        self.extensions = Extensions::read(reply);
        let wants_tls = self.plan.encryption == Encryption::Opportunistic;
        if self.extensions.starttls && wants_tls && !self.is_encrypted {
            self.state = ClientState::StartTls;
            return ClientStep::Send(b"STARTTLS\r\n".to_vec(), Wait::Hello);
        }
        self.check_encryption()
    }

    fn check_encryption(&mut self) -> ClientStep {
        self.state = ClientState::EncryptionKnown;
        ClientStep::CheckEncryption
    }

    /// Before the transaction even a 5yz is about this host only (RFC 5321 §4.2.4.2, RFC 7504): another
    /// host may accept the message, or this one later.
    fn quit_after_refusal(&mut self, reply: &Reply, asked: &str) -> ClientStep {
        let (Failure::Permanent(reason) | Failure::Transient(reason)) =
            reply.to_failure(&self.plan.remote_mta_name(), asked);
        self.final_failure = Some(Failure::Transient(reason).with_destination_scope());
        self.quit()
    }

    /// The connection cannot be used any more.
    fn close(&mut self, failure: Failure) -> ClientStep {
        (self.is_usable, self.is_stale) = (false, self.is_reuse_unconfirmed);
        self.final_failure = Some(failure);
        self.state = ClientState::Closed;
        ClientStep::Close
    }

    fn quit(&mut self) -> ClientStep {
        self.state = ClientState::Closed;
        ClientStep::Quit(b"QUIT\r\n".to_vec())
    }
}
