//! Runs programs: starts them without a shell, feeds standard input, collects what they print, and ends
//! them in time.
//!
//! The calling thread polls: it feeds standard input, collects the output and notices the end of the
//! program, for which a thread `program-wait` waits. The program leads a process group of its own, and after
//! its deadline the whole group is killed. A grandchild that keeps the pipes open delays nothing: the end
//! of the program itself counts.
//!
//! A program inherits only what its [`Program`] names: the environment is given in full, and every other
//! file descriptor of the server is closed when the program starts.
//!
//! **When the server stops,** a program is ended at once, or shortly before the time for running work is
//! over, as its caller chooses. No program outlives the server: [`Program::kill_all`], called before the
//! process ends, kills the programs that still run and prevents new ones. Otherwise a program that reads a
//! message would see the end of its input and take a part of the message for the whole.
//!
//! - `running_program`: one program from its start to its exit status
//! - `pipes`: what is written to a program and what is read from it
//! - `process_groups`: all programs of this process, to kill them at its end

mod pipes;
mod process_groups;
mod running_program;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use self::running_program::{RunningProgram, StderrTarget};
use super::stop_flag::{OnStop, StopFlag};

/// A program to run.
pub struct Program<'a> {
    /// A path, or a name to be found in the PATH of `environment`.
    pub executable: &'a str,
    /// Its arguments, without its name; no shell sees them.
    pub arguments: &'a [String],
    /// Its whole environment.
    pub environment: &'a [(&'static str, OsString)],
    /// Its working directory.
    pub working_directory: &'a Path,
    /// Time that the program may run. Then its process group is ended, which takes at most
    /// [`Program::KILL_GRACE`] more.
    pub time_max: Duration,
    /// Octets of its output that are kept: of standard output and standard error together, or of each if
    /// they are kept apart. The rest is read and discarded.
    pub output_octets_max: usize,
    /// Raised when the server stops.
    pub stop: &'a StopFlag,
    /// What happens to the program when the server stops.
    pub on_stop: OnStop,
}

/// How a program ended, and what it had printed.
#[derive(Debug)]
pub enum ProgramExit {
    /// The program exited.
    Exited {
        /// 0 to 255.
        code: i32,
        /// Its output, cut off at the limit.
        output: Vec<u8>,
    },
    /// A signal that the server did not send killed the program.
    Killed {
        /// Number of the signal.
        signal: i32,
        /// Its output, cut off at the limit.
        output: Vec<u8>,
    },
    /// The program ran longer than [`Program::time_max`], and the server ended it.
    DeadlinePassed {
        /// Its output, cut off at the limit.
        output: Vec<u8>,
    },
    /// The server stops: it ended the program or did not start it.
    Stopped {
        /// Its output, cut off at the limit.
        output: Vec<u8>,
    },
    /// The program does not exist, may not be run, or the host has no room for it.
    NotStarted(io::Error),
    /// The input could not be read to its end. The program was killed before it could take the part for
    /// the whole.
    InputFailed(io::Error),
    /// The operating system did not let the server wait for the program, which may have done its work.
    WaitFailed(io::Error),
}

impl Program<'_> {
    /// Time between SIGTERM and SIGKILL: how much longer than [`Program::time_max`] [`Program::run`] may take.
    pub const KILL_GRACE: Duration = Duration::from_secs(1);
    /// Longest time between SIGTERM and SIGKILL when the server stops.
    const STOP_KILL_GRACE: Duration = Duration::from_millis(250);

    /// Kills every running program with its process group, and prevents the start of others. Called when
    /// this process is about to end.
    pub fn kill_all() {
        process_groups::kill_all();
    }

    /// Runs the program with `input` as its standard input, and waits for its end.
    ///
    /// A program may end or close its standard input before it has read all of it: only its exit status
    /// counts.
    pub fn run(&self, input: &mut dyn Read) -> ProgramExit {
        match RunningProgram::start(self, StderrTarget::Stdout) {
            Ok(Some(mut running)) => running.run_to_end(input, self),
            Ok(None) => ProgramExit::Stopped { output: Vec::new() },
            Err(error) => ProgramExit::NotStarted(error),
        }
    }

    /// Runs the program like [`Program::run`], but keeps its standard error apart: the second value.
    pub fn run_with_separate_stderr(&self, input: &mut dyn Read) -> (ProgramExit, Vec<u8>) {
        match RunningProgram::start(self, StderrTarget::Separate) {
            Ok(Some(mut running)) => {
                let exit = running.run_to_end(input, self);
                (exit, running.into_separate_stderr())
            }
            Ok(None) => (ProgramExit::Stopped { output: Vec::new() }, Vec::new()),
            Err(error) => (ProgramExit::NotStarted(error), Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
