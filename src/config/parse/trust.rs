//! Parses the sections about Dovecot, relay networks, submission, hooks and leniency.

use std::path::Path;
use std::time::Duration;

use super::SECOND;
use crate::config::checks::{mistake, parse_choice, parse_path, take_duration};
use crate::config::keys::known_keys;
use crate::config::sections::{
    DovecotConfig, HookFailureSetting, HooksConfig, LeniencyConfig, RelayConfig, SenderSetting,
    SubmissionConfig,
};
use crate::config::toml_table::{Diagnostics, Table, Value, ValueMistake};
use crate::mail::Network;

pub(super) fn dovecot(mut table: Table<'_>, found: &mut Diagnostics<'_>, home: &Path) -> DovecotConfig {
    let dovecot = DovecotConfig {
        is_enabled: table
            .value(found, "auth", false, |value| parse_choice(value, &[("auto", true), ("off", false)])),
        client_socket: table.optional(found, "client-socket", |value| parse_path(value, home)),
        userdb_socket: table.optional(found, "userdb-socket", |value| parse_path(value, home)),
    };
    if !dovecot.is_enabled && (dovecot.client_socket.is_some() || dovecot.userdb_socket.is_some()) {
        found.add_warning(
            table.span(),
            "dovecot.auth",
            "is \"off\", so the sockets named there are not used",
        );
    }
    table.add_unknown_key_errors(found, &known_keys("dovecot"));
    dovecot
}

pub(super) fn relay(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> RelayConfig {
    let networks = table.value(found, "networks", Vec::new(), |value| {
        parse_networks(value, "would make this an open relay for everybody")
    });
    if !networks.is_empty() {
        let list: Vec<_> = networks.iter().map(ToString::to_string).collect();
        let text = format!("clients in {} may send to anybody without a password", list.join(", "));
        found.add_warning(table.span(), "relay.networks", &text);
    }
    table.add_unknown_key_errors(found, &known_keys("relay"));
    RelayConfig { networks }
}

pub(super) fn submission(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> SubmissionConfig {
    let sender = table.value(found, "sender", SenderSetting::Bound, |value| {
        parse_choice(value, &[("bound", SenderSetting::Bound), ("any", SenderSetting::Any)])
    });
    table.add_unknown_key_errors(found, &known_keys("submission"));
    SubmissionConfig { sender }
}

pub(super) fn hooks(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> HooksConfig {
    let default = HooksConfig::default();
    let range = SECOND..=Duration::from_mins(5);
    let hooks = HooksConfig {
        on_failure: table.value(found, "on-failure", default.on_failure, |value| {
            parse_choice(
                value,
                &[("defer", HookFailureSetting::Defer), ("accept", HookFailureSetting::Accept)],
            )
        }),
        rcpt_timeout: take_duration(&mut table, found, "rcpt-timeout", default.rcpt_timeout, range.clone()),
        post_data_timeout: take_duration(
            &mut table,
            found,
            "post-data-timeout",
            default.post_data_timeout,
            range,
        ),
    };
    table.add_unknown_key_errors(found, &known_keys("hooks"));
    hooks
}

pub(super) fn leniency(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> LeniencyConfig {
    let bare_line_ends = table.value(found, "bare-line-ends", Vec::new(), |value| {
        parse_networks(value, "would let everybody smuggle messages; name the clients that need it")
    });
    table.add_unknown_key_errors(found, &known_keys("leniency"));
    LeniencyConfig { bare_line_ends }
}

/// Parses a list of trusted networks. `harm` completes the error for a network of all addresses.
fn parse_networks(value: &Value<'_>, harm: &str) -> Result<Vec<Network>, ValueMistake> {
    const REMEDY: &str = "write a list of your own networks, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]";
    let one = |raw: &str| {
        let network: Network = raw.parse().map_err(|problem| mistake(problem, REMEDY))?;
        if network.is_all_addresses() {
            return Err(mistake(format!("{network} {harm}"), REMEDY));
        }
        Ok(network)
    };
    value.texts(REMEDY)?.into_iter().map(one).collect()
}
