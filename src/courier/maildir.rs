//! To a Maildir on this host.
//!
//! The message is written below `tmp`, synced, moved to `new`, and `new` is synced; then the recipient is
//! delivered. That is two syncs for each recipient, and a few more for the first message to a mailbox
//! since the start, which makes the directories and makes them durable. Line ends are LF.
//!
//! A name in an address chooses the directory, so a name that could leave the mail directory is refused
//! for good (5.1.3): see [`is_safe_name`]. The name is checked in the form that is used, after PRECIS,
//! which turns a full-width solidus into an ordinary one.
//!
//! Standards: the Maildir specification (cr.yp.to/proto/maildir.html), RFC 5321 §4.4.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use lru::LruCache;

use super::contract::{Courier, CourierProfile, Delivery};
use super::final_delivery::{self, LineEnds};
use super::template::Template;
use crate::mail::{Destination, Domain, Failure, Mailbox, Outcome, Reason, Recipient};
use crate::sys::{Clock, Disk, DiskFile, Mutex, Random, create_dir_all};

/// Where the Maildirs are.
#[derive(Debug, Clone)]
pub struct MaildirSettings {
    /// Path of a mailbox's Maildir, with the placeholders `%user%` (the user as in our users file) and
    /// `%domain%` (in U-labels).
    pub path: String,
    /// Our name, the last part of a file's name.
    pub hostname: Domain,
}

impl MaildirSettings {
    /// The Maildir of a mailbox.
    fn maildir_path(&self, mailbox: &Mailbox) -> Result<PathBuf, Failure> {
        let (user, domain) = (mailbox.local_part.comparison_key(), mailbox.domain.to_unicode());
        if !is_safe_name(&user) || !is_safe_name(&domain) {
            return Err(Failure::permanent(1, 3, format!("{mailbox} cannot be the name of a mail folder")));
        }
        let path = Template::new(&self.path, &["user", "domain"]).fill(|placeholder| match placeholder {
            "user" => &user,
            _ => &domain,
        });
        Ok(PathBuf::from(path))
    }
}

/// Delivers to Maildirs.
pub struct MaildirCourier {
    settings: Arc<ArcSwap<MaildirSettings>>,
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    delivery_count: AtomicU64,
    /// Maildirs that this process has made durable.
    synced_maildirs: Mutex<LruCache<PathBuf, ()>>,
}

/// Maildirs remembered; one that was forgotten is synced again.
const SYNCED_MAILDIRS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// Octets written at a time.
const WRITE_BLOCK_OCTETS: usize = 64 * 1024;

impl MaildirCourier {
    /// A courier that writes to `disk`. Each attempt reads the settings once.
    #[must_use]
    pub fn new(
        settings: Arc<ArcSwap<MaildirSettings>>,
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            settings,
            disk,
            random,
            clock,
            delivery_count: AtomicU64::new(0),
            synced_maildirs: Mutex::new(LruCache::new(SYNCED_MAILDIRS_MAX)),
        }
    }

    fn deliver(
        &self,
        settings: &MaildirSettings,
        delivery: &Delivery<'_>,
        recipient: &Recipient,
    ) -> Result<(), Failure> {
        let mailbox = match &recipient.destination {
            Destination::Mailbox(mailbox) | Destination::Via { mailbox, .. } => mailbox,
            Destination::Program { .. } => {
                return Err(Failure::transient(3, 5, "a program was routed to the courier for Maildirs"));
            }
        };
        if delivery.deadline <= self.clock.now() {
            return Err(Failure::transient(3, 0, "there was no time left for this recipient"));
        }
        let dir = settings.maildir_path(mailbox)?;
        delivery.trace.add_event(format!("writing to {}", dir.display()));
        let mut message =
            final_delivery::open(delivery, mailbox, LineEnds::Lf).map_err(|error| read_failure(&error))?;
        self.ensure_maildir(&dir).map_err(|error| write_failure(&error))?;
        self.write_message(&dir, &self.unique_name(&settings.hostname), &mut *message)
    }

    /// Makes the Maildir if it is missing, and durable if this process has not done so before: the
    /// process that made it may have crashed before the sync.
    fn ensure_maildir(&self, dir: &Path) -> io::Result<()> {
        if self.synced_maildirs.lock().get(dir).is_some() {
            return Ok(());
        }
        create_dir_all(&*self.disk, dir)?;
        for part in ["tmp", "new", "cur"] {
            self.disk.create_dir(&dir.join(part))?;
        }
        self.disk.sync_dir(dir)?;
        self.synced_maildirs.lock().put(dir.to_owned(), ());
        Ok(())
    }

    fn write_message(&self, dir: &Path, name: &str, message: &mut dyn Read) -> Result<(), Failure> {
        let (draft, finished) = (dir.join("tmp").join(name), dir.join("new").join(name));
        let file = match self.disk.create(&draft) {
            // The Maildir was removed since this process made it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.synced_maildirs.lock().pop(dir);
                self.ensure_maildir(dir).and_then(|()| self.disk.create(&draft))
            }
            other => other,
        };
        let file = file.map_err(|error| write_failure(&error))?;
        let written = copy_message(message, &*file).and_then(|()| {
            file.sync()
                .and_then(|()| self.disk.rename(&draft, &finished))
                .and_then(|()| self.disk.sync_dir(&dir.join("new")))
                .map_err(|error| write_failure(&error))
        });
        if written.is_err() {
            // The queue keeps the message: a file here would be a second copy, or a part of one. Only one
            // of the names exists, and if it cannot be removed nothing is lost.
            let _ = self.disk.remove(&draft);
            let _ = self.disk.remove(&finished);
            self.synced_maildirs.lock().pop(dir);
        }
        written
    }

    /// Never the same twice: time, process and number as the specification says, and random bits
    /// because the clock may have been set back before a restart.
    fn unique_name(&self, hostname: &Domain) -> String {
        // As the specification says; a domain has neither, but an address literal has colons.
        let hostname = hostname.as_ascii().replace('/', "\\057").replace(':', "\\072");
        let millis = self.clock.wall_time().as_millis();
        format!(
            "{}.M{}P{}Q{}R{:016x}.{}",
            millis.div_euclid(1000),
            millis.rem_euclid(1000) * 1000,
            std::process::id(),
            self.delivery_count.fetch_add(1, Ordering::Relaxed),
            self.random.bits(),
            hostname
        )
    }
}

