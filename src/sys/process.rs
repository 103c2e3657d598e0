//! Programs: started without a shell, fed, listened to, and ended in time.
//!
//! One thread does it all by polling: it feeds standard input, collects what the program prints,
//! and notices its end. The program leads a process group of its own, and past its deadline the
//! whole group is ended. A grandchild that keeps the pipes open does not hold us up: what counts
//! is the program's own end.
//!
//! Nothing is inherited but what is named here: the environment is given in full, and every other
//! file descriptor of ours closes when the program starts.
//!
//! **When the server stops,** a program ends at once, or shortly before the time for work under way is
//! over, as its caller chooses. None outlives the process: [`Program::end_all`], called before the process
//! ends, kills what still runs and lets nothing more be started. A program that takes a message would
//! otherwise see the end of its input, and take a part for the whole.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::clock::{Clock as _, Moment, SystemClock};
use super::stop_flag::{OnStop, StopFlag};
use super::thread::{PlainMutex as Mutex, spawn};

/// A program to run.
pub struct Program<'a> {
    /// A path, or a name to be found in the PATH of `environment`.
    pub executable: &'a str,
    /// What it is given, word by word; no shell sees it.
    pub arguments: &'a [String],
    /// All of its environment.
    pub environment: &'a [(&'static str, OsString)],
    /// Where it runs.
    pub working_directory: &'a Path,
    /// Time it has; then its process group is ended, which takes at most [`Program::GRACE`] more.
    pub time_max: Duration,
    /// Octets kept of what it prints: of standard output and standard error together as they come, or
    /// of each if they are kept apart. The rest is read and thrown away.
    pub output_octets_max: usize,
    /// The request to stop.
    pub stop: &'a StopFlag,
    /// What becomes of the program then.
    pub on_stop: OnStop,
}

/// How a program ended, and what it had printed.
#[derive(Debug)]
pub enum ProgramExit {
    /// By itself.
    Exited {
        /// 0 to 255.
        code: i32,
        /// What it printed, cut off at the limit.
        output: Vec<u8>,
    },
    /// Somebody killed it.
    Killed {
        /// Number of the signal.
        signal: i32,
        /// What it printed, cut off at the limit.
        output: Vec<u8>,
    },
    /// We ended it, because its time was over.
    DeadlinePassed {
        /// What it printed, cut off at the limit.
        output: Vec<u8>,
    },
    /// We ended it, or did not start it, because the server stops.
    Stopped {
        /// What it printed, cut off at the limit.
        output: Vec<u8>,
    },
    /// It is not there, may not be run, or the host has no room for it.
    NotStarted(io::Error),
    /// Its input could not be read to the end. It was killed before it could take the part for
    /// the whole.
    InputFailed(io::Error),
    /// The operating system would not let us wait for it. It may have done its work.
    WaitFailed(io::Error),
}

