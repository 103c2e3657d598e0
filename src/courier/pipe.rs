//! To a program that an alias file names.
//!
//! The program belongs to whoever owns the alias, and its failures are its own: any of them is
//! permanent, so that a mistake in an alias is reported at once and not after days. The operator
//! may choose that exit status 75 asks for another try. What the program cannot help, such as a
//! host without a free process, is transient all the same.
//!
//! The command stands as it was written: nothing is filled in. Addresses are in the environment,
//! see the module `program`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::contract::{Courier, Delivery};
use super::final_delivery::LineEnds;
use super::program::{EXIT_TEMPFAIL, ProgramRun, RunError, trace_outcome};
use crate::mail::{Destination, Failure, Outcome, Reason, Recipient};
use crate::sys::{Clock, StopFlag};

/// How programs of aliases are run.
#[derive(Debug, Clone)]
pub struct PipeSettings {
    /// Time a program has.
    pub deadline: Duration,
    /// What its exit status 75 means.
    pub exit_75: Exit75,
    /// Where it runs.
    pub directory: PathBuf,
}

/// What exit status 75 of a program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit75 {
    /// A failure like any other.
    Permanent,
    /// Try again.
    Transient,
}

/// Delivers to programs.
pub struct PipeCourier {
    settings: PipeSettings,
    clock: Arc<dyn Clock>,
    stop: Arc<StopFlag>,
}

impl PipeCourier {
    /// A courier that runs what recipients name, until it is time to `stop`.
    #[must_use]
    pub fn new(settings: PipeSettings, clock: Arc<dyn Clock>, stop: Arc<StopFlag>) -> Self {
        Self { settings, clock, stop }
    }

    fn deliver(&self, delivery: &Delivery<'_>, recipient: &Recipient) -> Result<Reason, Failure> {
        let command = match &recipient.destination {
            Destination::Program { command, .. } => command.split_first(),
            Destination::Mailbox(_) | Destination::Via { .. } => None,
        };
        let Some((program, arguments)) = command else {
            return Err(Failure::transient(3, 5, "no program was routed to the courier for programs"));
        };
        let run = ProgramRun {
            program,
            arguments,
            directory: &self.settings.directory,
            line_ends: LineEnds::Lf,
            time_limit: self.settings.deadline,
            stop: &self.stop,
        };
        run.run(&*self.clock, delivery, recipient).map_err(|trouble| match (trouble, self.settings.exit_75) {
            (RunError::Exited(EXIT_TEMPFAIL, reason), Exit75::Transient)
            | (RunError::LocalFailure(reason), _) => Failure::Transient(reason),
            (RunError::Exited(_, reason) | RunError::Killed(reason) | RunError::NotStarted(reason), _) => {
                Failure::Permanent(reason)
            }
        })
    }
}

impl Courier for PipeCourier {
    fn name(&self) -> &'static str {
        "pipe"
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let carry =
            |recipient: &&Recipient| trace_outcome(delivery, recipient, self.deliver(delivery, recipient));
        delivery.recipients.iter().map(carry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::test_delivery::TestDelivery;
    use crate::mail::Mailbox;
    use crate::sys::SystemClock;

    fn outcome(command: &[&str], exit_75: Exit75) -> Outcome {
        let settings = PipeSettings { deadline: Duration::from_secs(1), exit_75, directory: "/".into() };
        let mut trial = TestDelivery::new("o'brien@there.example", &["list@here.example"]);
        trial.recipients[0].destination = Destination::Program {
            command: command.iter().map(ToString::to_string).collect(),
            alias_address: Mailbox::parse("owner@here.example").unwrap(),
        };
        trial
            .attempt(&PipeCourier::new(settings, Arc::new(SystemClock), Arc::new(StopFlag::new().unwrap())))
            .remove(0)
    }

    #[test]
    fn any_failure_of_the_program_is_permanent() {
        for (command, status) in [
            (&["true"][..], "2.0.0"),
            (&["false"], "5.3.0"),
            (&["sh", "-c", "exit 75"], "5.3.0"),
            (&["sh", "-c", "kill -9 $$"], "5.3.0"),
            (&["sleep", "60"], "5.3.0"),
            (&["/no/such/program"], "5.3.5"),
        ] {
            let outcome = outcome(command, Exit75::Permanent);
            assert_eq!(outcome.status(), status, "{command:?}: {outcome}");
        }
    }

    #[test]
    fn exit_75_is_transient_if_the_operator_says_so() {
        assert_eq!(outcome(&["sh", "-c", "exit 75"], Exit75::Transient).status(), "4.3.0");
        assert_eq!(outcome(&["sh", "-c", "exit 74"], Exit75::Transient).status(), "5.3.0");
    }

    #[test]
    fn addresses_are_in_the_environment_and_nothing_is_filled_in() {
        let script = "echo \"$SENDER $RECIPIENT $ORIGINAL_RECIPIENT $1\"; cat";
        let outcome = outcome(&["sh", "-c", script, "sh", "%to%"], Exit75::Permanent);
        assert_eq!(
            outcome.reason().response.as_ref().unwrap().text,
            "o'brien@there.example owner@here.example list@here.example %to% \
             Return-Path: <o'brien@there.example> Delivered-To: owner@here.example Subject: hello Dear Bo"
        );
    }
}
