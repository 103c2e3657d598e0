//! Builds every part from the configuration and hands each what it needs.
//!
//! The only place that turns the configuration into other modules' settings.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::chores::{Chores, Reloads};
use super::configuration::alias_hook;
use super::directory::{Directory, Parts};
use super::domains::{Domains, logins_named};
use super::expiry::Expiry;
use super::neighbours;
use super::sources::Sources;
use super::watched::Looks;
use crate::alias::{AliasHook, AliasHookSettings, Postmaster, Spelling};
use crate::auth::{Accounts, Pretence};
use crate::config::{self, Config};
use crate::courier::{
    CommandCourier, CommandSettings, Courier, Exit75, LineEnds, LmtpCourier, LmtpSettings, MaildirCourier,
    MaildirSettings, PipeCourier, PipeSettings, smtp,
};
use crate::dns::{self, Resolver};
use crate::domaininfo::{self, DomainInfo};
use crate::inbound::{
    self, Authors, Binding, Ceilings, Counters, Doors, HookFailure, HookSettings, Hooks, HourlyMax,
    HousePolicy, Logins, Rates, Recipients, ReverseNames, Senders, Services, Unchecked,
};
use crate::observe::{Metrics, Traces};
use crate::queue::{self, Addressed, Couriers, Crew, Direct, Opened, SpoolParts};
use crate::sys::{
    Clock, Dial, Disk, Mutex, Random, RootedDisk, Stop, SystemClock, SystemDial, SystemDisk, SystemRandom,
    create_dir_all,
};
use crate::tls::{Certs, ServerTls, TlsClient};

/// Everything that runs, before it runs.
pub(super) struct House {
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
    pub(super) doors: Arc<Doors>,
    pub(super) services: Arc<Services>,
    pub(super) queue: queue::Handle,
    pub(super) opened: Opened,
    pub(super) crew: Crew,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) chores: Arc<Chores>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Builds the house. What waits for others there waits for the request to `stop` too.
