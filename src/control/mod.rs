//! The local socket through which the subcommands reach the daemon.
//!
//! A Unix socket. A request is one JSON line; the reply is one line for each item of a list, and a last
//! line with `answer` or `error`. Each line has `"version":1`:
//!
//! ```text
//! {"version":1,"request":"queue-list","selection":{"to":"there.example"},"limit":1000}
//! {"version":1,"item":{"id":"01ktv…","octets":1420,…}}
//! {"version":1,"answer":{"count":3}}
//! ```
//!
//! ```text
//! {"version":1,"request":"queue-show","id":"01ktv…"}
//! {"version":1,"error":"01ktv… is not in the queue: …"}
//! ```
//!
//! `testdata/golden/control-answers.jsonl` has an example of every answer.
//!
//! A command that changes the daemon's files is a request, so that only the daemon writes them. The
//! daemon answers its own user and root: the socket has mode 0600, and the kernel is asked for the peer's
//! user besides.
//!
//! - `request`: the requests
//! - `answer`: the answers, as `daemon` fills them and `cli` prints them
//! - `reply`: the lines of a reply
//! - `server`: the socket in the daemon
//! - `client`: the subcommand's end

mod answer;
mod client;
mod reply;
mod request;
mod server;

pub use answer::{
    AliasList, AliasStep, AliasStepKind, ChangeAnswer, ControlAnswer, DeliveryState, HistoryEvent,
    ListedAlias, ListedMessage, ListedRecipient, PeerList, QueueList, RefusedChange, ShownMessage,
    StatusAnswer,
};
pub use client::{ControlClient, ControlError};
pub use request::{ControlRequest, MessagePart};
pub use server::{ControlServer, RequestHandler, StartError};
