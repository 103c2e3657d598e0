//! What the subcommands and the monitor are told, as JSON.
//!
//! One form for both, so that `postrider queue list --json` and `/queue.json` say the same.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::alias_json::{aliases_json, branch_json};
use super::certificate_expiry::first_to_expire;
use super::reloader::Reloader;
use crate::control::{ControlRequest, MessagePart, RequestHandler};
use crate::domaininfo::{DomainInfo, PeerEntry};
use crate::inbound::SessionLimits;
use crate::mail::{Domain, MessageId};
use crate::monitor::{CertificateExpiry, MonitorData, ServerStatus};
use crate::observe::{Metrics, Traces};
use crate::queue::{
    ChangeResult, Handle, MessageDetail, Operator, QueuedMessage, QueuedRecipient, RecipientState, Selection,
    StateChange,
};
use crate::sys::{Clock, Moment};

/// Messages that a page of the monitor has room for.
const MESSAGES_LISTED_MAX: usize = 1000;

/// Knows whom to ask.
pub(super) struct ControlService {
    pub(super) hostname: Domain,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Moment,
    pub(super) queue: Handle,
    pub(super) operator: Operator,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) session_limits: Arc<SessionLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
}

impl RequestHandler for ControlService {
    fn handle(&self, request: ControlRequest) -> Result<Value, String> {
        match request {
            ControlRequest::QueueList { selection, limit } => Ok(self.queue_list(&selection, limit)),
            ControlRequest::QueueShow { id, part } => self.queue_show(&id, part),
            ControlRequest::QueueChange { selection, change } => {
                Ok(change_json(&self.operator.change(selection, change)))
            }
            ControlRequest::PeerList => {
                let list = self.domaininfo.list().map_err(|e| format!("domaininfo cannot be read: {e}"))?;
                Ok(json!({ "domains": list.iter().map(peer_json).collect::<Vec<_>>() }))
            }
            ControlRequest::PeerShow { domain: name } => Ok(peer_json(&self.domaininfo.get(&name))),
            ControlRequest::PeerForget { domain: name } => match self.domaininfo.forget(&name) {
                Ok(true) => Ok(json!({})),
                Ok(false) => Err(format!("nothing is known of {name}")),
                Err(e) => Err(format!("{name} cannot be forgotten: {e}")),
            },
            ControlRequest::AliasResolve { address } => {
                Ok(branch_json(&self.reloader.lookup_tables.trace_aliases(&address)))
            }
            ControlRequest::AliasList { domain } => {
                let in_force = self.reloader.files.lock().domains.aliases();
                aliases_json(&in_force, domain.as_ref())
            }
            ControlRequest::Reload => match self.reloader.request_reload().recv() {
                Ok(reloaded) => reloaded.map(|()| json!({})).map_err(|errors| errors.join("\n")),
                Err(_) => Err("the server stops".to_owned()),
            },
            ControlRequest::Status => Ok(status_json(&self.status())),
        }
    }
}

impl ControlService {
    fn certificate_expiry(&self) -> Option<CertificateExpiry> {
        let (certs, now) = (self.reloader.certs.current(), self.clock.wall_time());
        let validity = first_to_expire(&certs)?.validity;
        Some(CertificateExpiry {
            remaining: validity.remaining(now),
            is_near: validity.is_expiring_soon(now),
        })
    }

    /// Messages that are meant, at most `limit`, and how many there are in all.
    fn queue_list(&self, which: &Selection, limit: usize) -> Value {
        let messages: Vec<_> = self.operator.list(which, limit).iter().map(message_json).collect();
        json!({ "count": self.queue.count(), "messages": messages })
    }

    fn queue_show(&self, id: &MessageId, part: Option<MessagePart>) -> Result<Value, String> {
        let detail = self.operator.detail(id).ok_or_else(|| {
            format!("{id} is not in the queue: it was delivered, reported or removed; or see the log")
        })?;
        let mut answer = detail_json(&detail);
        if let (Some(part), Some(fields)) = (part, answer.as_object_mut()) {
            let octets = self.operator.content(id, part == MessagePart::Header);
            let octets = octets.map_err(|e| format!("{id} cannot be read: {e}"))?;
            // A message is octets, and JSON is text.
            fields.insert("base64".to_owned(), STANDARD.encode(octets).into());
        }
        Ok(answer)
    }
}

