//! Whom we believe what: accounts that others keep, networks, our users, hooks, and old devices.

use std::path::Path;
use std::time::Duration;

use super::SECOND;
use crate::config::checks::{choice, duration, path, wrong};
use crate::config::keys::known;
use crate::config::reader::{Findings, Table, Value, Wrong};
use crate::config::sections::{Dovecot, HookFailure, Hooks, Leniency, Relay, Sender, Submission};
use crate::mail::Network;

pub(super) fn dovecot(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path) -> Dovecot {
    let dovecot = Dovecot {
        is_asked: table.value(found, "auth", false, |value| choice(value, &[("auto", true), ("off", false)])),
        client: table.optional(found, "client-socket", |value| path(value, home)),
        userdb: table.optional(found, "userdb-socket", |value| path(value, home)),
    };
    if !dovecot.is_asked && (dovecot.client.is_some() || dovecot.userdb.is_some()) {
        found.warning(table.span(), "dovecot.auth", "is \"off\", so the sockets named there are not used");
    }
    table.finish(found, &known("dovecot"));
    dovecot
}

pub(super) fn relay(mut table: Table<'_>, found: &mut Findings<'_>) -> Relay {
    let networks = table.value(found, "networks", Vec::new(), |value| {
        networks(value, "would make this an open relay for everybody")
    });
    if !networks.is_empty() {
        let list: Vec<_> = networks.iter().map(ToString::to_string).collect();
        let text = format!("clients in {} may send to anybody without a password", list.join(", "));
        found.warning(table.span(), "relay.networks", &text);
    }
    table.finish(found, &known("relay"));
    Relay { networks }
}

pub(super) fn submission(mut table: Table<'_>, found: &mut Findings<'_>) -> Submission {
    let sender = table.value(found, "sender", Sender::Bound, |value| {
        choice(value, &[("bound", Sender::Bound), ("any", Sender::Any)])
    });
    table.finish(found, &known("submission"));
    Submission { sender }
}

pub(super) fn hooks(mut table: Table<'_>, found: &mut Findings<'_>) -> Hooks {
    let default = Hooks::default();
    let range = SECOND..=Duration::from_mins(5);
    let hooks = Hooks {
        failure: table.value(found, "failure", default.failure, |value| {
            choice(value, &[("defer", HookFailure::Defer), ("accept", HookFailure::Accept)])
        }),
        rcpt_deadline: duration(&mut table, found, "rcpt-deadline", default.rcpt_deadline, range.clone()),
        post_data_deadline: duration(
            &mut table,
            found,
            "post-data-deadline",
            default.post_data_deadline,
            range,
        ),
    };
    table.finish(found, &known("hooks"));
    hooks
}

pub(super) fn leniency(mut table: Table<'_>, found: &mut Findings<'_>) -> Leniency {
    let bare_line_ends = table.value(found, "bare-line-ends", Vec::new(), |value| {
        networks(value, "would let everybody smuggle messages; name the clients that need it")
    });
    table.finish(found, &known("leniency"));
    Leniency { bare_line_ends }
}

/// Networks that are trusted in something; `harm` is what it would mean to trust everybody.
fn networks(value: &Value<'_>, harm: &str) -> Result<Vec<Network>, Wrong> {
    const REMEDY: &str = "write a list of your own networks, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]";
    let one = |raw: &str| {
        let network: Network = raw.parse().map_err(|problem| wrong(problem, REMEDY))?;
        if network.is_everything() {
            return Err(wrong(format!("{network} {harm}"), REMEDY));
        }
        Ok(network)
    };
    value.texts(REMEDY)?.into_iter().map(one).collect()
}
