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
mod fates;
mod plan;
mod replies;
mod step;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::auth::Login;
use self::commands::{Asked, Next};
use self::fates::Fates;
use super::extension::Extensions;
use super::reply::Reply;
use crate::mail::{Domain, Failure};

pub use self::auth::Credentials;
pub use self::fates::Answer;
pub use self::plan::{Addressee, Encryption, Plan, Protocol};
pub use self::step::{Step, Wait};

/// One conversation with one host.
#[derive(Debug)]
pub struct Client {
    plan: Plan,
    state: State,
    offers: Extensions,
    fates: Fates,
    next: Next,
    asked: VecDeque<Asked>,
    is_encrypted: bool,
    is_logged_in: bool,
    refused_starttls: Option<Reply>,
    /// Domains of those whom this transaction has named.
    named: Vec<Domain>,
    /// Transactions that came to their end.
    transactions: u32,
    /// MAIL was accepted, and the transaction has not come to its end.
    is_in_transaction: bool,
    /// The peer had nothing to say against what we said so far: it may go on.
    is_sound: bool,
    /// The connection has carried a message before, and the peer has not answered MAIL since.
    is_untested: bool,
    is_stale: bool,
    /// The peer has said something.
    has_heard: bool,
    /// Why whoever is still waiting at the end got no answer.
    why: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Settled,
    Login(Login),
    Transaction,
    Message,
    Dot,
    /// All recipients were refused, and 354 came nevertheless.
    LoneDot,
    Over,
}

impl Client {
    /// A conversation that begins.
    pub fn new(plan: Plan) -> (Self, Step) {
        let fates = Fates::new(plan.recipients.len());
        let mut client = Self {
            plan,
            state: State::Greeting,
            offers: Extensions::default(),
            fates,
            next: Next::Mail,
            asked: VecDeque::new(),
            is_encrypted: false,
            is_logged_in: false,
            refused_starttls: None,
            named: Vec::new(),
            transactions: 0,
            is_in_transaction: false,
            is_sound: false,
            is_untested: false,
            is_stale: false,
            has_heard: false,
            why: None,
        };
        match client.plan.encryption {
            Encryption::FromTheStart => {
                client.state = State::Handshake;
                (client, Step::StartTls)
            }
            Encryption::WhenOffered | Encryption::Never => (client, Step::Receive(Wait::Greeting)),
        }
    }

    /// The peer replied.
    pub fn reply(&mut self, reply: &Reply) -> Step {
        self.has_heard = true;
        // RFC 5321 §3.8: 421 may come at any time, and the connection is over. What it answers after
        // the final dot is the message, and that is not handed to another host; in LMTP it may answer
        // for one recipient only, and whoever has no reply when the connection ends is put off.
        if reply.code == 421 && self.state != State::Dot {
            return self.leave(reply.to_failure(&self.plan.host_said(), "to go on").of_destination());
        }
        match self.state {
            State::Greeting if reply.is_positive() => self.hello(State::Ehlo),
            State::Greeting => self.move_on(reply, "the session"),
            State::Ehlo => self.on_ehlo(reply),
            State::Helo if reply.is_positive() => self.settle(),
            State::Helo => self.move_on(reply, "HELO"),
            State::StartTls if reply.code == 220 => {
                self.state = State::Handshake;
                Step::StartTls
            }
            // RFC 3207 §4: it cannot, for now, and the connection is as sound as before. Whether plain
            // text is good enough is not ours to say.
            State::StartTls => {
                self.refused_starttls = Some(reply.clone());
                self.settle()
            }
            State::Login(stage) => self.on_login(stage, reply),
            State::Transaction => self.on_transaction(reply),
            State::Message => self.on_early_reply(reply),
            State::Dot => self.on_dot(reply),
            State::LoneDot => self.finish(),
            State::Handshake | State::Settled | State::Over => {
                self.interrupted(&format!("a reply that nothing asked for: {reply}"))
            }
        }
    }

    /// The handshake is done.
    pub fn secured(&mut self) -> Step {
        self.is_encrypted = true;
        if self.plan.encryption == Encryption::FromTheStart {
            self.state = State::Greeting;
            return Step::Receive(Wait::Greeting);
        }
        // RFC 3207 §4.2: what the peer said before is forgotten.
        self.offers = Extensions::default();
        self.hello(State::Ehlo)
    }

    /// The handshake failed: `why`, in the words of the TLS library.
    pub fn handshake_failed(&mut self, why: &str) -> Step {
        self.leave(
            Failure::transient(7, 5, format!("TLS handshake with {} failed: {why}", self.plan.place()))
                .of_destination(),
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
        self.fates.leave_open(recipient, failure);
    }

    /// Begins the transaction for everyone who was not withheld.
    pub fn go_ahead(&mut self) -> Step {
        self.is_sound = false;
        self.refuse_what_cannot_go();
        if self.must_log_in() && self.fates.has_waiting() {
            return self.log_in();
        }
        self.begin_transaction()
    }

    fn begin_transaction(&mut self) -> Step {
        self.state = State::Transaction;
        self.next = if self.is_in_transaction { Next::Rset } else { Next::Mail };
        self.next_group()
    }

    /// The next message, for the same host, under the same name and by the same connection. What
    /// became of the one before is forgotten.
    pub fn begin(&mut self, plan: Plan) -> Step {
        self.fates = Fates::new(plan.recipients.len());
        self.plan = plan;
        self.asked.clear();
        (self.is_untested, self.why) = (true, None);
        self.settle()
    }

    /// After [`Step::Quit`]: the peer is content and may be given another message. One at which we have
    /// logged in may not: the next message may be somebody else's.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.is_sound && !self.is_logged_in && self.has_transactions_left()
    }

