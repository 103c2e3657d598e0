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
use super::stop::{AtStop, Stop};
use super::thread::{PlainMutex as Mutex, spawn};

/// A program to run.
pub struct Program<'a> {
    /// A path, or a name to be found in the PATH of `environment`.
    pub program: &'a str,
    /// What it is given, word by word; no shell sees it.
    pub arguments: &'a [String],
    /// All of its environment.
    pub environment: &'a [(&'static str, OsString)],
    /// Where it runs.
    pub directory: &'a Path,
    /// Time it has; then its process group is ended, which takes at most [`Program::GRACE`] more.
    pub time: Duration,
    /// Octets kept of what it prints: of standard output and standard error together as they come, or
    /// of each if they are kept apart. The rest is read and thrown away.
    pub output_octets_max: usize,
    /// The request to stop.
    pub stop: &'a Stop,
    /// What becomes of the program then.
    pub at_stop: AtStop,
}

/// How a program ended, and what it had printed.
#[derive(Debug)]
pub enum Ended {
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
    Lost(io::Error),
}

impl Program<'_> {
    /// Time between SIGTERM and SIGKILL; what [`Program::run`] may take beyond its `time`.
    pub const GRACE: Duration = Duration::from_secs(1);
    /// The same where it ends because the server stops, at most.
    const STOP_GRACE: Duration = Duration::from_millis(250);

    /// Kills every program that runs, with its process group, and lets none be started from now on. For
    /// the end of this process.
    pub fn end_all() {
        *UNDER_WAY.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
        for group in &*UNDER_WAY.groups.lock() {
            // All of them may be gone already.
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
    }

    /// Runs the program with `input` as its standard input, and waits for its end.
    ///
    /// A program that ends or closes its standard input before it has read all of it is fine: its
    /// exit status counts.
    pub fn run(&self, input: &mut dyn Read) -> Ended {
        match self.start(Errors::WithOutput) {
            Ok(Some(mut running)) => running.attend(input, self),
            Ok(None) => Ended::Stopped { output: Vec::new() },
            Err(error) => Ended::NotStarted(error),
        }
    }

    /// The same, with what it prints to standard error apart: the second value.
    pub fn run_apart(&self, input: &mut dyn Read) -> (Ended, Vec<u8>) {
        match self.start(Errors::Apart) {
            Ok(Some(mut running)) => {
                let ended = running.attend(input, self);
                (ended, running.errors.kept)
            }
            Ok(None) => (Ended::Stopped { output: Vec::new() }, Vec::new()),
            Err(error) => (Ended::NotStarted(error), Vec::new()),
        }
    }

    /// Starts it; nothing if it would have to end at once.
    fn start(&self, errors: Errors) -> io::Result<Option<Running>> {
        let has_time = match self.at_stop {
            AtStop::End => false,
            // The caller still has to note how others ended.
            AtStop::Finish => {
                self.stop.end().is_some_and(|end| end.since(SystemClock.now()) >= 2 * Self::STOP_GRACE)
            }
        };
        if self.stop.is_asked() && !has_time {
            return Ok(None);
        }
        let (output, theirs) = io::pipe()?;
        let (end, ended) = io::pipe()?;
        let (errors, their_errors) = match errors {
            Errors::WithOutput => (None, theirs.try_clone()?),
            Errors::Apart => io::pipe().map(|(errors, theirs)| (Some(errors), theirs))?,
        };
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory)
            .stdin(Stdio::piped())
            .stdout(theirs)
            .stderr(their_errors)
            .process_group(0);
        // Nothing is killed between the start and the note of it.
        let is_over = UNDER_WAY.is_over.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return Ok(None);
        }
        let mut child = command.spawn()?;
        UNDER_WAY.groups.lock().insert(group_of(&child).as_raw());
        drop(is_over);
        // The command holds the writing ends.
        drop(command);
        let stdin = child.stdin.take();
        let group = group_of(&child);
        let printed = |pipe| Printed { pipe, kept: Vec::new(), keep: self.output_octets_max };
        let (output, errors) = (printed(Some(output)), printed(errors));
        let mut running = Running { child, group, stdin, output, errors, end };
        if let Err(error) = running.prepare(ended) {
            running.kill(Signal::SIGKILL);
            // Killed, so it ends.
            let _ = running.reap();
            return Err(error);
        }
        Ok(Some(running))
    }
}

