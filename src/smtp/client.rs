//! The SMTP client, as a machine without a socket: the mirror of the server.
//!
//! Replies go in, steps come out. The machine knows what may be said when, what each reply means
//! for each recipient, and when this host is of no use but another may be. It knows nothing of
//! sockets, clocks, certificates or DNS. End of input, a timeout and a failed handshake are inputs
//! too, and whatever a peer says is a value, never a panic.
//!
//! Promises: every recipient has an [`Answer`] at the end, whatever happened; a recipient that was
//! taken by the reply to the final dot stays delivered, whatever happens later; nothing that was
//! learnt before TLS is known after it; no 8-bit octet goes to a peer that did not offer to take it.
//!
//! Does not: send the message itself (the shell streams it), hold the connection, choose hosts,
//! decide whether a level of TLS is good enough (the shell is asked by [`Step::Settled`]).
//!
//! A connection carries one message after the other: when one is decided, [`Client::begin`] takes the
//! next, as long as [`Client::can_go_on`].
//!
//! Called by `courier/smtp` and `courier/lmtp`, one machine for each connection. LMTP differs in the
//! hello word (`Client::hello`) and in that the dot is answered once for each accepted recipient
//! (`replies`).
//!
//! - `plan`: what is to be achieved on a connection
//! - `step`: what the shell does next
//! - `commands`: what is said in a transaction, and what is not
//! - `replies`: what the replies in a transaction mean
//! - `fates`: what becomes of each recipient
//! - `auth`: the client logs in
//!
//! Here is the connection: greeting, hello, TLS, one transaction after the other, and its end.
//!
//! Standards: RFC 5321, 1870 (SIZE), 2033 (LMTP), 2920 (PIPELINING), 3207 (STARTTLS), 3461 (DSN),
//! 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422 (LIMITS).

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

/// One conversation with one host.
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
    /// Domains of those whom this transaction has named.
    named_domains: Vec<Domain>,
    /// Transactions that came to their end.
    transaction_count: u32,
    /// MAIL was accepted, and the transaction has not come to its end.
    is_in_transaction: bool,
    /// The peer had nothing to say against what we said so far: it may go on.
    is_usable: bool,
    /// The connection has carried a message before, and the peer has not answered MAIL since.
    is_reuse_unconfirmed: bool,
    is_stale: bool,
    /// The peer has said something.
    has_received_reply: bool,
    /// Why whoever is still waiting at the end got no answer.
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
    /// All recipients were refused, and 354 came nevertheless.
    LoneDot,
    Closed,
}

impl Client {
    /// A conversation that begins.
    pub fn new(plan: Plan) -> (Self, ClientStep) {
        let fates = TransactionProgress::new(plan.recipients.len());
        let mut client = Self {
            plan,
            state: ClientState::Greeting,
            extensions: Extensions::default(),
            progress: fates,
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

    /// The peer replied.
    pub fn reply(&mut self, reply: &Reply) -> ClientStep {
        self.has_received_reply = true;
        // RFC 5321 §3.8: 421 may come at any time, and the connection is over. What it answers after
        // the final dot is the message, and that is not handed to another host; in LMTP it may answer
        // for one recipient only, and whoever has no reply when the connection ends is put off.
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
            // RFC 3207 §4: it cannot, for now, and the connection is as sound as before. Whether plain
            // text is good enough is not ours to say.
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

    /// The handshake is done.
    pub fn handshake_succeeded(&mut self) -> ClientStep {
        self.is_encrypted = true;
        if self.plan.encryption == Encryption::ImplicitTls {
            self.state = ClientState::Greeting;
            return ClientStep::Receive(Wait::Greeting);
        }
        // RFC 3207 §4.2: what the peer said before is forgotten.
        self.extensions = Extensions::default();
        self.send_hello(ClientState::Ehlo)
    }

    /// The handshake failed: `why`, in the words of the TLS library.
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

    /// The peer offered STARTTLS, and this is its refusal; so the connection is in plain text.
    #[must_use]
    pub fn refused_starttls(&self) -> Option<&Reply> {
        self.refused_starttls.as_ref()
    }

    /// The connection is not good enough for this recipient, by its position in the plan; it goes
    /// without an answer from this host.
    pub fn withhold(&mut self, recipient: usize, failure: Failure) {
        self.progress.leave_to_other_hosts(recipient, failure);
    }

    /// Begins the transaction for everyone who was not withheld.
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

    /// The next message, for the same host, under the same name and by the same connection. What
    /// became of the one before is forgotten.
    pub fn begin_message(&mut self, plan: Plan) -> ClientStep {
        self.progress = TransactionProgress::new(plan.recipients.len());
        self.plan = plan;
        self.pending_commands.clear();
        (self.is_reuse_unconfirmed, self.final_failure) = (true, None);
        self.check_encryption()
    }

    /// After [`Step::Quit`]: the peer is content and may be given another message. One at which we have
    /// logged in may not: the next message may be somebody else's.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_usable && !self.is_logged_in && self.has_transactions_left()
    }

    /// A connection that had carried a message before turned out to be dead, or to take no more,
    /// before this message was begun: a new one should be asked, and nothing is to be concluded.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// The peer has said something, on this connection.
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

    /// The message cannot be sent for a reason of our own: nobody else is asked. The final dot must
    /// not be written.
    pub fn abandon(&mut self, failure: &Failure) -> ClientStep {
        self.progress.settle_remaining(&failure.clone().into());
        self.state = ClientState::Closed;
        ClientStep::Close
    }

    /// The connection ended, timed out, or carries something that is not SMTP.
    pub fn interrupted(&mut self, why: &str) -> ClientStep {
        let host = self.plan.peer_description();
        let failure = |end: &str| {
            let stage = self.stage();
            Failure::transient(4, 2, format!("the conversation with {host} broke off at {stage}: {why}{end}"))
        };
        match self.state {
            // Nobody knows whether the message was taken. A copy for the next host now would be a
            // double for sure if it was; the same host, later, may know better (RFC 1047).
            ClientState::Dot => {
                let failure = failure("; whether it took the message is unknown");
                self.abandon(&failure)
            }
            // Who has heard of the message may have stumbled over it, and not over us.
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

    /// What became of each recipient, in the order of the plan. Complete after [`Step::Quit`] and
    /// [`Step::Close`].
    #[must_use]
    pub fn results(&self) -> Vec<RecipientResult> {
        let no_end = || {
            let text = format!("the conversation with {} had no end", self.plan.peer_description());
            Failure::transient(4, 2, text)
        };
        self.progress.results(self.is_usable, &self.final_failure.clone().unwrap_or_else(no_end))
    }

    /// Where we are, for a sentence.
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
        // RFC 5321 §4.1.4; a name goes out in A-labels, always.
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
            // RFC 5321 §3.2: a server of the old kind.
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

    /// Before the transaction even a 5yz speaks for this host only (RFC 5321 §4.2.4.2, RFC 7504):
    /// another may be better, and if there is none, later may be.
    fn quit_after_refusal(&mut self, reply: &Reply, asked: &str) -> ClientStep {
        let (Failure::Permanent(reason) | Failure::Transient(reason)) =
            reply.to_failure(&self.plan.remote_mta_name(), asked);
        self.final_failure = Some(Failure::Transient(reason).with_destination_scope());
        self.quit()
    }

    /// The connection is of no more use.
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