///
/// # Errors
/// Everything that keeps it from being built, each with what, where and what to do.
pub(super) fn build(config_dir: &Path, config: &Config, stop: &Arc<Stop>) -> Result<House, Vec<String>> {
    let one = |e: String| vec![e];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let metrics = Arc::new(Metrics::default());
    let traces = Traces::new(Arc::clone(&clock));

    // Before the data directory is made: it is often in this one, which would count as just changed.
    let sources = Sources::read(config_dir, &config.hostname, &spelling(config), Looks::of_the_server())
        .map_err(one)?;
    create_dir_all(&*disk, &config.data_dir)
        .map_err(|e| one(format!("{}: cannot be made: {e}; check data-dir", config.data_dir.display())))?;
    let pretence = config.data_dir.join("scram-pretence");
    let pretence = Pretence::kept(&*disk, &*random, &pretence)
        .map_err(|e| one(format!("{}: {e}; it must be ours to read and write", pretence.display())))?;
    let expiry = Expiry::new(Arc::clone(&clock), &metrics);
    let accounts = accounts(config, &metrics, stop).with_pretence(pretence);
    let chores = chores(config_dir, config, sources, accounts, expiry, &metrics, stop)?;
    let domaininfo = {
        let settings = domaininfo::Settings::new(config.data_dir.join("domaininfo"));
        DomainInfo::open(Arc::clone(&disk), Arc::clone(&random), Arc::clone(&clock), &metrics, settings)
            .map_err(|e| one(format!("{}/domaininfo: {e}", config.data_dir.display())))?
    };
    let domaininfo = Arc::new(domaininfo);
    // Whoever moves the data directory under the server must not make it write into another one's spool.
    let spool_disk = RootedDisk::open(&config.data_dir)
        .map_err(|e| one(format!("{}: {e}; check data-dir", config.data_dir.display())))?;
    let parts = SpoolParts {
        disk: Arc::new(spool_disk),
        data_dir: config.data_dir.clone(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        metrics: Arc::clone(&metrics),
        settings: queue_settings(config),
    };
    let (queue, opened) = queue::open(parts).map_err(|e| one(e.to_string()))?;
    let dial: Arc<dyn Dial> = Arc::new(SystemDial);
    let stub = || stub(config, &clock, &random, &dial);
    let resolver: Arc<dyn Resolver> = Arc::new(stub());
    let seams = Seams {
        clock: &clock,
        random: &random,
        disk: &disk,
        dial: &dial,
        resolver: &resolver,
        metrics: &metrics,
        stop,
    };
    let couriers = couriers(config, config_dir, &seams, &chores, &domaininfo);
    let crew = Crew {
        router: Arc::clone(&chores.directory.router),
        couriers,
        own_mail: Arc::new(Addressed {
            next: Direct(queue.clone()),
            addressees: Arc::clone(&chores.directory) as _,
        }),
        traces: Arc::clone(&traces),
        hostname: config.hostname.clone(),
    };
    let tls =
        ServerTls::new(Arc::clone(&chores.certs)).map_err(|e| one(format!("TLS cannot be set up: {e}")))?;
    let directory = Arc::clone(&chores.directory);
    let rates = Arc::new(Rates::new(hourly_max(config), Arc::clone(&clock), &metrics));
    let policy = HousePolicy {
        rates: Arc::clone(&rates),
        senders: Senders::new(Arc::new(Unchecked), Arc::clone(&domaininfo), &metrics),
        authors: Authors::new(
            Arc::clone(&directory) as _,
            Arc::clone(&directory) as _,
            match config.submission.sender {
                config::Sender::Bound => Binding::Bound,
                config::Sender::Any => Binding::Any,
            },
            &metrics,
        ),
        logins: Logins::new(
            Arc::clone(&directory.accounts),
            Arc::clone(&clock),
            Arc::clone(&random),
            &metrics,
        ),
        recipients: Recipients::new(directory, config.relay.networks.clone(), &metrics),
    };
    let services = Services {
        settings: session_settings(config),
        policy: Arc::new(policy),
        reverse_names: ReverseNames::new(Arc::new(stub().until(Arc::clone(stop))), Arc::clone(&clock)),
        hooks: Hooks::new(
            hook_settings(config, config_dir, stop),
            Arc::clone(&chores.directory) as _,
            &metrics,
        ),
        queue: queue.clone(),
        tls,
        clock: Arc::clone(&clock),
        traces: Arc::clone(&traces),
        counters: Counters::new(&metrics),
    };
    let ceilings = Ceilings {
        sessions_max: config.limits.sessions_max,
        sessions_per_address_max: config.limits.sessions_per_address_max,
        sessions_per_network_max: config
            .limits
            .sessions_per_network_max
            .max(config.limits.sessions_per_address_max),
    };
    let doors = Doors::new(ceilings, rates, Arc::clone(&clock), &metrics);
    Ok(House {
        metrics,
        traces,
        doors,
        services: Arc::new(services),
        queue,
        opened,
        crew,
        domaininfo,
        chores,
        clock,
    })
}

/// Puts in force what was read of users, aliases and certificates.
fn chores(
    config_dir: &Path,
    config: &Config,
    sources: Sources,
    accounts: Accounts,
    expiry: Expiry,
    metrics: &Metrics,
    stop: &Arc<Stop>,
) -> Result<Arc<Chores>, Vec<String>> {
    let mut wrong = sources.mistakes();
    if wrong.is_empty() {
        wrong.extend(unknown_logins(config, &sources.domains, &sources.credentials.logins()));
    }
    let (certs, unusable) = (sources.certificates.set(), sources.unusable_certificates());
    if certs.is_empty() {
        wrong.extend(unusable);
    } else {
        let used = "the other certificates are used; mend it and send SIGHUP, or restart";
        unusable.iter().for_each(|complaint| log::error!("{complaint}; {used}"));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    expiry.look(&certs);
    Ok(Arc::new(Chores {
        config_dir: config_dir.to_owned(),
        effective: config.effective(),
        hostname: config.hostname.clone(),
        looks: Looks::of_the_server(),
        directory: directory(config_dir, config, &sources.domains, accounts, metrics, stop),
        logins: Arc::new(ArcSwap::new(sources.credentials.logins())),
        sources: Mutex::new(sources),
        certs: Certs::new(certs),
        tls_client: Arc::new(TlsClient::with_system_roots()),
        expiry,
        reloads: Reloads::new().map_err(|e| vec![format!("cannot make a pair of sockets: {e}")])?,
    }))
}

/// How names of ours are compared.
#[must_use]
pub fn spelling(config: &Config) -> Spelling {
    Spelling {
        suffix_separators: config.aliases.suffix_separators.clone(),
        drop_characters: config.aliases.drop_characters.clone(),
    }
}

/// Users of ours, and those of others who are asked.
fn accounts(config: &Config, metrics: &Metrics, stop: &Arc<Stop>) -> Accounts {
    match neighbours::dovecot(config, metrics, stop) {
        Some(dovecot) => Accounts::default().with_others(dovecot),
        None => Accounts::default(),
    }
}

fn directory(
    config_dir: &Path,
    config: &Config,
    domains: &Domains,
    accounts: Accounts,
    metrics: &Metrics,
    stop: &Arc<Stop>,
) -> Arc<Directory> {
    let hook = AliasHookSettings {
        program: alias_hook(config_dir),
        directory: config_dir.to_owned(),
        spelling: spelling(config),
        stop: Arc::clone(stop),
    };
    let parts = Parts {
        spelling: spelling(config),
        postmaster: Postmaster { mailbox: config.postmaster.clone(), hostname: config.hostname.clone() },
        hook: AliasHook::new(hook, metrics),
    };
    Directory::new(parts, domains, accounts)
}

/// The logins that are named and not in `credentials.toml`, a mistake each.
#[must_use]
pub fn unknown_logins(config: &Config, domains: &Domains, logins: &smtp::Logins) -> Vec<String> {
    let by_default = config.delivery.smtp.via.iter().filter_map(|via| via.login.clone());
    let by_default = by_default.map(|login| (login, "postrider.toml: delivery.smtp.via".to_owned()));
    let by_alias = logins_named(domains).into_iter().map(|(login, place)| (login, place.to_string()));
    by_default
        .chain(by_alias)
        .filter(|(login, _)| !logins.contains_key(login))
        .map(|(login, place)| {
            format!(
                "{place}: there is no login {login} in credentials.toml; add [{login}] with user and password"
            )
        })
        .collect()
}

/// The postmasters whose mail would reach nobody, a warning each.
#[must_use]
pub fn unread_postmasters(
    config_dir: &Path,
    config: &Config,
    domains: &Domains,
    stop: &Arc<Stop>,
) -> Vec<String> {
    let metrics = Metrics::default();
    let accounts = accounts(config, &metrics, stop);
    directory(config_dir, config, domains, accounts, &metrics, stop).unread_postmasters()
}

struct Seams<'a> {
    clock: &'a Arc<dyn Clock>,
    random: &'a Arc<dyn Random>,
    disk: &'a Arc<dyn Disk>,
    dial: &'a Arc<dyn Dial>,
    resolver: &'a Arc<dyn Resolver>,
    metrics: &'a Metrics,
    stop: &'a Arc<Stop>,
}

/// Asks name servers. For attempts, and apart from them for sessions, which do not wait when we stop.
fn stub(
    config: &Config,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    dial: &Arc<dyn Dial>,
) -> dns::Stub {
    let settings = dns::Settings { servers: config.dns.servers.clone(), ..dns::Settings::default() };
    dns::Stub::new(settings, Arc::clone(clock), Arc::clone(random), Arc::clone(dial))
}

fn couriers(
    config: &Config,
    config_dir: &Path,
    seams: &Seams<'_>,
    chores: &Chores,
    domaininfo: &Arc<DomainInfo>,
) -> Couriers {
    let clock = || Arc::clone(seams.clock);
    let local: Arc<dyn Courier> = match &config.delivery.local {
        config::Local::Maildir(settings) => Arc::new(MaildirCourier::new(
            &MaildirSettings { path: settings.path.clone(), hostname: config.hostname.clone() },
            Arc::clone(seams.disk),
            Arc::clone(seams.random),
            clock(),
        )),
        config::Local::Command(settings) => Arc::new(CommandCourier::new(
            CommandSettings {
                program: settings.program.clone(),
                arguments: settings.arguments.clone(),
                line_ends: match settings.line_ends {
                    config::LineEnds::Lf => LineEnds::Lf,
                    config::LineEnds::Crlf => LineEnds::CrLf,
                },
                deadline: settings.deadline,
                directory: config_dir.to_owned(),
            },
            clock(),
            Arc::clone(seams.stop),
        )),
        config::Local::Lmtp(settings) => Arc::new(LmtpCourier::new(
            LmtpSettings { endpoint: settings.address.clone(), hostname: config.hostname.clone() },
            Arc::new(SystemDial),
            clock(),
        )),
    };
    let pipe = &config.delivery.pipe;
    let program = PipeCourier::new(
        PipeSettings {
            deadline: pipe.deadline,
            exit_75: match pipe.exit_75 {
                config::PipeTrouble::Permanent => Exit75::Permanent,
                config::PipeTrouble::Transient => Exit75::Transient,
            },
            directory: config_dir.to_owned(),
        },
        clock(),
        Arc::clone(seams.stop),
    );
    Couriers {
        local,
        program: Arc::new(program),
        smtp: Arc::new(smtp_courier(config, seams, chores, domaininfo)),
    }
}

fn smtp_courier(
    config: &Config,
    seams: &Seams<'_>,
    chores: &Chores,
    domaininfo: &Arc<DomainInfo>,
) -> smtp::SmtpCourier {
    let settings = smtp::Settings {
        port: config.delivery.smtp.port,
        hello: match config.delivery.smtp.hello {
            config::Hello::SenderDomain => smtp::HelloMode::SenderDomain,
            config::Hello::Hostname => smtp::HelloMode::Hostname,
        },
        via: config.delivery.smtp.via.clone(),
        listening: config.listen.smtp.iter().map(taking_mail_in).collect(),
        messages_per_connection_max: u32::try_from(config.delivery.smtp.messages_per_connection_max)
            .unwrap_or(u32::MAX),
        ..smtp::Settings::new(config.hostname.clone())
    };
    let parts = smtp::Parts {
        resolver: Arc::clone(seams.resolver),
        dial: Arc::clone(seams.dial),
        domaininfo: Arc::clone(domaininfo),
        tls: Arc::clone(&chores.tls_client),
        random: Arc::clone(seams.random),
        clock: Arc::clone(seams.clock),
        router: Arc::clone(&chores.directory.router),
        logins: Arc::clone(&chores.logins),
    };
    smtp::SmtpCourier::new(settings, parts, seams.metrics)
}

/// Where other servers find us. What the service manager passes is port 25, as far as we can know.
fn taking_mail_in(listener: &config::Listener) -> SocketAddr {
    match listener.place {
        config::Place::Address(address) => address,
        config::Place::Systemd => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25)),
    }
}

