//! The real program beside real programs of others, on loopback.
//!
//! - `dovecot`: Dovecot keeps mailboxes and passwords
//! - `fail2ban`: the filter for fail2ban finds the log lines that it should find
//! - `logins`: swaks, curl, msmtp and gsasl log in
//! - `mail_servers`: Exim, Postfix's test programs, and TLS of an old server
//! - `proxy`: HAProxy in front of the server
//! - `submission`: mail of our users, submitted by real clients

mod dovecot;
mod fail2ban;
mod logins;
mod mail_servers;
pub mod proxy;
mod submission;
