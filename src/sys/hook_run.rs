//! Runs a hook: a program of the operator that answers by its exit status and its output.
//!
//! Standard error goes to the log.

use std::io::{self, Read};
use std::path::Path;

use super::hook_file::is_hook_present;
use super::process::{Program, ProgramExit};
use crate::mail::printable;

/// Lines of standard error that are logged of one run.
const LOGGED_LINES_MAX: usize = 20;
/// Octets of such a line that are logged.
const LOGGED_LINE_OCTETS_MAX: usize = 400;

/// How a run of a hook ended.
#[derive(Debug)]
pub enum HookExit {
    /// There is no such hook.
    NotInstalled,
    /// The file is there, but it cannot be run: file, problem and remedy in a sentence.
    NotUsable(String),
    /// The hook has ended by itself.
    Exited {
        /// 0 to 255.
        code: i32,
        /// Its standard output, cut off at the limit of the program.
        output: Vec<u8>,
    },
    /// The server stops: the hook was ended or not started.
    Stopped,
    /// The input of the hook could not be read.
    InputFailed(io::Error),
    /// The hook has given no answer: what happened to it, such as `was killed by signal 9`.
    Failed(String),
}

/// Runs the hook `program`, whose `name` stands in the log, with `input` as its standard input.
pub fn run_hook(name: &str, program: &Program<'_>, input: &mut dyn Read) -> HookExit {
    match is_hook_present(Path::new(program.executable)) {
        Ok(false) => return HookExit::NotInstalled,
        Ok(true) => {}
        Err(complaint) => return HookExit::NotUsable(complaint),
    }
    let (exit, errors) = program.run_with_separate_stderr(input);
    for line in nonempty_lines(&errors).take(LOGGED_LINES_MAX) {
        log::warn!(target: "hook", "{name}: {}", printable(line, LOGGED_LINE_OCTETS_MAX));
    }
    match exit {
        ProgramExit::Exited { code, output } => HookExit::Exited { code, output },
        ProgramExit::Stopped { .. } => HookExit::Stopped,
        ProgramExit::InputFailed(e) => HookExit::InputFailed(e),
        ProgramExit::Killed { signal, .. } => HookExit::Failed(format!("was killed by signal {signal}")),
        ProgramExit::DeadlinePassed { .. } => {
            let seconds = program.time_max.as_secs_f32();
            HookExit::Failed(format!("took longer than {seconds} s and was ended"))
        }
        ProgramExit::NotStarted(e) => HookExit::Failed(format!("cannot be run: {e}")),
        ProgramExit::WaitFailed(e) => HookExit::Failed(format!("has ended, but how is not known: {e}")),
    }
}

/// Lines that hold anything, without white space around them.
pub fn nonempty_lines(octets: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    octets.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}