    /// A connection that had carried a message before turned out to be dead, or to take no more,
    /// before this message was begun: a new one should be asked, and nothing is to be concluded.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// The peer has said something, on this connection.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// RFC 9422 §4.1.
    fn has_transactions_left(&self) -> bool {
        self.offers.limits.mail_max.is_none_or(|max| self.transactions < max.get())
    }

    /// The message is written, its final dot included.
    pub fn message_sent(&mut self) -> Step {
        self.state = State::Dot;
        Step::Receive(Wait::Dot)
    }

    /// The message cannot be sent for a reason of our own: nobody else is asked. The final dot must
    /// not be written.
    pub fn abandon(&mut self, failure: &Failure) -> Step {
        self.fates.answer_unsettled(&failure.clone().into());
        self.state = State::Over;
        Step::Close
    }

    /// The connection ended, timed out, or carries something that is not SMTP.
    pub fn interrupted(&mut self, why: &str) -> Step {
        let host = self.plan.place();
        let failure = |end: &str| {
            let stage = self.stage();
            Failure::transient(4, 2, format!("the conversation with {host} broke off at {stage}: {why}{end}"))
        };
        match self.state {
            // Nobody knows whether the message was taken. A copy for the next host now would be a
            // double for sure if it was; the same host, later, may know better (RFC 1047).
            State::Dot => {
                let failure = failure("; whether it took the message is unknown");
                self.abandon(&failure)
            }
            // Who has heard of the message may have stumbled over it, and not over us.
            _ if self.is_in_transaction => {
                let failure = failure("");
                self.leave(failure)
            }
            _ => {
                let failure = failure("").of_destination();
                self.leave(failure)
            }
        }
    }

    /// What became of each recipient, in the order of the plan. Complete after [`Step::Quit`] and
    /// [`Step::Close`].
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        let no_end = || {
            let text = format!("the conversation with {} had no end", self.plan.place());
            Failure::transient(4, 2, text)
        };
        self.fates.answers(self.is_sound, &self.why.clone().unwrap_or_else(no_end))
    }

    /// Where we are, for a sentence.
    fn stage(&self) -> &'static str {
        match (self.state, self.asked.front()) {
            (State::Greeting, _) => "the greeting",
            (State::Ehlo, _) => self.hello_word(),
            (State::Helo, _) => "HELO",
            (State::StartTls | State::Handshake, _) => "STARTTLS",
            (State::Login(_), _) => "AUTH",
            (State::Transaction, Some(Asked::Rcpt(_))) => "RCPT",
            (State::Transaction, Some(Asked::Data)) => "DATA",
            (State::Settled | State::Transaction, _) => "MAIL",
            (State::Message, _) => "the message",
            (State::Dot | State::LoneDot, _) => "the final dot",
            (State::Over, _) => "the end",
        }
    }

    fn hello(&mut self, state: State) -> Step {
        self.state = state;
        let verb = if state == State::Helo { "HELO" } else { self.hello_word() };
        // RFC 5321 §4.1.4; a name goes out in A-labels, always.
        Step::Send(format!("{verb} {}\r\n", self.plan.hello.as_ascii()).into_bytes(), Wait::Hello)
    }

    const fn hello_word(&self) -> &'static str {
        match self.plan.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        }
    }

    fn on_ehlo(&mut self, reply: &Reply) -> Step {
        match self.plan.protocol {
            // RFC 5321 §3.2: a server of the old kind.
            Protocol::Smtp if reply.is_permanent() => return self.hello(State::Helo),
            Protocol::Smtp | Protocol::Lmtp if !reply.is_positive() => {
                return self.move_on(reply, self.hello_word());
            }
            Protocol::Smtp | Protocol::Lmtp => {}
        }
        self.offers = Extensions::read(reply);
        let wants_tls = self.plan.encryption == Encryption::WhenOffered;
        if self.offers.starttls && wants_tls && !self.is_encrypted {
            self.state = State::StartTls;
            return Step::Send(b"STARTTLS\r\n".to_vec(), Wait::Hello);
        }
        self.settle()
    }

    fn settle(&mut self) -> Step {
        self.state = State::Settled;
        Step::Settled
    }

    /// Before the transaction even a 5yz speaks for this host only (RFC 5321 §4.2.4.2, RFC 7504):
    /// another may be better, and if there is none, later may be.
    fn move_on(&mut self, reply: &Reply, asked: &str) -> Step {
        let (Failure::Permanent(reason) | Failure::Transient(reason)) =
            reply.to_failure(&self.plan.host_said(), asked);
        self.why = Some(Failure::Transient(reason).of_destination());
        self.quit()
    }

    /// The connection is of no more use.
    fn leave(&mut self, failure: Failure) -> Step {
        (self.is_sound, self.is_stale) = (false, self.is_untested);
        self.why = Some(failure);
        self.state = State::Over;
        Step::Close
    }

    fn quit(&mut self) -> Step {
        self.state = State::Over;
        Step::Quit(b"QUIT\r\n".to_vec())
    }
}
