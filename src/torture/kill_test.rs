//! Kills the real program with SIGKILL, at random moments under load.
//!
//! The server runs in a directory of its own, accepts mail on loopback and delivers to a Maildir in that
//! directory. Clients send numbered messages and record each 250. In the end every accepted message must be in
//! the Maildir, complete. A message that was being delivered at a kill may be there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::load_generator::LoadGenerator;
use super::test_server::{POLL_INTERVAL, TortureServer, TortureSetup, WAIT_MAX, pause};
use super::torture_error::TortureError;
use crate::sys::{Clock as _, Random as _, SystemClock, SystemRandom};

/// Clients that send at the same time.
const CLIENT_COUNT: usize = 6;
/// A round lasts at least this long, and a random time up to [`KILL_DELAY_RANDOM_MAX`] more.
const KILL_DELAY_MIN: Duration = Duration::from_millis(15);
const KILL_DELAY_RANDOM_MAX: Duration = Duration::from_millis(400);

/// The settings of the test.
#[derive(Debug, Clone, Copy)]
pub struct KillTest<'a> {
    /// The program and the directory.
    pub setup: TortureSetup<'a>,
    /// How often the program is killed.
    pub rounds: usize,
}

/// The result of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillTestResult {
    /// Messages that were accepted with 250.
    pub accepted: usize,
    /// Messages that were delivered more than once.
    pub delivered_twice: usize,
    /// How often the program was killed.
    pub rounds: usize,
}

impl KillTest<'_> {
    /// Runs the test.
    ///
    /// # Errors
    /// What was lost, or why the test could not run.
    pub fn run(&self) -> Result<KillTestResult, TortureError> {
        let mut server = TortureServer::set_up(&self.setup, "", "")
            .map_err(|e| TortureError::RemoveFolder(format!("{}: {e}", self.setup.dir.display())))?;
        server.start()?;
        let load = LoadGenerator::new(server.smtp_address, "ana@here.example");
        for _ in 0..self.rounds {
            let before = load.accepted().len();
            let clients = load.start_clients(CLIENT_COUNT).map_err(|e| e.to_string())?;
            let give_up = SystemClock.now() + WAIT_MAX;
            while load.accepted().len() == before && SystemClock.now() < give_up {
                pause(POLL_INTERVAL);
            }
            let within = u64::try_from(KILL_DELAY_RANDOM_MAX.as_millis()).unwrap_or(1);
            pause(KILL_DELAY_MIN + Duration::from_millis(SystemRandom.below(within)));
            server.kill();
            load.stop_clients(clients);
            server.start()?;
        }
        Ok(self.await_deliveries(&load.accepted(), &server)?)
    }

    /// Waits until every accepted message is in the Maildir.
    fn await_deliveries(
        &self,
        accepted: &BTreeSet<usize>,
        server: &TortureServer,
    ) -> Result<KillTestResult, String> {
        let give_up = SystemClock.now() + WAIT_MAX;
        loop {
            let mut arrived: BTreeMap<usize, usize> = BTreeMap::new();
            for number in server.delivered_numbers().map_err(|e| e.to_string())? {
                *arrived.entry(number).or_default() += 1;
            }
            let lost = accepted.iter().filter(|number| !arrived.contains_key(number)).count();
            if lost == 0 {
                let twice = arrived.values().filter(|count| **count > 1).count();
                return Ok(KillTestResult {
                    accepted: accepted.len(),
                    delivered_twice: twice,
                    rounds: self.rounds,
                });
            }
            if SystemClock.now() > give_up {
                return Err(format!("{lost} of {} accepted messages are lost", accepted.len()));
            }
            pause(50 * POLL_INTERVAL);
        }
    }
}
