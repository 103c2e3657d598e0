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

use super::answers::Desk;
use super::chores::{Chores, Reloading};
use super::configuration::check_hooks;
use super::neighbours::absent_neighbours;
use super::service_manager::ServiceManager;
use super::sockets::{self, Open};
use super::stopping::Stopping;
use super::watchdog;
use super::wiring::{self, House};
use crate::config::Config;
use crate::control::Control;
use crate::inbound::{Listener, Role};
use crate::monitor::Monitor;
use crate::queue::Stopped;
use crate::sys::{self, Program, Pulse, Stop};

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it cannot start: each with what, where and what to do.
pub fn serve(config_dir: &Path, config: &Config) -> Result<(), Vec<String>> {
    let served = serve_until_told(config_dir, config);
    // Also where the start fails and attempts have begun.
    Program::end_all();
    served
}

fn serve_until_told(config_dir: &Path, config: &Config) -> Result<(), Vec<String>> {
    let one = |e: String| vec![e];
    // First of all, so that a signal during the start is not lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|e| one(format!("signals: {e}")))?;
    sockets::raise_open_files();
    let sockets = sockets::open(&config.listen).map_err(one)?;
    let cannot_monitor =
        |address, e: io::Error| one(format!("[listen] monitoring: cannot listen on {address}: {e}"));
    let monitoring = match config.listen.monitoring {
        Some(address) => Some((address, sockets::bound(address).map_err(|e| cannot_monitor(address, e))?)),
        None => None,
    };
    // Every address is ours, and there is no thread yet that could run a program.
    if let Err(e) = sys::put_down_capabilities() {
        log::warn!("capabilities stay as they are, and programs that we run may have them too: {e}");
    }
    let stop = Arc::new(Stop::new().map_err(|e| one(format!("cannot make a pipe: {e}")))?);
    let house = wiring::build(config_dir, config, &stop)?;
    if let Err(complaints) = check_hooks(config_dir) {
        complaints.iter().for_each(|complaint| log::error!("{complaint}"));
    }
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if house.chores.certs.is_empty() {
        log::warn!("there is no certificate in certs/: no TLS, and so no logins; mail arrives in plain text");
        if let Some(open) = sockets.iter().find(|open| open.role != Role::Smtp) {
            log::warn!("without a certificate nobody can send by the {} port", open.role.name());
        }
    }

    let service_manager =
        ServiceManager::from_env().map(Arc::new).map_err(|e| one(format!("cannot start a thread: {e}")))?;
    let House { metrics, traces, doors, services, queue, opened, crew, domaininfo, chores, clock } = house;
    let running = opened.start(crew).map_err(|e| one(format!("cannot start the queue: {e}")))?;
    let desk = Arc::new(Desk {
        hostname: config.hostname.clone(),
        began: clock.now(),
        clock,
        queue: queue.clone(),
        operator: running.operator(),
        domaininfo,
        chores: Arc::clone(&chores),
        doors: Arc::clone(&doors),
        metrics,
        traces,
    });
    let control = Control::start(&config.data_dir.join("control"), Arc::clone(&desk) as _, Arc::clone(&stop))
        .map_err(|e| one(e.to_string()))?;
    let monitor = match monitoring {
        Some((address, bound)) => {
            let socket = sockets::listening(bound).map_err(|e| cannot_monitor(address, e))?;
            log::info!("the monitor is at http://{address}/");
            Some(
                Monitor::start(socket, desk as _)
                    .map_err(|e| one(format!("cannot start the monitor: {e}")))?,
            )
        }
        None => None,
    };
    let mut threads = Vec::new();
    let mut pulses = vec![running.pulse()];
    for (number, Open { role, proxy, socket }) in sockets.into_iter().enumerate() {
        let address = socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
        log::info!("listening on {address} for {}", role.name());
        let proxies = if proxy { config.listen.proxy_from.clone() } else { Vec::new() };
        let (doors, services) = (Arc::clone(&doors), Arc::clone(&services));
        let pulse = Pulse::new(format!("the {} port at {address}", role.name()));
        pulses.push(Arc::clone(&pulse));
        let listener = Listener { socket, role, proxies, pulse, doors, services };
        threads.push(accept(format!("acc-{}-{number}", short(role.name())), listener, &stop).map_err(one)?);
    }
    threads.push(look_after(&chores, &stop, &service_manager).map_err(one)?);
    watchdog::start(pulses).map_err(|e| one(format!("cannot start the watchdog: {e}")))?;
    service_manager.tell(NotifyState::Ready);
    log::info!("postrider {} serves as {}", env!("CARGO_PKG_VERSION"), config.hostname);

    warn(config, &chores, &stop).map_err(one)?;

    serve_signals(&mut signals, &chores);
    let stopping = Stopping::within(config.grace).map_err(|e| one(format!("cannot start a thread: {e}")))?;
    log::info!("stopping");
    stop.ask_by(stopping.work_end);
    queue.stop();
    doors.leave();
    service_manager.tell(NotifyState::Stopping);
    end_at_once_on(signals).map_err(one)?;
    let everyone_left = stopping.wait_for_sessions(&doors);
    let stopped = running.stop(stopping.left());
    stopping.nearly_done();
    match stopped {
        Stopped::Clean if everyone_left => log::info!("stopped; nothing was under way"),
        Stopped::Clean | Stopped::UnderWay => {
            log::warn!("stopped with work under way; what was promised is in the spool and is tried again");
        }
        Stopped::Unwritten => log::error!(
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
fn short(role: &str) -> &str {
    match role {
        "submission" => "subm",
        "submissions" => "subs",
        other => other,
    }
}

fn accept(name: String, listener: Listener, stop: &Arc<Stop>) -> Result<JoinHandle<()>, String> {
    let stop = Arc::clone(stop);
    sys::spawn(name, move || {
        if let Err(e) = listener.run(&stop) {
            log::error!("the {} port is closed: {e}", listener.role.name());
        }
    })
    .map_err(|e| format!("cannot start a thread: {e}"))
}

fn look_after(
    chores: &Arc<Chores>,
    stop: &Arc<Stop>,
    service_manager: &Arc<ServiceManager>,
) -> Result<JoinHandle<()>, String> {
    let (chores, stop, service_manager) = (Arc::clone(chores), Arc::clone(stop), Arc::clone(service_manager));
    sys::spawn("chores", move || {
        chores.run(&stop, &|reloading| match reloading {
            Reloading::Begins => service_manager.tell(NotifyState::Reloading),
            Reloading::Ends => service_manager.tell(NotifyState::Ready),
        });
    })
    .map_err(|e| format!("cannot start a thread: {e}"))
}

/// Warns of what others do not do for us just now, on a thread that waits for them: clients do not, and
/// neither do the files that are looked at, nor the stop.
fn warn(config: &Config, chores: &Arc<Chores>, stop: &Arc<Stop>) -> Result<(), String> {
    let (config, chores, stop) = (config.clone(), Arc::clone(chores), Arc::clone(stop));
    let warn = move || {
        // The system's roots are many files.
        let roots = || chores.tls_client.complaints().to_vec();
        let neighbours = || absent_neighbours(&config, &stop);
        let postmasters = || chores.directory.unread_postmasters();
        let looks: [&dyn Fn() -> Vec<String>; 3] = [&roots, &neighbours, &postmasters];
        for look in looks {
            let warnings = look();
            // Whoever was not waited for to the end is not absent.
            if stop.is_asked() {
                return;
            }
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
    };
    sys::spawn("warnings", warn).map(drop).map_err(|e| format!("cannot start a thread: {e}"))
}

/// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
fn serve_signals(signals: &mut Signals, chores: &Chores) {
    for signal in signals.forever() {
        if signal != SIGHUP {
            return;
        }
        // The chores do it and say what came of it: nobody waits for the answer here.
        drop(chores.ask_to_reload());
    }
}

/// The operator, or the service manager, has no more patience: the next signal ends the process
/// where it is. The disk is the truth.
fn end_at_once_on(mut signals: Signals) -> Result<(), String> {
    sys::spawn("signals", move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            log::warn!("told to stop again: ending at once");
            Program::end_all();
            std::process::exit(1);
        }
    })
    .map(drop)
    .map_err(|e| format!("cannot start a thread: {e}"))
}