fn queue_settings(config: &Config) -> queue::Settings {
    let defaults = queue::Settings::default();
    let slack = Duration::from_secs(30);
    let local = match &config.delivery.local {
        config::Local::Maildir(_) | config::Local::Lmtp(_) => defaults.attempt_local,
        config::Local::Command(command) => command.deadline + slack,
    };
    queue::Settings {
        messages_max: config.queue.messages_max,
        lifetime: config.queue.lifetime,
        retry: config.queue.retry.clone(),
        delay_report: config.queue.delay_report,
        deliver_local: config.queue.local_threads,
        deliver_remote: config.queue.remote_threads,
        destination_max: config.queue.attempts_per_destination_max,
        backoff_max: config.queue.probe_every,
        attempt_local: local.max(config.delivery.pipe.deadline + slack).max(defaults.attempt_local),
        ..defaults
    }
}

fn hook_settings(config: &Config, config_dir: &Path, stop: &Arc<Stop>) -> HookSettings {
    HookSettings {
        config_dir: config_dir.to_owned(),
        failure: match config.hooks.failure {
            config::HookFailure::Defer => HookFailure::Defer,
            config::HookFailure::Accept => HookFailure::Accept,
        },
        rcpt_time: config.hooks.rcpt_deadline,
        post_data_time: config.hooks.post_data_deadline,
        stop: Arc::clone(stop),
    }
}

