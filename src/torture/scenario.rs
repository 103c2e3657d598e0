//! A day that passes through every state of the table at the head of `queue/spool.rs`: small and
//! large messages, deliveries, deferrals, a message with one recipient settled and one waiting, a
//! failure with its report, segments that fill up and move, retries that settle, segments that are
//! written over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::simulated_queue::{MINUTE, SimulatedQueue, deferred, delivered, failed};
use crate::fakes::RecordedAttempt;
use crate::mail::{Envelope, MessageId};

/// What clients were told.
#[derive(Default)]
pub struct SentMail {
    /// Answered 250: envelope and octets.
    pub accepted: BTreeMap<MessageId, (Envelope, Vec<u8>)>,
    /// All octets that anybody offered: what may come out.
    pub offered_octets: BTreeSet<Vec<u8>>,
}

impl SentMail {
    /// A client hands in a letter of about `octets`, unlike any other.
    fn put(&mut self, office: &SimulatedQueue, to: &[&str], octets: usize) {
        let number = self.offered_octets.len();
        let line = format!("line of letter {number}, which can be told from all others\r\n");
        let mut letter = format!("Subject: letter {number}\r\n\r\n").into_bytes();
        letter.extend(line.bytes().cycle().take(octets - octets % line.len()));
        self.offered_octets.insert(letter.clone());
        if let Ok(envelope) = office.put("ana@here.example", to, &letter) {
            self.accepted.insert(envelope.id, (envelope, letter));
        }
    }
}

/// The day. The couriers are told their parts as it goes.
pub fn run_scenario(office: &mut SimulatedQueue, ledger: &mut SentMail) {
    let local = "bo@here.example";
    let remote = "cy@there.example";
    ledger.put(office, &[local], 200);
    office.stepped.run();
    office.remote.set_default_outcome(Some(deferred("busy")));
    ledger.put(office, &[remote], 300);
    ledger.put(office, &[remote], 5000);
    ledger.put(office, &[local, remote], 100);
    ledger.put(office, &[local], 4000);
    ledger.put(office, &[local, remote], 2000);
    office.stepped.run();
    office.local.add_outcomes([failed("no such mailbox")]);
    ledger.put(office, &["nobody@here.example", remote], 100);
    office.stepped.run();
    // Fills segments while nothing leaves: the oldest has to move.
    for _ in 0..8 {
        ledger.put(office, &[local, remote], 900);
    }
    office.clock.advance(Duration::from_secs(2));
    office.stepped.run();
    office.remote.add_outcomes([delivered(), deferred("busy"), failed("gone"), delivered()]);
    office.run_for(2 * MINUTE);
    ledger.put(office, &[local], 500);
    office.remote.set_default_outcome(None);
    office.run_for(10 * MINUTE);
    // Nothing is left in the oldest segments: they are written over.
    for _ in 0..4 {
        ledger.put(office, &[local], 900);
    }
    office.run_for(MINUTE);
    ledger.put(office, &[remote], 500);
    ledger.put(office, &[remote], 3000);
}

/// What is not as it should be after all is done; nothing if all is well.
#[must_use]
pub fn find_delivery_fault(ledger: &SentMail, all: &[RecordedAttempt]) -> Option<String> {
    let reports = all.iter().filter(|one| one.envelope.reverse_path.is_null());
    let reports: Vec<_> = reports.map(|one| String::from_utf8_lossy(&one.octets)).collect();
    for (id, (envelope, _)) in &ledger.accepted {
        let told = format!("Our name for your message: {id}");
        for recipient in &envelope.recipients {
            let name = recipient.to_string();
            let has = |class: char| {
                let mut theirs = all.iter().filter(|one| one.envelope.id == *id && one.recipient == name);
                theirs.any(|one| one.outcome.status().starts_with(class))
            };
            // Delivered; or failed, and the sender was told so.
            let is_told = || reports.iter().any(|text| text.contains(&told) && text.contains(&name));
            let is_settled = has('2') || (has('5') && is_told());
            if !is_settled {
                return Some(format!("{id} to {recipient} is lost"));
            }
        }
    }
    for one in all.iter().filter(|one| !one.envelope.reverse_path.is_null()) {
        let id = one.envelope.id;
        if !ledger.offered_octets.contains(&one.octets) {
            return Some(format!("{id} came out with octets that nobody put in"));
        }
        // When it was put is the queue's to say.
        let came_out = Envelope { queued_at: None, ..one.envelope.clone() };
        if let Some((envelope, octets)) = ledger.accepted.get(&id)
            && (*envelope != came_out || *octets != one.octets)
        {
            return Some(format!("{id} came out changed"));
        }
    }
    None
}
