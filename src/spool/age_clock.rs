//! The age clock: the clock for the ages and due times of messages.
//!
//! The age clock never jumps, continues across restarts of the server, and counts the time in which the
//! server or the host was down. So neither a restart nor a change of the wall clock changes the age of a
//! message or the time of its next attempt. Its times are in milliseconds. They are near those of the wall
//! clock, but must not be compared with them.
//!
//! While the host is up, the age clock is the host's uptime plus a constant offset. The offset and the id of
//! the boot are in `DATA/spool/clock`, which is all that a restart of the server needs. After a restart of
//! the host, only the wall clock shows how long the host was down, and at a boot the wall clock may be wrong
//! by years. So the time since the age clock was last saved counts as the wall clock shows it, but for at
//! most a day, and never backwards: a wrong wall clock makes no message older than an outage of a day does.
//!
//! The file is written soon after the start, at the stop, and every few minutes in between. If it is missing
//! or damaged, the age clock begins with the time of the wall clock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message_file::create_replacing;
use crate::mail::{Envelope, Timestamp};
use crate::sys::{Clock, Disk};

/// An outage of the host counts for at most this long.
const OUTAGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The file is not longer than this.
const FILE_OCTETS_MAX: usize = 1000;

/// The name of the file in the spool's directory.
const FILE_NAME: &str = "clock";
/// The name of the file while it is written; an earlier process may have left half a file.
const TEMPORARY_NAME: &str = "clock.new";

/// The clock for the ages and due times of messages.
pub(crate) struct AgeClock {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// The spool's directory.
    dir: PathBuf,
    boot_id: String,
    /// The difference between this clock and the uptime.
    offset_ms: i64,
    /// The time that an earlier process saved last.
    last_saved: Option<Timestamp>,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SavedClock {
    boot_id: String,
    offset_ms: i64,
    /// The time of this clock when it was saved.
    last_ms: i64,
    /// The time of the wall clock at that moment.
    wall_ms: i64,
}

impl AgeClock {
    /// Continues the clock that the last process saved in `dir`. Writes nothing.
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
        let (boot_id, uptime, wall) = (clock.boot_id(), millis(clock.uptime()), clock.wall_time());
        let now = match &saved {
            None => wall.as_millis(),
            Some(saved) => {
                let steady = uptime.saturating_add(saved.offset_ms);
                // A container may count the uptime of the same boot from another moment on.
                if saved.boot_id == boot_id && !boot_id.is_empty() && steady >= saved.last_ms {
                    steady
                } else {
                    let outage = wall.since(Timestamp::from_millis(saved.wall_ms));
                    saved.last_ms.saturating_add(millis(outage.min(OUTAGE_MAX)))
                }
            }
        };
        let last_saved = saved.map(|saved| Timestamp::from_millis(saved.last_ms));
        let offset_ms = now.saturating_sub(uptime);
        Self { disk, clock, dir: dir.to_owned(), boot_id, offset_ms, last_saved }
    }

    /// The time of this clock.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(millis(self.clock.uptime()).saturating_add(self.offset_ms))
    }

    /// The age of a message.
    pub(crate) fn age(&self, envelope: &Envelope) -> Duration {
        self.now().since(envelope.age_start())
    }

    /// The age of a message when an earlier process last saved the clock; zero if the message is younger.
    pub(crate) fn age_at_last_save(&self, envelope: &Envelope) -> Duration {
        self.last_saved.map_or(Duration::ZERO, |before| before.since(envelope.age_start()))
    }

    /// Converts a time of this clock to wall time; `None` if it is past.
    pub(crate) fn to_wall(&self, time: Timestamp) -> Option<Timestamp> {
        let left = time.since(self.now());
        (!left.is_zero()).then(|| self.clock.wall_time().after(left))
    }

    /// Saves the time, for the next start.
    pub(crate) fn write(&self) {
        let saved = SavedClock {
            boot_id: self.boot_id.clone(),
            offset_ms: self.offset_ms,
            last_ms: self.now().as_millis(),
            wall_ms: self.clock.wall_time().as_millis(),
        };
        if let Err(e) = self.replace(&saved) {
            // The disk may be full, and the file that was written last is good enough.
            log::debug!(target: "queue", "{} cannot be written: {e}", self.dir.join(FILE_NAME).display());
        }
    }

    fn replace(&self, saved: &SavedClock) -> io::Result<()> {
        let temporary = self.dir.join(TEMPORARY_NAME);
        let file = create_replacing(self.disk.as_ref(), &temporary)?;
        let mut text = serde_json::to_vec(saved)?;
        text.push(b'\n');
        file.append(&text)?;
        file.sync()?;
        self.disk.rename(&temporary, &self.dir.join(FILE_NAME))?;
        self.disk.sync_dir(&self.dir)
    }
}

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
    fn the_clock_begins_with_the_wall_time_and_does_not_follow_it() {
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
    fn a_restart_of_the_server_changes_nothing_however_the_wall_clock_is_set() {
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
    fn a_wrong_wall_clock_after_a_boot_counts_for_at_most_a_day_and_never_backwards() {
        let host = TestHost::new();
        let began = host.open().now();
        host.clock.reboot(HOUR);
        host.set_wall_back(YEARS);
        assert_eq!(host.open().now(), began, "back");
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(HOUR), "and the next boot changes nothing");
        host.set_wall_forward(2 * YEARS);
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(HOUR + DAY), "forward");
        host.clock.reboot(HOUR);
        assert_eq!(host.open().now(), began.after(2 * HOUR + DAY), "and the next boot changes nothing");
    }

    #[test]
    fn the_time_between_two_saves_is_not_lost_when_the_host_restarts() {
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
    fn a_saved_time_outlives_a_power_cut_and_a_save_that_failed() {
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
    fn without_a_boot_id_or_with_a_smaller_uptime_the_host_counts_as_restarted() {
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
    fn a_file_that_is_damaged_or_cannot_be_written_does_not_stop_the_clock() {
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
    fn a_past_time_has_no_wall_time() {
        let host = TestHost::new();
        let ages = host.open();
        host.set_wall_back(YEARS);
        assert_eq!(ages.to_wall(ages.now().after(HOUR)), Some(host.clock.wall_time().after(HOUR)));
        assert_eq!(ages.to_wall(ages.now()), None);
    }
}
