//! Parses the sections about listeners and limits.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{DAY, HOUR, SECOND};
use crate::config::checks::{mistake, take_count, take_duration, take_size};
use crate::config::keys::known_keys;
use crate::config::sections::{
    AddressRateLimits, LimitsConfig, ListenConfig, ListenEntry, LoginRateLimits, SocketSource,
};
use crate::config::toml_table::{Diagnostics, Table, Value, ValueMistake};
use crate::config::units::parse_address;
use crate::mail::Network;

pub(super) fn listen(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> ListenConfig {
    let defaults = ListenConfig::default();
    let listen = ListenConfig {
        smtp: table.value(found, "smtp", defaults.smtp, parse_listen_entries),
        submission: table.value(found, "submission", defaults.submission, parse_listen_entries),
        submissions: table.value(found, "submissions", defaults.submissions, parse_listen_entries),
        proxy_from: table.value(found, "proxy-from", defaults.proxy_from, |value| {
            const REMEDY: &str = "write a list of your proxies, such as [\"127.0.0.1\", \"2001:db8::/64\"]";
            let one = |raw: &str| {
                let network: Network = raw.parse().map_err(|problem| mistake(problem, REMEDY))?;
                if network.is_all_addresses() {
                    return Err(mistake(format!("{network} would let everybody choose an address"), REMEDY));
                }
                Ok(network)
            };
            value.texts(REMEDY)?.into_iter().map(one).collect()
        }),
        monitoring: table.optional(found, "monitoring", |value| {
            const REMEDY: &str = "write an address with a port, such as \"127.0.0.1:1099\"";
            let raw = value.text(REMEDY)?;
            parse_address(raw).ok_or_else(|| mistake(format!("{raw:?} is not an address"), REMEDY))
        }),
    };
    if let Some(address) = listen.monitoring.filter(|address| !address.ip().to_canonical().is_loopback()) {
        let text = format!("{address} can be reached from other hosts, and the pages ask for no password");
        found.add_warning(table.span(), "listen.monitoring", &text);
    }
    let all = || listen.smtp.iter().chain(&listen.submission).chain(&listen.submissions);
    if all().next().is_none() {
        let remedy = "give at least one of smtp, submission, submissions an address";
        found.add_error(table.span(), "listen", mistake("has no address at all", remedy));
    }
    match (all().any(|listener| listener.has_proxy_header), listen.proxy_from.is_empty()) {
        (true, true) => found.add_error(
            table.span(),
            "listen.proxy-from",
            mistake("is not set, but a listener is marked with proxy", "name the proxies' addresses there"),
        ),
        (false, false) => found.add_error(
            table.span(),
            "listen.proxy-from",
            mistake(
                "has no effect, because no listener is marked with proxy",
                "write \"ADDRESS:PORT proxy\" for one",
            ),
        ),
        _ => {}
    }
    let mut seen: Vec<SocketAddr> = listen.monitoring.into_iter().collect();
    for listener in all() {
        match &listener.source {
            // Port 0 is whatever is free.
            SocketSource::Address(address) if address.port() != 0 && seen.contains(address) => {
                let problem = format!("names {address} twice");
                found.add_error(table.span(), "listen", mistake(problem, "give each list a port of its own"));
            }
            SocketSource::Address(address) => seen.push(*address),
            SocketSource::Systemd => {}
        }
    }
    table.add_unknown_key_errors(found, &known_keys("listen"));
    listen
}

fn parse_listen_entries(value: &Value<'_>) -> Result<Vec<ListenEntry>, ValueMistake> {
    const REMEDY: &str = "write a list of addresses with ports, such as [\":25\"] or [\"192.0.2.1:25\", \"[2001:db8::1]:25\"], or \"systemd\"";
    let one = |raw: &str| {
        let (place, proxy) = match raw.strip_suffix(" proxy") {
            Some(place) => (place.trim_end(), true),
            None => (raw, false),
        };
        let place = match place {
            "systemd" => SocketSource::Systemd,
            place => parse_address(place)
                .map(SocketSource::Address)
                .ok_or_else(|| mistake(format!("{raw:?} is not an address with a port"), REMEDY))?,
        };
        Ok(ListenEntry { source: place, has_proxy_header: proxy })
    };
    value.texts(REMEDY)?.into_iter().map(one).collect()
}

pub(super) fn limits(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> LimitsConfig {
    let defaults = LimitsConfig::default();
    let t = &mut table;
    let limits = LimitsConfig {
        message_octets_max: take_size(
            t,
            found,
            "message-size-max",
            defaults.message_octets_max,
            65_536..=1 << 30,
        ),
        // RFC 5321 §4.5.3.1.8: a server must take at least 100.
        recipients_max: take_count(t, found, "recipients-max", defaults.recipients_max, 100..=10_000),
        received_max: take_count(t, found, "received-max", defaults.received_max, 10..=1000),
        sessions_max: take_count(t, found, "sessions-max", defaults.sessions_max, 1..=20_000),
        sessions_per_address_max: take_count(
            t,
            found,
            "sessions-per-address-max",
            defaults.sessions_per_address_max,
            1..=20_000,
        ),
        sessions_per_network_max: take_count(
            t,
            found,
            "sessions-per-network-max",
            defaults.sessions_per_network_max,
            1..=20_000,
        ),
        greeting_delay: take_duration(
            t,
            found,
            "greeting-delay",
            defaults.greeting_delay,
            Duration::ZERO..=SECOND * 60,
        ),
        address_per_hour: address_per_hour(t.section("address-per-hour", found), found),
        login_per_hour: login_per_hour(t.section("login-per-hour", found), found),
        errors_max: take_count(t, found, "errors-max", defaults.errors_max, 1..=1000),
        command_timeout: take_duration(t, found, "command-timeout", defaults.command_timeout, SECOND..=HOUR),
        message_timeout: take_duration(
            t,
            found,
            "message-timeout",
            defaults.message_timeout,
            SECOND * 10..=DAY,
        ),
        session_timeout: take_duration(
            t,
            found,
            "session-timeout",
            defaults.session_timeout,
            SECOND * 10..=DAY,
        ),
    };
    table.add_unknown_key_errors(found, &known_keys("limits"));
    limits
}

/// Parses the limits per hour. 0 means no limit.
const PER_HOUR_RANGE: RangeInclusive<usize> = 0..=1_000_000;

fn address_per_hour(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> AddressRateLimits {
    let defaults = AddressRateLimits::default();
    let mut read = |key, default| take_count(&mut table, found, key, default, PER_HOUR_RANGE);
    let limits = AddressRateLimits {
        connections: read("connections", defaults.connections),
        messages: read("messages", defaults.messages),
        recipients: read("recipients", defaults.recipients),
        unknown_recipients: read("unknown-recipients", defaults.unknown_recipients),
    };
    table.add_unknown_key_errors(found, &known_keys("limits.address-per-hour"));
    limits
}

fn login_per_hour(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> LoginRateLimits {
    let defaults = LoginRateLimits::default();
    let mut read = |key, default| take_count(&mut table, found, key, default, PER_HOUR_RANGE);
    let limits = LoginRateLimits {
        messages: read("messages", defaults.messages),
        recipients: read("recipients", defaults.recipients),
    };
    table.add_unknown_key_errors(found, &known_keys("limits.login-per-hour"));
    limits
}
