//! One run of a program that takes a message on standard input, for one recipient.
//!
//! The program gets the message with Return-Path and Delivered-To on top, and this environment and no
//! other: `PATH`, `LANG=C.UTF-8`; `HOME`, `USER`, `LOGNAME` and `SHELL` as postrider has them; `SENDER`
//! (the reverse-path, empty if null), `RECIPIENT` (the mailbox) and `ORIGINAL_RECIPIENT` (the forward-path
//! before aliases). A program that runs when the server stops may finish within the time for work under
//! way; then it is ended, and the delivery is tried again. Its output is kept for the log and the bounce.
//!
//! Called by `program_courier`. Standards: sysexits.h, RFC 3463.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::contract::Delivery;
use super::final_delivery::{self, LineEnds};
use crate::mail::{Failure, Reason, Recipient, printable};
use crate::sys::{Clock, OnStop, PROGRAM_SEARCH_PATH, Program, ProgramExit, StopFlag};

/// Octets kept of a program's output.
const OUTPUT_OCTETS_MAX: usize = 8 * 1024;
/// Variables of the user that postrider runs as, which a program gets.
const INHERITED_VARIABLES: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL"];

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be tried again.
const EXIT_TEMPFAIL: i32 = 75;

/// A program to run for one recipient.
pub(super) struct ProgramRun<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: Cow<'a, [String]>,
    /// The working directory.
    pub(super) directory: &'a Path,
    pub(super) line_ends: LineEnds,
    /// Time that the operator allows; the attempt's deadline may allow less.
    pub(super) time_limit: Duration,
    pub(super) retry_rule: RetryRule,
}

/// Which failures of a program are tried again. Failures of this host, such as a lack of memory, always
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryRule {
    /// The operator's own program: exit status 75, and a program that is missing, killed or too slow,
    /// because the operator can mend that.
    OperatorProgram,
    /// The program of an alias's owner: none, or exit status 75 only.
    AliasProgram(Exit75),
}

/// What exit status 75 of an alias's program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit75 {
    /// A failure like any other.
    Permanent,
    /// Try again.
    Transient,
}

impl RetryRule {
    fn failure(self, error: RunError) -> Failure {
        match (error, self) {
            (RunError::LocalFailure(reason), _)
            | (
                RunError::Exited(EXIT_TEMPFAIL, reason),
                Self::OperatorProgram | Self::AliasProgram(Exit75::Transient),
            )
            | (RunError::Killed(reason) | RunError::NotStarted(reason), Self::OperatorProgram) => {
                Failure::Transient(reason)
            }
            (RunError::Exited(_, reason), _)
            | (RunError::Killed(reason) | RunError::NotStarted(reason), Self::AliasProgram(_)) => {
                Failure::Permanent(reason)
            }
        }
    }
}

/// How a run ended that did not succeed.
enum RunError {
    /// The program exited with this status, not 0.
    Exited(i32, Reason),
    /// A signal ended the program, or the program took longer than the operator allows.
    Killed(Reason),
    /// The program is missing, or may not be run.
    NotStarted(Reason),
    /// The host or the message is the cause, not the program.
    LocalFailure(Reason),
}

