//! What the subcommands and the monitor are told, as JSON.
//!
//! One form for both, so that `postrider queue list --json` and `/queue.json` say the same.

use std::sync::Arc;

use serde_json::{Value, json};

use super::chores::Chores;
use super::expiry::first_end;
use crate::control::{Answers, Request, Which};
use crate::domaininfo::{DomainInfo, Known};
use crate::inbound::Doors;
use crate::mail::{Domain, MessageId};
use crate::monitor::{Ending, Shows, Status};
use crate::observe::{Metrics, Traces};
use crate::queue::{Handle, ItemView, RecipientView, State};
use crate::sys::{Clock, Moment};

/// Knows whom to ask.
pub(super) struct Desk {
    pub(super) hostname: Domain,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) began: Moment,
    pub(super) queue: Handle,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) chores: Arc<Chores>,
    pub(super) doors: Arc<Doors>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
}

impl Answers for Desk {
    fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::QueueList => Ok(self.queue_list()),
            Request::QueueRetry { which: Which::All } => {
                self.queue.retry_all();
                Ok(json!({}))
            }
            Request::QueueRetry { which: Which::One(id) } => known(self.queue.retry(&id), &id),
            Request::QueueRemove { id } => known(self.queue.remove(&id), &id),
            Request::DomainList => {
                let list = self.domaininfo.list().map_err(|e| format!("domaininfo cannot be read: {e}"))?;
                Ok(json!({ "domains": list.iter().map(domain).collect::<Vec<_>>() }))
            }
            Request::DomainShow { domain: name } => Ok(domain(&self.domaininfo.known(&name))),
            Request::DomainForget { domain: name } => match self.domaininfo.forget(&name) {
                Ok(true) => Ok(json!({})),
                Ok(false) => Err(format!("nothing is known of {name}")),
                Err(e) => Err(format!("{name} cannot be forgotten: {e}")),
            },
            Request::Reload => self.chores.reload().map(|()| json!({})).map_err(|errors| errors.join("\n")),
            Request::Status => Ok(status(&self.status())),
        }
    }
}

impl Desk {
    fn certificate(&self) -> Option<Ending> {
        let (certs, now) = (self.chores.certs.set(), self.clock.wall());
        let validity = first_end(&certs)?.validity;
        Some(Ending { left: validity.left(now), is_near: validity.is_ending(now) })
    }

    /// Every message in the queue, up to [`Handle::LIST_MAX`].
    pub(super) fn queue_list(&self) -> Value {
        let messages: Vec<_> = self.queue.list().iter().map(message).collect();
        json!({ "count": self.queue.count(), "messages": messages })
    }
}

impl Shows for Desk {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            hostname: self.hostname.clone(),
            uptime: self.clock.now().since(self.began),
            sessions: self.doors.count(),
            queue: self.queue.count(),
            certificate: self.certificate(),
        }
    }

    fn queue(&self) -> Vec<ItemView> {
        self.queue.list()
    }

    fn queue_json(&self) -> Value {
        self.queue_list()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn traces(&self) -> &Traces {
        &self.traces
    }
}

fn status(status: &Status) -> Value {
    json!({
        "version": status.version,
        "hostname": status.hostname,
        "uptime-seconds": status.uptime.as_secs(),
        "sessions": status.sessions,
        "queue": status.queue,
        "certificate-seconds": status.certificate.map(|ending| ending.left.as_secs()),
    })
}

fn known(is_known: bool, id: &MessageId) -> Result<Value, String> {
    if is_known {
        Ok(json!({}))
    } else {
        Err(format!("{id} is not in the queue: it was delivered, reported or removed"))
    }
}

fn message(item: &ItemView) -> Value {
    json!({
        "id": item.id,
        "arrived": item.arrived.to_string(),
        "age-seconds": item.age.as_secs(),
        "octets": item.octets,
        "reverse-path": item.reverse_path.to_string(),
        "attempts": item.attempts,
        "due": item.due.to_string(),
        "recipients": item.recipients.iter().map(recipient).collect::<Vec<_>>(),
    })
}

fn recipient(view: &RecipientView) -> Value {
    let state = match &view.state {
        State::Waiting(None) => "waiting",
        State::Waiting(Some(_)) => "deferred",
        State::Delivered(_) => "delivered",
        State::Failed(_) => "failed",
        State::Expired(_) => "expired",
    };
    json!({
        "recipient": view.recipient.to_string(),
        "state": state,
        "reason": view.state.reason().map(ToString::to_string),
    })
}

fn domain(known: &Known) -> Value {
    json!({
        "domain": known.domain,
        "incoming": known.incoming,
        "incoming-seen": known.incoming_seen,
        "outgoing": known.outgoing,
        "outgoing-seen": known.outgoing_seen,
    })
}
