//! `kill -9` of the real program, at random moments under load, on a real disk.
//!
//! The server runs in a folder of its own, takes mail on loopback and delivers to a Maildir there.
//! Clients hand in messages that can be told apart, and note each 250. In the end every one of those
//! must be in the Maildir, whole. Some are there twice: those that were being delivered at a blow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::load_generator::LoadGenerator;
use super::test_server::{POLL_INTERVAL, TortureServer, TortureSetup, WAIT_MAX, pause};
use super::torture_error::TortureError;
use crate::sys::{Clock as _, Random as _, SystemClock, SystemRandom};

/// Who hand in mail at the same time.
const CLIENT_COUNT: usize = 6;
/// A round lasts so long, and up to `BLOW_WITHIN` more.
const KILL_DELAY_MIN: Duration = Duration::from_millis(15);
const KILL_DELAY_RANDOM_MAX: Duration = Duration::from_millis(400);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct KillTest<'a> {
    /// To which program, and where.
    pub setup: TortureSetup<'a>,
    /// How often it is killed.
    pub rounds: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillTestResult {
    /// Messages answered 250.
    pub accepted: usize,
    /// Of the messages that arrived, those that did so more than once.
    pub delivered_twice: usize,
    /// Blows.
    pub rounds: usize,
}

impl KillTest<'_> {
    /// Strikes.
    ///
    /// # Errors
    /// What was lost or broken; or why it could not be tried.
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
            // A blow comes at no particular moment.
            pause(KILL_DELAY_MIN + Duration::from_millis(SystemRandom.below(within)));
            server.kill();
            load.stop_clients(clients);
            server.start()?;
        }
        Ok(self.await_deliveries(&load.accepted(), &server)?)
    }

    /// Waits until everything that was promised is there.
    fn await_deliveries(
        &self,
        promised: &BTreeSet<usize>,
        server: &TortureServer,
    ) -> Result<KillTestResult, String> {
        let give_up = SystemClock.now() + WAIT_MAX;
        loop {
            let mut arrived: BTreeMap<usize, usize> = BTreeMap::new();
            for number in server.delivered_numbers().map_err(|e| e.to_string())? {
                *arrived.entry(number).or_default() += 1;
            }
            let lost = promised.iter().filter(|number| !arrived.contains_key(number)).count();
            if lost == 0 {
                let twice = arrived.values().filter(|count| **count > 1).count();
                return Ok(KillTestResult {
                    accepted: promised.len(),
                    delivered_twice: twice,
                    rounds: self.rounds,
                });
            }
            if SystemClock.now() > give_up {
                return Err(format!("{lost} of {} promised messages are lost", promised.len()));
            }
            pause(50 * POLL_INTERVAL);
        }
    }
}
