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
//! (`Client::on_dot`).
//!
//! Standards: RFC 5321, 1870 (SIZE), 2033 (LMTP), 2920 (PIPELINING), 3207 (STARTTLS), 3461 (DSN),
//! 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422 (LIMITS).

mod auth;
mod commands;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::auth::Login;
use self::commands::{Asked, Next};
use super::extension::Extensions;
use super::reply::Reply;
use crate::mail::{Domain, Failure, Outcome, Reason};

pub use self::auth::Credentials;
pub use self::plan::{Addressee, Encryption, Plan, Protocol};

/// What the shell does next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read one reply, then [`Client::reply`].
    Receive(Wait),
    /// Write these octets, one command or a pipelined group, read one reply, then [`Client::reply`].
    Send(Vec<u8>, Wait),
    /// The same, but what is written must not be shown to anybody.
    SendSecret(Vec<u8>, Wait),
    /// Forget every octet that was read ahead, do the handshake, then [`Client::secured`] or
    /// [`Client::handshake_failed`].
    StartTls,
    /// It is known now whether this connection is encrypted, and the transaction has not begun:
    /// [`Client::withhold`] recipients for whom that is not enough, then [`Client::go_ahead`].
    Settled,
    /// Write the message, dot-stuffed and with its final dot, then [`Client::message_sent`]; if the
    /// peer stops reading, look for a reply of its own accord, then [`Client::reply`].
    SendMessage,
    /// All is decided: keep the connection if [`Client::can_go_on`], or write these octets, wait a
    /// little for a reply, and close.
    Quit(Vec<u8>),
    /// Close.
    Close,
}

/// What a reply is awaited to; each has a timeout of its own (RFC 5321 §4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The greeting (§4.5.3.2.1).
    Greeting,
    /// EHLO, HELO, LHLO, STARTTLS or AUTH.
    Hello,
    /// MAIL (§4.5.3.2.2).
    Mail,
    /// RCPT (§4.5.3.2.3).
    Rcpt,
    /// DATA (§4.5.3.2.4).
    Data,
    /// The final dot (§4.5.3.2.6); one time for all its replies in LMTP.
    Dot,
}

/// What one connection made of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The host had its say: other hosts are not asked in the same attempt.
    Outcome(Outcome),
    /// The host gave no answer. Another may; if there is none, this is why. Permanent if this host
    /// lacks what the message needs: asking it again, at any address of its, would be in vain.
    Open(Failure),
    /// The host takes no more on this connection, and was not asked: ask it again on another.
    NotAsked,
}

/// One conversation with one host.
#[derive(Debug)]
pub struct Client {
    plan: Plan,
    state: State,
    offers: Extensions,
    fates: Vec<Fate>,
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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Not asked yet, or not answered.
    Waiting,
    /// Not asked, or asked in vain: another host may do better.
    Open(Failure),
    /// RCPT was accepted.
    Accepted,
    Answered(Outcome),
}

impl Client {
    /// A conversation that begins.
    pub fn new(plan: Plan) -> (Self, Step) {
        let fates = vec![Fate::Waiting; plan.recipients.len()];
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
        if let Some(fate @ Fate::Waiting) = self.fates.get_mut(recipient) {
            *fate = Fate::Open(failure);
        }
    }

    /// Begins the transaction for everyone who was not withheld.
    pub fn go_ahead(&mut self) -> Step {
        self.is_sound = false;
        self.refuse_what_cannot_go();
        if self.must_log_in() && self.fates.contains(&Fate::Waiting) {
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
        self.fates = vec![Fate::Waiting; plan.recipients.len()];
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
        self.answer_unsettled(failure);
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
        let host = self.plan.place();
        let why = self
            .why
            .clone()
            .unwrap_or_else(|| Failure::transient(4, 2, format!("the conversation with {host} had no end")));
        let answer = |fate: &Fate| match fate {
            Fate::Answered(outcome) => Answer::Outcome(outcome.clone()),
            Fate::Open(failure) => Answer::Open(failure.clone()),
            Fate::Waiting if self.is_sound => Answer::NotAsked,
            Fate::Waiting | Fate::Accepted => Answer::Open(why.clone()),
        };
        self.fates.iter().map(answer).collect()
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

    /// The reply to the oldest command that has none yet (RFC 2920 §3.1: they come in order).
    fn on_transaction(&mut self, reply: &Reply) -> Step {
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
                self.leave_open(&Failure::Transient(reason));
            }
            failure @ Failure::Permanent(_) => self.answer_unsettled(&failure),
            // No transaction took place: another host may be in a better mood.
            failure @ Failure::Transient(_) => {
                // Some say so after so many messages, and mean the connection.
                self.is_stale = was_untested;
                self.leave_open(&failure);
            }
        }
    }

