//! Builds every part from the configuration and hands each what it needs.
//!
//! The only place that turns the configuration into other modules' settings.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::certificate_expiry::ExpiryMonitor;
use super::config_file::alias_hook_path;
use super::external_services;
use super::local_domains::{LocalDomains, referenced_logins};
use super::lookup_tables::{LookupParts, LookupTables};
use super::reloadable_files::ReloadableFiles;
use super::reloader::{ReloadRequests, Reloader};
use super::watched_value::PollSettings;
use crate::alias::{AliasHook, AliasHookSettings, LocalPartRules, PostmasterSettings};
use crate::auth::{Accounts, DecoyKeys};
use crate::config::{self, Config};
use crate::courier::{
    CommandSettings, Courier, Exit75, LineEnds, LmtpCourier, LmtpSettings, MaildirCourier, MaildirSettings,
    PipeSettings, ProgramCourier, smtp,
};
use crate::dns::{self, Resolver};
use crate::domaininfo::{self, DomainInfo};
use crate::inbound::{
    self, ConfiguredPolicy, Counters, HookFallback, HourlyLimits, LoginPolicy, RateLimits, RecipientPolicy,
    ReverseNames, ReversePathPolicy, SenderLoginPolicy, SenderRestriction, SessionHookSettings, SessionHooks,
    SessionLimitSettings, SessionLimits, SessionServices, Unchecked,
};
use crate::observe::{Metrics, Traces};
use crate::queue::{self, Couriers, DeliveryParts, GeneratedMail, OpenQueue, QueueParts};
use crate::sys::{
    Clock, Connector, Disk, Mutex, Random, RootedDisk, StopFlag, SystemClock, SystemConnector, SystemDisk,
    SystemRandom, create_dir_all,
};
use crate::tls::{CertificateResolver, TlsClient, TlsServer};

