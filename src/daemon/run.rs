//! Starts the server, runs it and stops it.
//!
//! The order of a start: the listening sockets are opened, and clients wait in their backlogs; everything is
//! read and built, so that a mistake in the configuration ends the start before a message is accepted; then
//! the queue runs, then the control socket, the monitor and the listeners; then systemd is told that the
//! server is ready. Checks of other servers, which only warn, run afterwards on a thread of their own. A
//! stop takes the reverse order and at most `grace` (`shutdown`). `kill -9` at any moment is as safe: what
//! was accepted is on disk.

use std::io;
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
use crate::inbound::{Listener, ListenerRole};
use crate::monitor::MonitorServer;
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
    let cannot_monitor =
        |address, e: io::Error| one(format!("[listen] monitoring: cannot listen on {address}: {e}"));
    let monitoring = match config.listen.monitoring {
        Some(address) => {
            Some((address, sockets::bind_socket(address).map_err(|e| cannot_monitor(address, e))?))
        }
        None => None,
    };
    // All addresses are bound, and no thread runs yet that could start a program.
    if let Err(e) = sys::drop_capabilities() {
        log::warn!("capabilities stay as they are, and programs that we run may have them too: {e}");
    }
    let stop = Arc::new(StopFlag::new().map_err(|e| one(format!("cannot make a pipe: {e}")))?);
    let parts = wiring::build(config_dir, config, &stop)?;
    if let Err(problems) = check_hooks(config_dir) {
        problems.iter().for_each(|problem| log::error!("{problem}"));
    }
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if parts.reloader.certs.is_empty() {
        log::warn!("there is no certificate in certs/: no TLS, and so no logins; mail arrives in plain text");
        if let Some(open) = sockets.iter().find(|open| open.role != ListenerRole::Smtp) {
            log::warn!("without a certificate nobody can send by the {} port", open.role.name());
        }
    }

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
    let monitor = match monitoring {
        Some((address, bound)) => {
            let socket = sockets::start_listening(bound).map_err(|e| cannot_monitor(address, e))?;
            log::info!("the monitor is at http://{address}/");
            Some(
                MonitorServer::start(socket, service as _)
                    .map_err(|e| one(format!("cannot start the monitor: {e}")))?,
            )
        }
        None => None,
    };
    let mut threads = Vec::new();
    let mut activities = vec![running.pulse()];
    for (number, ListeningSocket { role, is_behind_proxy: proxy, socket }) in sockets.into_iter().enumerate()
    {
        let address = socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
        log::info!("listening on {address} for {}", role.name());
        let proxies = if proxy { config.listen.proxy_from.clone() } else { Vec::new() };
        let (session_limits, services) = (Arc::clone(&session_limits), Arc::clone(&services));
        let activity = ThreadActivity::new(format!("the {} port at {address}", role.name()));
        activities.push(Arc::clone(&activity));
        let listener = Listener { socket, role, proxy_networks: proxies, activity, session_limits, services };
        threads.push(
            spawn_listener(format!("listen-{}-{number}", short_role_name(role.name())), listener, &stop)
                .map_err(one)?,
        );
    }
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
    match stopped {
        StopResult::Clean if is_all_finished => log::info!("stopped; nothing was under way"),
        StopResult::Clean | StopResult::AttemptsUnfinished => {
            log::warn!("stopped with work under way; what was promised is in the spool and is tried again");
        }
        StopResult::OutcomesUnwritten => log::error!(
            "stopped, but the disk refuses to take down what was delivered last: some of it may be delivered \
             again after the next start"
        ),
    }
    drop(control);
    drop(monitor);
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
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
