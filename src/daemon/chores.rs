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

use super::configuration::Configuration;
use super::directory::Directory;
use super::expiry::Expiry;
use super::sources::Sources;
use super::watched::{Look, Looks, settle};
use super::wiring::unknown_logins;
use crate::courier::smtp::Logins;
use crate::mail::Domain;
use crate::sys::{Mutex, Stop, Woken};
use crate::tls::{Certs, TlsClient};

/// What can be read anew while the server runs: users, aliases, certificates.
pub(super) struct Chores {
    pub(super) config_dir: PathBuf,
    /// The configuration in force, as `postrider check` prints it.
    pub(super) effective: String,
    pub(super) hostname: Domain,
    pub(super) looks: Looks,
    /// Changed by the thread of [`Chores::run`] only, and not locked while it looks at files for a reload.
    pub(super) sources: Mutex<Sources>,
    /// The credentials in force.
    pub(super) logins: Arc<ArcSwap<Logins>>,
    pub(super) directory: Arc<Directory>,
    pub(super) certs: Arc<Certs>,
    /// For connections that we open.
    pub(super) tls_client: Arc<TlsClient>,
    pub(super) expiry: Expiry,
    pub(super) reloads: Reloads,
}

/// Nothing, or everything that is wrong.
type Reloaded = Result<(), Vec<String>>;

/// Requests to reload, which wake the thread that does it.
pub(super) struct Reloads {
    /// Who waits for an answer; none once the thread has ended.
    waiting: Mutex<Option<Vec<Sender<Reloaded>>>>,
    sender: UnixStream,
    receiver: UnixStream,
}

impl Reloads {
    /// # Errors
    /// When the host has no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self { waiting: Mutex::new(Some(Vec::new())), sender, receiver })
    }

    fn ask(&self) -> Receiver<Reloaded> {
        let (answer, answered) = bounded(1);
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.push(answer);
        }
        // One octet is enough: what does not fit comes after others that wake the thread.
        let _ = (&self.sender).write(&[0]);
        answered
    }

    /// Takes all requests; one reload answers them.
    fn take(&self) -> Vec<Sender<Reloaded>> {
        let mut octets = [0; 64];
        while (&self.receiver).read(&mut octets).is_ok_and(|count| count > 0) {}
        self.waiting.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Answers nobody from now on.
    fn close(&self) {
        *self.waiting.lock() = None;
    }
}

impl Chores {
    /// Looks for changed files, and reloads when asked to, until it is time to stop. `reloading` is told
    /// when a reload begins and ends.
    pub(super) fn run(&self, stop: &Stop, reloading: &dyn Fn(Reloading)) {
        loop {
            // One file that trips us must not keep all others from being read for ever. What is in
            // force is replaced whole, so that there is nothing half done to be seen.
            let done = match stop.wait_for(self.reloads.receiver.as_fd(), Some(self.looks.pause)) {
                Ok(Woken::Stop) => break,
                Ok(Woken::Ready) => catch_unwind(AssertUnwindSafe(|| self.answer_reloads(stop, reloading)))
                    .inspect_err(|_| reloading(Reloading::Ends)),
                Ok(Woken::Nothing) => catch_unwind(AssertUnwindSafe(|| self.look())),
                // Without poll(2), for want of memory.
                Err(_) if stop.wait(self.looks.pause) => break,
                Err(_) => Ok(()),
            };
            if done.is_err() {
                log::error!(
                    "looking for changed users, aliases and certificates ended by a fault of ours; it is \
                     tried again"
                );
            }
        }
        self.reloads.close();
    }

    /// Asks the thread of [`Chores::run`] to read everything anew, all or nothing. The answer comes once
    /// that is done, and never if the server stops before.
    pub(super) fn ask_to_reload(&self) -> Receiver<Reloaded> {
        self.reloads.ask()
    }

    fn answer_reloads(&self, stop: &Stop, reloading: &dyn Fn(Reloading)) {
        let waiting = self.reloads.take();
        reloading(Reloading::Begins);
        let reloaded = self.reload(&mut |pause| stop.wait(pause));
        if stop.is_asked() {
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
                self.look();
            }
        }
        reloading(Reloading::Ends);
        // Who asked and did not wait has no use for the answer.
        waiting.iter().for_each(|answer| drop(answer.try_send(reloaded.clone())));
    }

    fn look(&self) {
        self.expiry.look(&self.certs.set());
        let mut sources = self.sources.lock();
        if complain(sources.domains.look()) {
            self.directory.replace(&sources.domains);
            log::info!("users and aliases were read anew");
        }
        if complain(sources.credentials.look()) {
            sources.credentials.put_into(&self.logins);
            log::info!("credentials were read anew");
        }
        if complain(sources.certificates.look()) {
            match self.refusal_to_give_up_tls(&sources) {
                None => {
                    self.serve_certificates(&sources);
                    log::info!("certificates were read anew");
                }
                Some(refusal) => log::error!("{refusal}; what was read before stays in force"),
            }
        }
    }

    /// Why certificates that were found do not replace those in force.
    fn refusal_to_give_up_tls(&self, sources: &Sources) -> Option<String> {
        let is_given_up = sources.certificates.set().is_empty() && !self.certs.is_empty();
        is_given_up.then(|| {
            let dir = self.config_dir.join("certs");
            format!("{}: is empty; put a certificate there, or restart to serve without TLS", dir.display())
        })
    }

    fn serve_certificates(&self, sources: &Sources) {
        self.certs.replace(sources.certificates.set());
        self.expiry.look_anew(&self.certs.set());
    }

    /// Reads everything anew, all or nothing, once nobody is writing; `wait` says whether to give up. A
    /// change of `postrider.toml` takes a restart: it is read to say so, and to say now what would keep
    /// the restart from working.
    ///
    /// # Errors
    /// Everything that is wrong, or keeps changing; nothing has changed then.
    pub(super) fn reload(&self, wait: &mut dyn FnMut(Duration) -> bool) -> Reloaded {
        let mut sources = self.sources.lock().clone();
        sources.distrust();
        let mut configuration = Configuration::again(&self.config_dir, &self.hostname, self.looks);
        let mut look = || {
            let mut changing = configuration.look();
            changing.extend(sources.look_and_tell());
            changing
        };
        let settled = settle(self.looks, &mut look, wait);
        let mut wrong = configuration.complaints().to_vec();
        wrong.extend(sources.mistakes());
        wrong.extend(sources.unusable_certificates());
        wrong.extend(settled.err());
        let (Some(config), []) = (configuration.config(), wrong.as_slice()) else {
            return Err(wrong);
        };
        wrong.extend(unknown_logins(config, &sources.domains, &sources.credentials.logins()));
        wrong.extend(self.refusal_to_give_up_tls(&sources));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let effective = config.effective();
        let changed = changed_keys(&self.effective, &effective);
        if !changed.is_empty() {
            let keys = changed.into_iter().collect::<Vec<_>>().join(", ");
            log::warn!("postrider.toml has changed ({keys}): restart postrider to put that in force");
        }
        self.directory.replace(&sources.domains);
        sources.credentials.put_into(&self.logins);
        self.serve_certificates(&sources);
        *self.sources.lock() = sources;
        Ok(())
    }
}

/// What happens to a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reloading {
    Begins,
    Ends,
}

/// Says what is wrong; whether there is something new.
fn complain(look: Look) -> bool {
    look.complaints
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
