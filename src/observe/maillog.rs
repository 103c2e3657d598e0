//! The mail log: one line for each thing that happens to a message.
//!
//! Only this file writes those lines. A line is an event's name and `key=value` pairs. All events of a
//! message have its `id`, so that `grep ID` shows its history:
//!
//! ```text
//! queued id=01ktv… from=<ana@there.example> to=bo@here.example octets=1420 client=192.0.2.7
//! delivered id=01ktv… from=<ana@there.example> to=bo@here.example courier=maildir status=2.0.0 …
//! ```
//!
//! Every value goes through [`printable`], and is in double quotes if it is empty or has a space, a quote or
//! a backslash. So remote text cannot begin a line, forge a pair or control a terminal. Lines go through the
//! `log` facade with target [`TARGET`], level info.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use crate::mail::{Envelope, ForwardPath, MessageId, Outcome, Recipient, ReversePath, printable};

/// The `log` target of mail lines.
pub const TARGET: &str = "mail";

/// Octets of one value that are shown; the queue keeps replies in full.
const VALUE_OCTETS_MAX: usize = 1000;
/// Recipients on a `queued` line; each has a line of its own when it is attempted.
const RECIPIENTS_SHOWN_MAX: usize = 20;

/// One attempt for one recipient.
#[derive(Debug, Clone, Copy)]
pub struct AttemptEvent<'a> {
    /// The message.
    pub id: &'a MessageId,
    /// Its reverse-path.
    pub reverse_path: &'a ReversePath,
    /// The recipient.
    pub recipient: &'a Recipient,
    /// The name of the courier.
    pub courier: &'a str,
    /// The result.
    pub outcome: &'a Outcome,
    /// The number of the attempt, from 1.
    pub attempt_number: u32,
    /// Its duration.
    pub duration: Duration,
    /// Time until the next attempt; nothing if there is none.
    pub next_attempt_after: Option<Duration>,
}

/// The result of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginEvent {
    /// The user and the password are right.
    Succeeded,
    /// No such user, or a wrong password. Counts against the client, for example in fail2ban.
    Failed,
    /// Not checked, because too many failed before. Counts against the client too.
    Throttled,
    /// Could not be checked; not the client's fault.
    Unavailable,
}

/// One refusal.
#[derive(Debug, Clone, Copy)]
pub struct RefusalEvent<'a> {
    /// The address of the client.
    pub client: IpAddr,
    /// The reverse-path of its transaction, if there is one.
    pub reverse_path: Option<&'a ReversePath>,
    /// The forward-path that was refused, if it was one.
    pub forward_path: Option<&'a ForwardPath>,
    /// The reply, with the reference at its end.
    pub reply: &'a str,
    /// The part of the session.
    pub stage: &'static str,
    /// The reasons in order, one sentence each.
    pub because: &'a [String],
}

/// A message of `octets` octets was accepted.
pub fn queued(envelope: &Envelope, octets: u64) {
    write(&queued_line(envelope, octets));
}

/// One attempt for one recipient ended: `delivered`, `deferred` or `failed`.
pub fn attempted(attempt: &AttemptEvent<'_>) {
    write(&attempted_line(attempt));
}

/// The lifetime of a message ended for a recipient; `last` is the outcome of the last attempt, if there was
/// one.
pub fn expired(id: &MessageId, reverse_path: &ReversePath, recipient: &Recipient, last: Option<&Outcome>) {
    let line = LogLine::new("expired")
        .with("id", id)
        .with("from", reverse_path)
        .with("to", recipient)
        .with_optional("last", last);
    write(&line);
}

/// A bounce about the message `id` was queued as the message `bounce`, to the reverse-path of `id`; `kind`
/// is `failure`, `delay` or `success`.
pub fn bounce_queued(id: &MessageId, reverse_path: &ReversePath, report: &MessageId, kind: &'static str) {
    let line = LogLine::new("bounced").with("id", id).with("to", reverse_path);
    write(&line.with("bounce", report).with("kind", kind));
}

/// No bounce about the message is sent; `reason` is for example a null reverse-path.
pub fn bounce_suppressed(id: &MessageId, why: &str) {
    write(&LogLine::new("not-bounced").with("id", id).with("reason", why));
}

/// Every recipient is settled, and the message has left the spool.
pub fn done(id: &MessageId) {
    write(&LogLine::new("done").with("id", id));
}

/// An operator removed these recipients of the message.
pub fn removed(id: &MessageId, recipients: &[&Recipient]) {
    let line = LogLine::new("removed").with("id", id);
    write(&with_recipients(line, recipients.iter().copied()));
}

/// An operator holds the message.
pub fn held(id: &MessageId) {
    write(&LogLine::new("held").with("id", id));
}

/// An operator sends recipients of the message by another route.
pub fn rerouted(id: &MessageId, way: &str) {
    write(&LogLine::new("rerouted").with("id", id).with("route", way));
}

/// An operator released the message.
pub fn released(id: &MessageId) {
    write(&LogLine::new("released").with("id", id));
}

/// A client was refused.
pub fn refused(refusal: &RefusalEvent<'_>) {
    write(&refused_line(refusal));
}

/// A client tried to log in as `user`, in the client's own spelling.
pub fn login_attempted(client: IpAddr, who: &str, login: LoginEvent) {
    let event = match login {
        LoginEvent::Succeeded => "login",
        LoginEvent::Failed => "login-failed",
        LoginEvent::Throttled => "login-throttled",
        LoginEvent::Unavailable => "login-unavailable",
    };
    write(&LogLine::new(event).with("client", client).with("user", who));
}

