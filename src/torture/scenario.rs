//! A scenario that passes through every state of a message in the spool.
//!
//! It has small and large messages, deliveries, deferrals, a message with one recipient settled and one waiting,
//! a failure with its bounce, segments that become full and are moved, retries that settle, and segments that
//! are overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::simulated_queue::{MINUTE, SimulatedQueue, deferred, delivered, failed};
use crate::fakes::RecordedAttempt;
use crate::mail::{Envelope, MessageId};

/// What clients have sent.
#[derive(Default)]
pub struct SentMail {
    /// Messages that were accepted with 250: envelope and octets.
    pub accepted: BTreeMap<MessageId, (Envelope, Vec<u8>)>,
    /// The octets of all messages that were sent: only these may be delivered.
    pub offered_octets: BTreeSet<Vec<u8>>,
}

impl SentMail {
    /// Sends a message of about `octets` octets that differs from all others.
    fn put(&mut self, queue: &SimulatedQueue, to: &[&str], octets: usize) {
        let number = self.offered_octets.len();
        let line = format!("line of message {number}, which differs from all others\r\n");
        let mut message = format!("Subject: message {number}\r\n\r\n").into_bytes();
        message.extend(line.bytes().cycle().take(octets - octets % line.len()));
        self.offered_octets.insert(message.clone());
        if let Ok(envelope) = queue.put("ana@here.example", to, &message) {
            self.accepted.insert(envelope.id, (envelope, message));
        }
    }
}

/// Runs the scenario; sets the outcomes of the couriers as it goes.
pub fn run_scenario(queue: &mut SimulatedQueue, sent: &mut SentMail) {
    let local = "bo@here.example";
    let remote = "cy@there.example";
    sent.put(queue, &[local], 200);
    queue.stepped.run();
    queue.remote.set_default_outcome(Some(deferred("busy")));
    sent.put(queue, &[remote], 300);
    sent.put(queue, &[remote], 5000);
    sent.put(queue, &[local, remote], 100);
    sent.put(queue, &[local], 4000);
    sent.put(queue, &[local, remote], 2000);
    queue.stepped.run();
    queue.local.add_outcomes([failed("no such mailbox")]);
    sent.put(queue, &["nobody@here.example", remote], 100);
    queue.stepped.run();
    // Fills segments while no message is delivered, so that the oldest segment must be moved.
    for _ in 0..8 {
        sent.put(queue, &[local, remote], 900);
    }
    queue.clock.advance(Duration::from_secs(2));
    queue.stepped.run();
    queue.remote.add_outcomes([delivered(), deferred("busy"), failed("gone"), delivered()]);
    queue.run_for(2 * MINUTE);
    sent.put(queue, &[local], 500);
    queue.remote.set_default_outcome(None);
    queue.run_for(10 * MINUTE);
    // The oldest segments have no message left, so that they are overwritten.
    for _ in 0..4 {
        sent.put(queue, &[local], 900);
    }
    queue.run_for(MINUTE);
    sent.put(queue, &[remote], 500);
    sent.put(queue, &[remote], 3000);
}

/// What is wrong with the attempts after the scenario; `None` if nothing is.
#[must_use]
pub fn find_delivery_fault(sent: &SentMail, attempts: &[RecordedAttempt]) -> Option<String> {
    let bounces = attempts.iter().filter(|one| one.envelope.reverse_path.is_null());
    let bounces: Vec<_> = bounces.map(|one| String::from_utf8_lossy(&one.octets)).collect();
    for (id, (envelope, _)) in &sent.accepted {
        let id_line = format!("Queue ID of your message: {id}");
        for recipient in &envelope.recipients {
            let name = recipient.to_string();
            let has = |class: char| {
                let mut theirs =
                    attempts.iter().filter(|one| one.envelope.id == *id && one.recipient == name);
                theirs.any(|one| one.outcome.status().starts_with(class))
            };
            // Settled: delivered, or failed with a bounce to the sender.
            let is_bounced = || bounces.iter().any(|text| text.contains(&id_line) && text.contains(&name));
            let is_settled = has('2') || (has('5') && is_bounced());
            if !is_settled {
                return Some(format!("{id} to {recipient} is lost"));
            }
        }
    }
    for one in attempts.iter().filter(|one| !one.envelope.reverse_path.is_null()) {
        let id = one.envelope.id;
        if !sent.offered_octets.contains(&one.octets) {
            return Some(format!("{id} was delivered with octets that no client sent"));
        }
        // The queue sets this field.
        let delivered = Envelope { queued_at: None, ..one.envelope.clone() };
        if let Some((envelope, octets)) = sent.accepted.get(&id)
            && (*envelope != delivered || *octets != one.octets)
        {
            return Some(format!("{id} was delivered with a change"));
        }
    }
    None
}
