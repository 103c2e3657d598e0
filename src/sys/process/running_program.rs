//! A program from its start to its exit status.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::pipes::{CapturedOutput, InputBuffer};
use super::{Program, ProgramExit, process_groups};
use crate::sys::clock::{Clock as _, Moment, SystemClock};
use crate::sys::stop_flag::{OnStop, StopFlag};
use crate::sys::thread::spawn;

/// Where standard error goes.
pub(super) enum StderrTarget {
    Stdout,
    Separate,
}

/// A program that was started and not yet reaped.
pub(super) struct RunningProgram {
    child: Child,
    /// The program owns this number until it is reaped. So the reaping comes last, and no signal reaches
    /// another process.
    group: Pid,
    /// `None` after the end of the input, or when the program has closed it.
    stdin: Option<ChildStdin>,
    output: CapturedOutput,
    separate_stderr: CapturedOutput,
    /// Readable when the program has ended.
    exit_pipe: PipeReader,
}

/// Why [`RunningProgram::feed_until`] returned.
enum FeedEnd {
    ProgramExited,
    DeadlinePassed,
    StopRequested,
    InputFailed(io::Error),
    WaitFailed(io::Error),
}

/// Which file descriptors poll(2) has reported.
struct ReadyPipes {
    exit: bool,
    output: bool,
    separate_stderr: bool,
    stdin: bool,
    stop: bool,
}

impl RunningProgram {
    /// Starts `program`; none if it would have to end at once, because the server stops.
    pub(super) fn start(program: &Program<'_>, stderr: StderrTarget) -> io::Result<Option<Self>> {
        if program.stop.is_raised() && !has_time_before_stop(program) {
            return Ok(None);
        }
        let (output, output_writer) = io::pipe()?;
        let (exit_pipe, exit_writer) = io::pipe()?;
        let (stderr, stderr_writer) = match stderr {
            StderrTarget::Stdout => (None, output_writer.try_clone()?),
            StderrTarget::Separate => io::pipe().map(|(reader, writer)| (Some(reader), writer))?,
        };
        let mut command = Command::new(program.executable);
        command
            .args(program.arguments)
            .env_clear()
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(program.working_directory)
            .stdin(Stdio::piped())
            .stdout(output_writer)
            .stderr(stderr_writer)
            .process_group(0);
        let Some(mut child) = process_groups::spawn_recorded(&mut command)? else { return Ok(None) };
        // The command holds the writing ends of the pipes.
        drop(command);
        let mut running = Self {
            group: process_groups::group_of(&child),
            stdin: child.stdin.take(),
            child,
            output: CapturedOutput::new(Some(output), program.output_octets_max),
            separate_stderr: CapturedOutput::new(stderr, program.output_octets_max),
            exit_pipe,
        };
        if let Err(error) = running.prepare_pipes(exit_writer) {
            running.kill(Signal::SIGKILL);
            // Returns soon, because the program was killed.
            let _ = running.reap();
            return Err(error);
        }
        Ok(Some(running))
    }

