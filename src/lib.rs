//! postrider, a mail transfer agent for small hosts.
//!
//! The modules, and the layers on which they stand, are described in
//! `ARCHITECTURE.md`; `tests/suite/rules` checks the table.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files and read the clock as they like")
)]

pub mod alias;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod courier;
pub mod daemon;
pub mod dns;
pub mod domain_store;
pub mod domaininfo;
pub mod dsn;
pub mod fakes;
pub mod inbound;
pub mod mail;
pub mod monitor;
pub mod observe;
pub mod queue;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod stamp;
pub mod sys;
pub mod tls;
pub mod torture;
