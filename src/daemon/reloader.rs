//! The timetable: what is looked at again and again while the server runs, and at once on SIGHUP.
//!
//! One thread looks and reloads, so that the thread that waits for signals, and everybody else, waits for
//! no file. A reload is all or nothing; the regular looks go file by file. Both follow the rule of
//! `watched`.

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

/// What can be read anew while the server runs: users, aliases, certificates.
pub(super) struct Reloader {
    pub(super) config_dir: PathBuf,
    /// The configuration in force, as `postrider check` prints it.
    pub(super) effective_config: String,
    pub(super) hostname: Domain,
    pub(super) poll_settings: PollSettings,
    /// Changed by the thread of [`Chores::run`] only, and not locked while it looks at files for a reload.
    pub(super) files: Mutex<ReloadableFiles>,
    /// The credentials in force.
    pub(super) logins: Arc<ArcSwap<CredentialsByName>>,
    pub(super) lookup_tables: Arc<LookupTables>,
    pub(super) certs: Arc<CertificateResolver>,
    /// For connections that we open.
    pub(super) tls_client: Arc<TlsClient>,
    pub(super) expiry: ExpiryMonitor,
    pub(super) reload_requests: ReloadRequests,
}

/// Nothing, or everything that is wrong.
type ReloadResult = Result<(), Vec<String>>;

/// Requests to reload, which wake the thread that does it.
pub(super) struct ReloadRequests {
    /// Who waits for an answer; none once the thread has ended.
    reply_senders: Mutex<Option<Vec<Sender<ReloadResult>>>>,
    wake_sender: UnixStream,
    wake_receiver: UnixStream,
}

impl ReloadRequests {
    /// # Errors
    /// When the host has no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self { reply_senders: Mutex::new(Some(Vec::new())), wake_sender: sender, wake_receiver: receiver })
    }

    fn request(&self) -> Receiver<ReloadResult> {
        let (answer, answered) = bounded(1);
        if let Some(waiting) = self.reply_senders.lock().as_mut() {
            waiting.push(answer);
        }
        // One octet is enough: what does not fit comes after others that wake the thread.
        let _ = (&self.wake_sender).write(&[0]);
        answered
    }

    /// Takes all requests; one reload answers them.
    fn take_all(&self) -> Vec<Sender<ReloadResult>> {
        let mut octets = [0; 64];
        while (&self.wake_receiver).read(&mut octets).is_ok_and(|count| count > 0) {}
        self.reply_senders.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Answers nobody from now on.
    fn close(&self) {
        *self.reply_senders.lock() = None;
    }
}

impl Reloader {
    /// Looks for changed files, and reloads when asked to, until it is time to stop. `reloading` is told
    /// when a reload begins and ends.
    pub(super) fn run(&self, stop: &StopFlag, reloading: &dyn Fn(ReloadPhase)) {
        loop {
            // One file that trips us must not keep all others from being read for ever. What is in
            // force is replaced whole, so that there is nothing half done to be seen.
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
                // Without poll(2), for want of memory.
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

    /// Asks the thread of [`Chores::run`] to read everything anew, all or nothing. The answer comes once
    /// that is done, and never if the server stops before.
    pub(super) fn request_reload(&self) -> Receiver<ReloadResult> {
        self.reload_requests.request()
    }

    fn process_reload_requests(&self, stop: &StopFlag, reloading: &dyn Fn(ReloadPhase)) {
        let waiting = self.reload_requests.take_all();
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
                // One file that keeps changing must not hold up the others, however often SIGHUP comes.
                self.poll();
            }
        }
        reloading(ReloadPhase::Finished);
        // Who asked and did not wait has no use for the answer.
        waiting.iter().for_each(|answer| drop(answer.try_send(reloaded.clone())));
    }

    fn poll(&self) {
        self.expiry.check(&self.certs.current());
        let mut sources = self.files.lock();
        if log_problems(sources.domains.poll()) {
            self.lookup_tables.replace(&sources.domains);
            log::info!("users and aliases were read anew");
        }
        if log_problems(sources.credentials.poll()) {
            sources.credentials.publish_to(&self.logins);
            log::info!("credentials were read anew");
        }
        if log_problems(sources.certificates.poll()) {
            match self.no_certificate_error(&sources) {
                None => {
                    self.activate_certificates(&sources);
                    log::info!("certificates were read anew");
                }
                Some(refusal) => log::error!("{refusal}; what was read before stays in force"),
            }
        }
    }

    /// Why certificates that were found do not replace those in force.
    fn no_certificate_error(&self, sources: &ReloadableFiles) -> Option<String> {
        let is_given_up = sources.certificates.certificates().is_empty() && !self.certs.is_empty();
        is_given_up.then(|| {
            let dir = self.config_dir.join("certs");
            format!("{}: is empty; put a certificate there, or restart to serve without TLS", dir.display())
        })
    }

    fn activate_certificates(&self, sources: &ReloadableFiles) {
        self.certs.replace(sources.certificates.certificates());
        self.expiry.check_replaced(&self.certs.current());
    }

    /// Reads everything anew, all or nothing, once nobody is writing; `wait` says whether to give up. A
    /// change of `postrider.toml` takes a restart: it is read to say so, and to say now what would keep
    /// the restart from working.
    ///
    /// # Errors
    /// Everything that is wrong, or keeps changing; nothing has changed then.
    pub(super) fn reload(&self, wait: &mut dyn FnMut(Duration) -> bool) -> ReloadResult {
        let mut sources = self.files.lock().clone();
        sources.invalidate();
        let mut configuration = ConfigFile::for_reload(&self.config_dir, &self.hostname, self.poll_settings);
        let mut look = || {
            let mut changing = configuration.poll();
            changing.extend(sources.poll());
            changing
        };
        let settled = wait_until_stable(self.poll_settings, &mut look, wait);
        let mut wrong = configuration.problems().to_vec();
        wrong.extend(sources.problems());
        wrong.extend(sources.certificate_problems());
        wrong.extend(settled.err());
        let (Some(config), []) = (configuration.config(), wrong.as_slice()) else {
            return Err(wrong);
        };
        wrong.extend(undefined_logins(config, &sources.domains, &sources.credentials.logins()));
        wrong.extend(self.no_certificate_error(&sources));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let effective = config.effective_toml();
        let changed = changed_keys(&self.effective_config, &effective);
        if !changed.is_empty() {
            let keys = changed.into_iter().collect::<Vec<_>>().join(", ");
            log::warn!("postrider.toml has changed ({keys}): restart postrider to put that in force");
        }
        self.lookup_tables.replace(&sources.domains);
        sources.credentials.publish_to(&self.logins);
        self.activate_certificates(&sources);
        *self.files.lock() = sources;
        Ok(())
    }
}

/// What happens to a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadPhase {
    Started,
    Finished,
}

/// Says what is wrong; whether there is something new.
fn log_problems(look: PollResult) -> bool {
    look.problems
        .iter()
        .for_each(|complaint| log::error!("{complaint}; what was read before stays in force"));
    look.is_changed
}

/// The keys whose lines are not in both.
fn changed_keys<'a>(old: &'a str, new: &'a str) -> BTreeSet<&'a str> {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let changed = &lines(old) ^ &lines(new);
    changed.into_iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
}
