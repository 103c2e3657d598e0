//! `kill -9` of the real program, at random moments under load, on a real disk.
//!
//! The server runs in a folder of its own, takes mail on loopback and delivers to a Maildir there.
//! Clients hand in messages that can be told apart, and note each 250. In the end every one of those
//! must be in the Maildir, whole. Some are there twice: those that were being delivered at a blow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::load::Load;
use super::server::{LOOK, PATIENCE, Server, Trial, pause};
use super::trial_error::TrialError;
use crate::sys::{Clock as _, Random as _, SystemClock, SystemRandom};

/// Who hand in mail at the same time.
const CLIENTS: usize = 6;
/// A round lasts so long, and up to `BLOW_WITHIN` more.
const BLOW_AFTER: Duration = Duration::from_millis(15);
const BLOW_WITHIN: Duration = Duration::from_millis(400);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Blows<'a> {
    /// To which program, and where.
    pub trial: Trial<'a>,
    /// How often it is killed.
    pub rounds: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Messages answered 250.
    pub promised: usize,
    /// Of the messages that arrived, those that did so more than once.
    pub twice: usize,
    /// Blows.
    pub rounds: usize,
}

impl Blows<'_> {
    /// Strikes.
    ///
    /// # Errors
    /// What was lost or broken; or why it could not be tried.
    pub fn strike(&self) -> Result<Tally, TrialError> {
        let mut server = Server::set_up(&self.trial, "", "")
            .map_err(|e| TrialError::Explained(format!("{}: {e}", self.trial.dir.display())))?;
        server.start()?;
        let load = Load::new(server.address, "ana@here.example");
        for _ in 0..self.rounds {
            let before = load.promised().len();
            let clients = load.begin(CLIENTS).map_err(|e| e.to_string())?;
            let give_up = SystemClock.now() + PATIENCE;
            while load.promised().len() == before && SystemClock.now() < give_up {
                pause(LOOK);
            }
            let within = u64::try_from(BLOW_WITHIN.as_millis()).unwrap_or(1);
            // A blow comes at no particular moment.
            pause(BLOW_AFTER + Duration::from_millis(SystemRandom.below(within)));
            server.kill();
            load.end(clients);
            server.start()?;
        }
        Ok(self.tally(&load.promised(), &server)?)
    }

    /// Waits until everything that was promised is there.
    fn tally(&self, promised: &BTreeSet<usize>, server: &Server) -> Result<Tally, String> {
        let give_up = SystemClock.now() + PATIENCE;
        loop {
            let mut arrived: BTreeMap<usize, usize> = BTreeMap::new();
            for number in server.arrived().map_err(|e| e.to_string())? {
                *arrived.entry(number).or_default() += 1;
            }
            let lost = promised.iter().filter(|number| !arrived.contains_key(number)).count();
            if lost == 0 {
                let twice = arrived.values().filter(|count| **count > 1).count();
                return Ok(Tally { promised: promised.len(), twice, rounds: self.rounds });
            }
            if SystemClock.now() > give_up {
                return Err(format!("{lost} of {} promised messages are lost", promised.len()));
            }
            pause(50 * LOOK);
        }
    }
}
