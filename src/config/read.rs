//! From the text to the values.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::aliases::{aliases, postmaster};
use super::checks::{choice, count, duration, path, size, words, wrong};
use super::keys::known;
use super::reader::{ConfigError, Findings, Table, Value, Wrong};
use super::sections::Leniency;
use super::sections::{
    AddressPerHour, CommandDelivery, Config, Delivery, Dns, Dovecot, Hello, HookFailure, Hooks, Limits,
    LineEnds, Listen, Listener, LmtpDelivery, Local, LoginPerHour, MaildirDelivery, PipeDelivery,
    PipeTrouble, Place, Queue, Relay, Sender, SmtpDelivery, Submission,
};
use super::units::{parse_address, parse_duration, parse_server};
use crate::mail::{Domain, Endpoint, Network, Via};

/// What the host says of itself, for keys that the file leaves out.
#[derive(Clone, Copy)]
pub struct HostFacts<'a> {
    /// The host's name, fully qualified if it knows one; none if it could not be found out. Only
    /// asked if it is needed: the answer may take long.
    pub hostname: &'a dyn Fn() -> Option<String>,
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const SECOND: Duration = Duration::from_secs(1);

/// What a delivery agent's arguments may hold.
const COMMAND_WORDS: [&str; 6] = ["from", "from_user", "from_domain", "to", "to_user", "to_domain"];

/// What the path of a Maildir may hold.
const MAILDIR_WORDS: [&str; 2] = ["user", "domain"];

impl Config {
    /// Reads the text of `file`, which lies in the configuration directory: relative paths in it
    /// count from there.
    ///
    /// # Errors
    /// Every mistake that was found; the operator is at fault. If the text is not TOML, only
    /// that, because the rest would be guesswork.
    pub fn parse(text: &str, file: &Path, host: &HostFacts<'_>) -> Result<Self, Vec<ConfigError>> {
        let mut findings = Findings::new(text, file);
        let mut top = findings.parse();
        if !findings.errors.is_empty() {
            return Err(findings.errors);
        }
        let home = file.parent().unwrap_or(Path::new(""));
        let found = &mut findings;

        let hostname = hostname(&mut top, found, host);
        let data_dir = top.value(found, "data-dir", PathBuf::from("/var/lib/postrider"), |v| path(v, home));
        let grace = duration(&mut top, found, "grace", Duration::from_secs(30), Duration::ZERO..=HOUR);
        let postmaster = top.optional(found, "postmaster", postmaster);
        let listen = listen(top.section("listen", found), found);
        let limits = limits(top.section("limits", found), found);
        let queue = queue(top.section("queue", found), found);
        let aliases = aliases(top.section("aliases", found), found);
        let delivery = delivery(top.section("delivery", found), found, home, &data_dir);
        let dns = dns(top.section("dns", found), found);
        let dovecot = dovecot(top.section("dovecot", found), found, home);
        let relay = relay(top.section("relay", found), found);
        let submission = submission(top.section("submission", found), found);
        let hooks = hooks(top.section("hooks", found), found);
        let leniency = leniency(top.section("leniency", found), found);
        top.finish(found, &known(""));

        match hostname {
            Some(hostname) if findings.errors.is_empty() => Ok(Self {
                hostname,
                data_dir,
                grace,
                postmaster,
                listen,
                limits,
                queue,
                aliases,
                delivery,
                dns,
                dovecot,
                relay,
                submission,
                hooks,
                leniency,
                warnings: findings.warnings,
            }),
            // A host name that is not there has been reported.
            _ => {
                findings.errors.sort_by_key(|error| error.line);
                Err(findings.errors)
            }
        }
    }
}

