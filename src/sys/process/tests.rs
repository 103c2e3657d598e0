//! Runs of small shell scripts.

use super::*;
use crate::sys::{Clock as _, SystemClock};

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
    on_stop: OnStop,
) -> ProgramExit {
    Program {
        executable: "sh",
        arguments: &["-c".to_owned(), script.to_owned()],
        environment: &[("PATH", "/usr/bin:/bin".into()), ("COLOUR", "blue".into())],
        working_directory: Path::new("/"),
        time_max: time,
        output_octets_max: 100,
        stop,
        on_stop,
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
fn output_and_exit_status_are_returned() {
    assert_eq!(output(run("cat; echo oops >&2; exit 3", b"hello ", MINUTE), 3), "hello oops\n");
}

#[test]
fn standard_error_can_be_captured_separately() {
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
fn a_large_input_and_a_large_output_do_not_deadlock() {
    let input = vec![b'x'; 1 << 20];
    assert_eq!(output(run("cat", &input, MINUTE), 0), "x".repeat(100));
}

#[test]
fn a_program_that_does_not_read_may_still_succeed() {
    assert_eq!(output(run("exec <&-; echo fine", &vec![b'x'; 1 << 20], MINUTE), 0), "fine\n");
}

#[test]
fn a_program_gets_only_the_given_environment() {
    let shown = output(run("env | grep -v '^\\(PWD\\|SHLVL\\|_\\)=' | sort", b"", MINUTE), 0);
    assert_eq!(shown, "COLOUR=blue\nPATH=/usr/bin:/bin\n");
}

#[test]
fn a_grandchild_that_keeps_the_pipes_open_delays_nothing() {
    let began = SystemClock.now();
    assert_eq!(output(run("sleep 20 & echo done", b"", MINUTE), 0), "done\n");
    assert!(SystemClock.now().since(began) < Duration::from_secs(10));
}

#[test]
fn the_whole_process_group_is_ended_after_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display();
    // Neither process reacts to SIGTERM; the pipe is closed when both are gone.
    let (mut reader, writer) = io::pipe().unwrap();
    let pipe = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let inherited = format!("/proc/{}/fd/{pipe}", std::process::id());
    let script = format!(
        "trap '' TERM; exec 3>{inherited}; echo begun; touch {here}/begun; sleep 600 & sleep 600; touch {here}/late"
    );
    let began = SystemClock.now();
    let ended = run(&script, b"", Duration::from_millis(700));
    assert!(matches!(&ended, ProgramExit::DeadlinePassed { output } if output == b"begun\n"), "{ended:?}");
    assert!(SystemClock.now().since(began) < Duration::from_secs(20));
    drop(writer);
    // Ends when the last process that holds the writing end has ended.
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(!dir.path().join("late").exists());
}

#[test]
fn a_program_may_still_print_after_sigterm() {
    let script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.01; done";
    let ended = run(script, b"", Duration::from_millis(500));
    assert!(
        matches!(&ended, ProgramExit::DeadlinePassed { output } if output.starts_with(b"hello\n") && output.ends_with(b"bye\n")),
        "{ended:?}"
    );
}

#[test]
fn a_program_whose_input_cannot_be_read_is_killed_before_it_sees_the_end() {
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
fn a_program_that_ignores_sigterm_never_sees_the_end_of_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let filed = dir.path().join("filed");
    let script = format!("trap '' TERM; head -c 10; sleep 0.3; cat; touch {}", filed.display());
    // More than a pipe holds.
    let ended = run(&script, &[b'x'; 1_000_000], Duration::from_millis(100));
    assert!(matches!(ended, ProgramExit::DeadlinePassed { .. }), "{ended:?}");
    assert!(!filed.exists(), "a part was taken for the whole");
}

#[test]
fn the_signal_and_the_start_error_are_returned() {
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
    assert!(matches!(&ended, ProgramExit::NotStarted(e) if e.kind() == io::ErrorKind::NotFound), "{ended:?}");
}

/// Raises the stop flag with this grace once the script has made the file `begun`.
fn stopped(script: &str, input: &[u8], grace: Duration, on_stop: OnStop) -> (ProgramExit, tempfile::TempDir) {
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
        run_until(&script, &mut &*input, MINUTE, &stop, on_stop)
    });
    (ended, dir)
}

#[test]
fn a_program_with_end_at_once_ends_when_the_server_stops() {
    let began = SystemClock.now();
    let script = "trap '' TERM; echo hello; touch begun; sleep 60";
    let (ended, _) = stopped(script, b"", MINUTE, OnStop::EndAtOnce);
    assert!(matches!(&ended, ProgramExit::Stopped { output } if output == b"hello\n"), "{ended:?}");
    assert!(SystemClock.now().since(began) < Duration::from_secs(20));
}

#[test]
fn a_program_with_finish_by_deadline_is_ended_shortly_before_the_stop_deadline() {
    let began = SystemClock.now();
    let script = "touch begun; cat >taken; exec sleep 60";
    let input = vec![b'x'; 1 << 20];
    let (ended, dir) = stopped(script, &input, Duration::from_secs(2), OnStop::FinishByDeadline);
    assert!(matches!(&ended, ProgramExit::Stopped { .. }), "{ended:?}");
    assert!(SystemClock.now().since(began) < Duration::from_secs(20));
    assert_eq!(
        std::fs::read(dir.path().join("taken")).unwrap(),
        input,
        "the program was fed after the request to stop"
    );
    let (ended, _) =
        stopped("touch begun; cat >/dev/null; echo done", &input, MINUTE, OnStop::FinishByDeadline);
    assert_eq!(output(ended, 0), "done\n");
}

#[test]
fn no_program_that_would_have_to_end_at_once_is_started() {
    let stop = StopFlag::new().unwrap();
    stop.raise();
    let ended = run_until("echo hello", &mut io::empty(), MINUTE, &stop, OnStop::EndAtOnce);
    assert!(matches!(&ended, ProgramExit::Stopped { output } if output.is_empty()), "{ended:?}");
    let ended = run_until("exec sleep 60", &mut io::empty(), MINUTE, &stop, OnStop::FinishByDeadline);
    assert!(matches!(ended, ProgramExit::Stopped { .. }), "{ended:?}");
}