fn hourly_max(config: &Config) -> HourlyMax {
    let (address, login) = (&config.limits.address_per_hour, &config.limits.login_per_hour);
    HourlyMax {
        address_connections: address.connections,
        address_messages: address.messages,
        address_recipients: address.recipients,
        address_unknown_recipients: address.unknown_recipients,
        login_messages: login.messages,
        login_recipients: login.recipients,
        exempt: config.relay.networks.clone(),
    }
}

fn session_settings(config: &Config) -> inbound::Settings {
    let limits = &config.limits;
    inbound::Settings {
        hostname: config.hostname.clone(),
        message_octets_max: limits.message_octets_max,
        recipients_max: limits.recipients_max,
        mended_networks: config.leniency.bare_line_ends.clone(),
        received_max: limits.received_max,
        relay_networks: config.relay.networks.clone(),
        greeting_delay: limits.greeting_delay,
        errors_max: u32::try_from(limits.errors_max).unwrap_or(u32::MAX),
        command_timeout: limits.command_timeout,
        message_timeout: limits.message_timeout,
        session_timeout: limits.session_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn the_defaults_of_the_configuration_are_those_of_the_queue() {
        let config = Config::defaults(Domain::parse("mail.here.example").unwrap());
        assert_eq!(queue_settings(&config), queue::Settings::default());
    }
}
