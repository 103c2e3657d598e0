//! Writes reports in our name, and puts them through the door for our own mail.

use std::sync::Arc;

use super::bounce::{self, Due};
use super::handle::Shared;
use super::octets::Octets;
use super::own_mail::Letter;
use super::worker::{Crew, words};
use crate::dsn::{Entry, Original, Report};
use crate::mail::{Envelope, MessageId, Notify, Recipient, ReversePath, Timestamp};
use crate::observe::maillog;
use crate::observe::{CounterFamily, Metrics};
use crate::sys::catch_panic;

/// Whoever writes reports. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clerk {
    shared: Arc<Shared>,
    crew: Crew,
    reports: CounterFamily,
}

impl Clerk {
    pub(super) fn new(shared: Arc<Shared>, crew: Crew, metrics: &Metrics) -> Self {
        let reports = metrics.family("queue_reports", "Reports put, by what they are about", "kind");
        Self { shared, crew, reports }
    }

    /// Writes one report and puts it; `until` is when we give up on those who are delayed. False
    /// if it could not be put: it is owed still.
    pub(super) fn report(&self, envelope: &Envelope, due: &Due, until: Timestamp) -> bool {
        // A panic here must not cost what else the attempt has found out: that a recipient has it.
        let put = catch_panic(|| match self.letter(envelope, due, until) {
            Some(letter) => self.crew.own_mail.put(letter).map_err(|e| e.to_string()),
            None => Ok(None),
        })
        .unwrap_or_else(|panic| Err(words(panic.as_ref())));
        let Envelope { id, reverse_path, .. } = envelope;
        match put {
            Ok(Some(report)) => {
                self.reports.add_one(due.kind.name());
                maillog::reported(id, reverse_path, &report, due.kind.name());
                true
            }
            Ok(None) => {
                maillog::not_reported(id, "there is nobody of the sender's name");
                true
            }
            Err(e) => {
                log::error!(target: "queue", "{id}: the report of a {} cannot be put: {e}", due.kind.name());
                false
            }
        }
    }

    /// The report; nothing for a null reverse-path.
    fn letter(&self, envelope: &Envelope, due: &Due, until: Timestamp) -> Option<Letter> {
        let to = envelope.reverse_path.mailbox()?;
        let hostname = &self.crew.hostname;
        let date = self.shared.clock.wall();
        // A sender of ours hears from its own domain; others from the name that we say in EHLO when
        // the reverse-path is null, so that SPF vouches for the address in From (RFC 7208 §2.4).
        let is_ours = self.crew.router.load().is_local(&to.domain);
        let entries = due.entries.iter().filter_map(|(position, action, reason)| {
            let recipient = envelope.recipients.get(*position)?;
            Some(Entry { recipient, action: *action, reason })
        });
        let report = Report {
            from_domain: if is_ours { &to.domain } else { hostname },
            hostname,
            id: MessageId::new(date, self.shared.random.bits()),
            date,
            to,
            envelope,
            entries: entries.collect(),
            until,
            original: self.original(envelope, due),
        };
        let written = report.write();
        Some(Letter {
            reverse_path: ReversePath::Null,
            to: vec![Recipient { notify: Notify::Never, ..Recipient::mailbox(to.clone()) }],
            hostname: hostname.clone(),
            octets: written.octets,
            has_8bit: written.has_8bit,
            smtputf8: written.smtputf8,
        })
    }

    fn original(&self, envelope: &Envelope, due: &Due) -> Original {
        let message = self.shared.spool.extent(&envelope.id).and_then(|extent| Octets::new(extent, envelope));
        // Who sent it hears that it failed, though not a word of it can be read any more.
        message.and_then(|message| bounce::original(envelope, &message, due.kind)).unwrap_or_else(|e| {
            log::error!(target: "queue", "{}: the message cannot be returned: {e}", envelope.id);
            Original::Unreadable
        })
    }
}
