//! The SMTP server, as a machine without a socket.
//!
//! Lines go in, actions come out. The machine knows the order in which commands may come
//! (RFC 5321 §4.1.4) and the reply to each. It knows nothing of sockets, clocks, users or disks:
//! whatever it cannot decide by itself it asks, as a [`Question`].
//!
//! One call yields exactly one [`Action`]: there is no buffer to drain and no callback, so a test
//! is a list of pairs and a fuzz target is ten lines.
//!
//! Owned by one session thread. Standards: RFC 5321, 1870 (SIZE), 2034 (enhanced codes),
//! 2920 (PIPELINING), 3207 (STARTTLS), 6152 (8BITMIME), 6531 (SMTPUTF8); `auth` has its own.

mod auth;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath, TlsFacts};

use super::action::{Action, Answer, End, Question, Verdict};
use super::body::BodyEnd;
use super::command::{Command, Hello, MailParameters};
use super::extension::{Extensions, Limits};
use super::line::{LineBuffer, LineError};
use super::patience::{Exhausted, Patience};
use super::refusal::{
    bare_line_end, not_ascii, our_fault, out_of_order, refusal, sound, too_big, wrong_login,
};
use super::reply::Reply;
use super::sasl::{Exchange, ScramFirst};
use super::transaction::{Begun, Transaction};

/// What a server needs to know of its house. Shared by all sessions of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name, in the greeting and in EHLO; said in A-labels.
    pub hostname: Domain,
    /// Who is expected on this port.
    pub kind: Kind,
    /// Largest message in octets, as SIZE counts them (RFC 1870 §5); 0 is no limit.
    pub message_octets_max: u64,
    /// Forward-paths in one transaction; at least 100 (RFC 5321 §4.5.3.1.8) outside of tests.
    pub recipients_max: usize,
    /// There is a certificate, so that STARTTLS can be offered.
    pub tls_available: bool,
    /// There are users who could log in, so that AUTH can be offered.
    pub logins_exist: bool,
    /// Each of them has SCRAM keys, so that it can be offered.
    pub scram_available: bool,
    /// 5yz replies a client may earn between two messages that we take; the next one is 421, and
    /// the end. 4yz replies and commands that lead nowhere have limits of their own.
    pub errors_max: u32,
}

/// Who is expected on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Other servers, with mail for us (RFC 5321).
    Smtp,
    /// Our users, who log in first (RFC 6409 §4.3).
    Submission,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    tls: Option<TlsFacts>,
    hello: Option<Greeted>,
    login: Option<Mailbox>,
    transaction: Option<Transaction>,
    awaits: Awaits,
    patience: Patience,
}

/// How the client introduced itself.
#[derive(Debug)]
struct Greeted {
    hello: Hello,
    is_esmtp: bool,
}

/// What comes next.
#[derive(Debug)]
enum Awaits {
    Command,
    /// The client's response to 334.
    AuthResponse(Exchange),
    Handshake,
    Body,
    Answer(Asked),
    Nothing,
}

/// Which question is open.
#[derive(Debug)]
pub(super) enum Asked {
    Sender(ReversePath, MailParameters),
    Recipient,
    /// And what is said to the client before it hears that it is the user.
    Login(Option<Vec<u8>>),
    ScramStart(Box<ScramFirst>),
    Content,
}

impl Server {
    /// A server for a connection that has just been accepted; `tls` if its handshake is already
    /// done (RFC 8314 §3.3).
    #[must_use]
    pub fn new(settings: impl Into<Arc<Settings>>, tls: Option<TlsFacts>) -> Self {
        let settings = settings.into();
        Self {
            patience: Patience::new(settings.errors_max),
            settings,
            tls,
            hello: None,
            login: None,
            transaction: None,
            awaits: Awaits::Command,
        }
    }

