//! When a report is owed, to whom, and in whose name.
//!
//! A report is owed for each round in which recipients failed: at once when they fail, not when
//! the last one is done. Never to a null reverse-path (RFC 5321 §6.1), and not for recipients
//! whose sender said NOTIFY=NEVER or named other events only (RFC 3461 §4.1). How a report looks
//! is `dsn`'s business.

use std::io::{self, Read as _};

use super::item::State;
use super::own_mail::Letter;
use crate::courier::Message;
use crate::dsn::{self, Failed, Original};
use crate::mail::{Domain, Envelope, Fields, MessageId, Ret, ReversePath, Timestamp};
use crate::route::Router;

/// Whether a report is owed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nobody failed.
    Nothing,
    /// Somebody failed, and this stands against a report.
    Silence(&'static str),
    /// For the recipients at these positions.
    Report(Vec<usize>),
}

/// What one attempt's states ask for.
pub(super) fn owed(envelope: &Envelope, states: &[(usize, State)]) -> Owed {
    let failed = states.iter().filter(|(_, state)| matches!(state, State::Failed(_) | State::Expired(_)));
    let failed: Vec<usize> = failed.map(|(position, _)| *position).collect();
    if failed.is_empty() {
        return Owed::Nothing;
    }
    if envelope.reverse_path.is_null() {
        return Owed::Silence("the reverse-path is null");
    }
    let wants =
        |position: &usize| envelope.recipients.get(*position).is_some_and(|one| one.notify.on_failure());
    let wanted: Vec<usize> = failed.into_iter().filter(wants).collect();
    if wanted.is_empty() {
        return Owed::Silence("the sender asked for none (NOTIFY)");
    }
    Owed::Report(wanted)
}

/// Writes reports in our name.
pub(super) struct Clerk<'a> {
    pub(super) router: &'a Router,
    pub(super) hostname: &'a Domain,
    pub(super) now: Timestamp,
    /// Makes the report's Message-ID unique.
    pub(super) id: MessageId,
}

/// More of a message than this is not returned.
const COPY_OCTETS_MAX: u64 = 64 * 1024;

impl Clerk<'_> {
    /// The report for the recipients at `owed`; nothing for a null reverse-path.
    pub(super) fn letter(
        &self,
        envelope: &Envelope,
        states: &[(usize, State)],
        owed: &[usize],
        original: Original,
    ) -> Option<Letter> {
        let to = envelope.reverse_path.mailbox()?;
        let recipients = states.iter().filter(|(position, _)| owed.contains(position));
        let recipients = recipients.filter_map(|(position, state)| {
            let recipient = envelope.recipients.get(*position)?;
            match state {
                State::Failed(reason) => Some(Failed { recipient, reason, is_expired: false }),
                State::Expired(reason) => Some(Failed { recipient, reason, is_expired: true }),
                State::Waiting(_) | State::Delivered(_) => None,
            }
        });
        // A sender of ours hears from its own domain; nobody else's name is used.
        let from_domain = if self.router.is_local(&to.domain) { &to.domain } else { self.hostname };
        let report = dsn::Report {
            from_domain,
            hostname: self.hostname,
            id: self.id,
            date: self.now,
            to,
            envelope,
            recipients: recipients.collect(),
            original,
        };
        let written = report.write();
        Some(Letter {
            reverse_path: ReversePath::Null,
            to: to.clone(),
            octets: written.octets,
            has_8bit: written.has_8bit,
            smtputf8: written.smtputf8,
        })
    }
}

/// As much of the message as is returned.
pub(super) fn original(envelope: &Envelope, message: &dyn Message) -> io::Result<Original> {
    let mut octets = Vec::new();
    message.open()?.take(COPY_OCTETS_MAX).read_to_end(&mut octets)?;
    // RET=HDRS asks for no more (RFC 3461 §4.3).
    if message.octets() <= COPY_OCTETS_MAX && envelope.ret != Some(Ret::Headers) {
        return Ok(Original::Whole(octets));
    }
    octets.truncate(Fields::section_length(&octets));
    Ok(Original::Headers(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Mailbox, Notify, Reason, Recipient};

    fn envelope(from: &str, notify: Notify) -> Envelope {
        let at = Timestamp::from_millis(0);
        let reverse_path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Mailbox(Mailbox::parse(from).unwrap()),
        };
        let mut recipient = Recipient::mailbox(Mailbox::parse("bo@there.example").unwrap());
        recipient.notify = notify;
        Envelope::new(MessageId::new(at, 0), at, reverse_path, vec![recipient])
    }

    fn failed() -> Vec<(usize, State)> {
        vec![(0, State::Failed(Reason::new(1, 1, "no such mailbox")))]
    }

    #[test]
    fn a_report_is_owed_when_somebody_failed_and_the_sender_wants_to_know() {
        let ana = envelope("ana@here.example", Notify::default());
        assert_eq!(owed(&ana, &failed()), Owed::Report(vec![0]));
        assert_eq!(owed(&ana, &[(0, State::Waiting(None))]), Owed::Nothing);
        let expired = [(0, State::Expired(Reason::new(4, 1, "busy")))];
        assert_eq!(owed(&ana, &expired), Owed::Report(vec![0]));
    }

    #[test]
    fn no_report_goes_to_a_null_reverse_path_or_against_the_senders_wish() {
        assert!(matches!(owed(&envelope("", Notify::default()), &failed()), Owed::Silence(_)));
        for notify in [Notify::Never, Notify::When { success: true, failure: false, delay: true }] {
            assert!(matches!(owed(&envelope("ana@here.example", notify), &failed()), Owed::Silence(_)));
        }
    }

    struct Letter(Vec<u8>);

    impl Message for Letter {
        fn octets(&self) -> u64 {
            self.0.len() as u64
        }

        fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
            Ok(Box::new(self.0.as_slice()))
        }
    }

    #[test]
    fn the_message_comes_back_whole_unless_it_is_long_or_its_head_was_asked_for() {
        const HEAD: &[u8] = b"Subject: hello\r\n\r\n";
        let letter = |octets: u64| {
            let mut all = HEAD.to_vec();
            all.resize(usize::try_from(octets).unwrap(), b'x');
            Letter(all)
        };
        let mut ana = envelope("ana@here.example", Notify::default());
        let whole = letter(COPY_OCTETS_MAX);
        assert_eq!(original(&ana, &whole).unwrap(), Original::Whole(whole.0.clone()));
        let head = || Original::Headers(HEAD.to_vec());
        assert_eq!(original(&ana, &letter(COPY_OCTETS_MAX + 1)).unwrap(), head());
        ana.ret = Some(Ret::Headers);
        assert_eq!(original(&ana, &letter(100)).unwrap(), head());
        ana.ret = Some(Ret::Full);
        assert_eq!(original(&ana, &letter(20)).unwrap(), Original::Whole(letter(20).0));
        assert_eq!(original(&ana, &letter(COPY_OCTETS_MAX + 1)).unwrap(), head(), "our limit comes first");
    }
}
