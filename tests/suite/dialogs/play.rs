//! Plays one dialog on a [`Wire`], and checks every reply line that is part of it.

use std::collections::VecDeque;
use std::fmt::Write as _;

use postrider::mail::{Notify, Recipient, Ret};
use postrider::smtp::SessionEnd;

use super::notation::{Dialog, HOSTNAME, Step};

/// A server on which a dialog can be played.
pub trait Wire {
    /// The client sends octets, in one segment if possible.
    fn send(&mut self, octets: &[u8]);
    /// The server's next line, without CRLF; `None` if it has closed the connection, or will
    /// certainly send no more.
    fn receive(&mut self) -> Option<String>;
    /// Makes the handshake after STARTTLS, or lets it fail.
    fn handshake(&mut self, is_good: bool);
    /// Causes this event; false if that is not possible here.
    fn happens(&mut self, end: SessionEnd) -> bool;
    /// The server has closed the connection, and all its replies have been received.
    fn is_closed(&mut self) -> bool;
    /// The next message that was queued.
    fn message(&mut self) -> Option<Vec<u8>>;
    /// The next line of that message's [`wishes`].
    fn wish(&mut self) -> Option<String>;
    /// A mistake beside the conversation: an unexpected question, or an answer without a question.
    fn complaint(&mut self) -> Option<String>;
}

/// How the client's octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    LineByLine,
    OctetByOctet,
    OneSegment,
}

/// Plays a dialog.
///
/// # Errors
/// The first difference from the dialog.
pub fn play(dialog: &Dialog, wire: &mut dyn Wire, manner: Manner) -> Result<(), String> {
    let steps = match manner {
        Manner::OneSegment => grouped(&dialog.steps),
        _ => dialog.steps.clone(),
    };
    let mut checker = StatusChecker::default();
    for step in &steps {
        match step {
            Step::Client(octets) if manner == Manner::OctetByOctet => {
                octets.chunks(1).for_each(|octet| wire.send(octet));
            }
            Step::Client(octets) => wire.send(octets),
            Step::Server(pattern) => {
                let said = wire.receive().ok_or_else(|| format!("expected {pattern:?}, received nothing"))?;
                if !fits(&said, pattern) {
                    return Err(format!("expected {pattern:?}, heard {said:?}"));
                }
                checker.check(&said)?;
            }
            Step::Message(octets) => {
                let message = wire.message().ok_or("no message was queued")?;
                if message != *octets {
                    let (want, have) = (octets.escape_ascii(), message.escape_ascii());
                    return Err(format!("expected the message {want}, there is {have}"));
                }
            }
            Step::Envelope(line) => {
                let wish = wire.wish();
                if wish.as_ref() != Some(line) {
                    return Err(format!("expected {line:?} in the envelope, there is {wish:?}"));
                }
            }
            Step::Handshake { is_good } => wire.handshake(*is_good),
            Step::Happens(end) => {
                if !wire.happens(*end) {
                    return Ok(());
                }
            }
            Step::Closed => {
                if !wire.is_closed() {
                    return Err("the connection is still open".to_owned());
                }
            }
        }
    }
    wire.complaint().map_or(Ok(()), Err)
}

/// All that the client sends between two events in one segment, before the server replies.
fn grouped(steps: &[Step]) -> Vec<Step> {
    let mut groups = Vec::new();
    let (mut sent, mut rest) = (Vec::new(), Vec::new());
    let mut finish = |sent: &mut Vec<u8>, rest: &mut Vec<Step>| {
        if !sent.is_empty() {
            groups.push(Step::Client(std::mem::take(sent)));
        }
        groups.append(rest);
    };
    for step in steps {
        match step {
            Step::Client(octets) => sent.extend_from_slice(octets),
            Step::Handshake { .. } | Step::Happens(_) => {
                rest.push(step.clone());
                finish(&mut sent, &mut rest);
            }
            Step::Server(_) | Step::Message(_) | Step::Envelope(_) | Step::Closed => rest.push(step.clone()),
        }
    }
    finish(&mut sent, &mut rest);
    groups
}

/// A pattern is the line itself, where `<ref>` stands for a reference, or its beginning and `*`.
fn fits(said: &str, pattern: &str) -> bool {
    if let Some(beginning) = pattern.strip_suffix('*') {
        return said.starts_with(beginning);
    }
    match said.rsplit_once("(ref ") {
        Some((before, reference)) if is_reference(reference.trim_end_matches(')')) => {
            format!("{before}(ref <ref>)") == pattern
        }
        _ => said == pattern,
    }
}