    /// The first words. RFC 2034 §4: without an enhanced status.
    pub fn greeting(&mut self) -> Action {
        Action::Reply(Reply::plain(220, format!("{} ESMTP postrider", self.name())))
    }

    /// Longest line in octets, with its CRLF, that may come now.
    #[must_use]
    pub fn line_octets_max(&self) -> usize {
        match self.awaits {
            Awaits::AuthResponse(_) => LineBuffer::AUTH_OCTETS_MAX,
            _ => LineBuffer::COMMAND_OCTETS_MAX,
        }
    }

    /// A line that is about to be given to [`Self::line`], as it may be logged and traced.
    #[must_use]
    pub fn shown(&self, line: &[u8]) -> String {
        match self.awaits {
            Awaits::AuthResponse(_) => "(response not shown)".to_owned(),
            _ => Command::shown(line),
        }
    }

    /// The transaction under way: recipients, and all that the stamp needs. It is gone once the
    /// question about its content is answered.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The user that has logged in.
    #[must_use]
    pub fn login(&self) -> Option<&Mailbox> {
        self.login.as_ref()
    }

    /// What the client calls itself.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref().map(|greeted| &greeted.hello)
    }

    /// The TLS session, if there is one.
    #[must_use]
    pub fn tls_facts(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// The next line came in, without its line end.
    pub fn line(&mut self, line: Result<&[u8], LineError>) -> Action {
        let exchange = match std::mem::replace(&mut self.awaits, Awaits::Command) {
            Awaits::Command => None,
            Awaits::AuthResponse(exchange) => Some(exchange),
            Awaits::Handshake | Awaits::Body | Awaits::Answer(_) | Awaits::Nothing => return self.broken(),
        };
        match (line, exchange) {
            // Like Postfix, and like us inside of a message: the end, because after this nobody
            // knows where the other side thinks that its lines end.
            (Err(LineError::BareLineEnd), _) => self.close(bare_line_end()),
            // RFC 4954 §4.
            (Err(LineError::TooLong), Some(_)) => {
                self.refuse(Reply::new(500, 5, 6, "The response is too long"))
            }
            (Err(LineError::TooLong), None) => self.refuse(Reply::new(500, 5, 2, "The line is too long")),
            (Ok(line), Some(exchange)) => self.auth_response(exchange, line),
            (Ok(line), None) => match Command::parse(line) {
                Ok(command) => self.command(command),
                Err(reply) => self.refuse(reply),
            },
        }
    }

    /// The policy answered the last [`Action::Ask`].
    pub fn answer(&mut self, verdict: Verdict) -> Action {
        let asked = match std::mem::replace(&mut self.awaits, Awaits::Command) {
            Awaits::Answer(asked) => asked,
            _ => return self.broken(),
        };
        match (asked, verdict.answer) {
            (Asked::Sender(reverse_path, parameters), Answer::Accepted) => {
                self.begin_transaction(reverse_path, parameters)
            }
            (Asked::Recipient, Answer::Recipients(recipients)) if recipients.is_empty() => {
                self.refuse(Reply::new(550, 1, 1, "There is nobody behind this address"))
            }
            (Asked::Recipient, Answer::Recipients(recipients)) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.accept(recipients);
                }
                Action::Reply(Reply::new(250, 1, 5, "Recipient is fine"))
            }
            (Asked::Login(ours), Answer::User(user)) => self.recognised(user, ours),
            (Asked::ScramStart(first), Answer::ScramStart(start)) => self.scram_start(*first, *start),
            (Asked::Login(_), Answer::WrongLogin) => self.refuse(wrong_login()),
            (Asked::Content, Answer::Queued(id)) => {
                self.transaction = None;
                self.patience.message_queued();
                Action::Reply(Reply::new(250, 0, 0, format!("Queued as {id}")))
            }
            // RFC 5321 §4.1.1.4: the buffers are cleared, however it ends. Counted, but never
            // replaced: 421 would call the client back with what we will not have.
            (Asked::Content, Answer::Refused(failure)) => {
                self.refuse_content(refusal(&failure, &Asked::Content))
            }
            (Asked::Content, Answer::RefusedWith(reply)) => self.refuse_content(sound(reply)),
            (asked, Answer::Refused(failure)) => self.refuse(refusal(&failure, &asked)),
            (_, Answer::RefusedWith(reply)) => self.refuse(sound(reply)),
            // A fault of ours: an answer to another question.
            (
                Asked::Content,
                Answer::Accepted
                | Answer::Recipients(_)
                | Answer::User(_)
                | Answer::WrongLogin
                | Answer::ScramStart(_),
            ) => self.refuse_content(our_fault()),
            (
                Asked::Sender(..) | Asked::Recipient | Asked::Login(_) | Asked::ScramStart(_),
                Answer::Accepted
                | Answer::Recipients(_)
                | Answer::User(_)
                | Answer::WrongLogin
                | Answer::ScramStart(_)
                | Answer::Queued(_),
            ) => self.refuse(our_fault()),
        }
    }

    /// The message after 354 ended.
    pub fn body(&mut self, end: BodyEnd) -> Action {
        if !matches!(self.awaits, Awaits::Body) {
            return self.broken();
        }
        match end {
            BodyEnd::Complete(facts) => self.ask(Question::Content(facts), Asked::Content),
            BodyEnd::TooBig => {
                self.awaits = Awaits::Command;
                self.refuse_content(too_big())
            }
            BodyEnd::BareLineEnd => self.close(bare_line_end()),
        }
    }

    /// The handshake after [`Action::StartTls`] is over; `None` if it failed.
    pub fn tls(&mut self, facts: Option<TlsFacts>) -> Action {
        if !matches!(self.awaits, Awaits::Handshake) {
            return self.broken();
        }
        let Some(facts) = facts else {
            // In the middle of a handshake there is nothing to be said that would be understood.
            self.awaits = Awaits::Nothing;
            return Action::Close;
        };
        // RFC 3207 §4.2: what was said in plain text may have been said by anybody.
        self.tls = Some(facts);
        self.hello = None;
        self.login = None;
        self.transaction = None;
        self.awaits = Awaits::Command;
        Action::Continue
    }

    /// The conversation is over, and not because of QUIT.
    pub fn end(&mut self, end: End) -> Action {
        if matches!(self.awaits, Awaits::Handshake) {
            self.awaits = Awaits::Nothing;
            return Action::Close;
        }
        let name = self.name().to_owned();
        match end {
            End::InputOver => {
                self.awaits = Awaits::Nothing;
                self.transaction = None;
                Action::Close
            }
            End::TimedOut => self.close(Reply::new(421, 4, 2, format!("{name} has waited too long"))),
            End::Stopping => self.close(Reply::new(421, 3, 2, format!("{name} is stopping"))),
            End::TooOften => {
                self.close(Reply::new(421, 7, 0, format!("{name} was visited too often, try again later")))
            }
            // RFC 5321 §3.1, §4.3.1.
            End::SpokeFirst => self.close(Reply::new(554, 5, 1, "Wait for the greeting before you speak")),
            End::TooManySessions => {
                self.close(Reply::new(421, 3, 2, format!("{name} has too many sessions, try again later")))
            }
        }
    }

    fn command(&mut self, command: Command) -> Action {
        if may_lead_nowhere(&command)
            && let Err(exhausted) = self.patience.command()
        {
            return self.give_up(exhausted);
        }
        match command {
            Command::Helo(hello) => {
                self.greet(hello, false);
                Action::Reply(Reply::plain(250, self.name()))
            }
            Command::Ehlo(hello) => {
                self.greet(hello, true);
                let mut reply = Reply::plain(250, self.name());
                reply.lines.extend(self.extensions().to_lines());
                Action::Reply(reply)
            }
            Command::Mail { reverse_path, parameters, is_ascii } => {
                match self.may_mail(&parameters, is_ascii) {
                    Ok(()) => {
                        let asked = Asked::Sender(reverse_path.clone(), parameters.clone());
                        self.ask(Question::Sender { reverse_path, parameters }, asked)
                    }
                    Err(reply) => self.refuse(reply),
                }
            }
            Command::Rcpt { forward_path, is_ascii } => self.rcpt(forward_path, is_ascii),
            Command::Data => self.data(),
            Command::Rset => {
                self.transaction = None;
                Action::Reply(Reply::new(250, 0, 0, "Forgotten"))
            }
            Command::Noop => Action::Reply(Reply::new(250, 0, 0, "Still here")),
            Command::Quit => self.close(Reply::new(221, 0, 0, format!("{} says goodbye", self.name()))),
            // RFC 5321 §3.5.3, §7.3: neither confirms nor denies.
            Command::Vrfy => {
                Action::Reply(Reply::new(252, 1, 5, "Not telling; send the mail and it will be tried"))
            }
            Command::Expn => self.refuse(Reply::new(502, 5, 1, "EXPN is not implemented")),
            Command::Help => Action::Reply(Reply::new(214, 0, 0, "RFC 5321 explains how to talk to me")),
            Command::StartTls => self.starttls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            // A form in a web page could otherwise be made to speak SMTP, one line at a time.
            Command::Http => self.close(Reply::new(502, 5, 2, "This is a mail server, not a web server")),
        }
    }

    /// RFC 5321 §4.1.4: EHLO and HELO clear the transaction.
    fn greet(&mut self, hello: Hello, is_esmtp: bool) {
        self.transaction = None;
        self.hello = Some(Greeted { hello, is_esmtp });
    }

    fn extensions(&self) -> Extensions {
        let is_encrypted = self.tls.is_some();
        Extensions {
            pipelining: true,
            size: Some(self.settings.message_octets_max),
            eight_bit_mime: true,
            enhanced_status_codes: true,
            smtputf8: true,
            starttls: self.settings.tls_available && !is_encrypted,
            auth: self.mechanisms(),
            help: true,
            dsn: false,
            limits: Limits::default(),
        }
    }

    fn is_esmtp(&self) -> bool {
        self.hello.as_ref().is_some_and(|greeted| greeted.is_esmtp)
    }

    /// All that the machine itself has to say against a MAIL command.
    fn may_mail(&self, parameters: &MailParameters, is_ascii: bool) -> Result<(), Reply> {
        if self.hello.is_none() {
            return Err(out_of_order("Say EHLO first"));
        }
        if self.transaction.is_some() {
            return Err(out_of_order("There is a transaction already; RSET ends it"));
        }
        // RFC 6409 §4.3, RFC 4954 §6.
        if self.settings.kind == Kind::Submission && self.login.is_none() {
            return Err(Reply::new(530, 7, 0, "Log in first; that takes TLS"));
        }
        // RFC 5321 §2.2.1: who said HELO has been offered no extension.
        if !self.is_esmtp() && *parameters != MailParameters::default() {
            return Err(Reply::new(555, 5, 4, "Parameters take EHLO"));
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

    fn begin_transaction(&mut self, reverse_path: ReversePath, parameters: MailParameters) -> Action {
        let Some(Greeted { hello, is_esmtp }) = &self.hello else { return self.broken() };
        let begun = Begun {
            hello: hello.clone(),
            is_esmtp: *is_esmtp,
            login: self.login.clone(),
            tls: self.tls.clone(),
        };
        self.transaction = Some(Transaction::new(begun, reverse_path, parameters));
        Action::Reply(Reply::new(250, 1, 0, "Sender is fine"))
    }

    fn rcpt(&mut self, forward_path: ForwardPath, is_ascii: bool) -> Action {
        let Some(transaction) = &self.transaction else {
            return self.refuse(out_of_order("MAIL comes before RCPT"));
        };
        if transaction.accepted >= self.settings.recipients_max {
            // RFC 5321 §4.5.3.1.10: the client sends the message again to the rest.
            return self.refuse(Reply::new(
                452,
                5,
                3,
                "Too many recipients, the others in another transaction",
            ));
        }
        if !is_ascii && !transaction.parameters.smtputf8 {
            return self.refuse(not_ascii());
        }
        self.ask(Question::Recipient(forward_path), Asked::Recipient)
    }

    fn data(&mut self) -> Action {
        match &self.transaction {
            None => self.refuse(out_of_order("MAIL and RCPT come before DATA")),
            // RFC 2920 §3.1: a client that sent all at once must not hear 354 when all of its
            // recipients were refused.
            Some(transaction) if transaction.recipients.is_empty() => {
                self.refuse(out_of_order("There is no valid recipient"))
            }
            Some(_) => {
                self.awaits = Awaits::Body;
                Action::ReceiveBody {
                    reply: Reply::plain(354, "Go on, and end with a dot on a line by itself"),
                    octets_max: self.settings.message_octets_max,
                }
            }
        }
    }

    fn starttls(&mut self) -> Action {
        if self.tls.is_some() {
            return self.refuse(out_of_order("This is TLS already"));
        }
        if !self.settings.tls_available {
            return self.refuse(Reply::new(502, 5, 1, "STARTTLS is not available"));
        }
        self.awaits = Awaits::Handshake;
        Action::StartTls(Reply::new(220, 0, 0, "Go ahead with TLS"))
    }

    fn ask(&mut self, question: Question, asked: Asked) -> Action {
        self.awaits = Awaits::Answer(asked);
        Action::Ask(question)
    }

    /// Says no, and counts.
    fn refuse(&mut self, reply: Reply) -> Action {
        if reply.code == 421 {
            return self.close(reply);
        }
        match self.patience.refusal(&reply) {
            Ok(()) => Action::Reply(reply),
            Err(exhausted) => self.give_up(exhausted),
        }
    }

    /// Says no to a message. RFC 5321 §4.1.1.4: its transaction is over, however it ends. Counted,
    /// but never replaced: 421 would call the client back with what we will not have.
    fn refuse_content(&mut self, reply: Reply) -> Action {
        self.transaction = None;
        if reply.code == 421 {
            return self.close(reply);
        }
        // The next refusal may be the last.
        let _ = self.patience.refusal(&reply);
        Action::Reply(reply)
    }

    /// RFC 5321 §7.8: a client may not keep us busy for ever.
    fn give_up(&mut self, exhausted: Exhausted) -> Action {
        self.close(Reply::new(421, 7, 0, format!("{} {}", self.name(), exhausted.text())))
    }

    fn close(&mut self, reply: Reply) -> Action {
        self.awaits = Awaits::Nothing;
        self.transaction = None;
        Action::ReplyAndClose(reply)
    }

    /// The shell did what it may not, or something else broke: the client may try again later.
    fn broken(&mut self) -> Action {
        self.close(Reply::new(421, 3, 0, format!("{} has a fault, try again later", self.name())))
    }

    fn name(&self) -> &str {
        self.settings.hostname.as_ascii()
    }
}

/// Counted until a message is queued. RCPT and DATA are not: they need a transaction, which takes a
/// MAIL, and are bounded by what it may hold. AUTH and STARTTLS end in a refusal or once for all.
fn may_lead_nowhere(command: &Command) -> bool {
    match command {
        Command::Helo(_)
        | Command::Ehlo(_)
        | Command::Mail { .. }
        | Command::Rset
        | Command::Noop
        | Command::Vrfy
        | Command::Help => true,
        Command::Rcpt { .. }
        | Command::Data
        | Command::Quit
        | Command::Expn
        | Command::StartTls
        | Command::Auth { .. }
        | Command::Http => false,
    }
}
