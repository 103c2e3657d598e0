//! One attempt of a courier, for unit tests.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::contract::{Courier, Delivery, Message};
use crate::mail::{Envelope, Mailbox, MessageId, Outcome, Recipient, ReversePath, Timestamp};
use crate::observe::Traces;
use crate::sys::{Clock, Moment, SystemClock};

/// A message, its recipients, and the time for an attempt.
pub(super) struct TestDelivery {
    pub(super) recipients: Vec<Recipient>,
    reverse_path: ReversePath,
    message: StaticMessage,
    time_limit: Duration,
}

struct StaticMessage {
    octets: &'static [u8],
    /// Reading fails after so many octets.
    fails_after_octets: Option<u64>,
}

impl Message for StaticMessage {
    fn octets(&self) -> u64 {
        self.octets.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self.fails_after_octets {
            None => Box::new(self.octets),
            Some(octets) => Box::new(self.octets.take(octets).chain(UnreadableMessage)),
        })
    }
}

struct UnreadableMessage;

impl Read for UnreadableMessage {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("bad sector"))
    }
}

impl TestDelivery {
    /// A short message. Local parts may be any text: they are quoted where the grammar needs it.
    pub(super) fn new(reverse_path: &str, recipients: &[&str]) -> Self {
        Self {
            recipients: recipients.iter().map(|raw| Recipient::for_mailbox(mailbox(raw))).collect(),
            reverse_path: match reverse_path {
                "" => ReversePath::Null,
                raw => ReversePath::Mailbox(mailbox(raw)),
            },
            message: StaticMessage { octets: b"Subject: hello\r\n\r\nDear Bo\r\n", fails_after_octets: None },
            time_limit: Duration::from_secs(60),
        }
    }

    pub(super) fn fail_after(&mut self, octets: u64) {
        self.message.fails_after_octets = Some(octets);
    }

    pub(super) fn expire(&mut self) {
        self.time_limit = Duration::ZERO;
    }

    /// The attempt, by the host's clock.
    pub(super) fn attempt(&self, courier: &dyn Courier) -> Vec<Outcome> {
        self.attempt_at(courier, SystemClock.now())
    }

    /// The attempt, by a clock that shows `now`.
    pub(super) fn attempt_at(&self, courier: &dyn Courier, now: Moment) -> Vec<Outcome> {
        let id = MessageId::new(Timestamp::from_millis(0), 1);
        let envelope =
            Envelope::new(id, Timestamp::from_millis(0), self.reverse_path.clone(), self.recipients.clone());
        let recipients: Vec<_> = self.recipients.iter().collect();
        courier.attempt(&Delivery {
            envelope: &envelope,
            recipients: &recipients,
            message: &self.message,
            deadline: now + self.time_limit,
            is_more_mail_expected: false,
            trace: &Traces::new(Arc::new(SystemClock)).begin("attempt", "test"),
        })
    }
}

pub(super) fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap_or_else(|_| {
        let (local_part, domain) = raw.rsplit_once('@').unwrap();
        Mailbox::parse(&format!("\"{local_part}\"@{domain}")).unwrap()
    })
}

/// A text for a shell, in `dir`; its path.
pub(super) fn script(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
