//! DNS by blocking calls.
//!
//! - `resolver`: the questions that mail asks (trait [`Resolver`])
//! - `budget`: how much DNS one attempt, session or message may use
//! - `error`: why a question has no answer
//! - `stub_resolver`: asks the host's or the operator's name servers
//! - `name_server_client`: one query to one name server
//! - `name_servers`: which name servers, with which timeout
//! - `response`: what a name server's reply says about the question
//! - `cache`: answers, each for its time to live
//! - `zone`: answers from a text file, for tests

mod budget;
mod cache;
mod error;
mod name_server_client;
mod name_servers;
mod resolver;
mod response;
mod stub_resolver;
mod zone;

pub use budget::Budget;
pub use error::DnsError;
pub use name_servers::Settings;
pub use resolver::{Mx, MxExchange, Resolver, is_localhost};
pub use stub_resolver::StubResolver;
pub use zone::{Zone, ZoneError};
#[cfg(any(test, feature = "fakes"))]
pub(crate) use zone::{ZoneLookup, ZoneRecordData};