fn hostname(top: &mut Table<'_>, found: &mut Findings<'_>, host: &HostFacts<'_>) -> Option<Domain> {
    const REMEDY: &str =
        "write the whole name by which other servers find this host, such as hostname = \"mail.example.org\"";
    let Some(value) = top.take("hostname") else {
        let Some(name) = (host.hostname)() else {
            found.error(
                None,
                "hostname",
                wrong("is not set, and the host does not tell its own name", REMEDY),
            );
            return None;
        };
        return qualified(&name)
            .map_err(|problem| {
                let problem = format!("is not set, and the host calls itself {name:?}, which {problem}");
                found.error(None, "hostname", wrong(problem, REMEDY));
            })
            .ok();
    };
    let name = value
        .text(REMEDY)
        .and_then(|name| qualified(name).map_err(|problem| wrong(format!("{name:?} {problem}"), REMEDY)));
    name.map_err(|wrong| found.error(Some(value.span), "hostname", wrong)).ok()
}

/// A name that means the same thing on every host.
fn qualified(name: &str) -> Result<Domain, &'static str> {
    let domain = Domain::parse(name).map_err(|_| "is not a host name")?;
    if domain.as_address().is_some() {
        return Err("is an address, not a name");
    }
    let ascii = domain.as_ascii();
    if ascii.starts_with("localhost.") || ascii.ends_with(".localhost") || ascii.ends_with(".localdomain") {
        return Err("is a placeholder that means another host to everybody else");
    }
    if domain.is_qualified() { Ok(domain) } else { Err("is not fully qualified (it has no dot)") }
}

fn listen(mut table: Table<'_>, found: &mut Findings<'_>) -> Listen {
    let defaults = Listen::default();
    let listen = Listen {
        smtp: table.value(found, "smtp", defaults.smtp, listeners),
        submission: table.value(found, "submission", defaults.submission, listeners),
        submissions: table.value(found, "submissions", defaults.submissions, listeners),
        proxy_from: table.value(found, "proxy-from", defaults.proxy_from, |value| {
            const REMEDY: &str = "write a list of your proxies, such as [\"127.0.0.1\", \"2001:db8::/64\"]";
            let one = |raw: &str| {
                let network: Network = raw.parse().map_err(|problem| wrong(problem, REMEDY))?;
                if network.is_everything() {
                    return Err(wrong(format!("{network} would let everybody choose an address"), REMEDY));
                }
                Ok(network)
            };
            value.texts(REMEDY)?.into_iter().map(one).collect()
        }),
        monitoring: table.optional(found, "monitoring", |value| {
            const REMEDY: &str = "write an address with a port, such as \"127.0.0.1:1099\"";
            let raw = value.text(REMEDY)?;
            parse_address(raw).ok_or_else(|| wrong(format!("{raw:?} is not an address"), REMEDY))
        }),
    };
    if let Some(address) = listen.monitoring.filter(|address| !address.ip().to_canonical().is_loopback()) {
        let text = format!("{address} can be reached from other hosts, and the pages ask for no password");
        found.warning(table.span(), "listen.monitoring", &text);
    }
    let all = || listen.smtp.iter().chain(&listen.submission).chain(&listen.submissions);
    if all().next().is_none() {
        let remedy = "give at least one of smtp, submission, submissions an address";
        found.error(table.span(), "listen", wrong("leaves nothing to listen on", remedy));
    }
    match (all().any(|listener| listener.proxy), listen.proxy_from.is_empty()) {
        (true, true) => found.error(
            table.span(),
            "listen.proxy-from",
            wrong("is not set, and a listener is marked with proxy", "name the proxies' addresses there"),
        ),
        (false, false) => found.error(
            table.span(),
            "listen.proxy-from",
            wrong("is of no use, because no listener is marked", "write \"ADDRESS:PORT proxy\" for one"),
        ),
        _ => {}
    }
    let mut seen: Vec<SocketAddr> = listen.monitoring.into_iter().collect();
    for listener in all() {
        match &listener.place {
            // Port 0 is whatever is free.
            Place::Address(address) if address.port() != 0 && seen.contains(address) => {
                let problem = format!("names {address} twice");
                found.error(table.span(), "listen", wrong(problem, "give each list a port of its own"));
            }
            Place::Address(address) => seen.push(*address),
            Place::Systemd => {}
        }
    }
    table.finish(found, &known("listen"));
    listen
}

