//! Programs that alias files name.
//!
//! The program belongs to the owner of the alias. Every failure of the program is permanent, so that a
//! mistake in an alias is reported at once and not after days; the operator may choose that exit status
//! 75 asks for another attempt. A failure of the host, such as a lack of processes, is transient.
//!
//! The command is run as it is written, without placeholders. Addresses are in the environment, see
//! the module `program`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use super::final_delivery::LineEnds;
use super::program::{Exit75, ProgramRun, RetryRule};
use crate::mail::{Destination, Failure, Recipient};

/// How programs of aliases are run.
#[derive(Debug, Clone)]
pub struct PipeSettings {
    /// Time for one run.
    pub deadline: Duration,
    /// The meaning of exit status 75.
    pub exit_75: Exit75,
    /// The working directory.
    pub directory: PathBuf,
}

impl PipeSettings {
    /// The run for one recipient.
    ///
    /// # Errors
    /// The recipient has no program.
    pub(super) fn program_run<'a>(&'a self, recipient: &'a Recipient) -> Result<ProgramRun<'a>, Failure> {
        let command = match &recipient.destination {
            Destination::Program { command, .. } => command.split_first(),
            Destination::Mailbox(_) | Destination::Via { .. } => None,
        };
        let Some((program, arguments)) = command else {
            return Err(Failure::transient(3, 5, "no program was routed to the courier for programs"));
        };
        Ok(ProgramRun {
            program,
            arguments: Cow::Borrowed(arguments),
            directory: &self.directory,
            line_ends: LineEnds::Lf,
            time_limit: self.deadline,
            retry_rule: RetryRule::AliasProgram(self.exit_75),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::courier::ProgramCourier;
    use crate::courier::test_delivery::TestDelivery;
    use crate::mail::{Mailbox, Outcome};
    use crate::sys::{StopFlag, SystemClock};

    fn outcome(command: &[&str], exit_75: Exit75) -> Outcome {
        let settings = PipeSettings { deadline: Duration::from_secs(1), exit_75, directory: "/".into() };
        let mut delivery = TestDelivery::new("o'brien@there.example", &["list@here.example"]);
        delivery.recipients[0].destination = Destination::Program {
            command: command.iter().map(ToString::to_string).collect(),
            alias_address: Mailbox::parse("owner@here.example").unwrap(),
        };
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let stop = Arc::new(StopFlag::new().unwrap());
        delivery.attempt(&ProgramCourier::pipe(settings, Arc::new(SystemClock), stop)).remove(0)
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
    fn exit_status_75_is_transient_if_the_operator_says_so() {
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
