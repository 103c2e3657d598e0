//! Looks for changed files while the server runs, and reloads all of them on SIGHUP.
//!
//! One thread does both, so that no other thread waits for a file. A reload is all or nothing; the regular
//! polls treat each file by itself. Both follow the rule of `watched_value`.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::certificate_expiry::ExpiryMonitor;
use super::config_file::ConfigFile;
use super::lookup_tables::LookupTables;
use super::reloadable_files::ReloadableFiles;
use super::undefined_logins::undefined_logins;
use super::watched_value::{PollResult, PollSettings, wait_until_stable};
use crate::courier::smtp::CredentialsByName;
use crate::mail::Domain;
use crate::sys::{Mutex, StopFlag, WaitResult};
use crate::tls::{CertificateResolver, TlsClient};

/// Everything that is read again while the server runs: users, aliases, senders, credentials and
/// certificates.
pub(super) struct Reloader {
    pub(super) config_dir: PathBuf,
    /// The configuration in force, as `postrider check` prints it.
    pub(super) effective_config: String,
    pub(super) hostname: Domain,
    pub(super) poll_settings: PollSettings,
    /// Changed only by the thread of [`Reloader::run`]. Not locked while that thread reads files for a
    /// reload; locked while it polls.
    pub(super) files: Mutex<ReloadableFiles>,
    /// The credentials in force.
    pub(super) logins: Arc<ArcSwap<CredentialsByName>>,
    pub(super) lookup_tables: Arc<LookupTables>,
    pub(super) certs: Arc<CertificateResolver>,
    /// For outgoing connections.
    pub(super) tls_client: Arc<TlsClient>,
    pub(super) expiry: ExpiryMonitor,
    pub(super) reload_requests: ReloadRequests,
}

/// Success, or every problem.
type ReloadResult = Result<(), Vec<String>>;

/// Requests to reload, which wake the thread of [`Reloader::run`].
pub(super) struct ReloadRequests {
    /// One sender for each request that waits for its answer; `None` once the thread has ended.
    reply_senders: Mutex<Option<Vec<Sender<ReloadResult>>>>,
    wake_sender: UnixStream,
    wake_receiver: UnixStream,
}

impl ReloadRequests {
    /// # Errors
    /// When the host has no file descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self { reply_senders: Mutex::new(Some(Vec::new())), wake_sender: sender, wake_receiver: receiver })
    }

    fn request(&self) -> Receiver<ReloadResult> {
        let (answer, answered) = bounded(1);
        if let Some(reply_senders) = self.reply_senders.lock().as_mut() {
            reply_senders.push(answer);
        }
        // A full pipe already wakes the thread.
        let _ = (&self.wake_sender).write(&[0]);
        answered
    }

    /// Takes all requests; one reload answers them.
    fn take_all(&self) -> Vec<Sender<ReloadResult>> {
        let mut octets = [0; 64];
        while (&self.wake_receiver).read(&mut octets).is_ok_and(|count| count > 0) {}
        self.reply_senders.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Drops all requests, now and from now on.
    fn close(&self) {
        *self.reply_senders.lock() = None;
    }
}

impl Reloader {
    /// Polls files, and reloads on request, until the server stops. `reloading` is called when a reload
    /// begins and when it ends.
    pub(super) fn run(&self, stop: &StopFlag, reloading: &dyn Fn(ReloadPhase)) {
        loop {
            // A panic over one file must not end the polls of all others. Values in force are replaced
            // whole, so a panic leaves none half changed.
            let done = match stop.wait_until_readable(
                self.reload_requests.wake_receiver.as_fd(),
                Some(self.poll_settings.interval),
            ) {
                Ok(WaitResult::StopRequested) => break,
                Ok(WaitResult::Ready) => {
                    catch_unwind(AssertUnwindSafe(|| self.process_reload_requests(stop, reloading)))
                        .inspect_err(|_| reloading(ReloadPhase::Finished))
                }
                Ok(WaitResult::TimedOut) => catch_unwind(AssertUnwindSafe(|| self.poll())),
                // poll(2) failed for lack of memory.
                Err(_) if stop.wait(self.poll_settings.interval) => break,
                Err(_) => Ok(()),
            };
            if done.is_err() {
                log::error!(
                    "looking for changed users, aliases and certificates ended by a fault of ours; it is \
                     tried again"
                );
            }
        }
        self.reload_requests.close();
    }

    /// Asks the thread of [`Reloader::run`] to read everything anew, all or nothing. The answer comes when
    /// that is done; it never comes if the server stops first.
    pub(super) fn request_reload(&self) -> Receiver<ReloadResult> {
        self.reload_requests.request()
    }