fn listeners(value: &Value<'_>) -> Result<Vec<Listener>, Wrong> {
    const REMEDY: &str = "write a list of addresses with ports, such as [\":25\"] or [\"192.0.2.1:25\", \"[2001:db8::1]:25\"], or \"systemd\"";
    let one = |raw: &str| {
        let (place, proxy) = match raw.strip_suffix(" proxy") {
            Some(place) => (place.trim_end(), true),
            None => (raw, false),
        };
        let place = match place {
            "systemd" => Place::Systemd,
            place => parse_address(place)
                .map(Place::Address)
                .ok_or_else(|| wrong(format!("{raw:?} is not an address with a port"), REMEDY))?,
        };
        Ok(Listener { place, proxy })
    };
    value.texts(REMEDY)?.into_iter().map(one).collect()
}

fn limits(mut table: Table<'_>, found: &mut Findings<'_>) -> Limits {
    let defaults = Limits::default();
    let t = &mut table;
    let limits = Limits {
        message_octets_max: size(t, found, "message-size-max", defaults.message_octets_max, 65_536..=1 << 30),
        // RFC 5321 §4.5.3.1.8: a server must take at least 100.
        recipients_max: count(t, found, "recipients-max", defaults.recipients_max, 100..=10_000),
        received_max: count(t, found, "received-max", defaults.received_max, 10..=1000),
        sessions_max: count(t, found, "sessions-max", defaults.sessions_max, 1..=20_000),
        sessions_per_address_max: count(
            t,
            found,
            "sessions-per-address-max",
            defaults.sessions_per_address_max,
            1..=20_000,
        ),
        sessions_per_network_max: count(
            t,
            found,
            "sessions-per-network-max",
            defaults.sessions_per_network_max,
            1..=20_000,
        ),
        greeting_delay: duration(
            t,
            found,
            "greeting-delay",
            defaults.greeting_delay,
            Duration::ZERO..=SECOND * 60,
        ),
        address_per_hour: address_per_hour(t.section("address-per-hour", found), found),
        login_per_hour: login_per_hour(t.section("login-per-hour", found), found),
        errors_max: count(t, found, "errors-max", defaults.errors_max, 1..=1000),
        command_timeout: duration(t, found, "command-timeout", defaults.command_timeout, SECOND..=HOUR),
        message_timeout: duration(t, found, "message-timeout", defaults.message_timeout, SECOND * 10..=DAY),
        session_timeout: duration(t, found, "session-timeout", defaults.session_timeout, SECOND * 10..=DAY),
    };
    table.finish(found, &known("limits"));
    limits
}

/// Per hour; a limit that nobody reaches is written as 0.
const PER_HOUR: RangeInclusive<usize> = 0..=1_000_000;

fn address_per_hour(mut table: Table<'_>, found: &mut Findings<'_>) -> AddressPerHour {
    let defaults = AddressPerHour::default();
    let mut read = |key, default| count(&mut table, found, key, default, PER_HOUR);
    let limits = AddressPerHour {
        connections: read("connections", defaults.connections),
        messages: read("messages", defaults.messages),
        recipients: read("recipients", defaults.recipients),
        unknown_recipients: read("unknown-recipients", defaults.unknown_recipients),
    };
    table.finish(found, &known("limits.address-per-hour"));
    limits
}

fn login_per_hour(mut table: Table<'_>, found: &mut Findings<'_>) -> LoginPerHour {
    let defaults = LoginPerHour::default();
    let mut read = |key, default| count(&mut table, found, key, default, PER_HOUR);
    let limits = LoginPerHour {
        messages: read("messages", defaults.messages),
        recipients: read("recipients", defaults.recipients),
    };
    table.finish(found, &known("limits.login-per-hour"));
    limits
}