impl MonitorData for ControlService {
    fn status(&self) -> ServerStatus {
        ServerStatus {
            version: env!("CARGO_PKG_VERSION"),
            hostname: self.hostname.clone(),
            uptime: self.clock.now().since(self.started),
            sessions: self.session_limits.session_count(),
            queue: self.queue.count(),
            certificate: self.certificate_expiry(),
        }
    }

    fn queue(&self) -> Vec<QueuedMessage> {
        self.operator.list(&Selection::default(), MESSAGES_LISTED_MAX)
    }

    fn queue_json(&self) -> Value {
        self.queue_list(&Selection::default(), MESSAGES_LISTED_MAX)
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn traces(&self) -> &Traces {
        &self.traces
    }
}

fn status_json(status: &ServerStatus) -> Value {
    json!({
        "version": status.version,
        "hostname": status.hostname,
        "uptime-seconds": status.uptime.as_secs(),
        "sessions": status.sessions,
        "queue": status.queue,
        "certificate-seconds": status.certificate.map(|ending| ending.remaining.as_secs()),
    })
}

fn change_json(changed: &ChangeResult) -> Value {
    let refused = changed.refused.iter().map(|(id, why)| json!({ "id": id, "reason": why }));
    json!({
        "changed": changed.done,
        "pending": changed.pending,
        "refused": refused.collect::<Vec<_>>(),
        "not-processed": changed.not_reached,
    })
}

/// As in the list, and what the list has no room for.
fn detail_json(detail: &MessageDetail) -> Value {
    let MessageDetail { view, envelope, state_changes: history } = detail;
    let name = |position: usize| envelope.recipients.get(position).map(ToString::to_string);
    let event = |event: &StateChange| {
        json!({
            "time": event.time.to_string(),
            "attempt": event.attempt,
            "recipient": name(event.position),
            "state": state_name(&event.state),
            "reason": event.state.reason().map(ToString::to_string),
        })
    };
    let mut answer = message_json(view);
    let more = json!({
        "authenticated-user": envelope.authenticated_user.as_ref().map(ToString::to_string),
        "client": envelope.client.as_ref().map(|client| client.address),
        "helo-name": envelope.client.as_ref().map(|client| &client.helo_name),
        "tls": envelope.client.as_ref().and_then(|client| client.tls.as_ref()).map(ToString::to_string),
        "body": envelope.body_type,
        "smtputf8": envelope.smtputf8,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "history": history.iter().map(event).collect::<Vec<_>>(),
    });
    if let (Some(fields), Value::Object(more)) = (answer.as_object_mut(), more) {
        fields.extend(more);
    }
    answer
}

fn message_json(item: &QueuedMessage) -> Value {
    json!({
        "id": item.id,
        "arrived": item.arrived.to_string(),
        "age-seconds": item.age.as_secs(),
        "octets": item.octets,
        "reverse-path": item.reverse_path.to_string(),
        "attempts": item.attempts,
        "due": item.due.map(|due| due.to_string()),
        "held": item.is_held,
        "recipients": item.recipients.iter().map(recipient_json).collect::<Vec<_>>(),
    })
}

fn recipient_json(view: &QueuedRecipient) -> Value {
    let QueuedRecipient { recipient, state: at } = view;
    let is_renamed = recipient.forward_path != *recipient.final_mailbox();
    json!({
        "recipient": recipient.to_string(),
        // What the sender knows it by, where an alias made another of it.
        "original": is_renamed.then(|| recipient.forward_path.to_string()),
        "state": state_name(at),
        "reason": at.reason().map(ToString::to_string),
    })
}

fn state_name(state: &RecipientState) -> &'static str {
    match state {
        RecipientState::Waiting(None) => "waiting",
        RecipientState::Waiting(Some(_)) => "deferred",
        RecipientState::Delivered(_) => "delivered",
        RecipientState::Failed(_) => "failed",
        RecipientState::Expired(_) => "expired",
    }
}

fn peer_json(known: &PeerEntry) -> Value {
    json!({
        "domain": known.domain,
        "incoming": known.incoming,
        "incoming-seen": known.incoming_seen,
        "outgoing": known.outgoing,
        "outgoing-seen": known.outgoing_seen,
    })
}
