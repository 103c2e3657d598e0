//! Pages for the operator; never for the internet.
//!
//! A small HTTP server: GET and HEAD only, one request for each connection, nothing that changes
//! anything. There is no login, so it belongs on loopback, and it answers only to names that a
//! browser cannot be tricked into (an address, `localhost`, our hostname): a page on the internet
//! cannot read it by pointing a name of its own at this host. Pages hold no scripts and load
//! nothing; what they show of the outside goes through one function that escapes it.
//!
//! | path | |
//! |---|---|
//! | `/` | how the server is, what it counted, what went wrong lately |
//! | `/queue` `/queue.json` | each message in the queue: id, age, sender, recipients, state, last error |
//! | `/traces` | what each recent session and attempt did; `?kind=NAME`, `?errors` |
//! | `/metrics` | OpenMetrics 1.0 |
//! | `/debug/vars` | the same as JSON |
//!
//! - `server`: the socket, the limits, and which page has which path
//! - `request`: the head of a request, read and judged
//! - `html`: text that cannot be taken for markup
//! - `shows`: what the pages need to know, and from whom
//! - `sample`: a server with something to show, for tests
//! - `index`, `queue_page`, `traces_page`: the pages

mod html;
mod monitor_data;
mod overview_page;
mod queue_page;
mod request;
#[cfg(test)]
mod sample_data;
mod server;
mod traces_page;

pub use monitor_data::{CertificateExpiry, MonitorData, ServerStatus};
pub use server::MonitorServer;
