//! Builds every part of the daemon and hands each what it needs.
//!
//! With `module_settings` and `couriers` the only place that turns the configuration into what other modules
//! use.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::certificate_expiry::ExpiryMonitor;
use super::config_file::alias_hook_path;
use super::couriers::couriers;
use super::external_services;
use super::local_domains::LocalDomains;
use super::lookup_tables::{LookupParts, LookupTables};
use super::module_settings::{
    hook_settings, hourly_limits, local_part_rules, queue_settings, sender_restriction,
    session_limit_settings, session_settings,
};
use super::reloadable_files::ReloadableFiles;
use super::reloader::{ReloadRequests, Reloader};
use super::system_interfaces::SystemInterfaces;
use super::undefined_logins::undefined_logins;
use super::watched_value::PollSettings;
use crate::alias::{AliasHook, AliasHookSettings, PostmasterSettings};
use crate::auth::{Accounts, DecoyKeys};
use crate::config::Config;
use crate::domaininfo::{self, DomainInfo};
use crate::inbound::{
    ConfiguredPolicy, Counters, LoginPolicy, RateLimits, RecipientPolicy, ReverseNames, ReversePathPolicy,
    SenderLoginPolicy, SessionHooks, SessionLimits, SessionServices, Unchecked,
};
use crate::observe::{Metrics, Traces};
use crate::queue::{self, DeliveryParts, GeneratedMail, OpenQueue, QueueParts};
use crate::sys::{Clock, Mutex, RootedDisk, StopFlag, create_dir_all};
use crate::tls::{CertificateResolver, TlsClient, TlsServer};

/// The parts of the daemon, built and not yet started.
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

/// Builds every part.
///
/// # Errors
/// Everything that keeps a part from being built: what, where, and what to do.
pub(super) fn build(
    config_dir: &Path,
    config: &Config,
    stop: &Arc<StopFlag>,
) -> Result<DaemonParts, Vec<String>> {
    let one = |e: String| vec![e];
    let system = SystemInterfaces::new(stop);
    let traces = Traces::new(Arc::clone(&system.clock));

    // Before the data directory is made. It often lies in the configuration directory, which would count as
    // just changed.
    let files = ReloadableFiles::read(
        config_dir,
        &config.hostname,
        &local_part_rules(config),
        PollSettings::for_server(),
    )
    .map_err(one)?;
    create_dir_all(&*system.disk, &config.data_dir)
        .map_err(|e| one(format!("{}: cannot be made: {e}; check data-dir", config.data_dir.display())))?;
    let decoy_keys = load_decoy_keys(config, &system).map_err(one)?;
    let accounts = accounts(config, &system.metrics, stop).with_decoy_keys(decoy_keys);
    let reloader = build_reloader(config_dir, config, files, accounts, &system)?;
    let domaininfo = open_domaininfo(config, &system).map_err(one)?;
    let (queue, opened_queue) = open_queue(config, &system).map_err(one)?;
    let delivery_parts = DeliveryParts {
        router: Arc::clone(&reloader.lookup_tables.router),
        couriers: couriers(config, config_dir, &system, &reloader, &domaininfo),
        generated_mail: GeneratedMail::new(queue.clone(), Arc::clone(&reloader.lookup_tables) as _),
        traces: Arc::clone(&traces),
        hostname: config.hostname.clone(),
    };
    let rate_limits =
        Arc::new(RateLimits::new(hourly_limits(config), Arc::clone(&system.clock), &system.metrics));
    let services = SessionServices {
        settings: Arc::new(ArcSwap::from_pointee(session_settings(config))),
        policy: Arc::new(session_policy(config, &system, &reloader, &domaininfo, &rate_limits)),
        hooks: SessionHooks::new(
            hook_settings(config, config_dir, stop),
            Arc::clone(&reloader.lookup_tables) as _,
            &system.metrics,
        ),
        queue: queue.clone(),
        tls: TlsServer::new(Arc::clone(&reloader.certs))
            .map_err(|e| one(format!("TLS cannot be set up: {e}")))?,
        clock: Arc::clone(&system.clock),
        random: Arc::clone(&system.random),
        traces: Arc::clone(&traces),
        counters: Counters::new(&system.metrics),
    };
    let session_limits = SessionLimits::new(
        session_limit_settings(config),
        rate_limits,
        Arc::clone(&system.clock),
        &system.metrics,
    );
    let SystemInterfaces { clock, metrics, .. } = system;
    Ok(DaemonParts {
        metrics,
        traces,
        session_limits,
        services: Arc::new(services),
        queue,
        opened_queue,
        delivery_parts,
        domaininfo,
        reloader,
        clock,
    })
}

fn load_decoy_keys(config: &Config, system: &SystemInterfaces) -> Result<DecoyKeys, String> {
    let path = config.data_dir.join("scram-decoy-key");
    DecoyKeys::load_or_create(&*system.disk, &*system.random, &path)
        .map_err(|e| format!("{}: {e}; it must be ours to read and write", path.display()))
}

