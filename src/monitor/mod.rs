//! Pages for the operator; never for the internet.
//!
//! A small HTTP server: GET and HEAD only, one request for each connection, and no request changes anything.
//! There is no login, so it belongs on loopback. It answers only requests that name an address, `localhost`
//! or the server's hostname: a page on the internet cannot read it by pointing a name of its own at this
//! host. Pages hold no scripts and load nothing; text from outside goes through one function that escapes
//! it.
//!
//! | path | |
//! |---|---|
//! | `/` | version and uptime, counters, recent errors |
//! | `/queue` `/queue.json` | each message in the queue: id, age, sender, recipients, state, last error |
//! | `/traces` | the events of each recent session and attempt; `?kind=NAME`, `?errors` |
//! | `/metrics` | OpenMetrics 1.0 |
//! | `/debug/vars` | the same as JSON |
//!
//! - `server`: the socket, the limits, and the page for each path
//! - `request`: parses and checks the head of a request
//! - `html`: escapes text, and writes the frame of every page
//! - `monitor_data`: the data that the pages show
//! - `sample_data`: data for tests
//! - `overview_page`: version, uptime, counters and recent errors
//! - `queue_page`: the messages in the queue
//! - `traces_page`: the events of recent sessions and attempts

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
