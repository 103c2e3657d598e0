//! Answers the requests of the subcommands, and gives the monitor what its pages show.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::alias_answers::{alias_list, alias_step};
use super::certificate_expiry::first_to_expire;
use super::queue_answers::{change_answer, listed_message, shown_message};
use super::reloader::Reloader;
use crate::control::{
    ControlAnswer, ControlRequest, MessagePart, PeerList, QueueList, RequestHandler, ShownMessage,
    StatusAnswer,
};
use crate::domaininfo::DomainInfo;
use crate::inbound::SessionLimits;
use crate::mail::{Domain, MessageId};
use crate::monitor::{CertificateExpiry, MonitorData, ServerStatus};
use crate::observe::{Metrics, Traces};
use crate::queue::{Handle, QueueControl, QueuedMessage, Selection};
use crate::sys::{Clock, Moment};

/// Messages on a page of the monitor, at most.
const MESSAGES_LISTED_MAX: usize = 1000;

/// The parts of the daemon that requests and pages are about.
pub(super) struct ControlService {
    pub(super) hostname: Domain,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Moment,
    pub(super) queue: Handle,
    pub(super) operator: QueueControl,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) session_limits: Arc<SessionLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
}

impl RequestHandler for ControlService {
    fn handle(&self, request: ControlRequest) -> Result<ControlAnswer, String> {
        match request {
            ControlRequest::QueueList { selection, limit } => {
                Ok(ControlAnswer::QueueList(self.queue_list(&selection, limit)))
            }
            ControlRequest::QueueShow { id, part } => {
                self.queue_show(&id, part).map(|message| ControlAnswer::QueueShow(Box::new(message)))
            }
            ControlRequest::QueueChange { selection, change } => {
                Ok(ControlAnswer::QueueChange(change_answer(self.operator.change(selection, change))))
            }
            ControlRequest::PeerList => {
                let peers = self.domaininfo.list().map_err(|e| format!("domaininfo cannot be read: {e}"))?;
                Ok(ControlAnswer::PeerList(PeerList { peers }))
            }
            ControlRequest::PeerShow { domain } => Ok(ControlAnswer::PeerShow(self.domaininfo.get(&domain))),
            ControlRequest::PeerForget { domain } => match self.domaininfo.forget(&domain) {
                Ok(true) => Ok(ControlAnswer::Done),
                Ok(false) => Err(format!("nothing is known of {domain}")),
                Err(e) => Err(format!("{domain} cannot be forgotten: {e}")),
            },
            ControlRequest::AliasResolve { address } => {
                let step = self.reloader.lookup_tables.trace_aliases(&address);
                Ok(ControlAnswer::AliasResolve(alias_step(&step)))
            }
            ControlRequest::AliasList { domain } => {
                let in_force = self.reloader.files.lock().domains.aliases();
                alias_list(&in_force, domain.as_ref()).map(ControlAnswer::AliasList)
            }
            ControlRequest::Reload => match self.reloader.request_reload().recv() {
                Ok(reloaded) => reloaded.map(|()| ControlAnswer::Done).map_err(|errors| errors.join("\n")),
                Err(_) => Err("the server stops".to_owned()),
            },
            ControlRequest::Status => Ok(ControlAnswer::Status(status_answer(&self.status()))),
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

    fn queue_list(&self, selection: &Selection, limit: usize) -> QueueList {
        let messages = self.operator.list(selection, limit).iter().map(listed_message).collect();
        QueueList { count: self.queue.count(), messages }
    }

    fn queue_show(&self, id: &MessageId, part: Option<MessagePart>) -> Result<ShownMessage, String> {
        let detail = self.operator.detail(id).ok_or_else(|| {
            format!("{id} is not in the queue: it was delivered, returned or removed; or see the log")
        })?;
        let mut message = shown_message(&detail);
        if let Some(part) = part {
            let octets = self.operator.content(id, part == MessagePart::Header);
            let octets = octets.map_err(|e| format!("{id} cannot be read: {e}"))?;
            message.base64 = Some(STANDARD.encode(octets));
        }
        Ok(message)
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
        // A list of texts and numbers always has a JSON form.
        serde_json::to_value(self.queue_list(&Selection::default(), MESSAGES_LISTED_MAX)).unwrap_or_default()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn traces(&self) -> &Traces {
        &self.traces
    }
}

fn status_answer(status: &ServerStatus) -> StatusAnswer {
    StatusAnswer {
        version: status.version.to_owned(),
        hostname: status.hostname.clone(),
        uptime_seconds: status.uptime.as_secs(),
        sessions: status.sessions,
        queue: status.queue,
        certificate_seconds: status.certificate.map(|expiry| expiry.remaining.as_secs()),
    }
}