    /// Whoever was not asked about yet may do better at another host.
    fn leave_open(&mut self, failure: &Failure) {
        for fate in self.fates.iter_mut().filter(|fate| **fate == Fate::Waiting) {
            *fate = Fate::Open(failure.clone());
        }
    }

    fn on_rcpt(&mut self, n: usize, reply: &Reply) {
        // Whoever is settled already (MAIL was refused) is not unsettled by what follows in the group.
        let is_one_too_many = reply.is_too_many_recipients() && self.has_accepted();
        let Some(fate @ Fate::Waiting) = self.fates.get_mut(n) else { return };
        // RFC 5321 §4.5.3.1.10: the next transaction takes them, in the same connection.
        if is_one_too_many {
            return;
        }
        *fate = if reply.is_positive() {
            Fate::Accepted
        } else {
            let failure = match reply.to_failure(&self.plan.host_said(), "the recipient") {
                // RFC 5321 §4.5.3.1.10: some servers say 552 where they mean 452, too many at once. In LMTP
                // it is a mailbox that is full, and whether that may be tried again the server has decided.
                Failure::Permanent(reason) if reply.code == 552 && self.plan.protocol == Protocol::Smtp => {
                    Failure::Transient(reason)
                }
                failure => failure,
            };
            Fate::Answered(failure.into())
        };
    }

    fn on_data(&mut self, reply: &Reply) -> Step {
        match (reply.code / 100 == 3, self.has_accepted()) {
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
                self.answer_unsettled(&reply.to_failure(&self.plan.host_said(), "DATA"));
                self.finish()
            }
        }
    }

    /// The peer did not wait for the end of the message.
    fn on_early_reply(&mut self, reply: &Reply) -> Step {
        let failure = reply.to_failure(&self.plan.host_said(), "the message before its end");
        self.answer_unsettled(&failure);
        self.state = State::Over;
        // What we say now would be part of the message.
        Step::Close
    }

    fn on_dot(&mut self, reply: &Reply) -> Step {
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
        let is_answered = |fate: &Fate| match fate {
            Fate::Accepted => true,
            // A message that is refused is so for those, too, who would have been named next.
            Fate::Waiting => self.plan.protocol == Protocol::Smtp && !reply.is_positive(),
            Fate::Open(_) | Fate::Answered(_) => false,
        };
        let answered = match self.plan.protocol {
            Protocol::Smtp => usize::MAX,
            // RFC 2033 §4.2: one reply for each recipient that RCPT was accepted for, in that order.
            Protocol::Lmtp => 1,
        };
        for fate in self.fates.iter_mut().filter(|fate| is_answered(fate)).take(answered) {
            *fate = Fate::Answered(outcome.clone());
        }
        if self.has_accepted() {
            return Step::Receive(Wait::Dot);
        }
        self.is_in_transaction = false;
        self.transactions += 1;
        // RFC 5321 §3.8: it answers the message, and is the end of the connection.
        if reply.code == 421 { self.quit() } else { self.finish() }
    }

    /// The transaction is over: another for those for whom it had no room, if the peer takes one. Each
    /// transaction has answers for at least one recipient, so that there is an end.
    fn finish(&mut self) -> Step {
        self.is_sound = true;
        if self.fates.contains(&Fate::Waiting) && self.has_transactions_left() {
            return self.go_ahead();
        }
        self.quit()
    }

    fn has_accepted(&self) -> bool {
        self.fates.contains(&Fate::Accepted)
    }

    /// The failure is everybody's who has no other answer.
    fn answer_unsettled(&mut self, failure: &Failure) {
        for fate in &mut self.fates {
            if matches!(fate, Fate::Waiting | Fate::Accepted) {
                *fate = Fate::Answered(failure.clone().into());
            }
        }
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