fn queue(mut table: Table<'_>, found: &mut Findings<'_>) -> Queue {
    let defaults = Queue::default();
    let t = &mut table;
    let queue = Queue {
        lifetime: duration(t, found, "lifetime", defaults.lifetime, SECOND..=DAY * 30),
        retry: t.value(found, "retry", defaults.retry, |value| {
            const REMEDY: &str = "write a list of waits from 1s to 7d, such as [\"1m\", \"15m\", \"1h\"]";
            let waits = value.texts(REMEDY)?;
            if waits.is_empty() {
                return Err(wrong("is an empty list", REMEDY));
            }
            let one = |raw: &str| {
                parse_duration(raw)
                    .filter(|wait| (SECOND..=DAY * 7).contains(wait))
                    .ok_or_else(|| wrong(format!("{raw:?} is not a wait"), REMEDY))
            };
            waits.into_iter().map(one).collect()
        }),
        delay_report: duration(t, found, "delay-report", defaults.delay_report, SECOND..=DAY * 30),
        messages_max: count(t, found, "messages-max", defaults.messages_max, 1..=1_000_000),
        local_threads: count(t, found, "local-threads", defaults.local_threads, 1..=100),
        remote_threads: count(t, found, "remote-threads", defaults.remote_threads, 1..=500),
        attempts_per_destination_max: count(
            t,
            found,
            "attempts-per-destination-max",
            defaults.attempts_per_destination_max,
            1..=500,
        ),
        probe_every: duration(t, found, "probe-every", defaults.probe_every, SECOND * 60..=DAY),
    };
    if queue.retry.first().is_some_and(|first| *first >= queue.lifetime) {
        found.warning(
            table.span(),
            "queue.retry",
            "the first wait is longer than the lifetime: nothing is tried twice",
        );
    }
    table.finish(found, &known("queue"));
    queue
}

fn delivery(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path, data_dir: &Path) -> Delivery {
    let span = table.span();
    let local = table.value(found, "local", "maildir", |value| {
        choice(value, &["maildir", "command", "lmtp"].map(|word| (word, word)))
    });
    let maildir = maildir(table.section("maildir", found), found, home, data_dir);
    let command = command(table.section("command", found), found, home);
    let lmtp = lmtp(table.section("lmtp", found), found, home);
    let mut missing = |key: &str, remedy: &str| {
        // What is there and wrong has been reported.
        if found.errors.iter().all(|error| error.key != key) {
            let problem = format!("is not set, and local = {local:?} needs it");
            found.error(span.clone(), key, wrong(problem, remedy));
        }
    };
    let local = match (local, command, lmtp) {
        ("command", Some(command), _) => Local::Command(command),
        ("lmtp", _, Some(lmtp)) => Local::Lmtp(lmtp),
        ("command", None, _) => {
            let remedy = "name the delivery agent, such as program = \"/usr/bin/procmail\"";
            missing("delivery.command.program", remedy);
            Local::Maildir(maildir)
        }
        ("lmtp", _, None) => {
            let remedy = "say where the server listens, such as address = \"unix:/run/dovecot/lmtp\"";
            missing("delivery.lmtp.address", remedy);
            Local::Maildir(maildir)
        }
        _ => Local::Maildir(maildir),
    };
    let pipe = pipe(table.section("pipe", found), found);
    let smtp = smtp(table.section("smtp", found), found);
    table.finish(found, &known("delivery"));
    Delivery { local, pipe, smtp }
}

fn maildir(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path, data_dir: &Path) -> MaildirDelivery {
    let maildir = table.optional(found, "path", |value| {
        const REMEDY: &str = "write a path such as \"/var/mail/%domain%/%user%/Maildir\"";
        let template = path(value, home)?.to_string_lossy().into_owned();
        words(&template, &MAILDIR_WORDS)?;
        if !template.contains("%user%") {
            return Err(wrong("has no %user%, so that all users would share one Maildir", REMEDY));
        }
        Ok(MaildirDelivery { path: template })
    });
    table.finish(found, &known("delivery.maildir"));
    maildir.unwrap_or_else(|| MaildirDelivery::in_data_dir(data_dir))
}