impl ProgramRun<'_> {
    /// Runs the program for `recipient`, until it is time to `stop`.
    pub(super) fn run(
        &self,
        clock: &dyn Clock,
        stop: &StopFlag,
        delivery: &Delivery<'_>,
        recipient: &Recipient,
    ) -> Result<Reason, Failure> {
        self.try_run(clock, stop, delivery, recipient).map_err(|error| self.retry_rule.failure(error))
    }

    fn try_run(
        &self,
        clock: &dyn Clock,
        stop: &StopFlag,
        delivery: &Delivery<'_>,
        recipient: &Recipient,
    ) -> Result<Reason, RunError> {
        // The program must have ended by the attempt's deadline.
        let left = delivery.deadline.since(clock.now()).saturating_sub(Program::KILL_GRACE);
        if left.is_zero() {
            return Err(RunError::LocalFailure(Reason::new(
                3,
                0,
                "there was no time left for this recipient",
            )));
        }
        let mut message = final_delivery::open(delivery, recipient.final_mailbox(), self.line_ends)
            .map_err(|error| RunError::LocalFailure(message_unreadable(&error)))?;
        delivery.trace.add_event(format!("running {}", self.printable_command()));
        let ended = Program {
            executable: self.program,
            arguments: &self.arguments,
            environment: &environment(delivery, recipient),
            working_directory: self.directory,
            time_max: self.time_limit.min(left),
            output_octets_max: OUTPUT_OCTETS_MAX,
            stop,
            on_stop: OnStop::FinishByDeadline,
        }
        .run(&mut *message);
        self.classify(ended, left)
    }

    fn classify(&self, ended: ProgramExit, left: Duration) -> Result<Reason, RunError> {
        let name = printable(self.program.as_bytes(), 300);
        match ended {
            ProgramExit::Exited { code: 0, output } => {
                Ok(with_output(Reason::new(0, 0, format!("taken by {name}")), &output))
            }
            ProgramExit::Exited { code, output } => {
                let (subject, detail) = exit_status_code(code);
                let reason = Reason::new(subject, detail, format!("{name} ended with exit status {code}"));
                Err(RunError::Exited(code, with_output(reason, &output)))
            }
            ProgramExit::Killed { signal, output } => {
                let reason = Reason::new(3, 0, format!("{name} was killed by signal {signal}"));
                Err(RunError::Killed(with_output(reason, &output)))
            }
            ProgramExit::DeadlinePassed { output } => {
                let seconds = self.time_limit.min(left).as_secs();
                let reason = Reason::new(3, 0, format!("{name} took longer than {seconds} s and was ended"));
                let reason = with_output(reason, &output);
                // Before the attempt's deadline, the program had less time than the operator allows.
                Err(if left < self.time_limit {
                    RunError::LocalFailure(reason)
                } else {
                    RunError::Killed(reason)
                })
            }
            ProgramExit::Stopped { output } => {
                let reason = Reason::new(3, 2, format!("{name} was ended: the server stopped"));
                Err(RunError::LocalFailure(with_output(reason, &output)))
            }
            ProgramExit::NotStarted(error) => {
                let reason = Reason::new(3, 5, format!("{name} cannot be run: {error}"));
                Err(if is_resource_shortage(&error) {
                    RunError::LocalFailure(reason)
                } else {
                    RunError::NotStarted(reason)
                })
            }
            ProgramExit::InputFailed(error) => Err(RunError::LocalFailure(message_unreadable(&error))),
            ProgramExit::WaitFailed(error) => Err(RunError::LocalFailure(Reason::new(
                3,
                0,
                format!("how {name} ended is not known: {error}"),
            ))),
        }
    }

    /// The command on one line, for the trace.
    fn printable_command(&self) -> String {
        let words = std::iter::once(self.program).chain(self.arguments.iter().map(String::as_str));
        let words: Vec<_> = words.map(|word| printable(word.as_bytes(), 300)).collect();
        words.join(" ")
    }
}

fn environment(delivery: &Delivery<'_>, recipient: &Recipient) -> Vec<(&'static str, OsString)> {
    let sender = delivery.envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default();
    let inherited = INHERITED_VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let ours = [
        ("PATH", PROGRAM_SEARCH_PATH.into()),
        ("LANG", "C.UTF-8".into()),
        ("SENDER", sender.into()),
        ("RECIPIENT", recipient.final_mailbox().to_string().into()),
        ("ORIGINAL_RECIPIENT", recipient.forward_path.to_string().into()),
    ];
    inherited.chain(ours).collect()
}

fn message_unreadable(error: &std::io::Error) -> Reason {
    Reason::new(3, 0, format!("the message cannot be read from the spool: {error}"))
}

/// The host lacks processes, files or memory, or the program is being replaced at this moment: the
/// program is not at fault.
fn is_resource_shortage(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY))
}

/// Subject and detail (RFC 3463) of an exit status of sysexits.h, where it concerns a sender.
fn exit_status_code(code: i32) -> (u16, u16) {
    match code {
        65 => (6, 0), // EX_DATAERR: the message
        67 => (1, 1), // EX_NOUSER
        68 => (1, 2), // EX_NOHOST
        73 => (2, 0), // EX_CANTCREAT: the mailbox
        77 => (7, 1), // EX_NOPERM
        _ => (3, 0),
    }
}

/// Adds the output of a program, on one line.
fn with_output(reason: Reason, output: &[u8]) -> Reason {
    let lines = output.split(|octet| matches!(octet, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return reason;
    }
    reason.with_response("", printable(&lines.join(&b' '), OUTPUT_OCTETS_MAX))
}