    /// Makes the pipes non-blocking and starts a thread that waits for the end of the program. The ends of
    /// the pipes do not show it, because a grandchild may hold them.
    fn prepare_pipes(&mut self, exit_writer: io::PipeWriter) -> io::Result<()> {
        if let Some(stdin) = &self.stdin {
            fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        for pipe in [&self.output.pipe, &self.separate_stderr.pipe].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let program = self.group;
        spawn("program-wait", move || {
            // WNOWAIT: the program stays a zombie, and `reap` takes its exit status.
            while waitid(Id::Pid(program), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {
            }
            drop(exit_writer);
        })?;
        Ok(())
    }

    /// Feeds the program with `input` until it ends or has to be ended, and reaps it.
    pub(super) fn run_to_end(&mut self, input: &mut dyn Read, program: &Program<'_>) -> ProgramExit {
        let deadline = SystemClock.now() + program.time_max;
        let mut feed = InputBuffer::new();
        let mut end = self.feed_until(&mut feed, input, deadline, Some(program.stop));
        let mut grace = Program::KILL_GRACE;
        if matches!(end, FeedEnd::StopRequested) {
            let now = SystemClock.now();
            // An eighth of the remaining time for SIGTERM, and another for the caller to record the end.
            let left = program.stop.deadline().unwrap_or(now).since(now);
            grace = (left / 8).min(Program::STOP_KILL_GRACE);
            let last = now + left.saturating_sub(2 * grace);
            match program.on_stop {
                OnStop::EndAtOnce => grace = Program::STOP_KILL_GRACE,
                OnStop::FinishByDeadline if deadline < last => {
                    grace = Program::KILL_GRACE;
                    end = self.feed_until(&mut feed, input, deadline, None);
                }
                OnStop::FinishByDeadline => match self.feed_until(&mut feed, input, last, None) {
                    FeedEnd::DeadlinePassed => {}
                    other => end = other,
                },
            }
        }
        // No more input is written, but the pipe stays open until the program is gone: a program that saw
        // the end of its input would take the part for the whole.
        let input_pipe = self.stdin.take();
        match end {
            FeedEnd::ProgramExited => {}
            FeedEnd::DeadlinePassed | FeedEnd::StopRequested => {
                self.kill(Signal::SIGTERM);
                let last = SystemClock.now() + grace;
                // SIGKILL follows after the deadline and after an error alike.
                self.feed_until(&mut feed, &mut io::empty(), last, None);
                self.kill(Signal::SIGKILL);
            }
            FeedEnd::InputFailed(_) | FeedEnd::WaitFailed(_) => self.kill(Signal::SIGKILL),
        }
        self.output.read_available();
        self.separate_stderr.read_available();
        let status = self.reap();
        drop(input_pipe);
        let output = std::mem::take(&mut self.output.captured);
        match (end, status) {
            (FeedEnd::ProgramExited, Ok(status))
                if status.signal().is_some() && process_groups::is_shut_down() =>
            {
                ProgramExit::Stopped { output }
            }
            (FeedEnd::ProgramExited, Ok(status)) => program_exit(status, output),
            (FeedEnd::DeadlinePassed, _) => ProgramExit::DeadlinePassed { output },
            (FeedEnd::StopRequested, _) => ProgramExit::Stopped { output },
            (FeedEnd::InputFailed(error), _) => ProgramExit::InputFailed(error),
            (FeedEnd::WaitFailed(error), _) | (FeedEnd::ProgramExited, Err(error)) => {
                ProgramExit::WaitFailed(error)
            }
        }
    }

    /// The standard error of a program that was started with [`StderrTarget::Separate`].
    pub(super) fn into_separate_stderr(self) -> Vec<u8> {
        self.separate_stderr.captured
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        process_groups::forget(self.group);
        self.child.wait()
    }

    /// Feeds the program and collects its output until the program ends, `deadline` passes, `stop` is raised
    /// or an error occurs.
    fn feed_until(
        &mut self,
        feed: &mut InputBuffer,
        input: &mut dyn Read,
        deadline: Moment,
        stop: Option<&StopFlag>,
    ) -> FeedEnd {
        loop {
            let left = deadline.since(SystemClock.now());
            if left.is_zero() {
                return FeedEnd::DeadlinePassed;
            }
            // Rounded up, so that the last wait is not a busy one.
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let ready = match self.poll(left, stop) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => return FeedEnd::WaitFailed(errno.into()),
            };
            if ready.output {
                self.output.read_available();
            }
            if ready.separate_stderr {
                self.separate_stderr.read_available();
            }
            if ready.exit {
                return FeedEnd::ProgramExited;
            }
            if ready.stop {
                return FeedEnd::StopRequested;
            }
            if ready.stdin
                && let Some(stdin) = &mut self.stdin
            {
                match feed.write_some(input, stdin) {
                    Ok(true) => {}
                    Ok(false) => self.stdin = None,
                    Err(error) => return FeedEnd::InputFailed(error),
                }
            }
        }
    }

    fn poll(&self, timeout: PollTimeout, stop: Option<&StopFlag>) -> Result<ReadyPipes, Errno> {
        let mut fds = vec![PollFd::new(self.exit_pipe.as_fd(), PollFlags::POLLIN)];
        let outputs = [&self.output.pipe, &self.separate_stderr.pipe];
        fds.extend(outputs.into_iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        fds.extend(stop.map(|stop| PollFd::new(stop.descriptor(), PollFlags::POLLIN)));
        poll(&mut fds, timeout)?;
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(ReadyPipes {
            exit: ready.next().unwrap_or(false),
            output: self.output.pipe.is_some() && ready.next().unwrap_or(false),
            separate_stderr: self.separate_stderr.pipe.is_some() && ready.next().unwrap_or(false),
            stdin: self.stdin.is_some() && ready.next().unwrap_or(false),
            stop: ready.next().unwrap_or(false),
        })
    }

    fn kill(&self, signal: Signal) {
        // Fails if the whole group has ended.
        let _ = killpg(self.group, signal);
    }
}

/// While the server stops: there is time to start `program`, to end it, and for the caller to record how
/// other work ended.
fn has_time_before_stop(program: &Program<'_>) -> bool {
    match program.on_stop {
        OnStop::EndAtOnce => false,
        OnStop::FinishByDeadline => program
            .stop
            .deadline()
            .is_some_and(|end| end.since(SystemClock.now()) >= 2 * Program::STOP_KILL_GRACE),
    }
}

fn program_exit(status: ExitStatus, output: Vec<u8>) -> ProgramExit {
    match status.code() {
        Some(code) => ProgramExit::Exited { code, output },
        None => ProgramExit::Killed { signal: status.signal().unwrap_or(0), output },
    }
}