/// The programs of this process that are not reaped.
struct UnderWay {
    /// They were ended for good. Held for reading while one is started and noted.
    is_over: RwLock<bool>,
    /// Their process groups.
    groups: Mutex<BTreeSet<i32>>,
}

static UNDER_WAY: UnderWay = UnderWay { is_over: RwLock::new(false), groups: Mutex::new(BTreeSet::new()) };

impl UnderWay {
    fn is_over(&self) -> bool {
        *self.is_over.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program leads the process group of its own number.
fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Where standard error goes.
enum Errors {
    WithOutput,
    Apart,
}

/// A program under way.
struct Running {
    child: Child,
    /// Its process group. The number is the program's until it is reaped, which is why that comes
    /// last: a signal never goes to a stranger.
    group: Pid,
    /// Closed at the end of the input, or when the program closed it.
    stdin: Option<ChildStdin>,
    output: Printed,
    errors: Printed,
    /// Readable when the program has ended.
    end: PipeReader,
}

/// What a program prints.
struct Printed {
    /// Nothing once no more can come.
    pipe: Option<PipeReader>,
    kept: Vec<u8>,
    keep: usize,
}

/// Why we stopped attending to a program.
enum Over {
    Ended,
    DeadlinePassed,
    Stopped,
    InputFailed(io::Error),
    Lost(io::Error),
}

impl Running {
    /// Makes our ends of the pipes fit for polling, and lets a thread wait for the end: the
    /// program's own, which the pipes' ends do not tell when a grandchild holds them.
    fn prepare(&mut self, ended: io::PipeWriter) -> io::Result<()> {
        if let Some(stdin) = &self.stdin {
            fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        for pipe in [&self.output.pipe, &self.errors.pipe].into_iter().flatten() {
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

    fn attend(&mut self, input: &mut dyn Read, program: &Program<'_>) -> Ended {
        let deadline = SystemClock.now() + program.time;
        let mut feed = Feed { octets: vec![0; FEED_OCTETS], from: 0, to: 0 };
        let mut over = self.feed_until(&mut feed, input, deadline, Some(program.stop));
        let mut grace = Program::GRACE;
        if matches!(over, Over::Stopped) {
            let now = SystemClock.now();
            // Of the time that is left, so much for each: SIGTERM and the caller's note of the end.
            let left = program.stop.end().unwrap_or(now).since(now);
            grace = (left / 8).min(Program::STOP_GRACE);
            let last = now + left.saturating_sub(2 * grace);
            match program.at_stop {
                AtStop::End => grace = Program::STOP_GRACE,
                AtStop::Finish if deadline < last => {
                    grace = Program::GRACE;
                    over = self.feed_until(&mut feed, input, deadline, None);
                }
                AtStop::Finish => match self.feed_until(&mut feed, input, last, None) {
                    Over::DeadlinePassed => {}
                    other => over = other,
                },
            }
        }
        // No more input comes. Its end is not seen before the program is gone: it would take a part for the
        // whole.
        let input_pipe = self.stdin.take();
        match over {
            Over::Ended => {}
            Over::DeadlinePassed | Over::Stopped => {
                self.kill(Signal::SIGTERM);
                let last = SystemClock.now() + grace;
                // A second deadline and an error are the same here: SIGKILL.
                self.feed_until(&mut feed, &mut io::empty(), last, None);
                self.kill(Signal::SIGKILL);
            }
            Over::InputFailed(_) | Over::Lost(_) => self.kill(Signal::SIGKILL),
        }
        self.output.listen();
        self.errors.listen();
        let status = self.reap();
        drop(input_pipe);
        let output = std::mem::take(&mut self.output.kept);
        match (over, status) {
            (Over::Ended, Ok(status)) if status.signal().is_some() && UNDER_WAY.is_over() => {
                Ended::Stopped { output }
            }
            (Over::Ended, Ok(status)) => ended(status, output),
            (Over::DeadlinePassed, _) => Ended::DeadlinePassed { output },
            (Over::Stopped, _) => Ended::Stopped { output },
            (Over::InputFailed(error), _) => Ended::InputFailed(error),
            (Over::Lost(error), _) | (Over::Ended, Err(error)) => Ended::Lost(error),
        }
    }

    /// Takes note of its end, after which its number may be another program's.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        UNDER_WAY.groups.lock().remove(&self.group.as_raw());
        self.child.wait()
    }

    /// Feeds and listens until something is over.
    fn feed_until(
        &mut self,
        feed: &mut Feed,
        input: &mut dyn Read,
        deadline: Moment,
        stop: Option<&Stop>,
    ) -> Over {
        loop {
            let left = deadline.since(SystemClock.now());
            if left.is_zero() {
                return Over::DeadlinePassed;
            }
            // Rounded up, so that the last wait is not a busy one.
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let ready = match self.poll(left, stop) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Over::Lost(errno.into()),
            };
            if ready.output {
                self.output.listen();
            }
            if ready.errors {
                self.errors.listen();
            }
            if ready.end {
                return Over::Ended;
            }
            if ready.stop {
                return Over::Stopped;
            }
            if ready.stdin
                && let Some(stdin) = &mut self.stdin
            {
                match feed.some(input, stdin) {
                    Ok(true) => {}
                    Ok(false) => self.stdin = None,
                    Err(error) => return Over::InputFailed(error),
                }
            }
        }
    }

    fn poll(&self, timeout: PollTimeout, stop: Option<&Stop>) -> Result<Ready, Errno> {
        let mut fds = vec![PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        let printed = [&self.output.pipe, &self.errors.pipe];
        fds.extend(printed.into_iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        fds.extend(stop.map(|stop| PollFd::new(stop.descriptor(), PollFlags::POLLIN)));
        poll(&mut fds, timeout)?;
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(Ready {
            end: ready.next().unwrap_or(false),
            output: self.output.pipe.is_some() && ready.next().unwrap_or(false),
            errors: self.errors.pipe.is_some() && ready.next().unwrap_or(false),
            stdin: self.stdin.is_some() && ready.next().unwrap_or(false),
            stop: ready.next().unwrap_or(false),
        })
    }

    fn kill(&self, signal: Signal) {
        // All of them may be gone already.
        let _ = killpg(self.group, signal);
    }
}

impl Printed {
    /// Takes in what has been printed so far.
    fn listen(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 4096];
        // Bounded, so that a program that prints without end does not keep us from its deadline.
        for _ in 0..64 {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let room = self.keep.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
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
struct Ready {
    end: bool,
    output: bool,
    errors: bool,
    stdin: bool,
    stop: bool,
}

/// Octets read and not yet written.
struct Feed {
    octets: Vec<u8>,
    from: usize,
    to: usize,
}

/// Half of a Linux pipe, so that there is room for the next piece while one is read.
const FEED_OCTETS: usize = 32 * 1024;

impl Feed {
    /// Writes as much as the pipe takes; false when there is no more to write. An error is the
    /// input's: a program that does not want to read is not at fault.
    fn some(&mut self, input: &mut dyn Read, stdin: &mut ChildStdin) -> io::Result<bool> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
            self.to = loop {
                match input.read(&mut self.octets) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
        }
        if self.from == self.to {
            return Ok(false);
        }
        match stdin.write(self.octets.get(self.from..self.to).unwrap_or_default()) {
            Ok(count) => self.from += count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}

fn ended(status: ExitStatus, output: Vec<u8>) -> Ended {
    match status.code() {
        Some(code) => Ended::Exited { code, output },
        None => Ended::Killed { signal: status.signal().unwrap_or(0), output },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn run(script: &str, input: &[u8], time: Duration) -> Ended {
        run_reading(script, &mut &*input, time)
    }

    fn run_reading(script: &str, input: &mut dyn Read, time: Duration) -> Ended {
        run_until(script, input, time, &Stop::new().unwrap(), AtStop::End)
    }

    fn run_until(script: &str, input: &mut dyn Read, time: Duration, stop: &Stop, at_stop: AtStop) -> Ended {
        Program {
            program: "sh",
            arguments: &["-c".to_owned(), script.to_owned()],
            environment: &[("PATH", "/usr/bin:/bin".into()), ("COLOUR", "blue".into())],
            directory: Path::new("/"),
            time,
            output_octets_max: 100,
            stop,
            at_stop,
        }
        .run(input)
    }

    fn output(ended: Ended, expected: i32) -> String {
        match ended {
            Ended::Exited { code, output } if code == expected => String::from_utf8(output).unwrap(),
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
            program: "sh",
            arguments: &["-c".to_owned(), script.to_owned()],
            environment: &[],
            directory: Path::new("/"),
            time: MINUTE,
            output_octets_max: 100,
            stop: &Stop::new().unwrap(),
            at_stop: AtStop::End,
        };
        let (ended, errors) = program.run_apart(&mut &b"hello "[..]);
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
        assert!(matches!(&ended, Ended::DeadlinePassed { output } if output == b"begun\n"), "{ended:?}");
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
            matches!(&ended, Ended::DeadlinePassed { output } if output.starts_with(b"hello\n") && output.ends_with(b"bye\n")),
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
        assert!(matches!(ended, Ended::InputFailed(_)), "{ended:?}");
        assert!(!taken.exists());
    }

    #[test]
    fn a_program_that_ignores_its_deadline_never_sees_the_end_of_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let filed = dir.path().join("filed");
        let script = format!("trap '' TERM; head -c 10; sleep 0.3; cat; touch {}", filed.display());
        // More than a pipe holds.
        let ended = run(&script, &[b'x'; 1_000_000], Duration::from_millis(100));
        assert!(matches!(ended, Ended::DeadlinePassed { .. }), "{ended:?}");
        assert!(!filed.exists(), "a part was taken for the whole");
    }

    #[test]
    fn how_it_was_killed_and_why_it_did_not_start_is_told() {
        let ended = run("kill -9 $$", b"", MINUTE);
        assert!(matches!(ended, Ended::Killed { signal: 9, .. }), "{ended:?}");
        let missing = Program {
            program: "/no/such/program",
            arguments: &[],
            environment: &[],
            directory: Path::new("/"),
            time: MINUTE,
            output_octets_max: 0,
            stop: &Stop::new().unwrap(),
            at_stop: AtStop::End,
        };
        let ended = missing.run(&mut io::empty());
        assert!(matches!(&ended, Ended::NotStarted(e) if e.kind() == io::ErrorKind::NotFound), "{ended:?}");
    }

    /// Asks to stop, with this grace, once the script has made the file `begun`.
    fn stopped(script: &str, input: &[u8], grace: Duration, at_stop: AtStop) -> (Ended, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let script = format!("cd {}; {script}", dir.path().display());
        let stop = Stop::new().unwrap();
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !begun.exists() {
                    std::thread::yield_now();
                }
                stop.ask_by(SystemClock.now() + grace);
            });
            run_until(&script, &mut &*input, MINUTE, &stop, at_stop)
        });
        (ended, dir)
    }

    #[test]
    fn a_request_to_stop_ends_a_program_at_once() {
        let began = SystemClock.now();
        let script = "trap '' TERM; echo hello; touch begun; sleep 60";
        let (ended, _) = stopped(script, b"", MINUTE, AtStop::End);
        assert!(matches!(&ended, Ended::Stopped { output } if output == b"hello\n"), "{ended:?}");
        assert!(SystemClock.now().since(began) < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_may_finish_is_ended_when_that_time_is_nearly_over() {
        let began = SystemClock.now();
        let script = "touch begun; cat >taken; exec sleep 60";
        let input = vec![b'x'; 1 << 20];
        let (ended, dir) = stopped(script, &input, Duration::from_secs(2), AtStop::Finish);
        assert!(matches!(&ended, Ended::Stopped { .. }), "{ended:?}");
        assert!(SystemClock.now().since(began) < Duration::from_secs(20));
        assert_eq!(std::fs::read(dir.path().join("taken")).unwrap(), input, "it was fed meanwhile");
        let (ended, _) = stopped("touch begun; cat >/dev/null; echo done", &input, MINUTE, AtStop::Finish);
        assert_eq!(output(ended, 0), "done\n");
    }

    #[test]
    fn no_program_that_must_end_at_once_is_started_after_the_request() {
        let stop = Stop::new().unwrap();
        stop.ask();
        let ended = run_until("echo hello", &mut io::empty(), MINUTE, &stop, AtStop::End);
        assert!(matches!(&ended, Ended::Stopped { output } if output.is_empty()), "{ended:?}");
        let ended = run_until("exec sleep 60", &mut io::empty(), MINUTE, &stop, AtStop::Finish);
        assert!(matches!(ended, Ended::Stopped { .. }), "{ended:?}");
    }
}
