//! The clock by which messages age.
//!
//! It never jumps, it goes on across restarts of the server, and it counts the time in which the server
//! or the host was down. So neither a restart nor a wall clock that is set changes the age of a message
//! or the time of its next attempt. Its times are milliseconds, near those of the wall clock, and not to
//! be compared with them.
//!
//! While the host is up, this is the host's uptime and a constant offset, which stands with the boot's id
//! in `DATA/spool/clock`: nothing else is needed after a restart of the server. After a restart of the
//! host only the wall clock knows how long it was down, and at a boot that clock may be wrong by years.
//! So the time since this clock was last written down counts as the wall clock says, but for no more than
//! a day, and never backwards: a wrong wall clock makes no message older than an outage of a day does.
//!
//! The file is written soon after the start, at the stop, and now and then in between. It is a help and not a
//! condition: if it is missing or damaged, this clock begins with the wall clock's time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message_file::create_replacing;
use crate::mail::{Envelope, Timestamp};
use crate::sys::{Clock, Disk};

/// An outage of the host counts for no more.
const OUTAGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Its file is shorter.
const FILE_OCTETS_MAX: usize = 1000;

pub(crate) struct AgeClock {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// The spool's.
    dir: PathBuf,
    boot_id: String,
    /// Between the uptime and this clock.
    offset_ms: i64,
    /// What an earlier process wrote down last.
    last_saved: Option<Timestamp>,
}

/// What is written down.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SavedClock {
    boot: String,
    offset_ms: i64,
    /// This clock when it was written down.
    last_ms: i64,
    /// The wall clock at that moment.
    wall_ms: i64,
}

impl AgeClock {
    /// Goes on from what the last process wrote down below `dir`; writes nothing.
    pub(super) fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path) -> Self {
        let saved = match read(disk.as_ref(), &dir.join(FILE_NAME)) {
            Ok(saved) => Some(saved),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                log::warn!(
                    target: "queue",
                    "{} cannot be read ({e}): the wall clock says how old messages are",
                    dir.join(FILE_NAME).display()
                );
                None
            }
        };
        let (boot, uptime, wall) = (clock.boot_id(), millis(clock.uptime()), clock.wall_time());
        let now = match &saved {
            None => wall.as_millis(),
            Some(saved) => {
                let steady = uptime.saturating_add(saved.offset_ms);
                // A container may count the uptime of the same boot from another moment.
                if saved.boot == boot && !boot.is_empty() && steady >= saved.last_ms {
                    steady
                } else {
                    let outage = wall.since(Timestamp::from_millis(saved.wall_ms));
                    saved.last_ms.saturating_add(millis(outage.min(OUTAGE_MAX)))
                }
            }
        };
        let before = saved.map(|saved| Timestamp::from_millis(saved.last_ms));
        let offset_ms = now.saturating_sub(uptime);
        Self { disk, clock, dir: dir.to_owned(), boot_id: boot, offset_ms, last_saved: before }
    }

    /// The time by this clock.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(millis(self.clock.uptime()).saturating_add(self.offset_ms))
    }

    /// How long a message has waited.
    pub(crate) fn age(&self, envelope: &Envelope) -> Duration {
        self.now().since(envelope.age_start())
    }

    /// How long it had waited when an earlier process was last known to run; zero if it came later.
    pub(crate) fn age_at_last_save(&self, envelope: &Envelope) -> Duration {
        self.last_saved.map_or(Duration::ZERO, |before| before.since(envelope.age_start()))
    }

    /// A time of this clock, on the wall clock; nothing if it has come.
    pub(crate) fn to_wall(&self, time: Timestamp) -> Option<Timestamp> {
        let left = time.since(self.now());
        (!left.is_zero()).then(|| self.clock.wall_time().after(left))
    }

    /// Writes it down, for the next start of the host.
    pub(crate) fn write(&self) {
        let saved = SavedClock {
            boot: self.boot_id.clone(),
            offset_ms: self.offset_ms,
            last_ms: self.now().as_millis(),
            wall_ms: self.clock.wall_time().as_millis(),
        };
        if let Err(e) = self.replace(&saved) {
            // The disk may be full, and what was written last is good enough.
            log::debug!(target: "queue", "{} cannot be written: {e}", self.dir.join(FILE_NAME).display());
        }
    }

    fn replace(&self, saved: &SavedClock) -> io::Result<()> {
        let draft = self.dir.join(TEMPORARY_NAME);
        let file = create_replacing(self.disk.as_ref(), &draft)?;
        let mut text = serde_json::to_vec(saved)?;
        text.push(b'\n');
        file.append(&text)?;
        file.sync()?;
        self.disk.rename(&draft, &self.dir.join(FILE_NAME))?;
        self.disk.sync_dir(&self.dir)
    }
}

/// In the spool's directory.
const FILE_NAME: &str = "clock";
/// What is to be the file; half of one may be there.
const TEMPORARY_NAME: &str = "clock.new";

