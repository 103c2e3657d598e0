//! Start, serve, stop: the life of the process.
//!
//! The order of starting: everything is read and built first, so that what is wrong is said before
//! anything is promised; then the queue runs, then the doors open, then the service manager hears
//! that we are ready. What others would have to answer first, and what only warns, comes after that,
//! on a thread for which nobody waits. The order of stopping is the reverse, within the grace that the
//! operator gives (`stopping`); `kill -9` at any moment must be as safe, because the disk is the truth.

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

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it cannot start: each with what, where and what to do.
pub fn serve(config_dir: &Path, config: &Config) -> Result<(), Vec<String>> {
    let served = serve_until_stopped(config_dir, config);
    // Also where the start fails and attempts have begun.
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
    // Every address is ours, and there is no thread yet that could run a program.
    if let Err(e) = sys::drop_capabilities() {
        log::warn!("capabilities stay as they are, and programs that we run may have them too: {e}");
    }
    let stop = Arc::new(StopFlag::new().map_err(|e| one(format!("cannot make a pipe: {e}")))?);
    let house = wiring::build(config_dir, config, &stop)?;
    if let Err(complaints) = check_hooks(config_dir) {
        complaints.iter().for_each(|complaint| log::error!("{complaint}"));
    }
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if house.reloader.certs.is_empty() {
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
        session_limits: doors,
        services,
        queue,
        opened_queue: opened,
        delivery_parts: crew,
        domaininfo,
        reloader: chores,
        clock,
    } = house;
    let running = opened.start(crew).map_err(|e| one(format!("cannot start the queue: {e}")))?;
    let desk = Arc::new(ControlService {
        hostname: config.hostname.clone(),
        started: clock.now(),
        clock,
        queue: queue.clone(),
        operator: running.queue_control(),
        domaininfo,
        reloader: Arc::clone(&chores),
        session_limits: Arc::clone(&doors),
        metrics,
        traces,
    });
    let control =
        ControlServer::start(&config.data_dir.join("control"), Arc::clone(&desk) as _, Arc::clone(&stop))
            .map_err(|e| one(e.to_string()))?;
    let monitor = match monitoring {
        Some((address, bound)) => {
            let socket = sockets::start_listening(bound).map_err(|e| cannot_monitor(address, e))?;
            log::info!("the monitor is at http://{address}/");
            Some(
                MonitorServer::start(socket, desk as _)
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
        let (doors, services) = (Arc::clone(&doors), Arc::clone(&services));
        let activity = ThreadActivity::new(format!("the {} port at {address}", role.name()));
        activities.push(Arc::clone(&activity));
        let listener =
            Listener { socket, role, proxy_networks: proxies, activity, session_limits: doors, services };
        threads.push(
            spawn_listener(format!("listen-{}-{number}", short_role_name(role.name())), listener, &stop)
                .map_err(one)?,
        );
    }
    threads.push(spawn_reloader(&chores, &stop, &service_manager).map_err(one)?);
    watchdog::start(activities).map_err(|e| one(format!("cannot start the watchdog: {e}")))?;
    service_manager.notify(NotifyState::Ready);
    log::info!("postrider {} serves as {}", env!("CARGO_PKG_VERSION"), config.hostname);

    spawn_start_warnings(config, &chores, &stop).map_err(one)?;

    wait_for_stop_signal(&mut signals, &chores);
    let stopping = Shutdown::start(config.grace).map_err(|e| one(format!("cannot start a thread: {e}")))?;
    log::info!("stopping");
    stop.raise_with_deadline(stopping.work_deadline);
    queue.stop();
    doors.stop_sessions();
    service_manager.notify(NotifyState::Stopping);
    exit_on_second_signal(signals).map_err(one)?;
    let everyone_left = stopping.wait_for_sessions(&doors);
    let stopped = running.stop(stopping.remaining_time());
    stopping.work_finished();
    match stopped {
        StopResult::Clean if everyone_left => log::info!("stopped; nothing was under way"),
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

/// Fifteen characters of a thread's name are kept.
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
    chores: &Arc<Reloader>,
    stop: &Arc<StopFlag>,
    service_manager: &Arc<ServiceManager>,
) -> Result<JoinHandle<()>, String> {
    let (chores, stop, service_manager) = (Arc::clone(chores), Arc::clone(stop), Arc::clone(service_manager));
    sys::spawn("reloader", move || {
        chores.run(&stop, &|reloading| match reloading {
            ReloadPhase::Started => service_manager.notify(NotifyState::Reloading),
            ReloadPhase::Finished => service_manager.notify(NotifyState::Ready),
        });
    })
    .map_err(|e| format!("cannot start a thread: {e}"))
}

/// Warns of what others do not do for us just now, on a thread that waits for them: clients do not, and
/// neither do the files that are looked at, nor the stop.
fn spawn_start_warnings(config: &Config, chores: &Arc<Reloader>, stop: &Arc<StopFlag>) -> Result<(), String> {
    let (config, chores, stop) = (config.clone(), Arc::clone(chores), Arc::clone(stop));
    let warn = move || {
        // The system's roots are many files.
        let roots = || chores.tls_client.root_warnings().to_vec();
        let neighbours = || unavailable_services(&config, &stop);
        let postmasters = || chores.lookup_tables.undeliverable_postmasters();
        let looks: [&dyn Fn() -> Vec<String>; 3] = [&roots, &neighbours, &postmasters];
        for look in looks {
            let warnings = look();
            // Whoever was not waited for to the end is not absent.
            if stop.is_raised() {
                return;
            }
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
    };
    sys::spawn("warnings", warn).map(drop).map_err(|e| format!("cannot start a thread: {e}"))
}

/// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
fn wait_for_stop_signal(signals: &mut Signals, chores: &Reloader) {
    for signal in signals.forever() {
        if signal != SIGHUP {
            return;
        }
        // The chores do it and say what came of it: nobody waits for the answer here.
        drop(chores.request_reload());
    }
}

/// The operator, or the service manager, has no more patience: the next signal ends the process
/// where it is. The disk is the truth.
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
