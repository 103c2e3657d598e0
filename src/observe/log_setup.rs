//! Set-up of the `log` facade: one line per record, on standard error.
//!
//! Under systemd, standard error is the journal: a line begins with its priority as `<N>` (sd-daemon(3)) and
//! has no time, because the journal adds it. Elsewhere a line begins with the time (RFC 3339, UTC) and the
//! level. `POSTRIDER_LOG` selects the records, in the notation of env_logger (`debug`,
//! `info,postrider::dns=trace`); the default is `info`.

use std::io::{self, Write};

use log::{Level, Record};

use super::maillog;
use crate::mail::Timestamp;
use crate::sys::{Clock as _, SystemClock};

/// The environment variable that selects the records.
pub const FILTER_VARIABLE: &str = "POSTRIDER_LOG";

/// The selection without that variable. The TLS library's own records are for debugging.
const FILTER_DEFAULT: &str = "info,rustls=error";

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogDestination {
    /// To the journal: lines have a priority and no time.
    Journal,
    /// To a terminal, a file or a pipe.
    Other,
}

/// Sets up logging for this process. Later calls do nothing.
pub fn set_up_log() {
    let reader = if is_journal(&std::env::var("JOURNAL_STREAM").unwrap_or_default()) {
        LogDestination::Journal
    } else {
        LogDestination::Other
    };
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| FILTER_DEFAULT.to_owned());
    let started = env_logger::Builder::new()
        .parse_filters(&filter)
        .format(move |into, record| write_record(into, reader, SystemClock.wall_time(), record))
        .try_init();
    if started.is_err() {
        log::debug!("logging was set up before");
    }
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of the journal's stream. Programs inherit the
/// variable even if their standard error goes elsewhere, so both are compared (systemd.exec(5)).
fn is_journal(journal_stream: &str) -> bool {
    let Some((device, inode)) = journal_stream.split_once(':') else { return false };
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|facts| device == facts.st_dev.to_string() && inode == facts.st_ino.to_string())
}

fn write_record(
    into: &mut dyn Write,
    reader: LogDestination,
    now: Timestamp,
    record: &Record<'_>,
) -> io::Result<()> {
    match reader {
        LogDestination::Journal => write!(into, "<{}>", priority(record.level()))?,
        LogDestination::Other => write!(into, "{now} {:<5} ", record.level())?,
    }
    // A mail line begins with its event and needs no target.
    if record.target() != maillog::TARGET {
        write!(into, "{}: ", record.target().trim_start_matches("postrider::"))?;
    }
    writeln!(into, "{}", escape_controls(&record.args().to_string()))
}

/// syslog(3) priorities: err, warning, info, debug. Notice (5) is not used.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Escapes control characters that are still in a text.
fn escape_controls(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reader: LogDestination, level: Level, target: &str, text: &str) -> String {
        let mut line = Vec::new();
        let now = Timestamp::from_millis(1_795_408_663_042);
        write_record(
            &mut line,
            reader,
            now,
            &Record::builder().level(level).target(target).args(format_args!("{text}")).build(),
        )
        .unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        assert_eq!(written(LogDestination::Journal, Level::Warn, "postrider::dns", "slow"), "<4>dns: slow\n");
        assert_eq!(written(LogDestination::Journal, Level::Info, "mail", "queued id=1"), "<6>queued id=1\n");
    }

    #[test]
    fn other_destinations_get_time_and_level() {
        assert_eq!(
            written(LogDestination::Other, Level::Error, "postrider::queue::spool", "no room"),
            "2026-11-23T04:37:43.042Z ERROR queue::spool: no room\n"
        );
        assert_eq!(
            written(LogDestination::Other, Level::Info, "mail", "done id=1"),
            "2026-11-23T04:37:43.042Z INFO  done id=1\n"
        );
    }

    #[test]
    fn a_record_is_one_line_whatever_it_contains() {
        assert_eq!(
            written(LogDestination::Journal, Level::Info, "mail", "a\nb\x1b[31m"),
            "<6>a\\nb\\u{1b}[31m\n"
        );
    }

    #[test]
    fn a_journal_stream_that_was_only_inherited_is_not_the_journal() {
        assert!(!is_journal(""));
        assert!(!is_journal("8:1"));
        let facts = nix::sys::stat::fstat(io::stderr()).unwrap();
        assert!(is_journal(&format!("{}:{}", facts.st_dev, facts.st_ino)));
    }
}