fn queued_line(envelope: &Envelope, octets: u64) -> LogLine {
    let line = LogLine::new("queued").with("id", envelope.id).with("from", &envelope.reverse_path);
    let line = with_recipients(line, envelope.recipients.iter());
    let client = envelope.client.as_ref();
    line.with("octets", octets)
        .with_optional("client", client.map(|client| client.address))
        .with_optional("tls", client.and_then(|client| client.tls.as_ref()))
        .with_optional("user", envelope.authenticated_user.as_ref())
}

fn refused_line(refusal: &RefusalEvent<'_>) -> LogLine {
    let because = (!refusal.because.is_empty()).then(|| refusal.because.join("; "));
    LogLine::new("refused")
        .with("client", refusal.client)
        .with_optional("from", refusal.reverse_path)
        .with_optional("to", refusal.forward_path)
        .with("reply", refusal.reply)
        .with("stage", refusal.stage)
        .with_optional("because", because)
}

fn with_recipients<'a>(line: LogLine, recipients: impl ExactSizeIterator<Item = &'a Recipient>) -> LogLine {
    let count = recipients.len();
    let line = recipients.take(RECIPIENTS_SHOWN_MAX).fold(line, |line, recipient| line.with("to", recipient));
    if count > RECIPIENTS_SHOWN_MAX { line.with("recipients", count) } else { line }
}

fn attempted_line(attempt: &AttemptEvent<'_>) -> LogLine {
    let event = match attempt.outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Deferred(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    let Recipient { forward_path: original, .. } = attempt.recipient;
    // The forward-path that the sender named, if an alias led from it to the recipient.
    let original = (original != attempt.recipient.final_mailbox()).then_some(original);
    LogLine::new(event)
        .with("id", attempt.id)
        .with("from", attempt.reverse_path)
        .with("to", attempt.recipient)
        .with_optional("original", original)
        .with("courier", attempt.courier)
        .with("attempt", attempt.attempt_number)
        .with("took", format_args!("{:.3}s", attempt.duration.as_secs_f64()))
        .with_optional("next", attempt.next_attempt_after.map(|next| format!("{}s", next.as_secs())))
        .with("status", attempt.outcome.status())
        .with("reason", attempt.outcome.reason())
}

fn write(line: &LogLine) {
    log::info!(target: TARGET, "{}", line.0);
}

/// A line that is being written.
struct LogLine(String);

impl LogLine {
    fn new(event: &'static str) -> Self {
        Self(event.to_owned())
    }

    fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        // Writing into a String does not fail.
        let _ = write!(self.0, " {key}={}", quoted(&value.to_string()));
        self
    }

    fn with_optional(self, key: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

/// A value as the log shows it: printable, and in quotes unless it is one word.
fn quoted(value: &str) -> String {
    let shown = printable(value.as_bytes(), VALUE_OCTETS_MAX);
    let is_word = !shown.is_empty() && !shown.chars().any(|c| c.is_whitespace() || matches!(c, '"' | '\\'));
    if is_word { shown } else { format!("\"{}\"", shown.replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Client, Mailbox, Reason, Timestamp};

    fn id() -> MessageId {
        MessageId::new(Timestamp::from_millis(1_795_408_663_042), 7)
    }

    fn recipient(address: &str) -> Recipient {
        Recipient::for_mailbox(Mailbox::parse(address).unwrap())
    }

    #[test]
    fn a_queued_message_is_one_line_with_its_id() {
        let sender = ReversePath::Mailbox(Mailbox::parse("ana@there.example").unwrap());
        let mut envelope =
            Envelope::new(id(), Timestamp::from_millis(0), sender, vec![recipient("bo@here.example")]);
        envelope.client =
            Some(Client { address: [192, 0, 2, 7].into(), helo_name: "there.example".into(), tls: None });
        assert_eq!(
            queued_line(&envelope, 1420).0,
            format!(
                "queued id={} from=<ana@there.example> to=bo@here.example octets=1420 client=192.0.2.7",
                id()
            )
        );
    }

    #[test]
    fn text_of_a_peer_stays_inside_its_quotes() {
        let said = printable(b"550 no\nqueued id=forged \"quoted\"", 500);
        let outcome = Outcome::Failed(Reason::new(1, 1, "refused").with_response("mx.example", said));
        let line = attempted_line(&AttemptEvent {
            id: &id(),
            reverse_path: &ReversePath::Null,
            recipient: &recipient("bo@there.example"),
            courier: "smtp",
            outcome: &outcome,
            attempt_number: 3,
            duration: Duration::from_millis(1204),
            next_attempt_after: None,
        });
        assert_eq!(
            line.0,
            format!(
                "failed id={} from=<> to=bo@there.example courier=smtp attempt=3 took=1.204s status=5.1.1 \
                 reason=\"refused: mx.example said: 550 no\\\\x0aqueued id=forged \\\"quoted\\\"\"",
                id()
            )
        );
    }

    #[test]
    fn a_value_is_quoted_unless_it_is_one_word() {
        for (value, shown) in [
            ("word", "word"),
            ("<a=b@here.example>", "<a=b@here.example>"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("o\"brien", "\"o\\\"brien\""),
            ("line\r\nline", "\"line\\x0d\\x0aline\""),
            ("non\u{a0}breaking", "\"non\u{a0}breaking\""),
        ] {
            assert_eq!(quoted(value), shown);
        }
    }
}
