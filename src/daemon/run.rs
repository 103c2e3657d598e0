//! Starts the server, runs it and stops it.
//!
//! The order of a start: the listening sockets are opened, and clients wait in their backlogs; everything is
//! read and built, so that a mistake in the configuration ends the start before a message is accepted; then
//! the queue runs, then the control socket, the monitor and the listeners; then systemd is told that the
//! server is ready. Checks of other servers, which only warn, run afterwards on a thread of their own. A
//! stop takes the reverse order and at most `grace` (`shutdown`). `kill -9` at any moment is as safe: what
//! was accepted is on disk.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::config_file::check_hooks;
use super::control_service::ControlService;
use super::external_services::unavailable_services;
use super::reloader::{ReloadPhase, Reloader};
use super::service_manager::ServiceManager;
use super::shutdown::Shutdown;
use super::sockets::{self, ListeningSocket};
use super::watchdog;
use super::wiring::{self, DaemonParts};
use crate::config::Config;
use crate::control::ControlServer;
use crate::inbound::{Listener, ListenerRole, SessionLimits, SessionServices};
use crate::monitor::{MonitorData, MonitorServer};
use crate::queue::StopResult;
use crate::sys::{self, Program, StopFlag, ThreadActivity};

/// Runs the server until a signal stops it.
///
/// # Errors
/// Everything that keeps it from starting: what, where, and what to do.
pub fn serve(config_dir: &Path, config: &Config) -> Result<(), Vec<String>> {
    let served = serve_until_stopped(config_dir, config);
    // Also after a start that failed, when attempts may have begun.
    Program::kill_all();
    served
}

