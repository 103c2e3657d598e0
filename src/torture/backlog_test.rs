//! A long queue: the real program is killed while much mail waits for hosts that do not answer, starts
//! again, and must be as good as new at once.
//!
//! Measured from the start of the new process: until it greets; until it has tried every destination
//! again; until a letter to a mailbox here, handed in as soon as it greeted, is delivered. Then the
//! hosts answer, an operator says `queue retry all`, and every message must arrive exactly once:
//! nothing was under way when the blow came. What memory the process ever had counts, not what it
//! has when somebody looks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::load_generator::LoadGenerator;
use super::load_message::MessageSizes;
use super::next_hops::NextHops;
use super::test_server::{POLL_INTERVAL, TortureServer, TortureSetup, WAIT_MAX, pause};
use super::torture_error::TortureError;
use crate::sys::{Clock as _, Moment, SystemClock};

/// Who hand in mail at the same time.
const CLIENT_COUNT: usize = 8;
/// Hosts that do not answer; the messages are for each of them in turn.
const HOST_COUNT: usize = 50;
/// None of what follows a start may take longer.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(10);
/// The queue never stands still for so long when its hosts answer.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(30);
/// Memory of a server with nothing to do, and more, in octets.
const MEMORY_BASE_OCTETS: usize = 40 * 1024 * 1024;
/// And for each message that waits.
const MEMORY_PER_MESSAGE_OCTETS: usize = 1024;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct BacklogTest<'a> {
    /// To which program, and where.
    pub setup: TortureSetup<'a>,
    /// Messages that wait.
    pub waiting_messages: usize,
}

/// What came of it. Times are from the start of the process, apart from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogTestResult {
    /// Messages that waited; all of them arrived, once.
    pub waiting_messages: usize,
    /// Until a client was greeted.
    pub greeting_after: Duration,
    /// Until every destination had been tried again.
    pub all_destinations_tried_after: Duration,
    /// Until a new letter was in a mailbox of this host.
    pub new_message_delivered_after: Duration,
    /// From the command of an operator until the queue was empty.
    pub queue_emptied_after: Duration,
    /// The most memory that the process had at a time, in octets.
    pub memory_peak_octets: usize,
}

