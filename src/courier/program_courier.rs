//! To a program: the operator's delivery agent, or the program that an alias names.
//!
//! The two differ in what is run and in which failures are tried again; `command` and `pipe` say so.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::command::CommandSettings;
use super::contract::{Courier, CourierProfile, Delivery};
use super::pipe::PipeSettings;
use super::program::ProgramRun;
use crate::mail::{Failure, Outcome, Reason, Recipient};
use crate::sys::{Clock, StopFlag};

/// Delivers by running a program for each recipient.
pub struct ProgramCourier {
    source: ProgramSource,
    clock: Arc<dyn Clock>,
    stop: Arc<StopFlag>,
}

/// Where the program comes from.
enum ProgramSource {
    Command(Arc<ArcSwap<CommandSettings>>),
    Pipe(Arc<ArcSwap<PipeSettings>>),
}

impl ProgramCourier {
    /// A courier that runs the operator's delivery agent, until it is time to `stop`. Each attempt
    /// reads the settings once.
    #[must_use]
    pub fn command(
        settings: Arc<ArcSwap<CommandSettings>>,
        clock: Arc<dyn Clock>,
        stop: Arc<StopFlag>,
    ) -> Self {
        Self { source: ProgramSource::Command(settings), clock, stop }
    }

    /// A courier that runs the programs that recipients' aliases name, until it is time to `stop`. Each
    /// attempt reads the settings once.
    #[must_use]
    pub fn pipe(settings: Arc<ArcSwap<PipeSettings>>, clock: Arc<dyn Clock>, stop: Arc<StopFlag>) -> Self {
        Self { source: ProgramSource::Pipe(settings), clock, stop }
    }

    fn run(
        &self,
        delivery: &Delivery<'_>,
        recipient: &Recipient,
        program: Result<ProgramRun<'_>, Failure>,
    ) -> Outcome {
        let result: Result<Reason, Failure> =
            program.and_then(|program| program.run(&*self.clock, &self.stop, delivery, recipient));
        match result {
            Ok(reason) => {
                delivery.trace.add_event(format!("{recipient}: {reason}"));
                Outcome::Delivered(reason)
            }
            Err(failure) => {
                delivery.trace.add_error(format!("{recipient}: {failure}"));
                failure.into()
            }
        }
    }
}

impl Courier for ProgramCourier {
    fn name(&self) -> &'static str {
        match &self.source {
            ProgramSource::Command(_) => "command",
            ProgramSource::Pipe(_) => "pipe",
        }
    }

    fn profile(&self) -> CourierProfile {
        match &self.source {
            ProgramSource::Command(_) => CourierProfile::MAILBOXES,
            ProgramSource::Pipe(_) => CourierProfile::PROGRAMS,
        }
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let recipients = delivery.recipients.iter();
        match &self.source {
            ProgramSource::Command(settings) => {
                let settings = settings.load_full();
                let run = |one: &&Recipient| self.run(delivery, one, settings.program_run(delivery, one));
                recipients.map(run).collect()
            }
            ProgramSource::Pipe(settings) => {
                let settings = settings.load_full();
                recipients.map(|one| self.run(delivery, one, settings.program_run(one))).collect()
            }
        }
    }
}
