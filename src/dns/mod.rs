//! DNS, asked and answered by blocking calls.
//!
//! - `resolver`: the questions that mail asks (trait [`Resolver`]), and what can go wrong
//! - `stub`: asks the host's or the operator's name servers
//! - `servers`: which name servers, and how patiently
//! - `answer`: what a name server's reply says of the question
//! - `cache`: what was answered, for as long as it holds
//! - `zone`: answers from a text file, for tests and trials

mod cache;
mod name_servers;
mod resolver;
mod response;
mod stub_resolver;
mod zone;

pub use name_servers::Settings;
pub use resolver::{DnsError, Mx, MxExchange, Resolver};
pub use stub_resolver::StubResolver;
pub use zone::{Zone, ZoneError};
#[cfg(any(test, feature = "fakes"))]
pub(crate) use zone::{ZoneLookup, ZoneRecordData};
