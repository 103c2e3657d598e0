//! One test binary, so that linking is paid once. A folder holds one kind of test:
//!
//! - `rules`: rules of this project that the compiler does not check
//! - `dialogs`: conversations from `testdata/dialogs`, played against the SMTP server
//! - `stories`: the queue and the SMTP courier, with scripted partners
//! - `concurrency`: the queue's threads, run by a seeded scheduler
//! - `binary`: the real program
//! - `interop`: the real program beside real programs of others
//!
//! What they share:
//!
//! - `queue_fixture`: a queue on a simulated disk, with a test clock and scripted couriers
//! - `courier_fixture`: an SMTP courier, its peers and a zone file
//! - `test_server`: starts and drives the real program
//! - `peers`: fetches and starts real programs of others
//! - `legacy_tls_server`: a server of our own on OpenSSL, with TLS as old servers have it
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop where something is wrong, and drive the real clock and files"
)]

mod binary;
mod concurrency;
mod courier_fixture;
mod dialogs;
mod interop;
#[cfg(feature = "legacy-tls")]
mod legacy_tls_server;
mod peers;
mod queue_fixture;
mod rules;
mod stories;
mod test_server;
