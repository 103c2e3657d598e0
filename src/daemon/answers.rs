//! What the subcommands and the monitor are told, as JSON.
//!
//! One form for both, so that `postrider queue list --json` and `/queue.json` say the same.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::alias_answers::{aliases, branch};
use super::chores::Chores;
use super::expiry::first_end;
use crate::control::{Answers, Part, Request};
use crate::domaininfo::{DomainInfo, Known};
use crate::inbound::Doors;
use crate::mail::{Domain, MessageId};
use crate::monitor::{Ending, Shows, Status};
use crate::observe::{Metrics, Traces};
use crate::queue::{Changed, Detail, Event, Handle, ItemView, Operator, RecipientView, Selection, State};
use crate::sys::{Clock, Moment};

/// Messages that a page of the monitor has room for.
const LIST_MAX: usize = 1000;

/// Knows whom to ask.
pub(super) struct Desk {
    pub(super) hostname: Domain,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) began: Moment,
    pub(super) queue: Handle,
    pub(super) operator: Operator,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) chores: Arc<Chores>,
    pub(super) doors: Arc<Doors>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
}

impl Answers for Desk {
    fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::QueueList { which, limit } => Ok(self.queue_list(&which, limit)),
            Request::QueueShow { id, octets } => self.queue_show(&id, octets),
            Request::QueueChange { which, change } => Ok(changed(&self.operator.change(which, change))),
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
            Request::AliasResolve { address } => Ok(branch(&self.chores.directory.explain(&address))),
            Request::AliasList { domain } => {
                let in_force = self.chores.sources.lock().domains.aliases();
                aliases(&in_force, domain.as_ref())
            }
            Request::Reload => match self.chores.ask_to_reload().recv() {
                Ok(reloaded) => reloaded.map(|()| json!({})).map_err(|errors| errors.join("\n")),
                Err(_) => Err("the server stops".to_owned()),
            },
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

    /// Messages that are meant, at most `limit`, and how many there are in all.
    fn queue_list(&self, which: &Selection, limit: usize) -> Value {
        let messages: Vec<_> = self.operator.list(which, limit).iter().map(message).collect();
        json!({ "count": self.queue.count(), "messages": messages })
    }

    fn queue_show(&self, id: &MessageId, part: Option<Part>) -> Result<Value, String> {
        let detail = self.operator.detail(id).ok_or_else(|| {
            format!("{id} is not in the queue: it was delivered, reported or removed; or see the log")
        })?;
        let mut answer = shown(&detail);
        if let (Some(part), Some(fields)) = (part, answer.as_object_mut()) {
            let octets = self.operator.octets(id, part == Part::Header);
            let octets = octets.map_err(|e| format!("{id} cannot be read: {e}"))?;
            // A message is octets, and JSON is text.
            fields.insert("base64".to_owned(), STANDARD.encode(octets).into());
        }
        Ok(answer)
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
        self.operator.list(&Selection::default(), LIST_MAX)
    }

    fn queue_json(&self) -> Value {
        self.queue_list(&Selection::default(), LIST_MAX)
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

fn changed(changed: &Changed) -> Value {
    let refused = changed.refused.iter().map(|(id, why)| json!({ "id": id, "why": why }));
    json!({
        "done": changed.done,
        "later": changed.later,
        "refused": refused.collect::<Vec<_>>(),
        "left": changed.left,
    })
}

/// As in the list, and what the list has no room for.
fn shown(detail: &Detail) -> Value {
    let Detail { view, envelope, history } = detail;
    let name = |position: usize| envelope.recipients.get(position).map(ToString::to_string);
    let event = |event: &Event| {
        json!({
            "at": event.at.to_string(),
            "attempt": event.attempt,
            "recipient": name(event.position),
            "state": state(&event.state),
            "reason": event.state.reason().map(ToString::to_string),
        })
    };
    let mut answer = message(view);
    let more = json!({
        "login": envelope.login.as_ref().map(ToString::to_string),
        "client": envelope.client.as_ref().map(|client| client.address),
        "hello": envelope.client.as_ref().map(|client| &client.hello),
        "tls": envelope.client.as_ref().and_then(|client| client.tls.as_ref()).map(ToString::to_string),
        "body": envelope.body,
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

fn message(item: &ItemView) -> Value {
    json!({
        "id": item.id,
        "arrived": item.arrived.to_string(),
        "age-seconds": item.age.as_secs(),
        "octets": item.octets,
        "reverse-path": item.reverse_path.to_string(),
        "attempts": item.attempts,
        "due": item.due.map(|due| due.to_string()),
        "held": item.is_held,
        "recipients": item.recipients.iter().map(recipient).collect::<Vec<_>>(),
    })
}

fn recipient(view: &RecipientView) -> Value {
    let RecipientView { recipient, state: at } = view;
    let is_renamed = recipient.original != *recipient.final_mailbox();
    json!({
        "recipient": recipient.to_string(),
        // What the sender knows it by, where an alias made another of it.
        "for": is_renamed.then(|| recipient.original.to_string()),
        "state": state(at),
        "reason": at.reason().map(ToString::to_string),
    })
}

fn state(state: &State) -> &'static str {
    match state {
        State::Waiting(None) => "waiting",
        State::Waiting(Some(_)) => "deferred",
        State::Delivered(_) => "delivered",
        State::Failed(_) => "failed",
        State::Expired(_) => "expired",
    }
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