impl Courier for MaildirCourier {
    fn name(&self) -> &'static str {
        "maildir"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::MAILBOXES
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let settings = self.settings.load_full();
        let deliver = |recipient: &&Recipient| match self.deliver(&settings, delivery, recipient) {
            Ok(()) => {
                delivery.trace.add_event(format!("{recipient}: delivered"));
                Outcome::Delivered(Reason::new(0, 0, "delivered to the mailbox"))
            }
            Err(failure) => {
                delivery.trace.add_error(format!("{recipient}: {failure}"));
                failure.into()
            }
        };
        delivery.recipients.iter().map(deliver).collect()
    }
}

/// The name can be the name of one directory and nothing else: not empty, no `/`, no control character,
/// and no dot in front, which rules out `.` and `..`, hidden directories, and folders of Maildir++.
fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.chars().any(|c| c == '/' || c.is_control())
}

fn copy_message(message: &mut dyn Read, file: &dyn DiskFile) -> Result<(), Failure> {
    let mut buffer = vec![0; WRITE_BLOCK_OCTETS];
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let count = match message.read(room) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(|error| read_failure(&error))?,
        };
        filled += count;
        if filled == buffer.len() || count == 0 {
            let octets = buffer.get(..filled).unwrap_or_default();
            file.append(octets).map_err(|error| write_failure(&error))?;
            filled = 0;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn read_failure(error: &io::Error) -> Failure {
    Failure::transient(3, 0, format!("the message cannot be read from the spool: {error}"))
}

/// The failure after an error of the disk: transient, because the operator can mend it, except for a name
/// that is too long.
fn write_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull => Failure::transient(3, 1, "the disk with the mailboxes is full"),
        io::ErrorKind::QuotaExceeded => Failure::transient(2, 2, "the mailbox is full"),
        io::ErrorKind::PermissionDenied => Failure::transient(
            3,
            0,
            "the mail folder may not be written: it must belong to the user that postrider runs as",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            Failure::transient(3, 0, "the file system with the mailboxes is read-only")
        }
        io::ErrorKind::InvalidFilename => Failure::permanent(1, 3, "the name of the mail folder is too long"),
        _ => Failure::transient(3, 0, format!("the mailbox cannot be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::courier::test_delivery::{TestDelivery, mailbox};
    use crate::fakes::{SeededRandom, TestClock, WatchedDisk};
    use crate::sys::{SystemClock, SystemDisk};

    /// Records the operations on the real disk, and makes one kind of them fail.
    #[derive(Default)]
    struct DiskRecorder {
        root: PathBuf,
        operations: Mutex<Vec<String>>,
        injected_failure: Mutex<Option<(&'static str, io::ErrorKind)>>,
    }

    impl DiskRecorder {
        fn record(&self, verb: &'static str, path: &Path) -> io::Result<()> {
            let path = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
            let at = path.rfind("/1767225600").map_or(path.len(), |at| at + 1);
            self.operations.lock().push(format!("{verb} {}", path.get(..at).unwrap_or_default()));
            match *self.injected_failure.lock() {
                Some((failing, kind)) if failing == verb => Err(kind.into()),
                _ => Ok(()),
            }
        }
    }

    struct TestMaildirs {
        dir: TempDir,
        recorder: Arc<DiskRecorder>,
        courier: MaildirCourier,
    }

    impl TestMaildirs {
        fn new() -> Self {
            let dir = tempdir().unwrap();
            let recorder = Arc::new(DiskRecorder { root: dir.path().to_owned(), ..DiskRecorder::default() });
            let settings = Arc::new(ArcSwap::from_pointee(MaildirSettings {
                path: format!("{}/%domain%/%user%", dir.path().display()),
                hostname: Domain::parse("mail.here.example").unwrap(),
            }));
            let recording = Arc::clone(&recorder);
            let disk = WatchedDisk::new(SystemDisk, move |verb, path| match verb {
                "open" | "read" => Ok(()),
                _ => recording.record(verb, path),
            });
            let disk = Arc::new(disk);
            let clock = Arc::new(TestClock::default());
            let courier = MaildirCourier::new(settings, disk, Arc::new(SeededRandom::new(1)), clock);
            Self { dir, recorder, courier }
        }

        fn deliver(&self, delivery: &TestDelivery) -> Vec<Outcome> {
            delivery.attempt_at(&self.courier, self.courier.clock.now())
        }

        fn files(&self, folder: &str) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.dir.path().join(folder)).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    }

    fn message_to(to: &[&str]) -> TestDelivery {
        TestDelivery::new("ana@there.example", to)
    }

    #[test]
    fn a_message_is_in_new_with_its_paths_on_top_and_lf_line_ends() {
        let maildirs = TestMaildirs::new();
        assert_eq!(maildirs.deliver(&message_to(&["bo@here.example"]))[0].status(), "2.0.0");
        let [file] = &maildirs.files("here.example/bo/new")[..] else { panic!() };
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            "Return-Path: <ana@there.example>\nDelivered-To: bo@here.example\nSubject: hello\n\nDear Bo\n"
        );
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("1767225600.M0P") && name.ends_with(".mail.here.example"), "{name}");
        assert!(maildirs.files("here.example/bo/tmp").is_empty());
    }

    #[test]
    fn file_and_new_are_synced_before_the_outcome_and_in_that_order() {
        let maildirs = TestMaildirs::new();
        maildirs.deliver(&message_to(&["bo@here.example"]));
        assert_eq!(
            maildirs.recorder.operations.lock().split_off(0),
            [
                "create-dir here.example/bo",
                "create-dir here.example",
                "sync-dir ",
                "create-dir here.example/bo",
                "sync-dir here.example",
                "create-dir here.example/bo/tmp",
                "create-dir here.example/bo/new",
                "create-dir here.example/bo/cur",
                "sync-dir here.example/bo",
                "create here.example/bo/tmp/",
                "write here.example/bo/tmp/",
                "sync here.example/bo/tmp/",
                "rename here.example/bo/new/",
                "sync-dir here.example/bo/new",
            ]
        );
        maildirs.deliver(&message_to(&["bo@here.example"]));
        assert_eq!(
            maildirs.recorder.operations.lock().split_off(0),
            [
                "create here.example/bo/tmp/",
                "write here.example/bo/tmp/",
                "sync here.example/bo/tmp/",
                "rename here.example/bo/new/",
                "sync-dir here.example/bo/new",
            ],
            "two syncs are enough for a Maildir that was synced before"
        );
    }

    #[test]
    fn a_failed_attempt_leaves_no_file_behind_and_the_next_one_delivers() {
        for (verb, kind, status) in [
            ("create-dir", io::ErrorKind::PermissionDenied, "4.3.0"),
            ("create", io::ErrorKind::StorageFull, "4.3.1"),
            ("write", io::ErrorKind::QuotaExceeded, "4.2.2"),
            ("sync", io::ErrorKind::Other, "4.3.0"),
            ("rename", io::ErrorKind::ReadOnlyFilesystem, "4.3.0"),
            ("sync-dir", io::ErrorKind::Other, "4.3.0"),
        ] {
            let maildirs = TestMaildirs::new();
            *maildirs.recorder.injected_failure.lock() = Some((verb, kind));
            let outcomes = maildirs.deliver(&message_to(&["bo@here.example"]));
            assert_eq!(outcomes[0].status(), status, "{verb}: {outcomes:?}");
            *maildirs.recorder.injected_failure.lock() = None;
            assert_eq!(maildirs.deliver(&message_to(&["bo@here.example"]))[0].status(), "2.0.0", "{verb}");
            assert_eq!(maildirs.files("here.example/bo/new").len(), 1, "{verb}");
            assert!(maildirs.files("here.example/bo/tmp").is_empty(), "{verb}");
        }
    }

    #[test]
    fn a_message_is_not_delivered_if_new_could_not_be_synced() {
        let maildirs = TestMaildirs::new();
        maildirs.deliver(&message_to(&["bo@here.example"]));
        *maildirs.recorder.injected_failure.lock() = Some(("sync-dir", io::ErrorKind::Other));
        assert_eq!(maildirs.deliver(&message_to(&["bo@here.example"]))[0].status(), "4.3.0");
        assert_eq!(maildirs.files("here.example/bo/new").len(), 1, "the second copy was taken back");
    }

    #[test]
    fn a_message_that_cannot_be_read_to_its_end_is_not_delivered() {
        let maildirs = TestMaildirs::new();
        let mut delivery = message_to(&["bo@here.example"]);
        delivery.fail_after(10);
        assert_eq!(maildirs.deliver(&delivery)[0].status(), "4.3.0");
        assert!(maildirs.files("here.example/bo/new").is_empty());
        assert!(maildirs.files("here.example/bo/tmp").is_empty());
    }

    #[test]
    fn a_maildir_that_was_removed_is_made_again() {
        let maildirs = TestMaildirs::new();
        maildirs.deliver(&message_to(&["bo@here.example"]));
        fs::remove_dir_all(maildirs.dir.path().join("here.example")).unwrap();
        assert_eq!(maildirs.deliver(&message_to(&["bo@here.example"]))[0].status(), "2.0.0");
        assert_eq!(maildirs.files("here.example/bo/new").len(), 1);
    }

    #[test]
    fn a_name_that_could_leave_the_mail_directory_is_refused_for_good() {
        let maildirs = TestMaildirs::new();
        for user in
            ["..", ".", ".hidden", "../bo", "a/b", "/etc", "\u{ff0e}\u{ff0e}", "x\u{ff0f}..\u{ff0f}bo"]
        {
            let outcomes = maildirs.deliver(&message_to(&[&format!("{user}@here.example")]));
            assert_eq!(outcomes[0].status(), "5.1.3", "{user}");
        }
        assert!(maildirs.recorder.operations.lock().is_empty(), "the disk was not touched");
        for user in ["o'brien", "%domain%", "a b", "~", "-x", "ünal"] {
            let outcomes = maildirs.deliver(&message_to(&[&format!("{user}@here.example")]));
            assert_eq!(outcomes[0].status(), "2.0.0", "{user}");
            assert_eq!(maildirs.files(&format!("here.example/{user}/new")).len(), 1, "{user}");
        }
    }

    #[test]
    fn settings_that_are_replaced_apply_to_the_next_attempt() {
        let maildirs = TestMaildirs::new();
        let path = format!("{}/elsewhere/%user%", maildirs.dir.path().display());
        let hostname = Domain::parse("mail.here.example").unwrap();
        maildirs.courier.settings.store(Arc::new(MaildirSettings { path, hostname }));
        maildirs.deliver(&message_to(&["bo@here.example"]));
        assert_eq!(maildirs.files("elsewhere/bo/new").len(), 1);
    }

    #[test]
    fn every_spelling_of_a_mailbox_is_one_folder() {
        let maildirs = TestMaildirs::new();
        maildirs.deliver(&message_to(&["Bo@bücher.test", "bo@xn--bcher-kva.test", "BO@BÜCHER.test"]));
        assert_eq!(maildirs.files("bücher.test/bo/new").len(), 3);
    }

    #[test]
    fn each_recipient_has_an_outcome_of_its_own() {
        let maildirs = TestMaildirs::new();
        let outcomes = maildirs.deliver(&message_to(&["a/b@here.example", "bo@here.example"]));
        let statuses: Vec<_> = outcomes.iter().map(Outcome::status).collect();
        assert_eq!(statuses, ["5.1.3", "2.0.0"]);
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_for_good() {
        let dir = tempdir().unwrap();
        let literal = Domain::from(std::net::IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        let path = format!("{}/{}%user%", dir.path().display(), "x".repeat(250));
        let settings = MaildirSettings { path, hostname: literal.clone() };
        let mailbox_path = settings.maildir_path(&mailbox("a@here.example")).unwrap();
        assert_eq!(mailbox_path.file_name().unwrap().len(), 251);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let random = Arc::new(SeededRandom::new(1));
        let courier = MaildirCourier::new(settings, Arc::new(SystemDisk), random, Arc::new(SystemClock));
        assert_eq!(message_to(&["longname@here.example"]).attempt(&courier)[0].status(), "5.1.3");
        assert!(!courier.unique_name(&literal).contains(':'));
    }
}
