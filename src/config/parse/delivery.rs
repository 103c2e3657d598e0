//! Parses the sections about the queue, delivery and DNS.

use std::path::Path;
use std::time::Duration;

use super::{DAY, HOUR, SECOND};
use crate::config::checks::{
    check_placeholders, mistake, parse_choice, parse_path, take_count, take_duration,
};
use crate::config::keys::known_keys;
use crate::config::sections::{
    CommandDelivery, DeliveryConfig, DnsConfig, Exit75Setting, HelloSetting, LineEndsSetting, LmtpDelivery,
    LocalDelivery, MaildirDelivery, PipeDelivery, QueueConfig, SmtpDelivery,
};
use crate::config::toml_table::{Diagnostics, Table};
use crate::config::units::{parse_duration, parse_resolver_address};
use crate::mail::{Endpoint, Via};

/// The placeholders in the arguments of a delivery agent.
const COMMAND_PLACEHOLDERS: [&str; 6] = ["from", "from_user", "from_domain", "to", "to_user", "to_domain"];

/// The placeholders in the path of a Maildir.
const MAILDIR_PLACEHOLDERS: [&str; 2] = ["user", "domain"];

pub(super) fn queue(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> QueueConfig {
    let defaults = QueueConfig::default();
    let t = &mut table;
    let queue = QueueConfig {
        lifetime: take_duration(t, found, "lifetime", defaults.lifetime, SECOND..=DAY * 30),
        retry: t.value(found, "retry", defaults.retry, |value| {
            const REMEDY: &str = "write a list of waits from 1s to 7d, such as [\"1m\", \"15m\", \"1h\"]";
            let waits = value.texts(REMEDY)?;
            if waits.is_empty() {
                return Err(mistake("is an empty list", REMEDY));
            }
            let one = |raw: &str| {
                parse_duration(raw)
                    .filter(|wait| (SECOND..=DAY * 7).contains(wait))
                    .ok_or_else(|| mistake(format!("{raw:?} is not a wait"), REMEDY))
            };
            waits.into_iter().map(one).collect()
        }),
        delay_warning: take_duration(t, found, "delay-warning", defaults.delay_warning, SECOND..=DAY * 30),
        messages_max: take_count(t, found, "messages-max", defaults.messages_max, 1..=1_000_000),
        local_threads: take_count(t, found, "local-threads", defaults.local_threads, 1..=100),
        remote_threads: take_count(t, found, "remote-threads", defaults.remote_threads, 1..=500),
        attempts_per_destination_max: take_count(
            t,
            found,
            "attempts-per-destination-max",
            defaults.attempts_per_destination_max,
            1..=500,
        ),
        probe_interval_max: take_duration(
            t,
            found,
            "probe-interval-max",
            defaults.probe_interval_max,
            SECOND * 60..=DAY,
        ),
    };
    if queue.retry.first().is_some_and(|first| *first >= queue.lifetime) {
        found.add_warning(
            table.span(),
            "queue.retry",
            "the first wait is longer than queue.lifetime: no message is attempted twice",
        );
    }
    table.add_unknown_key_errors(found, &known_keys("queue"));
    queue
}

pub(super) fn delivery(
    mut table: Table<'_>,
    found: &mut Diagnostics<'_>,
    home: &Path,
    data_dir: &Path,
) -> DeliveryConfig {
    let span = table.span();
    let local = table.value(found, "local", "maildir", |value| {
        parse_choice(value, &["maildir", "command", "lmtp"].map(|word| (word, word)))
    });
    let maildir = maildir(table.section("maildir", found), found, home, data_dir);
    let command = command(table.section("command", found), found, home);
    let lmtp = lmtp(table.section("lmtp", found), found, home);
    let mut missing = |key: &str, remedy: &str| {
        // What is there and wrong has been reported.
        if found.errors.iter().all(|error| error.key != key) {
            let problem = format!("is not set, and local = {local:?} needs it");
            found.add_error(span.clone(), key, mistake(problem, remedy));
        }
    };
    let local = match (local, command, lmtp) {
        ("command", Some(command), _) => LocalDelivery::Command(command),
        ("lmtp", _, Some(lmtp)) => LocalDelivery::Lmtp(lmtp),
        ("command", None, _) => {
            let remedy = "name the delivery agent, such as program = \"/usr/bin/procmail\"";
            missing("delivery.command.program", remedy);
            LocalDelivery::Maildir(maildir)
        }
        ("lmtp", _, None) => {
            let remedy = "write the address of the server, such as address = \"unix:/run/dovecot/lmtp\"";
            missing("delivery.lmtp.address", remedy);
            LocalDelivery::Maildir(maildir)
        }
        _ => LocalDelivery::Maildir(maildir),
    };
    let pipe = pipe(table.section("pipe", found), found);
    let smtp = smtp(table.section("smtp", found), found);
    table.add_unknown_key_errors(found, &known_keys("delivery"));
    DeliveryConfig { local, pipe, smtp }
}

fn maildir(
    mut table: Table<'_>,
    found: &mut Diagnostics<'_>,
    home: &Path,
    data_dir: &Path,
) -> MaildirDelivery {
    let maildir = table.optional(found, "path", |value| {
        const REMEDY: &str = "write a path such as \"/var/mail/%domain%/%user%/Maildir\"";
        let template = parse_path(value, home)?.to_string_lossy().into_owned();
        check_placeholders(&template, &MAILDIR_PLACEHOLDERS)?;
        if !template.contains("%user%") {
            return Err(mistake("has no %user%, so that all users would share one Maildir", REMEDY));
        }
        Ok(MaildirDelivery { path: template })
    });
    table.add_unknown_key_errors(found, &known_keys("delivery.maildir"));
    maildir.unwrap_or_else(|| MaildirDelivery::in_data_dir(data_dir))
}

fn command(mut table: Table<'_>, found: &mut Diagnostics<'_>, home: &Path) -> Option<CommandDelivery> {
    let t = &mut table;
    let program = t.optional(found, "program", |value| {
        let raw = value.text("write the program's path")?;
        match raw {
            "" => Err(mistake("is empty", "write the program's path, such as \"/usr/bin/procmail\"")),
            // A bare name is looked up in PATH when it is run.
            raw if raw.contains('/') => Ok(home.join(raw).to_string_lossy().into_owned()),
            raw => Ok(raw.to_owned()),
        }
    });
    let arguments = t.value(found, "arguments", Vec::new(), |value| {
        let arguments = value.texts("write a list of texts, one for each argument")?;
        let checked = |argument: &str| {
            check_placeholders(argument, &COMMAND_PLACEHOLDERS).map(|()| argument.to_owned())
        };
        arguments.into_iter().map(checked).collect()
    });
    let line_ends = t.value(found, "line-ends", LineEndsSetting::Lf, |value| {
        parse_choice(value, &[("lf", LineEndsSetting::Lf), ("crlf", LineEndsSetting::Crlf)])
    });
    let timeout = take_duration(t, found, "timeout", Duration::from_secs(30), SECOND..=HOUR);
    table.add_unknown_key_errors(found, &known_keys("delivery.command"));
    Some(CommandDelivery { program: program?, arguments, line_ends, timeout })
}

fn lmtp(mut table: Table<'_>, found: &mut Diagnostics<'_>, home: &Path) -> Option<LmtpDelivery> {
    let address = table.optional(found, "address", |value| {
        const REMEDY: &str =
            "write \"unix:/run/dovecot/lmtp\", or an address with a port such as \"127.0.0.1:24\"";
        let raw = value.text(REMEDY)?;
        match raw.parse::<Endpoint>() {
            // RFC 2033 §5: a client that finds LMTP there takes it for SMTP.
            Ok(Endpoint::Tcp(address)) if address.port() == 25 => Err(mistake(
                "is port 25, which is for SMTP",
                "let the LMTP server listen on another, such as 24",
            )),
            Ok(Endpoint::Tcp(address)) => Ok(Endpoint::Tcp(address)),
            Ok(Endpoint::Unix(path)) => Ok(Endpoint::Unix(home.join(path))),
            Err(error) => Err(mistake(format!("{raw:?} {error}"), REMEDY)),
        }
    });
    table.add_unknown_key_errors(found, &known_keys("delivery.lmtp"));
    address.map(|address| LmtpDelivery { address })
}

fn pipe(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> PipeDelivery {
    let defaults = PipeDelivery::default();
    let pipe = PipeDelivery {
        timeout: take_duration(&mut table, found, "timeout", defaults.timeout, SECOND..=HOUR),
        exit_75: table.value(found, "exit-75", defaults.exit_75, |value| {
            parse_choice(
                value,
                &[("permanent", Exit75Setting::Permanent), ("transient", Exit75Setting::Transient)],
            )
        }),
    };
    table.add_unknown_key_errors(found, &known_keys("delivery.pipe"));
    pipe
}

fn smtp(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> SmtpDelivery {
    let defaults = SmtpDelivery::default();
    let smtp = SmtpDelivery {
        port: table.value(found, "port", defaults.port, |value| {
            let port = value.number().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            port.ok_or_else(|| mistake("is not a port", "write a number from 1 to 65535"))
        }),
        hello: table.value(found, "hello", defaults.hello, |value| {
            parse_choice(
                value,
                &[("sender-domain", HelloSetting::SenderDomain), ("hostname", HelloSetting::Hostname)],
            )
        }),
        via: table.optional(found, "via", |value| {
            let raw = value.text("write hosts such as \"smtp.relay.example:587 login=relay1\"")?;
            Via::parse(raw).map_err(|e| mistake(e.problem, e.remedy))
        }),
        messages_per_connection_max: take_count(
            &mut table,
            found,
            "messages-per-connection-max",
            defaults.messages_per_connection_max,
            1..=10_000,
        ),
    };
    table.add_unknown_key_errors(found, &known_keys("delivery.smtp"));
    smtp
}

pub(super) fn dns(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> DnsConfig {
    let servers = table.value(found, "servers", Vec::new(), |value| {
        const REMEDY: &str = "write a list of addresses, such as [\"127.0.0.1\"] or [\"192.0.2.1:5353\"]";
        let one = |raw: &str| {
            parse_resolver_address(raw, 53)
                .ok_or_else(|| mistake(format!("{raw:?} is not the address of a server"), REMEDY))
        };
        value.texts(REMEDY)?.into_iter().map(one).collect()
    });
    table.add_unknown_key_errors(found, &known_keys("dns"));
    DnsConfig { servers }
}