fn serve_until_stopped(config_dir: &Path, config: &Config) -> Result<(), Vec<String>> {
    let one = |e: String| vec![e];
    // First of all, so that a signal during the start is not lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|e| one(format!("signals: {e}")))?;
    sockets::raise_open_files_limit();
    let sockets = sockets::open_listeners(&config.listen).map_err(one)?;
    let monitoring = config.listen.monitoring.map(bind_monitor_socket).transpose().map_err(one)?;
    // All addresses are bound, and no thread runs yet that could start a program.
    if let Err(e) = sys::drop_capabilities() {
        log::warn!("capabilities stay as they are, and programs that we run may have them too: {e}");
    }
    let stop = Arc::new(StopFlag::new().map_err(|e| one(format!("cannot make a pipe: {e}")))?);
    let parts = wiring::build(config_dir, config, &stop)?;
    if let Err(problems) = check_hooks(config_dir) {
        problems.iter().for_each(|problem| log::error!("{problem}"));
    }
    log_config_warnings(config, &parts.reloader, &sockets);

    let service_manager =
        ServiceManager::from_env().map(Arc::new).map_err(|e| one(format!("cannot start a thread: {e}")))?;
    let DaemonParts {
        metrics,
        traces,
        session_limits,
        services,
        queue,
        opened_queue,
        delivery_parts,
        domaininfo,
        reloader,
        clock,
    } = parts;
    let running =
        opened_queue.start(delivery_parts).map_err(|e| one(format!("cannot start the queue: {e}")))?;
    let service = Arc::new(ControlService {
        hostname: config.hostname.clone(),
        started: clock.now(),
        clock,
        queue: queue.clone(),
        operator: running.queue_control(),
        domaininfo,
        reloader: Arc::clone(&reloader),
        session_limits: Arc::clone(&session_limits),
        metrics,
        traces,
    });
    let control =
        ControlServer::start(&config.data_dir.join("control"), Arc::clone(&service) as _, Arc::clone(&stop))
            .map_err(|e| one(e.to_string()))?;
    let monitor = monitoring.map(|bound| bound.start(service as _)).transpose().map_err(one)?;
    let listeners = build_listeners(config, sockets, &session_limits, &services);
    let mut activities = vec![running.pulse()];
    activities.extend(listeners.iter().map(|listener| Arc::clone(&listener.activity)));
    let mut threads = spawn_listeners(listeners, &stop).map_err(one)?;
    threads.push(spawn_reloader(&reloader, &stop, &service_manager).map_err(one)?);
    watchdog::start(activities).map_err(|e| one(format!("cannot start the watchdog: {e}")))?;
    service_manager.notify(NotifyState::Ready);
    log::info!("postrider {} serves as {}", env!("CARGO_PKG_VERSION"), config.hostname);

    spawn_start_warnings(config, &reloader, &stop).map_err(one)?;

    wait_for_stop_signal(&mut signals, &reloader);
    let shutdown = Shutdown::start(config.grace).map_err(|e| one(format!("cannot start a thread: {e}")))?;
    log::info!("stopping");
    stop.raise_with_deadline(shutdown.work_deadline);
    queue.stop();
    session_limits.stop_sessions();
    service_manager.notify(NotifyState::Stopping);
    exit_on_second_signal(signals).map_err(one)?;
    let is_all_finished = shutdown.wait_for_sessions(&session_limits);
    let stopped = running.stop(shutdown.remaining_time());
    shutdown.work_finished();
    log_stop_result(&stopped, is_all_finished);
    drop(control);
    drop(monitor);
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// The socket of the monitor, bound and not yet listening.
struct MonitorSocket {
    address: SocketAddr,
    bound: OwnedFd,
}

fn bind_monitor_socket(address: SocketAddr) -> Result<MonitorSocket, String> {
    let bound = sockets::bind_socket(address).map_err(|e| monitor_socket_error(address, &e))?;
    Ok(MonitorSocket { address, bound })
}

fn monitor_socket_error(address: SocketAddr, error: &io::Error) -> String {
    format!("[listen] monitoring: cannot listen on {address}: {error}")
}

impl MonitorSocket {
    fn start(self, data: Arc<dyn MonitorData>) -> Result<MonitorServer, String> {
        let address = self.address;
        let socket = sockets::start_listening(self.bound).map_err(|e| monitor_socket_error(address, &e))?;
        log::info!("the monitor is at http://{address}/");
        MonitorServer::start(socket, data).map_err(|e| format!("cannot start the monitor: {e}"))
    }
}

fn log_config_warnings(config: &Config, reloader: &Reloader, sockets: &[ListeningSocket]) {
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if reloader.certs.is_empty() {
        log::warn!("there is no certificate in certs/: no TLS, and so no logins; mail arrives in plain text");
        if let Some(open) = sockets.iter().find(|open| open.role != ListenerRole::Smtp) {
            log::warn!("without a certificate nobody can send by the {} port", open.role.name());
        }
    }
}

fn log_stop_result(stopped: &StopResult, is_all_finished: bool) {
    match stopped {
        StopResult::Clean if is_all_finished => log::info!("stopped; nothing was under way"),
        StopResult::Clean | StopResult::AttemptsUnfinished => {
            log::warn!("stopped with work under way; accepted messages are in the spool and are tried again");
        }
        StopResult::OutcomesUnwritten => log::error!(
            "stopped, but the outcomes of the last deliveries cannot be written to the disk: some messages may \
             be delivered again after the next start"
        ),
    }
}

fn build_listeners(
    config: &Config,
    sockets: Vec<ListeningSocket>,
    session_limits: &Arc<SessionLimits>,
    services: &Arc<SessionServices>,
) -> Vec<Listener> {
    let build = |ListeningSocket { role, is_behind_proxy, socket }| {
        let address = socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
        log::info!("listening on {address} for {}", role.name());
        Listener {
            socket,
            role,
            proxy_networks: if is_behind_proxy { config.listen.proxy_from.clone() } else { Vec::new() },
            activity: ThreadActivity::new(format!("the {} port at {address}", role.name())),
            session_limits: Arc::clone(session_limits),
            services: Arc::clone(services),
        }
    };
    sockets.into_iter().map(build).collect()
}

fn spawn_listeners(listeners: Vec<Listener>, stop: &Arc<StopFlag>) -> Result<Vec<JoinHandle<()>>, String> {
    let spawn = |(number, listener): (usize, Listener)| {
        let name = format!("listen-{}-{number}", short_role_name(listener.role.name()));
        spawn_listener(name, listener, stop)
    };
    listeners.into_iter().enumerate().map(spawn).collect()
}

/// Linux keeps fifteen characters of a thread's name.
fn short_role_name(role: &str) -> &str {
    match role {
        "submission" => "subm",
        "submissions" => "subs",
        other => other,
    }
}

fn spawn_listener(name: String, listener: Listener, stop: &Arc<StopFlag>) -> Result<JoinHandle<()>, String> {
    let stop = Arc::clone(stop);
    sys::spawn(name, move || {
        if let Err(e) = listener.run(&stop) {
            log::error!("the {} port is closed: {e}", listener.role.name());
        }
    })
    .map_err(|e| format!("cannot start a thread: {e}"))
}

fn spawn_reloader(
    reloader: &Arc<Reloader>,
    stop: &Arc<StopFlag>,
    service_manager: &Arc<ServiceManager>,
) -> Result<JoinHandle<()>, String> {
    let (reloader, stop, service_manager) =
        (Arc::clone(reloader), Arc::clone(stop), Arc::clone(service_manager));
    sys::spawn("reloader", move || {
        reloader.run(&stop, &|reloading| match reloading {
            ReloadPhase::Started => service_manager.notify(NotifyState::Reloading),
            ReloadPhase::Finished => service_manager.notify(NotifyState::Ready),
        });
    })
    .map_err(|e| format!("cannot start a thread: {e}"))
}

/// Warns of servers that do not answer and of postmasters without a mailbox. The checks may take seconds, so
/// they have a thread of their own, which a stop does not wait for.
fn spawn_start_warnings(
    config: &Config,
    reloader: &Arc<Reloader>,
    stop: &Arc<StopFlag>,
) -> Result<(), String> {
    let (config, reloader, stop) = (config.clone(), Arc::clone(reloader), Arc::clone(stop));
    let warn = move || {
        // Reading the system's trusted roots opens many files.
        let roots = || reloader.tls_client.root_warnings().to_vec();
        let services = || unavailable_services(&config, &stop);
        let postmasters = || reloader.lookup_tables.undeliverable_postmasters();
        let checks: [&dyn Fn() -> Vec<String>; 3] = [&roots, &services, &postmasters];
        for check in checks {
            let warnings = check();
            // A check that a stop has cut short proves nothing.
            if stop.is_raised() {
                return;
            }
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
    };
    sys::spawn("warnings", warn).map(drop).map_err(|e| format!("cannot start a thread: {e}"))
}

/// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
fn wait_for_stop_signal(signals: &mut Signals, reloader: &Reloader) {
    for signal in signals.forever() {
        if signal != SIGHUP {
            return;
        }
        // The reloader logs the result, so the receiver is dropped.
        drop(reloader.request_reload());
    }
}

/// A second signal ends the process at once. What was accepted is on disk.
fn exit_on_second_signal(mut signals: Signals) -> Result<(), String> {
    sys::spawn("signals", move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            log::warn!("told to stop again: ending at once");
            Program::kill_all();
            std::process::exit(1);
        }
    })
    .map(drop)
    .map_err(|e| format!("cannot start a thread: {e}"))
}