/// Two groups of four characters, such as `K7QD-3MXA`.
fn is_reference(text: &str) -> bool {
    let is_symbol = |c: char| c.is_ascii_digit() || (c.is_ascii_uppercase() && !"ILOU".contains(c));
    text.len() == 9 && text.chars().enumerate().all(|(n, c)| if n == 4 { c == '-' } else { is_symbol(c) })
}

/// RFC 2034 §4, RFC 5321 §4.2: every reply line in any dialog.
#[derive(Default)]
struct StatusChecker {
    has_greeted: bool,
    /// The lines so far of a reply that goes on.
    open: Vec<String>,
}

impl StatusChecker {
    fn check(&mut self, line: &str) -> Result<(), String> {
        if line.len() + 2 > 512 {
            return Err(format!("longer than RFC 5321 §4.5.3.1.5 allows: {line:?}"));
        }
        let (code, rest) = line.split_at(3.min(line.len()));
        let has_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        if !has_code || !matches!(rest.as_bytes().first(), Some(b' ' | b'-')) {
            return Err(format!("no reply line: {line:?}"));
        }
        if self.open.first().is_some_and(|first| first[..3] != *code) {
            return Err(format!("codes differ within a reply: {line:?}"));
        }
        let text = &rest[1..];
        let status = text.split(' ').next().unwrap_or_default();
        let has_status = status.split('.').count() == 3
            && status.split('.').all(|group| group.parse::<u16>().is_ok())
            && !text.starts_with(HOSTNAME);
        let is_hello = match self.open.first() {
            Some(first) => first[4..] == *HOSTNAME,
            None => code == "250" && text == HOSTNAME,
        };
        // The greeting is 220; another reply at its place is a refusal like any other.
        let is_greeting = !self.has_greeted && code == "220";
        let wants_status = !is_greeting && !is_hello && !code.starts_with('3');
        self.has_greeted = true;
        if has_status != wants_status {
            return Err(format!("enhanced status present: {has_status}, wanted: {wants_status}: {line:?}"));
        }
        let has_reference = (text.rsplit_once(" (ref "))
            .and_then(|(_, reference)| reference.strip_suffix(')'))
            .is_some_and(is_reference);
        let wants_reference = code.starts_with(['4', '5']) && rest.starts_with(' ');
        if has_reference != wants_reference {
            return Err(format!("reference present: {has_reference}, wanted: {wants_reference}: {line:?}"));
        }
        if has_status && status.as_bytes()[0] != code.as_bytes()[0] {
            return Err(format!("class and code disagree: {line:?}"));
        }
        if rest.starts_with('-') {
            self.open.push(line.to_owned());
        } else {
            self.open.clear();
        }
        Ok(())
    }
}

/// The sender's requests in an envelope (RFC 3461): a line for the message, if there is
/// one, and one for each recipient.
pub fn wishes(ret: Option<Ret>, envid: Option<&str>, recipients: &[Recipient]) -> VecDeque<String> {
    let mut message = Vec::new();
    message.extend(ret.map(|ret| match ret {
        Ret::Full => "RET=FULL".to_owned(),
        Ret::Headers => "RET=HDRS".to_owned(),
    }));
    message.extend(envid.map(|envid| format!("ENVID={envid}")));
    let of_recipient = |recipient: &Recipient| {
        let mut line = recipient.final_mailbox().to_string();
        match recipient.notify {
            Notify::Unspecified => {}
            Notify::Never => line.push_str(" NOTIFY=NEVER"),
            Notify::When { success, failure, delay } => {
                let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
                let words: Vec<_> = words.iter().filter(|(is_asked, _)| *is_asked).map(|(_, w)| *w).collect();
                let _ = write!(line, " NOTIFY={}", words.join(","));
            }
        }
        if let Some(orcpt) = &recipient.orcpt {
            let _ = write!(line, " ORCPT={orcpt}");
        }
        line
    };
    let message = (!message.is_empty()).then(|| message.join(" "));
    message.into_iter().chain(recipients.iter().map(of_recipient)).collect()
}

#[test]
fn every_reply_line_is_checked_against_rfc_2034() {
    let check = |lines: &[&str]| {
        let mut checker = StatusChecker::default();
        lines.iter().try_for_each(|line| checker.check(line))
    };
    check(&["220 here.example ESMTP", "250-here.example", "250 HELP", "354 go", "221 2.0.0 bye"]).unwrap();
    for wrong in [
        &["220 2.0.0 hi"][..],
        &["220 hi", "250 ok"],
        &["220 hi", "250 5.0.0 ok"],
        &["220 hi", "354 3.0.0 go"],
        &["220 hi", "250-here.example", "251 HELP"],
        &["220 hi", "250-here.example", "250 2.0.0 HELP"],
        &["220 hi", "25x"],
        &["220 hi", "221"],
    ] {
        assert!(check(wrong).is_err(), "{wrong:?}");
    }
}