/// Everything that runs, before it runs.
pub(super) struct DaemonParts {
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Arc<Traces>,
    pub(super) session_limits: Arc<SessionLimits>,
    pub(super) services: Arc<SessionServices>,
    pub(super) queue: queue::Handle,
    pub(super) opened_queue: OpenQueue,
    pub(super) delivery_parts: DeliveryParts,
    pub(super) domaininfo: Arc<DomainInfo>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Builds the house. What waits for others there waits for the request to `stop` too.
///
/// # Errors
/// Everything that keeps it from being built, each with what, where and what to do.
pub(super) fn build(
    config_dir: &Path,
    config: &Config,
    stop: &Arc<StopFlag>,
) -> Result<DaemonParts, Vec<String>> {
    let one = |e: String| vec![e];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let metrics = Arc::new(Metrics::default());
    let traces = Traces::new(Arc::clone(&clock));

    // Before the data directory is made: it is often in this one, which would count as just changed.
    let sources =
        ReloadableFiles::read(config_dir, &config.hostname, &spelling(config), PollSettings::for_server())
            .map_err(one)?;
    create_dir_all(&*disk, &config.data_dir)
        .map_err(|e| one(format!("{}: cannot be made: {e}; check data-dir", config.data_dir.display())))?;
    let pretence = config.data_dir.join("scram-decoy-key");
    let pretence = DecoyKeys::load_or_create(&*disk, &*random, &pretence)
        .map_err(|e| one(format!("{}: {e}; it must be ours to read and write", pretence.display())))?;
    let expiry = ExpiryMonitor::new(Arc::clone(&clock), &metrics);
    let accounts = accounts(config, &metrics, stop).with_decoy_keys(pretence);
    let chores = build_reloader(config_dir, config, sources, accounts, expiry, &metrics, stop)?;
    let domaininfo = {
        let settings = domaininfo::Settings::new(config.data_dir.join("domaininfo"));
        DomainInfo::open(Arc::clone(&disk), Arc::clone(&random), Arc::clone(&clock), &metrics, settings)
            .map_err(|e| one(format!("{}/domaininfo: {e}", config.data_dir.display())))?
    };
    let domaininfo = Arc::new(domaininfo);
    // Whoever moves the data directory under the server must not make it write into another one's spool.
    let spool_disk = RootedDisk::open(&config.data_dir)
        .map_err(|e| one(format!("{}: {e}; check data-dir", config.data_dir.display())))?;
    let parts = QueueParts {
        disk: Arc::new(spool_disk),
        data_dir: config.data_dir.clone(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        metrics: Arc::clone(&metrics),
        settings: queue_settings(config),
    };
    let (queue, opened) = queue::open(parts).map_err(|e| one(e.to_string()))?;
    let dial: Arc<dyn Connector> = Arc::new(SystemConnector);
    let stub = || stub_resolver(config, &clock, &random, &dial);
    let resolver: Arc<dyn Resolver> = Arc::new(stub());
    let seams = SystemInterfaces {
        clock: &clock,
        random: &random,
        disk: &disk,
        dial: &dial,
        resolver: &resolver,
        metrics: &metrics,
        stop,
    };
    let couriers = couriers(config, config_dir, &seams, &chores, &domaininfo);
    let crew = DeliveryParts {
        router: Arc::clone(&chores.lookup_tables.router),
        couriers,
        generated_mail: GeneratedMail::new(queue.clone(), Arc::clone(&chores.lookup_tables) as _),
        traces: Arc::clone(&traces),
        hostname: config.hostname.clone(),
    };
    let tls =
        TlsServer::new(Arc::clone(&chores.certs)).map_err(|e| one(format!("TLS cannot be set up: {e}")))?;
    let directory = Arc::clone(&chores.lookup_tables);
    let rates = Arc::new(RateLimits::new(hourly_max(config), Arc::clone(&clock), &metrics));
    let policy = ConfiguredPolicy {
        rate_limits: Arc::clone(&rates),
        reverse_path_policy: ReversePathPolicy::new(
            ReverseNames::new(Arc::new(stub().interruptible_by(Arc::clone(stop))), Arc::clone(&clock)),
            Arc::new(Unchecked),
            Arc::clone(&domaininfo),
            &metrics,
        ),
        sender_login_policy: SenderLoginPolicy::new(
            Arc::clone(&directory) as _,
            Arc::clone(&directory) as _,
            match config.submission.sender {
                config::SenderSetting::Bound => SenderRestriction::OwnAddresses,
                config::SenderSetting::Any => SenderRestriction::AnyAddress,
            },
            &metrics,
        ),
        login_policy: LoginPolicy::new(
            Arc::clone(&directory.accounts),
            Arc::clone(&clock),
            Arc::clone(&random),
            &metrics,
        ),
        recipient_policy: RecipientPolicy::new(directory, &metrics),
    };
    let services = SessionServices {
        settings: Arc::new(ArcSwap::from_pointee(session_settings(config))),
        policy: Arc::new(policy),
        hooks: SessionHooks::new(
            hook_settings(config, config_dir, stop),
            Arc::clone(&chores.lookup_tables) as _,
            &metrics,
        ),
        queue: queue.clone(),
        tls,
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        traces: Arc::clone(&traces),
        counters: Counters::new(&metrics),
    };
    let ceilings = SessionLimitSettings {
        sessions_max: config.limits.sessions_max,
        sessions_per_address_max: config.limits.sessions_per_address_max,
        sessions_per_network_max: config
            .limits
            .sessions_per_network_max
            .max(config.limits.sessions_per_address_max),
    };
    let doors = SessionLimits::new(ceilings, rates, Arc::clone(&clock), &metrics);
    Ok(DaemonParts {
        metrics,
        traces,
        session_limits: doors,
        services: Arc::new(services),
        queue,
        opened_queue: opened,
        delivery_parts: crew,
        domaininfo,
        reloader: chores,
        clock,
    })
}

/// Puts in force what was read of users, aliases and certificates.
fn build_reloader(
    config_dir: &Path,
    config: &Config,
    sources: ReloadableFiles,
    accounts: Accounts,
    expiry: ExpiryMonitor,
    metrics: &Metrics,
    stop: &Arc<StopFlag>,
) -> Result<Arc<Reloader>, Vec<String>> {
    let mut wrong = sources.problems();
    if wrong.is_empty() {
        wrong.extend(undefined_logins(config, &sources.domains, &sources.credentials.logins()));
    }
    let (certs, unusable) = (sources.certificates.certificates(), sources.certificate_problems());
    if certs.is_empty() {
        wrong.extend(unusable);
    } else {
        let used = "the other certificates are used; mend it and send SIGHUP, or restart";
        unusable.iter().for_each(|complaint| log::error!("{complaint}; {used}"));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    expiry.check(&certs);
    Ok(Arc::new(Reloader {
        config_dir: config_dir.to_owned(),
        effective_config: config.effective_toml(),
        hostname: config.hostname.clone(),
        poll_settings: PollSettings::for_server(),
        lookup_tables: build_lookup_tables(config_dir, config, &sources.domains, accounts, metrics, stop),
        logins: Arc::new(ArcSwap::new(sources.credentials.logins())),
        files: Mutex::new(sources),
        certs: CertificateResolver::new(certs),
        tls_client: Arc::new(TlsClient::with_system_roots()),
        expiry,
        reload_requests: ReloadRequests::new()
            .map_err(|e| vec![format!("cannot make a pair of sockets: {e}")])?,
    }))
}

/// How names of ours are compared.
#[must_use]
pub fn spelling(config: &Config) -> LocalPartRules {
    LocalPartRules {
        suffix_separators: config.aliases.suffix_separators.clone(),
        drop_characters: config.aliases.drop_characters.clone(),
    }
}

/// Users of ours, and those of others who are asked.
fn accounts(config: &Config, metrics: &Metrics, stop: &Arc<StopFlag>) -> Accounts {
    match external_services::dovecot_client(config, metrics, stop) {
        Some(dovecot) => Accounts::default().with_external_users(dovecot),
        None => Accounts::default(),
    }
}

fn build_lookup_tables(
    config_dir: &Path,
    config: &Config,
    domains: &LocalDomains,
    accounts: Accounts,
    metrics: &Metrics,
    stop: &Arc<StopFlag>,
) -> Arc<LookupTables> {
    let hook = AliasHookSettings {
        program: alias_hook_path(config_dir),
        working_directory: config_dir.to_owned(),
        local_part_rules: spelling(config),
        stop: Arc::clone(stop),
    };
    let parts = LookupParts {
        spelling: spelling(config),
        postmaster: PostmasterSettings {
            mailbox: config.postmaster.clone(),
            hostname: config.hostname.clone(),
        },
        alias_hook: AliasHook::new(hook, metrics),
    };
    LookupTables::new(parts, domains, accounts)
}

/// The logins that are named and not in `credentials.toml`, a mistake each.
#[must_use]
pub fn undefined_logins(
    config: &Config,
    domains: &LocalDomains,
    logins: &smtp::CredentialsByName,
) -> Vec<String> {
    let by_default = config.delivery.smtp.via.iter().filter_map(|via| via.credentials_name.clone());
    let by_default = by_default.map(|login| (login, "postrider.toml: delivery.smtp.via".to_owned()));
    let by_alias = referenced_logins(domains).into_iter().map(|(login, place)| (login, place.to_string()));
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
pub fn undeliverable_postmasters(
    config_dir: &Path,
    config: &Config,
    domains: &LocalDomains,
    stop: &Arc<StopFlag>,
) -> Vec<String> {
    let metrics = Metrics::default();
    let accounts = accounts(config, &metrics, stop);
    build_lookup_tables(config_dir, config, domains, accounts, &metrics, stop).undeliverable_postmasters()
}

struct SystemInterfaces<'a> {
    clock: &'a Arc<dyn Clock>,
    random: &'a Arc<dyn Random>,
    disk: &'a Arc<dyn Disk>,
    dial: &'a Arc<dyn Connector>,
    resolver: &'a Arc<dyn Resolver>,
    metrics: &'a Metrics,
    stop: &'a Arc<StopFlag>,
}

/// Asks name servers. For attempts, and apart from them for sessions, which do not wait when we stop.
fn stub_resolver(
    config: &Config,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    dial: &Arc<dyn Connector>,
) -> dns::StubResolver {
    let settings = dns::Settings { servers: config.dns.servers.clone(), ..dns::Settings::default() };
    dns::StubResolver::new(settings, Arc::clone(clock), Arc::clone(random), Arc::clone(dial))
}

/// Settings that a courier reads once for each attempt, so that they can be replaced between two.
fn swappable<T>(settings: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(settings))
}

fn couriers(
    config: &Config,
    config_dir: &Path,
    seams: &SystemInterfaces<'_>,
    chores: &Reloader,
    domaininfo: &Arc<DomainInfo>,
) -> Couriers {
    let clock = || Arc::clone(seams.clock);
    let local: Arc<dyn Courier> = match &config.delivery.local {
        config::LocalDelivery::Maildir(settings) => Arc::new(MaildirCourier::new(
            swappable(MaildirSettings { path: settings.path.clone(), hostname: config.hostname.clone() }),
            Arc::clone(seams.disk),
            Arc::clone(seams.random),
            clock(),
        )),
        config::LocalDelivery::Command(settings) => Arc::new(ProgramCourier::command(
            swappable(CommandSettings {
                program: settings.program.clone(),
                arguments: settings.arguments.clone(),
                line_ends: match settings.line_ends {
                    config::LineEndsSetting::Lf => LineEnds::Lf,
                    config::LineEndsSetting::Crlf => LineEnds::CrLf,
                },
                deadline: settings.timeout,
                directory: config_dir.to_owned(),
            }),
            clock(),
            Arc::clone(seams.stop),
        )),
        config::LocalDelivery::Lmtp(settings) => Arc::new(LmtpCourier::new(
            swappable(LmtpSettings { endpoint: settings.address.clone(), hostname: config.hostname.clone() }),
            Arc::new(SystemConnector),
            clock(),
        )),
    };
    let pipe = &config.delivery.pipe;
    let program = ProgramCourier::pipe(
        swappable(PipeSettings {
            deadline: pipe.timeout,
            exit_75: match pipe.exit_75 {
                config::Exit75Setting::Permanent => Exit75::Permanent,
                config::Exit75Setting::Transient => Exit75::Transient,
            },
            directory: config_dir.to_owned(),
        }),
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
    seams: &SystemInterfaces<'_>,
    chores: &Reloader,
    domaininfo: &Arc<DomainInfo>,
) -> smtp::SmtpCourier {
    let settings = smtp::Settings {
        port: config.delivery.smtp.port,
        hello_mode: match config.delivery.smtp.hello {
            config::HelloSetting::SenderDomain => smtp::HelloMode::SenderDomain,
            config::HelloSetting::Hostname => smtp::HelloMode::Hostname,
        },
        via: config.delivery.smtp.via.clone(),
        listen_addresses: config.listen.smtp.iter().map(listening_address).collect(),
        messages_per_connection_max: u32::try_from(config.delivery.smtp.messages_per_connection_max)
            .unwrap_or(u32::MAX),
        ..smtp::Settings::new(config.hostname.clone())
    };
    let parts = smtp::SmtpCourierParts {
        resolver: Arc::clone(seams.resolver),
        dial: Arc::clone(seams.dial),
        domaininfo: Arc::clone(domaininfo),
        tls: Arc::clone(&chores.tls_client),
        random: Arc::clone(seams.random),
        clock: Arc::clone(seams.clock),
        router: Arc::clone(&chores.lookup_tables.router),
        credentials: Arc::clone(&chores.logins),
    };
    smtp::SmtpCourier::new(swappable(settings), parts, seams.metrics)
}

/// Where other servers find us. What the service manager passes is port 25, as far as we can know.
fn listening_address(listener: &config::ListenEntry) -> SocketAddr {
    match listener.source {
        config::SocketSource::Address(address) => address,
        config::SocketSource::Systemd => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25)),
    }
}

fn queue_settings(config: &Config) -> queue::Settings {
    let defaults = queue::Settings::default();
    let slack = Duration::from_secs(30);
    let local = match &config.delivery.local {
        config::LocalDelivery::Maildir(_) | config::LocalDelivery::Lmtp(_) => defaults.local_attempt_timeout,
        config::LocalDelivery::Command(command) => command.timeout + slack,
    };
    queue::Settings {
        messages_max: config.queue.messages_max,
        lifetime: config.queue.lifetime,
        retry_delays: config.queue.retry.clone(),
        delay_notice_after: config.queue.delay_warning,
        local_threads: config.queue.local_threads,
        remote_threads: config.queue.remote_threads,
        destination_attempts_max: config.queue.attempts_per_destination_max,
        backoff_max: config.queue.probe_interval_max,
        local_attempt_timeout: local
            .max(config.delivery.pipe.timeout + slack)
            .max(defaults.local_attempt_timeout),
        ..defaults
    }
}

fn hook_settings(config: &Config, config_dir: &Path, stop: &Arc<StopFlag>) -> SessionHookSettings {
    SessionHookSettings {
        config_dir: config_dir.to_owned(),
        fallback: match config.hooks.on_failure {
            config::HookFailureSetting::Defer => HookFallback::Defer,
            config::HookFailureSetting::Accept => HookFallback::Accept,
        },
        rcpt_timeout: config.hooks.rcpt_timeout,
        post_data_timeout: config.hooks.post_data_timeout,
        stop: Arc::clone(stop),
    }
}

fn hourly_max(config: &Config) -> HourlyLimits {
    let (address, login) = (&config.limits.address_per_hour, &config.limits.login_per_hour);
    HourlyLimits {
        address_connections: address.connections,
        address_messages: address.messages,
        address_recipients: address.recipients,
        address_unknown_recipients: address.unknown_recipients,
        login_messages: login.messages,
        login_recipients: login.recipients,
        exempt_networks: config.relay.networks.clone(),
    }
}

fn session_settings(config: &Config) -> inbound::Settings {
    let limits = &config.limits;
    inbound::Settings {
        hostname: config.hostname.clone(),
        message_octets_max: limits.message_octets_max,
        recipients_max: limits.recipients_max,
        line_end_repair_networks: config.leniency.bare_line_ends.clone(),
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