impl BacklogTest<'_> {
    /// Makes the queue long, kills the server, and sees what it does next.
    ///
    /// # Errors
    /// What was lost, or too slow, or took too much memory; or why it could not be tried.
    pub fn run(&self) -> Result<BacklogTestResult, TortureError> {
        let cannot =
            |e: std::io::Error| TortureError::RemoveFolder(format!("{}: {e}", self.setup.dir.display()));
        let hosts = NextHops::closed(HOST_COUNT).map_err(cannot)?;
        let mut server = self.set_up_server(&hosts).map_err(cannot)?;
        server.start()?;
        let to = (0..HOST_COUNT).map(|host| format!("away-{host}@here.example")).collect();
        let load = LoadGenerator::with_recipients(
            server.smtp_address,
            to,
            MessageSizes::Small,
            self.waiting_messages,
        );
        load.send_all(CLIENT_COUNT)?;
        server.kill();
        server.write_config(&self.queue_config("")).map_err(cannot)?;

        let began = SystemClock.now();
        let greets = server.start()?;
        let (delivers, tries) = self.await_recovery(&server, began)?;
        let leaves = self.await_empty_queue(&server, &hosts)?;
        check_deliveries(&load.accepted(), hosts.accepted())?;
        let unknown = "this host does not say how much memory a process has";
        let memory = server.memory_peak().ok_or_else(|| TortureError::RemoveFolder(unknown.to_owned()))?;
        let recovery = BacklogTestResult {
            waiting_messages: self.waiting_messages,
            greeting_after: greets,
            all_destinations_tried_after: tries,
            new_message_delivered_after: delivers,
            queue_emptied_after: leaves,
            memory_peak_octets: memory,
        };
        recovery.check_limits().map(|()| recovery).map_err(TortureError::RemoveFolder)
    }

    fn set_up_server(&self, hosts: &NextHops) -> std::io::Result<TortureServer> {
        let mut aliases = String::new();
        for (host, port) in hosts.ports.iter().enumerate() {
            let _ = writeln!(aliases, "away-{host}: box@there-{host}.example via 127.0.0.1:{port}");
        }
        // Before the blow, mail that was tried is due again a second later, and so it is overdue after
        // it, as after an outage. With the usual minute, of a few messages all would have been tried
        // before the blow, and none would be due within `SOON` of the start.
        TortureServer::set_up(&self.setup, &aliases, &self.queue_config("retry = [\"1s\"]\n"))
    }

    /// The section of the queue in postrider.toml.
    fn queue_config(&self, more: &str) -> String {
        // One more: the new letter.
        format!("[queue]\nmessages-max = {}\n{more}", self.waiting_messages + 1)
    }

    /// Hands in a new letter, and waits until it is delivered and every host was tried.
    fn await_recovery(&self, server: &TortureServer, began: Moment) -> Result<(Duration, Duration), String> {
        let new = LoadGenerator::with_recipients(
            server.smtp_address,
            vec!["ana@here.example".to_owned()],
            MessageSizes::Small,
            1,
        );
        new.send_all(1)?;
        let (mut delivers, mut tries) = (None, None);
        loop {
            let took = SystemClock.now().since(began);
            let waiting = server.metric("postrider_queue_messages")?;
            if waiting < self.waiting_messages {
                return Err(format!("{waiting} of {} messages are in the queue", self.waiting_messages));
            }
            if delivers.is_none() && !server.delivered_numbers().map_err(|e| e.to_string())?.is_empty() {
                delivers = Some(took);
            }
            let attempts = server.metric("postrider_queue_attempts_total{courier=\"smtp\"}")?;
            if tries.is_none() && attempts >= self.waiting_messages.min(HOST_COUNT) {
                tries = Some(took);
            }
            if let (Some(delivers), Some(tries), true) = (delivers, tries, waiting == self.waiting_messages) {
                return Ok((delivers, tries));
            }
            if took > WAIT_MAX {
                return Err(format!(
                    "after {} s {attempts} attempts for mail that waits were made, and a new letter is {}",
                    took.as_secs(),
                    if delivers.is_some() { "delivered" } else { "not delivered" }
                ));
            }
            pause(POLL_INTERVAL);
        }
    }

    /// The hosts answer, and the queue becomes empty.
    fn await_empty_queue(&self, server: &TortureServer, hosts: &NextHops) -> Result<Duration, String> {
        hosts.start_listening().map_err(|e| e.to_string())?;
        let began = SystemClock.now();
        server.run_subcommand(&["queue", "retry", "all"])?;
        let (mut least, mut since) = (self.waiting_messages, began);
        loop {
            let waiting = server.metric("postrider_queue_messages")?;
            let now = SystemClock.now();
            if waiting == 0 {
                return Ok(now.since(began));
            }
            if waiting < least {
                (least, since) = (waiting, now);
            }
            if now.since(since) > NO_PROGRESS_MAX {
                return Err(format!("{waiting} messages do not leave"));
            }
            pause(10 * POLL_INTERVAL);
        }
    }
}

/// Every promised message arrived, and only once.
fn check_deliveries(promised: &BTreeSet<usize>, taken: Vec<usize>) -> Result<(), String> {
    let arrivals = taken.len();
    let taken: BTreeSet<_> = taken.into_iter().collect();
    let lost = promised.difference(&taken).count();
    if lost > 0 {
        return Err(format!("{lost} of {} promised messages are lost", promised.len()));
    }
    match arrivals - taken.len() {
        0 => Ok(()),
        twice => Err(format!("{twice} messages were delivered twice, though none was under way")),
    }
}

impl BacklogTestResult {
    fn check_limits(&self) -> Result<(), String> {
        let (waiting, memory_max) =
            (self.waiting_messages, MEMORY_BASE_OCTETS + MEMORY_PER_MESSAGE_OCTETS * self.waiting_messages);
        for (what, took) in [
            ("greets", self.greeting_after),
            ("tries every destination", self.all_destinations_tried_after),
            ("delivers a new letter", self.new_message_delivered_after),
        ] {
            if took > RECOVERY_TIME_MAX {
                return Err(format!(
                    "with {waiting} messages that wait it {what} after {} s only",
                    took.as_secs()
                ));
            }
        }
        if self.memory_peak_octets > memory_max {
            return Err(format!(
                "with {waiting} messages that wait it took {} KiB of memory; {} KiB would be enough",
                self.memory_peak_octets / 1024,
                memory_max / 1024
            ));
        }
        Ok(())
    }
}
