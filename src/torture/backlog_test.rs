//! A long queue: the real program is killed while many messages wait for hosts that refuse connections, and
//! must work at full speed soon after its restart.
//!
//! Measured from the start of the new process: until it greets a client; until it has tried every destination
//! again; until a new message to a local mailbox, sent right after the greeting, is delivered. Then the hosts
//! accept connections, the test runs `queue retry all`, and every message must arrive exactly once, because none
//! was under way at the kill. The peak of the memory counts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::load_generator::LoadGenerator;
use super::load_message::MessageSizes;
use super::next_hops::NextHops;
use super::test_server::{POLL_INTERVAL, TortureServer, TortureSetup, WAIT_MAX, pause};
use super::torture_error::TortureError;
use crate::sys::{Clock as _, Moment, SystemClock};

/// Clients that send at the same time.
const CLIENT_COUNT: usize = 8;
/// Hosts that refuse connections; the messages are for each of them in turn.
const HOST_COUNT: usize = 50;
/// Longest time for each of the three measurements after the start.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time without a delivery once the hosts accept connections.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(30);
/// Memory that an idle server may use, in octets.
const MEMORY_BASE_OCTETS: usize = 40 * 1024 * 1024;
/// Memory that each waiting message may add, in octets.
const MEMORY_PER_MESSAGE_OCTETS: usize = 1024;

/// The settings of the test.
#[derive(Debug, Clone, Copy)]
pub struct BacklogTest<'a> {
    /// The program and the directory.
    pub setup: TortureSetup<'a>,
    /// How many messages wait.
    pub waiting_messages: usize,
}

/// The result of the test. Times are from the start of the process, except the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogTestResult {
    /// How many messages waited; all of them arrived once.
    pub waiting_messages: usize,
    /// Time until a client was greeted.
    pub greeting_after: Duration,
    /// Time until every destination was tried again.
    pub all_destinations_tried_after: Duration,
    /// Time until a new message was in a local mailbox.
    pub new_message_delivered_after: Duration,
    /// Time from `queue retry all` until the queue was empty.
    pub queue_emptied_after: Duration,
    /// The peak of the memory of the process, in octets.
    pub memory_peak_octets: usize,
}

impl BacklogTest<'_> {
    /// Fills the queue, kills the server, and measures the restart.
    ///
    /// # Errors
    /// What was lost, too slow, or used too much memory; or why the test could not run.
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
        let greeting_after = server.start()?;
        let (delivered_after, tried_after) = self.await_recovery(&server, began)?;
        let emptied_after = self.await_empty_queue(&server, &hosts)?;
        check_deliveries(&load.accepted(), hosts.accepted())?;
        let unknown = "this host does not say how much memory a process has";
        let memory = server.memory_peak().ok_or_else(|| TortureError::RemoveFolder(unknown.to_owned()))?;
        let recovery = BacklogTestResult {
            waiting_messages: self.waiting_messages,
            greeting_after,
            all_destinations_tried_after: tried_after,
            new_message_delivered_after: delivered_after,
            queue_emptied_after: emptied_after,
            memory_peak_octets: memory,
        };
        recovery.check_limits().map(|()| recovery).map_err(TortureError::RemoveFolder)
    }

    fn set_up_server(&self, hosts: &NextHops) -> std::io::Result<TortureServer> {
        let mut aliases = String::new();
        for (host, port) in hosts.ports.iter().enumerate() {
            let _ = writeln!(aliases, "away-{host}: box@there-{host}.example via 127.0.0.1:{port}");
        }
        // Before the kill, a message that was tried is due again after a second, so that all messages are
        // overdue after it, as after an outage. With the usual minute, all of a few messages would have been
        // tried before the kill, and none would be due soon after the start.
        TortureServer::set_up(&self.setup, &aliases, &self.queue_config("retry = [\"1s\"]\n"))
    }

    /// The section of the queue in postrider.toml.
    fn queue_config(&self, more: &str) -> String {
        // One more, for the new message.
        format!("[queue]\nmessages-max = {}\n{more}", self.waiting_messages + 1)
    }

    /// Sends a new message, and waits until it is delivered and every host was tried.
    fn await_recovery(&self, server: &TortureServer, began: Moment) -> Result<(Duration, Duration), String> {
        let new = LoadGenerator::with_recipients(
            server.smtp_address,
            vec!["ana@here.example".to_owned()],
            MessageSizes::Small,
            1,
        );
        new.send_all(1)?;
        let (mut delivered_after, mut tried_after) = (None, None);
        loop {
            let took = SystemClock.now().since(began);
            let waiting = server.metric("postrider_queue_messages")?;
            if waiting < self.waiting_messages {
                return Err(format!("{waiting} of {} messages are in the queue", self.waiting_messages));
            }
            if delivered_after.is_none() && !server.delivered_numbers().map_err(|e| e.to_string())?.is_empty()
            {
                delivered_after = Some(took);
            }
            let attempts = server.metric("postrider_queue_attempts_total{courier=\"smtp\"}")?;
            if tried_after.is_none() && attempts >= self.waiting_messages.min(HOST_COUNT) {
                tried_after = Some(took);
            }
            if let (Some(delivered), Some(tried), true) =
                (delivered_after, tried_after, waiting == self.waiting_messages)
            {
                return Ok((delivered, tried));
            }
            if took > WAIT_MAX {
                return Err(format!(
                    "after {} s {attempts} attempts for mail that waits were made, and a new message is {}",
                    took.as_secs(),
                    if delivered_after.is_some() { "delivered" } else { "not delivered" }
                ));
            }
            pause(POLL_INTERVAL);
        }
    }

    /// Lets the hosts accept connections, and waits until the queue is empty.
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
                return Err(format!("{waiting} messages are not delivered"));
            }
            pause(10 * POLL_INTERVAL);
        }
    }
}

/// Checks that every accepted message arrived, and only once.
fn check_deliveries(accepted: &BTreeSet<usize>, received: Vec<usize>) -> Result<(), String> {
    let arrivals = received.len();
    let received: BTreeSet<_> = received.into_iter().collect();
    let lost = accepted.difference(&received).count();
    if lost > 0 {
        return Err(format!("{lost} of {} accepted messages are lost", accepted.len()));
    }
    match arrivals - received.len() {
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
            ("delivers a new message", self.new_message_delivered_after),
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