fn command(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path) -> Option<CommandDelivery> {
    let t = &mut table;
    let program = t.optional(found, "program", |value| {
        let raw = value.text("write the program's path")?;
        match raw {
            "" => Err(wrong("is empty", "write the program's path, such as \"/usr/bin/procmail\"")),
            // A bare name is looked up in PATH when it is run.
            raw if raw.contains('/') => Ok(home.join(raw).to_string_lossy().into_owned()),
            raw => Ok(raw.to_owned()),
        }
    });
    let arguments = t.value(found, "arguments", Vec::new(), |value| {
        let arguments = value.texts("write a list of texts, one for each argument")?;
        let checked = |argument: &str| words(argument, &COMMAND_WORDS).map(|()| argument.to_owned());
        arguments.into_iter().map(checked).collect()
    });
    let line_ends = t.value(found, "line-ends", LineEnds::Lf, |value| {
        choice(value, &[("lf", LineEnds::Lf), ("crlf", LineEnds::Crlf)])
    });
    let deadline = duration(t, found, "deadline", Duration::from_secs(30), SECOND..=HOUR);
    table.finish(found, &known("delivery.command"));
    Some(CommandDelivery { program: program?, arguments, line_ends, deadline })
}

fn lmtp(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path) -> Option<LmtpDelivery> {
    let address = table.optional(found, "address", |value| {
        const REMEDY: &str =
            "write \"unix:/run/dovecot/lmtp\", or an address with a port such as \"127.0.0.1:24\"";
        let raw = value.text(REMEDY)?;
        match raw.parse::<Endpoint>() {
            // RFC 2033 §5: whoever finds LMTP there takes it for SMTP.
            Ok(Endpoint::Address(address)) if address.port() == 25 => Err(wrong(
                "is port 25, which is for SMTP",
                "let the LMTP server listen on another, such as 24",
            )),
            Ok(Endpoint::Address(address)) => Ok(Endpoint::Address(address)),
            Ok(Endpoint::Socket(path)) => Ok(Endpoint::Socket(home.join(path))),
            Err(error) => Err(wrong(format!("{raw:?} {error}"), REMEDY)),
        }
    });
    table.finish(found, &known("delivery.lmtp"));
    address.map(|address| LmtpDelivery { address })
}

fn pipe(mut table: Table<'_>, found: &mut Findings<'_>) -> PipeDelivery {
    let defaults = PipeDelivery::default();
    let pipe = PipeDelivery {
        deadline: duration(&mut table, found, "deadline", defaults.deadline, SECOND..=HOUR),
        exit_75: table.value(found, "exit-75", defaults.exit_75, |value| {
            choice(value, &[("permanent", PipeTrouble::Permanent), ("transient", PipeTrouble::Transient)])
        }),
    };
    table.finish(found, &known("delivery.pipe"));
    pipe
}

fn smtp(mut table: Table<'_>, found: &mut Findings<'_>) -> SmtpDelivery {
    let defaults = SmtpDelivery::default();
    let smtp = SmtpDelivery {
        port: table.value(found, "port", defaults.port, |value| {
            let port = value.number().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            port.ok_or_else(|| wrong("is not a port", "write a number from 1 to 65535"))
        }),
        hello: table.value(found, "hello", defaults.hello, |value| {
            choice(value, &[("sender-domain", Hello::SenderDomain), ("hostname", Hello::Hostname)])
        }),
        via: table.optional(found, "via", |value| {
            let raw = value.text("write hosts such as \"smtp.relay.example:587 login=relay1\"")?;
            Via::parse(raw).map_err(|e| wrong(e.problem, e.remedy))
        }),
        messages_per_connection_max: count(
            &mut table,
            found,
            "messages-per-connection-max",
            defaults.messages_per_connection_max,
            1..=10_000,
        ),
    };
    table.finish(found, &known("delivery.smtp"));
    smtp
}

fn dns(mut table: Table<'_>, found: &mut Findings<'_>) -> Dns {
    let servers = table.value(found, "servers", Vec::new(), |value| {
        const REMEDY: &str = "write a list of addresses, such as [\"127.0.0.1\"] or [\"192.0.2.1:5353\"]";
        let one = |raw: &str| {
            parse_server(raw, 53)
                .ok_or_else(|| wrong(format!("{raw:?} is not the address of a server"), REMEDY))
        };
        value.texts(REMEDY)?.into_iter().map(one).collect()
    });
    table.finish(found, &known("dns"));
    Dns { servers }
}

