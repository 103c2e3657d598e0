//! One test binary, so that linking is paid once.
//!
//! - `tidy`: the house rules, layers first
//! - `dialogs`: conversations from `testdata/dialogs`, played against the server machine
//! - `dialogs_on_sockets`: the same conversations over a real socket
//! - `operators`: what a person does to mail that waits; the same stage
//! - `reports`: who is told what of a letter, when; the same stage
//! - `stories`: what happens to a letter, with a test clock and scripted couriers
//! - `courier_smtp`, `courier_tls`: one attempt of the SMTP courier, against peers that follow a script
//! - `courier_kept`: several of them on one connection; `courier_world` is the stage of all three
//! - `courier_via`: the same at hosts that the operator names: their TLS policy, and logins
//! - `crash`: stop at every disk operation
//! - `data_directory`: what becomes of mail when the data directory goes away
//! - `concurrency`: the queue's threads, run by a seeded scheduler
//! - `post_office`: a queue on a simulated disk, for stories and crashes
//! - `queue`: with its threads, on a real disk
//! - `kill`: `kill -9` the real binary under load
//! - `pairs`: two actors on the same mail, and faults, by the real binary
//! - `cli`: the subcommands, as a person types them
//! - `dovecot`: a real Dovecot keeps mailboxes and passwords
//! - `end_to_end`: the real binary, over real sockets
//! - `security_levels`: two real servers that remember how they spoke
//! - `aliases`: who is behind an address, asked of the real binary
//! - `programs`: the real binary and the programs that it delivers to
//! - `submission`: mail from our users: completed, private, in nobody else's name
//! - `hooks`: the operator's programs that judge mail
//! - `logins`: logins of real clients
//! - `limits`: ceilings and deadlines, as a client meets them
//! - `memory`: what a client sends is not held
//! - `wrong_port`: clients that speak something else
//! - `stop_and_start`: whoever hangs holds up neither
//! - `activation`: sockets that the service manager passes
//! - `documents`: the examples in `docs/` are run
//! - `house`: sets up and drives the real binary
//! - `interop`: real programs on loopback; `peers` fetches and starts them; `old_peer` is one of our
//!   own, on OpenSSL
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop where something is wrong, and drive the real clock and files"
)]

mod activation;
mod aliases;
mod certificates;
mod cli;
mod concurrency;
mod courier_fixture;
mod courier_kept;
mod courier_smtp;
mod courier_tls;
mod courier_via;
mod crash;
mod data_directory;
mod dialogs;
mod dialogs_on_sockets;
mod documents;
mod dovecot;
mod end_to_end;
mod fail2ban;
mod hooks;
mod interop;
mod kill;
#[cfg(feature = "legacy-tls")]
mod legacy_tls_server;
mod limits;
mod logins;
mod memory;
mod operators;
mod pairs;
mod peers;
mod programs;
mod proxy;
mod queue;
mod queue_fixture;
mod reports;
mod security_levels;
mod stop_and_start;
mod stories;
mod submission;
mod test_server;
mod tidy;
mod wrong_port;
