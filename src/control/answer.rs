//! The answers of the daemon, as types: `daemon` fills them, `cli` prints them.
//!
//! Each serialises to the JSON that `--json` prints. A list travels as one line for each item, see
//! [`super`]. Times are RFC 3339 texts in UTC, as people read them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::domaininfo::PeerEntry;
use crate::mail::{BodyType, Domain, MessageId, Ret};

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAnswer {
    /// To `peer-forget` and `reload`: it is done.
    Done,
    /// To `queue-list`.
    QueueList(QueueList),
    /// To `queue-show`.
    QueueShow(Box<ShownMessage>),
    /// To `queue-change`.
    QueueChange(ChangeAnswer),
    /// To `peer-list`.
    PeerList(PeerList),
    /// To `peer-show`.
    PeerShow(PeerEntry),
    /// To `alias-resolve`.
    AliasResolve(AliasStep),
    /// To `alias-list`.
    AliasList(AliasList),
    /// To `status`.
    Status(StatusAnswer),
}

/// Messages in the queue, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList {
    /// Messages in the queue, those that are not listed included.
    pub count: usize,
    /// The messages that the request selects, up to its limit.
    pub messages: Vec<ListedMessage>,
}

/// One message in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedMessage {
    /// The message's id.
    pub id: MessageId,
    /// When it arrived.
    pub arrived: String,
    /// Seconds in the queue, by the clock that does not jump.
    pub age_seconds: u64,
    /// Length of the message, without the fields that are added at delivery.
    pub octets: u64,
    /// Its reverse-path, in angle brackets.
    pub reverse_path: String,
    /// Rounds of attempts so far.
    pub attempts: u32,
    /// When the next attempt is due; nothing: now.
    pub due: Option<String>,
    /// An operator holds it.
    pub held: bool,
    /// One for each recipient, in the order of the envelope.
    pub recipients: Vec<ListedRecipient>,
}

/// One recipient of a listed message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedRecipient {
    /// The recipient after aliases: a mailbox or a program.
    pub recipient: String,
    /// The forward-path that the sender named, if an alias led from it to the recipient.
    pub original: Option<String>,
    /// Where delivery stands.
    pub state: DeliveryState,
    /// What the last attempt said.
    pub reason: Option<String>,
}

/// Where delivery to a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// No attempt was made yet.
    Waiting,
    /// An attempt failed, and another follows.
    Deferred,
    /// The next hop has the message.
    Delivered,
    /// It cannot be delivered.
    Failed,
    /// The lifetime of the message ended first.
    Expired,
}

impl DeliveryState {
    /// The word in the JSON and in the lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Deferred => "deferred",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// One message with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownMessage {
    /// The message as in a list.
    #[serde(flatten)]
    pub message: ListedMessage,
    /// The user who submitted it.
    pub authenticated_user: Option<String>,
    /// The address of the client that handed it over; nothing for mail of the server itself.
    pub client: Option<IpAddr>,
    /// The name in that client's EHLO or HELO.
    pub helo_name: Option<String>,
    /// TLS version and cipher suite of that client's session.
    pub tls: Option<String>,
    /// The BODY parameter (RFC 6152 §3).
    pub body: BodyType,
    /// The client asked for SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// The RET parameter (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// The ENVID parameter, as xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// Changes of recipients' states, the oldest first.
    pub history: Vec<HistoryEvent>,
    /// The part of the message that the request asks for. A message is octets, and JSON is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// One change of a recipient's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryEvent {
    /// When it happened.
    pub time: String,
    /// In which round of attempts, from 1.
    pub attempt: u32,
    /// The recipient.
    pub recipient: Option<String>,
    /// The new state.
    pub state: DeliveryState,
    /// What the attempt said.
    pub reason: Option<String>,
}

/// What a change of the queue did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChangeAnswer {
    /// Changed.
    pub changed: Vec<MessageId>,
    /// Under way in an attempt: changed when that attempt ends, if a recipient still waits.
    pub pending: Vec<MessageId>,
    /// Not changed.
    pub refused: Vec<RefusedChange>,
    /// Messages that were not looked at, because the command took too long.
    pub not_processed: usize,
}

/// A message that was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusedChange {
    /// The message's id.
    pub id: MessageId,
    /// Why: a sentence that begins with a verb.
    pub reason: String,
}

/// The other servers' domains whose security level is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerList {
    /// One for each domain.
    pub peers: Vec<PeerEntry>,
}

/// One step of the resolution of an address, and all that follow from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AliasStep {
    /// The address, or the target as the alias file has it.
    pub name: String,
    /// What it is.
    pub kind: AliasStepKind,
    /// The user of a `user` step, the problem of an `error` step.
    pub detail: Option<String>,
    /// The file and line, or the hook, that names it.
    pub origin: Option<String>,
    /// The steps that follow, in the order of the file.
    pub steps: Vec<AliasStep>,
}

impl AliasStep {
    /// Whether this step or one below it is a mistake.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.kind == AliasStepKind::Error || self.steps.iter().any(Self::has_error)
    }
}

/// What a step of a resolution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AliasStepKind {
    /// A user with a mailbox here.
    User,
    /// A mailbox of another server.
    Remote,
    /// A mailbox by way of named hosts.
    Via,
    /// A program.
    Program,
    /// An alias, whose targets follow.
    Alias,
    /// Neither user nor alias: the domain's catch-all follows.
    CatchAll,
    /// An address that must always be read (RFC 5321 §4.5.1): the postmaster follows.
    Postmaster,
    /// The same mailbox stands above, and gets one copy.
    Duplicate,
    /// A mistake: mail for it goes nowhere.
    Error,
}

impl AliasStepKind {
    /// The word in the JSON and in the tree.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Remote => "remote",
            Self::Via => "via",
            Self::Program => "program",
            Self::Alias => "alias",
            Self::CatchAll => "catch-all",
            Self::Postmaster => "postmaster",
            Self::Duplicate => "duplicate",
            Self::Error => "error",
        }
    }
}

/// The aliases in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasList {
    /// By domain, in the order of each domain's files.
    pub aliases: Vec<ListedAlias>,
}

/// One alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedAlias {
    /// The alias with its domain.
    pub name: String,
    /// Its targets as the file has them.
    pub targets: Vec<String>,
    /// The file and line.
    pub origin: String,
}

/// The state of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatusAnswer {
    /// The version of the daemon.
    pub version: String,
    /// The name of this host.
    pub hostname: Domain,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// SMTP sessions under way.
    pub sessions: usize,
    /// Messages in the queue.
    pub queue: usize,
    /// Seconds until the first certificate expires.
    pub certificate_seconds: Option<u64>,
}