fn dovecot(mut table: Table<'_>, found: &mut Findings<'_>, home: &Path) -> Dovecot {
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

fn relay(mut table: Table<'_>, found: &mut Findings<'_>) -> Relay {
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

fn submission(mut table: Table<'_>, found: &mut Findings<'_>) -> Submission {
    let sender = table.value(found, "sender", Sender::Bound, |value| {
        choice(value, &[("bound", Sender::Bound), ("any", Sender::Any)])
    });
    table.finish(found, &known("submission"));
    Submission { sender }
}

fn hooks(mut table: Table<'_>, found: &mut Findings<'_>) -> Hooks {
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

fn leniency(mut table: Table<'_>, found: &mut Findings<'_>) -> Leniency {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let host = HostFacts { hostname: &|| Some("mail.example.org".to_owned()) };
        Config::parse(text, Path::new("/etc/postrider/postrider.toml"), &host)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// The one mistake in the text.
    fn mistake(text: &str) -> String {
        let errors = read(text).expect_err("the text has a mistake");
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.into_iter().next().unwrap()
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = read("").unwrap();
        assert_eq!(config.hostname.as_ascii(), "mail.example.org");
        assert_eq!(config.limits.message_octets_max, 52_428_800);
        assert_eq!(config.limits.received_max, 100);
        assert_eq!(config.queue.lifetime, Duration::from_hours(120));
        assert_eq!(config.delivery.smtp, SmtpDelivery::default());
        assert!(config.warnings.is_empty());
        assert_eq!(config.effective(), Config::defaults(config.hostname.clone()).effective());
    }

    #[test]
    fn every_key_does_what_it_says() {
        let config = read(
            r#"
            hostname = "Bücher.example"
            data-dir = "data"
            grace = "5s"
            [listen]
            smtp = ["127.0.0.1:2525", ":25"]
            submission = "systemd"
            submissions = []
            monitoring = "127.0.0.1:10990"
            [limits]
            message-size-max = "1 MiB"
            recipients-max = 200
            received-max = 30
            sessions-max = 7
            sessions-per-address-max = 3
            errors-max = 4
            command-timeout = "10s"
            message-timeout = "1m30s"
            session-timeout = "2h"
            [queue]
            lifetime = "2d"
            retry = ["1s", "2h"]
            delay-report = "6h"
            messages-max = 12
            local-threads = 2
            remote-threads = 3
            attempts-per-destination-max = 1
            probe-every = "30m"
            [delivery]
            local = "command"
            [delivery.command]
            program = "bin/agent"
            arguments = ["-f", "%from%", "-d", "%to_user%", "100%", "5%to%"]
            line-ends = "crlf"
            deadline = "1m"
            [delivery.pipe]
            deadline = "2m"
            exit-75 = "transient"
            [delivery.smtp]
            port = 2500
            hello = "hostname"
            via = "relay.example:587 login=relay1"
            messages-per-connection-max = 7
            [dns]
            servers = ["127.0.0.1:5353", "::1"]
            [dovecot]
            auth = "auto"
            client-socket = "auth/client"
            [leniency]
            bare-line-ends = ["192.0.2.7"]
            [relay]
            networks = ["192.0.2.0/24"]
            [submission]
            sender = "any"
            [hooks]
            failure = "accept"
            rcpt-deadline = "2s"
            post-data-deadline = "2m"
            "#,
        )
        .unwrap();
        assert_eq!(config.hostname.as_ascii(), "xn--bcher-kva.example");
        assert_eq!(config.data_dir, Path::new("/etc/postrider/data"), "relative paths count from the file");
        assert_eq!(config.grace, Duration::from_secs(5));
        let addresses = ["127.0.0.1:2525", "[::]:25"]
            .map(|a| Listener { place: Place::Address(a.parse().unwrap()), proxy: false });
        assert_eq!(config.listen.smtp, addresses);
        assert_eq!(config.listen.submission, [Listener { place: Place::Systemd, proxy: false }]);
        assert!(config.listen.submissions.is_empty());
        assert_eq!(config.listen.monitoring, "127.0.0.1:10990".parse().ok());
        assert_eq!(config.limits.message_octets_max, 1 << 20);
        assert_eq!(config.limits.recipients_max, 200);
        assert_eq!(config.limits.received_max, 30);
        assert_eq!(config.limits.sessions_max, 7);
        assert_eq!(config.limits.sessions_per_address_max, 3);
        assert_eq!(config.limits.errors_max, 4);
        assert_eq!(config.limits.command_timeout, Duration::from_secs(10));
        assert_eq!(config.limits.message_timeout, Duration::from_secs(90));
        assert_eq!(config.limits.session_timeout, Duration::from_hours(2));
        assert_eq!(config.queue.lifetime, Duration::from_hours(48));
        assert_eq!(config.queue.retry, [SECOND, Duration::from_hours(2)]);
        assert_eq!(config.queue.delay_report, Duration::from_hours(6));
        assert_eq!(config.queue.messages_max, 12);
        assert_eq!(config.queue.local_threads, 2);
        assert_eq!(config.queue.remote_threads, 3);
        assert_eq!(config.queue.attempts_per_destination_max, 1);
        assert_eq!(config.queue.probe_every, Duration::from_mins(30));
        let Local::Command(command) = &config.delivery.local else { panic!("not the command") };
        assert_eq!(command.program, "/etc/postrider/bin/agent");
        assert_eq!(command.arguments.len(), 6);
        assert_eq!(command.line_ends, LineEnds::Crlf);
        assert_eq!(command.deadline, Duration::from_mins(1));
        assert_eq!(config.delivery.pipe.deadline, Duration::from_mins(2));
        assert_eq!(config.delivery.pipe.exit_75, PipeTrouble::Transient);
        let via = Some(Via::parse("relay.example:587 login=relay1").unwrap());
        let expected =
            SmtpDelivery { port: 2500, hello: Hello::Hostname, via, messages_per_connection_max: 7 };
        assert_eq!(config.delivery.smtp, expected);
        assert_eq!(config.dns.servers, ["127.0.0.1:5353".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert!(config.dovecot.is_asked && config.dovecot.userdb.is_none());
        assert_eq!(config.dovecot.client.as_deref(), Some(Path::new("/etc/postrider/auth/client")));
        assert_eq!(config.relay.networks, ["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(config.submission, Submission { sender: Sender::Any });
        assert_eq!(
            config.hooks,
            Hooks {
                failure: HookFailure::Accept,
                rcpt_deadline: Duration::from_secs(2),
                post_data_deadline: Duration::from_mins(2)
            }
        );
        assert_eq!(config.leniency.bare_line_ends, ["192.0.2.7/32".parse().unwrap()]);
        assert_eq!(config.warnings.len(), 1, "a relay is warned about: {:?}", config.warnings);
    }

    #[test]
    fn what_check_prints_is_a_configuration_that_means_the_same() {
        for text in [
            "",
            "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = \"procmail\"\narguments = [\"-a\", \"%to%\", \"\\\"\\\\\"]",
            "[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = \"unix:lmtp\"",
            "[dovecot]\nauth = \"auto\"\nuserdb-socket = \"/x/userdb\"",
            "[listen]\nmonitoring = \"[::1]:8080\"\nsmtp = [\"192.0.2.1:25\", \"systemd\"]\n[relay]\nnetworks = [\"::1\"]",
            "[limits]\nmessage-size-max = 65537\ncommand-timeout = \"1h\"\n[dns]\nservers = [\"::1\"]",
        ] {
            let shown = read(text).unwrap().effective();
            assert_eq!(read(&shown).unwrap().effective(), shown, "{text}");
        }
    }

    #[test]
    fn a_mistake_names_file_line_key_and_remedy() {
        assert_eq!(
            mistake("\n[limits]\nmessage_size_max = 5\n"),
            "/etc/postrider/postrider.toml:3: limits.message_size_max: unknown key; did you mean message-size-max?"
        );
        assert_eq!(
            mistake("[limits]\nrecipients-max = 50"),
            "/etc/postrider/postrider.toml:2: limits.recipients-max: 50 is out of range; write a number from 100 to 10000"
        );
        assert_eq!(
            mistake("[delivery.smtp]\nhello = \"sender\""),
            "/etc/postrider/postrider.toml:2: delivery.smtp.hello: \"sender\" is not a choice; write \"sender-domain\" or \"hostname\""
        );
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let errors = read(
            "hostname = \"mail\"\nhostnam = 1\n[limits]\nsessions-max = \"x\"\n[queue]\nretry = []\nlifetime = 5\n[nothing]\n",
        )
        .unwrap_err();
        let keys = ["hostname", "hostnam", "limits.sessions-max", "queue.retry", "queue.lifetime", "nothing"];
        assert_eq!(errors.len(), keys.len(), "{errors:#?}");
        for key in keys {
            assert!(errors.iter().any(|error| error.contains(&format!(" {key}: "))), "{key} in {errors:#?}");
        }
        assert!(errors[0].contains("toml:1:"), "in the order of the file: {errors:#?}");
    }

    #[test]
    fn what_is_not_toml_is_named_by_its_line() {
        let errors = read("hostname = \"mail.example.org\"\n[listen\nsmtp = 5\n").unwrap_err();
        assert!(errors[0].starts_with("/etc/postrider/postrider.toml:2: not TOML: "), "{errors:?}");
        let errors = read("grace = \"1s\"\ngrace = \"2s\"\n").unwrap_err();
        assert!(errors[0].starts_with("/etc/postrider/postrider.toml:2: not TOML: "), "{errors:?}");
    }

    #[test]
    fn a_host_name_is_qualified_or_an_error_that_says_so() {
        for name in ["mail", "localhost"] {
            let error = mistake(&format!("hostname = \"{name}\""));
            assert!(error.contains("is not fully qualified"), "{error}");
        }
        for name in ["localhost.localdomain", "mail.localhost", "[192.0.2.1]", "a..b", ""] {
            mistake(&format!("hostname = \"{name}\""));
        }
        let hosts: [fn() -> Option<String>; 2] = [|| None, || Some("vm-1".to_owned())];
        for hostname in hosts {
            let host = HostFacts { hostname: &hostname };
            let errors = Config::parse("", Path::new("postrider.toml"), &host).unwrap_err();
            assert_eq!(errors[0].key, "hostname");
            assert!(errors[0].remedy.contains("hostname = "), "{errors:?}");
        }
    }

    #[test]
    fn the_host_is_not_asked_for_a_name_that_the_file_gives() {
        let host = HostFacts { hostname: &|| panic!("asked") };
        assert!(Config::parse("hostname = \"mail.example.org\"", Path::new("x"), &host).is_ok());
    }

    #[test]
    fn what_would_be_dangerous_is_an_error_or_a_warning() {
        assert!(mistake("[relay]\nnetworks = [\"0.0.0.0/0\"]").contains("open relay"));
        assert!(mistake("[leniency]\nbare-line-ends = [\"::/0\"]").contains("smuggle"));
        assert!(
            mistake("[listen]\nsmtp = []\nsubmission = []\nsubmissions = []")
                .contains("nothing to listen on")
        );
        assert!(mistake("[listen]\nsmtp = [\":25\"]\nsubmission = [\":25\"]").contains("twice"));
        assert!(mistake("[listen]\nsmtp = [\"\"]").contains("not an address"));
        assert!(mistake("[delivery.maildir]\npath = \"/var/mail/all\"").contains("%user%"));
        assert!(mistake("[delivery.maildir]\npath = \"/var/mail/%user%/%to%\"").contains("%to%"));
        assert!(mistake("[delivery.command]\narguments = [\"%sender%\"]").contains("%sender%"));
        assert!(mistake("[delivery]\nlocal = \"command\"").contains("delivery.command.program"));
        assert!(mistake("[delivery]\nlocal = \"lmtp\"").contains("delivery.lmtp.address"));
        let lmtp =
            |address: &str| format!("[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = {address:?}");
        assert!(mistake(&lmtp("[::1]:25")).contains("port 25"));
        assert!(mistake(&lmtp("/run/dovecot/lmtp")).contains("unix:/run/dovecot/lmtp"));
        let warned = read("[listen]\nmonitoring = \":1099\"").unwrap().warnings;
        assert!(warned.len() == 1 && warned[0].contains("listen.monitoring"), "{warned:?}");
    }
}
