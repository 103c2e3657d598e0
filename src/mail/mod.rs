//! The nouns of mail: what every other module talks about.
//!
//! Pure values without sockets, files, clocks or logging. A raw string becomes one of these
//! by `parse`, once, at the border; from then on nobody checks it again.
//!
//! - `added_field`: a header field that this server puts on top of a message
//! - `address_list`: the mailboxes in a From, Sender or other address field
//! - `domain`: a domain name or address literal, one value for all its spellings
//! - `mailbox`: `local-part@domain`, reverse-path and forward-path
//! - `quoted_text`: separators outside double quotes
//! - `recipient`: one final destination, and what its sender asked to be told
//! - `envelope`: everything we know about a message apart from its octets
//! - `outcome`: how an attempt ended; whether trying again can help
//! - `header`: fields at the head of a message, found but not interpreted
//! - `id`: the name of a message in our spool and logs
//! - `endpoint`: where a server is reached
//! - `network`: a range of addresses in CIDR notation
//! - `scram`: what is kept of a password so that its owner can prove to know it
//! - `sender_facts`: what the server looked up about a sender at MAIL
//! - `time`: wall time as it is stored
//! - `verdict`: what was found out about who sent a message
//! - `via`: hosts that the operator names, and how to talk to them
//! - `words`: remote words made safe for logs, JSON and reports

mod added_field;
mod address_list;
mod domain;
mod endpoint;
mod envelope;
mod header;
mod mailbox;
mod message_id;
mod network;
mod outcome;
mod printable;
mod quoted_text;
mod recipient;
mod scram;
mod sender_facts;
mod timestamp;
mod verdict;
mod via;

pub use added_field::{AddedField, AddedFieldError};
pub use address_list::{AddressListError, parse_address_list};
pub use domain::{Domain, DomainError};
pub use endpoint::{Endpoint, EndpointError};
pub use envelope::{BodyType, Client, Envelope, Ret, TlsInfo};
pub use header::{HeaderEnd, HeaderField, HeaderFields};
pub use mailbox::{ForwardPath, LocalPart, Mailbox, MailboxError, ReversePath};
pub use message_id::MessageId;
pub use network::{Network, NetworkError};
pub use outcome::{Failure, FailureScope, Outcome, Reason, RemoteResponse};
pub use printable::printable;
pub use quoted_text::split_outside_quotes;
pub use recipient::{Destination, Notify, Recipient};
pub use scram::ScramKeys;
pub use sender_facts::SenderFacts;
pub use timestamp::Timestamp;
pub use verdict::SpfResult;
pub use via::{NextHop, TlsPolicy, Via, ViaError};