fn read(disk: &dyn Disk, path: &Path) -> io::Result<SavedClock> {
    let file = disk.open(path)?;
    let octets = usize::try_from(file.length()?).unwrap_or(usize::MAX).min(FILE_OCTETS_MAX);
    Ok(serde_json::from_slice(&file.read_range(0, octets)?)?)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{Crash, SimulatedDisk, TestClock};

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    struct TestHost {
        disk: SimulatedDisk,
        clock: Arc<TestClock>,
    }

    impl TestHost {
        fn new() -> Self {
            let disk = SimulatedDisk::default();
            disk.create_dir(Path::new("/spool")).unwrap();
            Self { disk, clock: Arc::default() }
        }

        fn open(&self) -> AgeClock {
            let ages = AgeClock::open(Arc::new(self.disk.clone()), self.clock.clone(), Path::new("/spool"));
            // As the queue manager does.
            ages.write();
            ages
        }

        fn set_wall_back(&self, by: Duration) {
            let wall = self.clock.wall_time().as_millis();
            self.clock.set_wall_time(Timestamp::from_millis(wall - millis(by)));
        }

        fn set_wall_forward(&self, by: Duration) {
            self.clock.set_wall_time(self.clock.wall_time().after(by));
        }
    }

    #[test]
    fn it_begins_with_the_wall_clock_and_does_not_follow_it() {
        let host = TestHost::new();
        let ages = host.open();
        let began = ages.now();
        assert_eq!(began, host.clock.wall_time());
        host.set_wall_forward(YEARS);
        assert_eq!(ages.now(), began);
        host.clock.advance(MINUTE);
        host.set_wall_back(2 * YEARS);
        assert_eq!(ages.now(), began.after(MINUTE));
    }

    #[test]
    fn a_restart_of_the_server_changes_nothing_whatever_the_wall_clock_does() {
        let host = TestHost::new();
        let began = host.open().now();
        for n in 1..10 {
            if n % 2 == 0 {
                host.set_wall_back(YEARS)
            } else {
                host.set_wall_forward(YEARS)
            }
            host.clock.advance(3 * DAY);
            let ages = host.open();
            assert_eq!(ages.now(), began.after(n * 3 * DAY));
            assert_eq!(ages.last_saved, Some(began.after((n - 1) * 3 * DAY)));
        }
    }

    #[test]
    fn the_time_in_which_the_host_was_down_counts_for_a_day_at_most() {
        let host = TestHost::new();
        let mut expected = host.open().now();
        for (down, counted) in [(MINUTE, MINUTE), (5 * HOUR, 5 * HOUR), (DAY, DAY), (YEARS, DAY)] {
            host.clock.reboot(down);
            expected = expected.after(counted);
            assert_eq!(host.open().now(), expected);
        }
    }

    #[test]
    fn a_wall_clock_that_is_wrong_after_a_boot_counts_for_a_day_once_and_never_backwards() {
        let host = TestHost::new();
        let began = host.open().now();
        host.clock.reboot(HOUR);
        host.set_wall_back(YEARS);
        assert_eq!(host.open().now(), began, "back");
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(HOUR), "and it stays so");
        host.set_wall_forward(2 * YEARS);
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(HOUR + DAY), "forward");
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(2 * HOUR + DAY), "and it stays so");
    }

    #[test]
    fn what_passed_between_two_writes_is_not_lost_with_the_host() {
        let host = TestHost::new();
        let ages = host.open();
        let began = ages.now();
        host.clock.advance(5 * HOUR);
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(6 * HOUR), "nothing was written since the start");
        host.clock.advance(3 * DAY);
        host.open().write();
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(7 * HOUR + 3 * DAY));
    }

    #[test]
    fn what_was_written_down_outlives_a_power_cut_and_half_a_write_the_one_before() {
        let host = TestHost::new();
        let ages = host.open();
        let began = ages.now();
        host.clock.advance(DAY + HOUR);
        ages.write();
        host.disk.crash(Crash::UnsyncedLost);
        host.clock.reboot(YEARS);
        assert_eq!(host.open().now(), began.after(2 * DAY + HOUR));
        for verb in 0..4 {
            let ages = host.open();
            let expected = ages.now().after(DAY);
            host.disk.fail_after(verb, io::ErrorKind::Other);
            host.clock.advance(HOUR);
            ages.write();
            host.disk.crash(Crash::UnsyncedLost);
            host.clock.reboot(YEARS);
            assert_eq!(host.open().now(), expected, "{verb}");
        }
    }

    #[test]
    fn a_host_that_does_not_name_its_boots_and_an_uptime_that_went_back_are_other_boots() {
        let host = TestHost::new();
        let began = host.open().now();
        let path = Path::new("/spool/clock");
        let text = String::from_utf8(host.disk.contents(path).unwrap()).unwrap();
        for other in [text.replace("boot-1", ""), text.replace("\"offset-ms\":", "\"offset-ms\":-9")] {
            host.disk.remove(path).unwrap();
            host.disk.create(path).unwrap().append(other.as_bytes()).unwrap();
            assert_eq!(host.open().now(), began, "{other}");
        }
    }

    #[test]
    fn a_file_that_is_damaged_or_cannot_be_written_is_no_obstacle() {
        let host = TestHost::new();
        let path = Path::new("/spool/clock");
        for damaged in [&b""[..], b"{", b"{}", b"\xff\0", &[b'9'; 5000], b"null"] {
            drop(host.disk.remove(path));
            host.disk.create(path).unwrap().append(damaged).unwrap();
            assert_eq!(host.open().now(), host.clock.wall_time());
        }
        let mut ages = host.open();
        host.disk.set_full(true);
        host.set_wall_forward(YEARS);
        for _ in 0..3 {
            let before = ages.now();
            host.clock.advance(HOUR);
            ages.write();
            ages = host.open();
            assert_eq!(ages.now(), before.after(HOUR));
        }
    }

    #[test]
    fn a_time_that_has_come_is_none_on_the_wall_clock() {
        let host = TestHost::new();
        let ages = host.open();
        host.set_wall_back(YEARS);
        assert_eq!(ages.to_wall(ages.now().after(HOUR)), Some(host.clock.wall_time().after(HOUR)));
        assert_eq!(ages.to_wall(ages.now()), None);
    }
}