impl Program<'_> {
    /// Time between SIGTERM and SIGKILL; what [`Program::run`] may take beyond its `time`.
    pub const KILL_GRACE: Duration = Duration::from_secs(1);
    /// The same where it ends because the server stops, at most.
    const STOP_KILL_GRACE: Duration = Duration::from_millis(250);

    /// Kills every program that runs, with its process group, and lets none be started from now on. For
    /// the end of this process.
    pub fn kill_all() {
        *PROCESS_GROUPS.is_shut_down.write().unwrap_or_else(PoisonError::into_inner) = true;
        for group in &*PROCESS_GROUPS.groups.lock() {
            // All of them may be gone already.
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
    }

    /// Runs the program with `input` as its standard input, and waits for its end.
    ///
    /// A program that ends or closes its standard input before it has read all of it is fine: its
    /// exit status counts.
    pub fn run(&self, input: &mut dyn Read) -> ProgramExit {
        match self.start(StderrTarget::Stdout) {
            Ok(Some(mut running)) => running.run_to_end(input, self),
            Ok(None) => ProgramExit::Stopped { output: Vec::new() },
            Err(error) => ProgramExit::NotStarted(error),
        }
    }

    /// The same, with what it prints to standard error apart: the second value.
    pub fn run_with_separate_stderr(&self, input: &mut dyn Read) -> (ProgramExit, Vec<u8>) {
        match self.start(StderrTarget::Separate) {
            Ok(Some(mut running)) => {
                let ended = running.run_to_end(input, self);
                (ended, running.separate_stderr.captured)
            }
            Ok(None) => (ProgramExit::Stopped { output: Vec::new() }, Vec::new()),
            Err(error) => (ProgramExit::NotStarted(error), Vec::new()),
        }
    }

    /// Starts it; nothing if it would have to end at once.
    fn start(&self, errors: StderrTarget) -> io::Result<Option<RunningProgram>> {
        let has_time = match self.on_stop {
            OnStop::EndAtOnce => false,
            // The caller still has to note how others ended.
            OnStop::FinishByDeadline => self
                .stop
                .deadline()
                .is_some_and(|end| end.since(SystemClock.now()) >= 2 * Self::STOP_KILL_GRACE),
        };
        if self.stop.is_raised() && !has_time {
            return Ok(None);
        }
        let (output, theirs) = io::pipe()?;
        let (end, ended) = io::pipe()?;
        let (errors, their_errors) = match errors {
            StderrTarget::Stdout => (None, theirs.try_clone()?),
            StderrTarget::Separate => io::pipe().map(|(errors, theirs)| (Some(errors), theirs))?,
        };
        let mut command = Command::new(self.executable);
        command
            .args(self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.working_directory)
            .stdin(Stdio::piped())
            .stdout(theirs)
            .stderr(their_errors)
            .process_group(0);
        // Nothing is killed between the start and the note of it.
        let is_over = PROCESS_GROUPS.is_shut_down.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return Ok(None);
        }
        let mut child = command.spawn()?;
        PROCESS_GROUPS.groups.lock().insert(group_of(&child).as_raw());
        drop(is_over);
        // The command holds the writing ends.
        drop(command);
        let stdin = child.stdin.take();
        let group = group_of(&child);
        let printed =
            |pipe| CapturedOutput { pipe, captured: Vec::new(), octets_max: self.output_octets_max };
        let (output, errors) = (printed(Some(output)), printed(errors));
        let mut running =
            RunningProgram { child, group, stdin, output, separate_stderr: errors, exit_pipe: end };
        if let Err(error) = running.prepare_pipes(ended) {
            running.kill(Signal::SIGKILL);
            // Killed, so it ends.
            let _ = running.reap();
            return Err(error);
        }
        Ok(Some(running))
    }
}

/// The programs of this process that are not reaped.
struct ProcessGroups {
    /// They were ended for good. Held for reading while one is started and noted.
    is_shut_down: RwLock<bool>,
    /// Their process groups.
    groups: Mutex<BTreeSet<i32>>,
}

static PROCESS_GROUPS: ProcessGroups =
    ProcessGroups { is_shut_down: RwLock::new(false), groups: Mutex::new(BTreeSet::new()) };