    fn process_reload_requests(&self, stop: &StopFlag, reloading: &dyn Fn(ReloadPhase)) {
        let reply_senders = self.reload_requests.take_all();
        reloading(ReloadPhase::Started);
        let reloaded = self.reload(&mut |pause| stop.wait(pause));
        if stop.is_raised() {
            return;
        }
        match &reloaded {
            Ok(()) => log::info!(
                "users, aliases, senders, credentials and certificates were read anew, as SIGHUP asked"
            ),
            Err(errors) => {
                errors.iter().for_each(|error| log::error!("{error}"));
                log::error!("nothing was changed: mend the above and send SIGHUP again");
                // A file that keeps changing must not block the others, however often SIGHUP comes.
                self.poll();
            }
        }
        reloading(ReloadPhase::Finished);
        // A requester that did not wait has dropped its receiver.
        reply_senders.iter().for_each(|answer| drop(answer.try_send(reloaded.clone())));
    }

    fn poll(&self) {
        self.expiry.check(&self.certs.current());
        let mut files = self.files.lock();
        if log_problems(files.domains.poll()) {
            self.lookup_tables.replace(&files.domains);
            log::info!("users and aliases were read anew");
        }
        if log_problems(files.credentials.poll()) {
            files.credentials.publish_to(&self.logins);
            log::info!("credentials were read anew");
        }
        if log_problems(files.certificates.poll()) {
            match self.no_certificate_error(&files) {
                None => {
                    self.activate_certificates(&files);
                    log::info!("certificates were read anew");
                }
                Some(refusal) => log::error!("{refusal}; what was read before stays in force"),
            }
        }
    }

    /// The reason not to replace the certificates in force with those that were read.
    fn no_certificate_error(&self, files: &ReloadableFiles) -> Option<String> {
        let is_given_up = files.certificates.certificates().is_empty() && !self.certs.is_empty();
        is_given_up.then(|| {
            let dir = self.config_dir.join("certs");
            format!("{}: is empty; put a certificate there, or restart to serve without TLS", dir.display())
        })
    }

    fn activate_certificates(&self, files: &ReloadableFiles) {
        self.certs.replace(files.certificates.certificates());
        self.expiry.check_replaced(&self.certs.current());
    }

    /// Reads everything anew, all or nothing, once the files stay the same; `wait` returns whether to give
    /// up. A change of `postrider.toml` needs a restart; the file is read to log that, and to report now the
    /// mistakes that would keep the restart from working.
    ///
    /// # Errors
    /// Every problem, and every file that keeps changing. Nothing has changed then.
    pub(super) fn reload(&self, wait: &mut dyn FnMut(Duration) -> bool) -> ReloadResult {
        let mut files = self.files.lock().clone();
        files.invalidate();
        let mut configuration = ConfigFile::for_reload(&self.config_dir, &self.hostname, self.poll_settings);
        let mut poll = || {
            let mut changing = configuration.poll();
            changing.extend(files.poll());
            changing
        };
        let stable = wait_until_stable(self.poll_settings, &mut poll, wait);
        let mut problems = configuration.problems().to_vec();
        problems.extend(files.problems());
        problems.extend(files.certificate_problems());
        problems.extend(stable.err());
        let (Some(config), []) = (configuration.config(), problems.as_slice()) else {
            return Err(problems);
        };
        problems.extend(undefined_logins(config, &files.domains, &files.credentials.logins()));
        problems.extend(self.no_certificate_error(&files));
        if !problems.is_empty() {
            return Err(problems);
        }
        let effective = config.effective_toml();
        let changed = changed_keys(&self.effective_config, &effective);
        if !changed.is_empty() {
            let keys = changed.into_iter().collect::<Vec<_>>().join(", ");
            log::warn!("postrider.toml has changed ({keys}): restart postrider to put that in force");
        }
        self.lookup_tables.replace(&files.domains);
        files.credentials.publish_to(&self.logins);
        self.activate_certificates(&files);
        *self.files.lock() = files;
        Ok(())
    }
}

/// The phases of a reload, for systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadPhase {
    Started,
    Finished,
}

/// Logs the problems; returns whether a value has changed.
fn log_problems(result: PollResult) -> bool {
    result.problems.iter().for_each(|problem| log::error!("{problem}; what was read before stays in force"));
    result.is_changed
}

/// The keys whose lines differ.
fn changed_keys<'a>(old: &'a str, new: &'a str) -> BTreeSet<&'a str> {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let changed = &lines(old) ^ &lines(new);
    changed.into_iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
}