fn open_domaininfo(config: &Config, system: &SystemInterfaces) -> Result<Arc<DomainInfo>, String> {
    let (disk, random, clock) =
        (Arc::clone(&system.disk), Arc::clone(&system.random), Arc::clone(&system.clock));
    let settings = domaininfo::Settings::new(config.data_dir.join("domaininfo"));
    DomainInfo::open(disk, random, clock, &system.metrics, settings)
        .map(Arc::new)
        .map_err(|e| format!("{}/domaininfo: {e}", config.data_dir.display()))
}

fn open_queue(config: &Config, system: &SystemInterfaces) -> Result<(queue::Handle, OpenQueue), String> {
    // If the data directory is moved while the server runs, the spool moves with it: the server must not
    // write into the spool of another server at the old path.
    let spool_disk = RootedDisk::open(&config.data_dir)
        .map_err(|e| format!("{}: {e}; check data-dir", config.data_dir.display()))?;
    let parts = QueueParts {
        disk: Arc::new(spool_disk),
        data_dir: config.data_dir.clone(),
        clock: Arc::clone(&system.clock),
        random: Arc::clone(&system.random),
        metrics: Arc::clone(&system.metrics),
        settings: queue_settings(config),
    };
    queue::open(parts).map_err(|e| e.to_string())
}

fn session_policy(
    config: &Config,
    system: &SystemInterfaces,
    reloader: &Reloader,
    domaininfo: &Arc<DomainInfo>,
    rate_limits: &Arc<RateLimits>,
) -> ConfiguredPolicy {
    let (tables, metrics) = (&reloader.lookup_tables, &system.metrics);
    ConfiguredPolicy {
        rate_limits: Arc::clone(rate_limits),
        reverse_path_policy: ReversePathPolicy::new(
            ReverseNames::new(
                Arc::new(system.stub_resolver(config).interruptible_by(Arc::clone(&system.stop))),
                Arc::clone(&system.clock),
            ),
            Arc::new(Unchecked),
            Arc::clone(domaininfo),
            metrics,
        ),
        sender_login_policy: SenderLoginPolicy::new(
            Arc::clone(tables) as _,
            Arc::clone(tables) as _,
            sender_restriction(config),
            metrics,
        ),
        login_policy: LoginPolicy::new(
            Arc::clone(&tables.accounts),
            Arc::clone(&system.clock),
            Arc::clone(&system.random),
            metrics,
        ),
        recipient_policy: RecipientPolicy::new(Arc::clone(tables) as _, metrics),
    }
}

/// Puts the files in force that were read.
fn build_reloader(
    config_dir: &Path,
    config: &Config,
    files: ReloadableFiles,
    accounts: Accounts,
    system: &SystemInterfaces,
) -> Result<Arc<Reloader>, Vec<String>> {
    let mut problems = files.problems();
    if problems.is_empty() {
        problems.extend(undefined_logins(config, &files.domains, &files.credentials.logins()));
    }
    let (certs, unusable) = (files.certificates.certificates(), files.certificate_problems());
    if certs.is_empty() {
        problems.extend(unusable);
    } else {
        let used = "the other certificates are used; mend it and send SIGHUP, or restart";
        unusable.iter().for_each(|problem| log::error!("{problem}; {used}"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let expiry = ExpiryMonitor::new(Arc::clone(&system.clock), &system.metrics);
    expiry.check(&certs);
    let lookup_tables =
        build_lookup_tables(config_dir, config, &files.domains, accounts, &system.metrics, &system.stop);
    Ok(Arc::new(Reloader {
        config_dir: config_dir.to_owned(),
        effective_config: config.effective_toml(),
        hostname: config.hostname.clone(),
        poll_settings: PollSettings::for_server(),
        lookup_tables,
        logins: Arc::new(ArcSwap::new(files.credentials.logins())),
        files: Mutex::new(files),
        certs: CertificateResolver::new(certs),
        tls_client: Arc::new(TlsClient::with_system_roots()),
        expiry,
        reload_requests: ReloadRequests::new()
            .map_err(|e| vec![format!("cannot make a pair of sockets: {e}")])?,
    }))
}

/// Users of the users files, and those of Dovecot if the configuration says so.
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
        local_part_rules: local_part_rules(config),
        stop: Arc::clone(stop),
    };
    let parts = LookupParts {
        local_part_rules: local_part_rules(config),
        postmaster: PostmasterSettings {
            mailbox: config.postmaster.clone(),
            hostname: config.hostname.clone(),
        },
        alias_hook: AliasHook::new(hook, metrics),
    };
    LookupTables::new(parts, domains, accounts)
}

/// One warning for each local domain whose postmaster has no mailbox.
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