impl ProcessGroups {
    fn is_shut_down(&self) -> bool {
        *self.is_shut_down.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program leads the process group of its own number.
fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Where standard error goes.
enum StderrTarget {
    Stdout,
    Separate,
}

/// A program under way.
struct RunningProgram {
    child: Child,
    /// Its process group. The number is the program's until it is reaped, which is why that comes
    /// last: a signal never goes to a stranger.
    group: Pid,
    /// Closed at the end of the input, or when the program closed it.
    stdin: Option<ChildStdin>,
    output: CapturedOutput,
    separate_stderr: CapturedOutput,
    /// Readable when the program has ended.
    exit_pipe: PipeReader,
}

/// What a program prints.
struct CapturedOutput {
    /// Nothing once no more can come.
    pipe: Option<PipeReader>,
    captured: Vec<u8>,
    octets_max: usize,
}

/// Why we stopped attending to a program.
enum FeedEnd {
    ProgramExited,
    DeadlinePassed,
    StopRequested,
    InputFailed(io::Error),
    WaitFailed(io::Error),
}

impl RunningProgram {
    /// Makes our ends of the pipes fit for polling, and lets a thread wait for the end: the
    /// program's own, which the pipes' ends do not tell when a grandchild holds them.
    fn prepare_pipes(&mut self, ended: io::PipeWriter) -> io::Result<()> {
        if let Some(stdin) = &self.stdin {
            fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        for pipe in [&self.output.pipe, &self.separate_stderr.pipe].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let program = self.group;
        spawn("program", move || {
            // It is only looked at here, and reaped later.
            while waitid(Id::Pid(program), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {
            }
            drop(ended);
        })?;
        Ok(())
    }

    fn run_to_end(&mut self, input: &mut dyn Read, program: &Program<'_>) -> ProgramExit {
        let deadline = SystemClock.now() + program.time_max;
        let mut feed = InputBuffer { octets: vec![0; INPUT_BUFFER_OCTETS], start: 0, end: 0 };
        let mut over = self.feed_until(&mut feed, input, deadline, Some(program.stop));
        let mut grace = Program::KILL_GRACE;
        if matches!(over, FeedEnd::StopRequested) {
            let now = SystemClock.now();
            // Of the time that is left, so much for each: SIGTERM and the caller's note of the end.
            let left = program.stop.deadline().unwrap_or(now).since(now);
            grace = (left / 8).min(Program::STOP_KILL_GRACE);
            let last = now + left.saturating_sub(2 * grace);
            match program.on_stop {
                OnStop::EndAtOnce => grace = Program::STOP_KILL_GRACE,
                OnStop::FinishByDeadline if deadline < last => {
                    grace = Program::KILL_GRACE;
                    over = self.feed_until(&mut feed, input, deadline, None);
                }
                OnStop::FinishByDeadline => match self.feed_until(&mut feed, input, last, None) {
                    FeedEnd::DeadlinePassed => {}
                    other => over = other,
                },
            }
        }
        // No more input comes. Its end is not seen before the program is gone: it would take a part for the
        // whole.
        let input_pipe = self.stdin.take();
        match over {
            FeedEnd::ProgramExited => {}
            FeedEnd::DeadlinePassed | FeedEnd::StopRequested => {
                self.kill(Signal::SIGTERM);
                let last = SystemClock.now() + grace;
                // A second deadline and an error are the same here: SIGKILL.
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
        match (over, status) {
            (FeedEnd::ProgramExited, Ok(status))
                if status.signal().is_some() && PROCESS_GROUPS.is_shut_down() =>
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

    /// Takes note of its end, after which its number may be another program's.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        PROCESS_GROUPS.groups.lock().remove(&self.group.as_raw());
        self.child.wait()
    }

    /// Feeds and listens until something is over.
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
        let printed = [&self.output.pipe, &self.separate_stderr.pipe];
        fds.extend(printed.into_iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
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
        // All of them may be gone already.
        let _ = killpg(self.group, signal);
    }
}

impl CapturedOutput {
    /// Takes in what has been printed so far.
    fn read_available(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 4096];
        // Bounded, so that a program that prints without end does not keep us from its deadline.
        for _ in 0..64 {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let room = self.octets_max.saturating_sub(self.captured.len());
                    self.captured.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.pipe = None;
                    return;
                }
            }
        }
    }
}

/// Which pipes have something to say.
struct ReadyPipes {
    exit: bool,
    output: bool,
    separate_stderr: bool,
    stdin: bool,
    stop: bool,
}

/// Octets read and not yet written.
struct InputBuffer {
    octets: Vec<u8>,
    start: usize,
    end: usize,
}

/// Half of a Linux pipe, so that there is room for the next piece while one is read.
const INPUT_BUFFER_OCTETS: usize = 32 * 1024;

impl InputBuffer {
    /// Writes as much as the pipe takes; false when there is no more to write. An error is the
    /// input's: a program that does not want to read is not at fault.
    fn write_some(&mut self, input: &mut dyn Read, stdin: &mut ChildStdin) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = loop {
                match input.read(&mut self.octets) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
        }
        if self.start == self.end {
            return Ok(false);
        }
        match stdin.write(self.octets.get(self.start..self.end).unwrap_or_default()) {
            Ok(count) => self.start += count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}

fn program_exit(status: ExitStatus, output: Vec<u8>) -> ProgramExit {
    match status.code() {
        Some(code) => ProgramExit::Exited { code, output },
        None => ProgramExit::Killed { signal: status.signal().unwrap_or(0), output },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn run(script: &str, input: &[u8], time: Duration) -> ProgramExit {
        run_reading(script, &mut &*input, time)
    }

    fn run_reading(script: &str, input: &mut dyn Read, time: Duration) -> ProgramExit {
        run_until(script, input, time, &StopFlag::new().unwrap(), OnStop::EndAtOnce)
    }

    fn run_until(
        script: &str,
        input: &mut dyn Read,
        time: Duration,
        stop: &StopFlag,
        at_stop: OnStop,
    ) -> ProgramExit {
        Program {
            executable: "sh",
            arguments: &["-c".to_owned(), script.to_owned()],
            environment: &[("PATH", "/usr/bin:/bin".into()), ("COLOUR", "blue".into())],
            working_directory: Path::new("/"),
            time_max: time,
            output_octets_max: 100,
            stop,
            on_stop: at_stop,
        }
        .run(input)
    }

    fn output(ended: ProgramExit, expected: i32) -> String {
        match ended {
            ProgramExit::Exited { code, output } if code == expected => String::from_utf8(output).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_goes_in_comes_out_and_the_exit_status_is_told() {
        assert_eq!(output(run("cat; echo oops >&2; exit 3", b"hello ", MINUTE), 3), "hello oops\n");
    }

    #[test]
    fn standard_error_can_be_kept_apart() {
        let script = "echo one >&2; cat; head -c 300000 /dev/zero >&2; echo two; exit 3";
        let program = Program {
            executable: "sh",
            arguments: &["-c".to_owned(), script.to_owned()],
            environment: &[],
            working_directory: Path::new("/"),
            time_max: MINUTE,
            output_octets_max: 100,
            stop: &StopFlag::new().unwrap(),
            on_stop: OnStop::EndAtOnce,
        };
        let (ended, errors) = program.run_with_separate_stderr(&mut &b"hello "[..]);
        assert_eq!(output(ended, 3), "hello two\n");
        assert!(errors.len() == 100 && errors.starts_with(b"one\n\0"), "{errors:?}");
    }

    #[test]
    fn a_large_input_and_a_large_output_do_not_lock_each_other_up() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(output(run("cat", &input, MINUTE), 0), "x".repeat(100));
    }

    #[test]
    fn a_program_that_does_not_read_may_still_succeed() {
        assert_eq!(output(run("exec <&-; echo fine", &vec![b'x'; 1 << 20], MINUTE), 0), "fine\n");
    }

    #[test]
    fn only_the_environment_that_was_given_is_there() {
        let shown = output(run("env | grep -v '^\\(PWD\\|SHLVL\\|_\\)=' | sort", b"", MINUTE), 0);
        assert_eq!(shown, "COLOUR=blue\nPATH=/usr/bin:/bin\n");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipes_does_not_hold_us_up() {
        let began = SystemClock.now();
        assert_eq!(output(run("sleep 20 & echo done", b"", MINUTE), 0), "done\n");
        assert!(SystemClock.now().since(began) < Duration::from_secs(10));
    }

    #[test]
    fn past_the_deadline_the_whole_group_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display();
        // Neither of the two heeds SIGTERM; the pipe tells when both are gone.
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let inherited = format!("/proc/{}/fd/{pipe}", std::process::id());
        let script = format!(
            "trap '' TERM; exec 3>{inherited}; echo begun; touch {here}/begun; sleep 600 & sleep 600; touch {here}/late"
        );
        let began = SystemClock.now();
        let ended = run(&script, b"", Duration::from_millis(700));
        assert!(
            matches!(&ended, ProgramExit::DeadlinePassed { output } if output == b"begun\n"),
            "{ended:?}"
        );
        assert!(SystemClock.now().since(began) < Duration::from_secs(20));
        drop(writer);
        // Ends only when nobody holds the writing end any more.
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(!dir.path().join("late").exists());
    }

    #[test]
    fn a_program_that_heeds_sigterm_may_say_goodbye() {
        let script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.01; done";
        let ended = run(script, b"", Duration::from_millis(500));
        assert!(
            matches!(&ended, ProgramExit::DeadlinePassed { output } if output.starts_with(b"hello\n") && output.ends_with(b"bye\n")),
            "{ended:?}"
        );
    }

    #[test]
    fn half_an_input_is_never_taken_for_the_whole() {
        struct Breaks(bool);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("bad sector"));
                }
                buffer[0] = b'x';
                Ok(1)
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        let ended =
            run_reading(&format!("cat >/dev/null; touch {}", taken.display()), &mut Breaks(false), MINUTE);
        assert!(matches!(ended, ProgramExit::InputFailed(_)), "{ended:?}");
        assert!(!taken.exists());
    }

    #[test]
    fn a_program_that_ignores_its_deadline_never_sees_the_end_of_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let filed = dir.path().join("filed");
        let script = format!("trap '' TERM; head -c 10; sleep 0.3; cat; touch {}", filed.display());
        // More than a pipe holds.
        let ended = run(&script, &[b'x'; 1_000_000], Duration::from_millis(100));
        assert!(matches!(ended, ProgramExit::DeadlinePassed { .. }), "{ended:?}");
        assert!(!filed.exists(), "a part was taken for the whole");
    }

    #[test]
    fn how_it_was_killed_and_why_it_did_not_start_is_told() {
        let ended = run("kill -9 $$", b"", MINUTE);
        assert!(matches!(ended, ProgramExit::Killed { signal: 9, .. }), "{ended:?}");
        let missing = Program {
            executable: "/no/such/program",
            arguments: &[],
            environment: &[],
            working_directory: Path::new("/"),
            time_max: MINUTE,
            output_octets_max: 0,
            stop: &StopFlag::new().unwrap(),
            on_stop: OnStop::EndAtOnce,
        };
        let ended = missing.run(&mut io::empty());
        assert!(
            matches!(&ended, ProgramExit::NotStarted(e) if e.kind() == io::ErrorKind::NotFound),
            "{ended:?}"
        );
    }

    /// Asks to stop, with this grace, once the script has made the file `begun`.
    fn stopped(
        script: &str,
        input: &[u8],
        grace: Duration,
        at_stop: OnStop,
    ) -> (ProgramExit, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let script = format!("cd {}; {script}", dir.path().display());
        let stop = StopFlag::new().unwrap();
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !begun.exists() {
                    std::thread::yield_now();
                }
                stop.raise_with_deadline(SystemClock.now() + grace);
            });
            run_until(&script, &mut &*input, MINUTE, &stop, at_stop)
        });
        (ended, dir)
    }

