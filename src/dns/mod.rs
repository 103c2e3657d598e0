//! DNS, asked and answered by blocking calls.
//!
//! - `resolver`: the questions that mail asks (trait [`Resolver`]), and what can go wrong
//! - `stub`: asks the host's or the operator's name servers
//! - `servers`: which name servers, and how patiently
//! - `answer`: what a name server's reply says of the question
//! - `cache`: what was answered, for as long as it holds
//! - `zone`: answers from a text file, for tests and trials

mod answer;
mod cache;
mod resolver;
mod servers;
mod stub;
mod zone;

pub use resolver::{DnsError, Exchange, Mx, Resolver};
pub use servers::Settings;
pub use stub::Stub;
#[cfg(any(test, feature = "fakes"))]
pub(crate) use zone::{Data, Said};
pub use zone::{Zone, ZoneError};
