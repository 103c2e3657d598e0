//! Refusals: every reply 4yz or 5yz to a client, before the greeting and in a session.
//!
//! The protocol state machine decides what is refused and returns the reply. A refusal adds a reference
//! to the reply, and writes the reply and the reasons into the log and the trace under this reference.

use std::net::IpAddr;

use crate::observe::{RefusalReference, Trace, maillog};
use crate::smtp::{CommandPaths, Reply};

/// Longest reply line in octets, with its CRLF (RFC 5321 §4.5.3.1.5).
const LINE_OCTETS_MAX: usize = 512;

/// The part of a session in which a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalStage {
    /// Before the greeting.
    Connection,
    /// STARTTLS.
    Tls,
    /// AUTH and its responses.
    Login,
    /// MAIL.
    Sender,
    /// RCPT.
    Recipient,
    /// DATA, BDAT and the message.
    Content,
    /// Any other command.
    Command,
    /// The server ends the session: a deadline has passed, or the server stops.
    End,
}

impl RefusalStage {
    /// The stage of a command, by [`crate::smtp::Command::verb`].
    pub(super) fn of_verb(verb: &str) -> Self {
        match verb {
            "STARTTLS" => Self::Tls,
            "AUTH" => Self::Login,
            "MAIL" => Self::Sender,
            "RCPT" => Self::Recipient,
            "DATA" | "BDAT" => Self::Content,
            _ => Self::Command,
        }
    }

    /// The name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Content => "content",
            Self::Command => "command",
            Self::End => "end",
        }
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reference: RefusalReference,
    stage: RefusalStage,
    reply: Reply,
    because: Vec<String>,
    subject: CommandPaths,
}

impl Refusal {
    /// A refusal with this 4yz or 5yz reply, to which the reference is added. `because` has the reasons,
    /// one sentence each; `subject` the paths of the command.
    #[must_use]
    pub fn new(
        reference: RefusalReference,
        stage: RefusalStage,
        reply: Reply,
        because: Vec<String>,
        subject: CommandPaths,
    ) -> Self {
        Self { reference, stage, reply: with_reference(reply, reference), because, subject }
    }

    /// The reply with the reference at the end of its last line.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Writes the refusal into the mail log, and into the trace if there is one.
    pub(super) fn record(&self, client: IpAddr, trace: Option<&Trace>) {
        let reply = self.reply.printable_text();
        maillog::refused(&maillog::RefusalEvent {
            client,
            reverse_path: self.subject.reverse_path.as_ref(),
            forward_path: self.subject.forward_path.as_ref(),
            reply: &reply,
            stage: self.stage.name(),
            because: &self.because,
        });
        if let Some(trace) = trace {
            self.because.iter().for_each(|reason| trace.add_event(reason.as_str()));
            trace.add_refusal(self.reference, reply);
        }
    }
}

/// Adds ` (ref K7QD-3MXA)` to the last line. Texts that leave no room for it, or that are too long for a
/// reply line, are cut.
fn with_reference(mut reply: Reply, reference: RefusalReference) -> Reply {
    let suffix = format!(" (ref {reference})");
    let status_octets = reply.status.map_or(0, |status| status.to_string().len() + 1);
    let text_octets_max = LINE_OCTETS_MAX - "550 \r\n".len() - status_octets;
    let last = reply.lines.len().saturating_sub(1);
    for (n, line) in reply.lines.iter_mut().enumerate() {
        let room = if n == last { text_octets_max - suffix.len() } else { text_octets_max };
        line.truncate(line.floor_char_boundary(room));
    }
    if let Some(line) = reply.lines.last_mut() {
        line.push_str(&suffix);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;

    #[test]
    fn every_line_of_a_reply_keeps_within_512_octets() {
        let reference = RefusalReference::draw(&SeededRandom::new(1));
        for text in ["", "short", &"x".repeat(1000), &"é".repeat(600)] {
            let lines = vec![text.to_owned(), text.to_owned()];
            let reply = with_reference(Reply { lines, ..Reply::new(550, 7, 1, "") }, reference);
            let octets = String::from_utf8(reply.to_octets()).unwrap();
            assert!(octets.split_inclusive("\r\n").all(|line| line.len() <= 512), "{octets}");
            assert!(octets.ends_with(&format!(" (ref {reference})\r\n")), "{octets}");
            assert_eq!(octets.matches("(ref ").count(), 1, "only the last line has it");
        }
    }
}