    #[test]
    fn a_request_to_stop_ends_a_program_at_once() {
        let began = SystemClock.now();
        let script = "trap '' TERM; echo hello; touch begun; sleep 60";
        let (ended, _) = stopped(script, b"", MINUTE, OnStop::EndAtOnce);
        assert!(matches!(&ended, ProgramExit::Stopped { output } if output == b"hello\n"), "{ended:?}");
        assert!(SystemClock.now().since(began) < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_may_finish_is_ended_when_that_time_is_nearly_over() {
        let began = SystemClock.now();
        let script = "touch begun; cat >taken; exec sleep 60";
        let input = vec![b'x'; 1 << 20];
        let (ended, dir) = stopped(script, &input, Duration::from_secs(2), OnStop::FinishByDeadline);
        assert!(matches!(&ended, ProgramExit::Stopped { .. }), "{ended:?}");
        assert!(SystemClock.now().since(began) < Duration::from_secs(20));
        assert_eq!(std::fs::read(dir.path().join("taken")).unwrap(), input, "it was fed meanwhile");
        let (ended, _) =
            stopped("touch begun; cat >/dev/null; echo done", &input, MINUTE, OnStop::FinishByDeadline);
        assert_eq!(output(ended, 0), "done\n");
    }

    #[test]
    fn no_program_that_must_end_at_once_is_started_after_the_request() {
        let stop = StopFlag::new().unwrap();
        stop.raise();
        let ended = run_until("echo hello", &mut io::empty(), MINUTE, &stop, OnStop::EndAtOnce);
        assert!(matches!(&ended, ProgramExit::Stopped { output } if output.is_empty()), "{ended:?}");
        let ended = run_until("exec sleep 60", &mut io::empty(), MINUTE, &stop, OnStop::FinishByDeadline);
        assert!(matches!(ended, ProgramExit::Stopped { .. }), "{ended:?}");
    }
}
