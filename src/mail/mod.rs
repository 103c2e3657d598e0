//! The values of mail, which every other module uses.
//!
//! Pure values without sockets, files, clocks or logging. A text from outside becomes one of these by
//! `parse`, once; from then on it is not checked again.
//!
//! - `added_field`: a header field that this server puts on top of a message
//! - `address_list`: the mailboxes in a From, Sender or other address field
//! - `domain`: a domain name or address literal in canonical form
//! - `mailbox`: `local-part@domain`, reverse-path and forward-path
//! - `quoted_text`: separators outside double quotes
//! - `recipient`: a final destination, and the reports that the sender asked for
//! - `envelope`: everything that is known about a message apart from its octets
//! - `outcome`: how an attempt ended, and whether another one can help
//! - `header`: finds the fields of a header section
//! - `message_id`: the id of a message in the spool, the log and replies
//! - `endpoint`: the address of a server
//! - `network`: a range of addresses in CIDR notation
//! - `scram`: the keys by which a SCRAM client proves that it knows a password
//! - `sender_facts`: what the server looked up about a sender at MAIL
//! - `timestamp`: wall time, in the form in which it is stored and shown
//! - `verdict`: results of the checks of a sender
//! - `via`: hosts that the operator names, and their options
//! - `xtext`: decodes the encoding of ENVID, ORCPT and AUTH
//! - `printable`: makes text of a peer or a program safe to log and store

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
mod xtext;

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
pub use xtext::decode_xtext;
