//! The operator's program that knows more aliases: `hooks/alias-resolve ADDRESS`.
//!
//! It is asked about every name of a local domain that is looked up, once, with the address as its
//! one argument; `LOCAL_PART`, `BASE_NAME` (without suffix and dropped characters) and `DOMAIN` in
//! its environment are the pieces. Each line that it prints is a right side as in an alias file,
//! and all of them are added to what the files say; nothing printed is nothing added. Its standard
//! error goes to the log.
//!
//! A hook that fails, is too slow or prints what cannot be read has not said that there is nobody:
//! the sender hears 451. So does a sender whose question is under way when the server stops: the hook is
//! ended. No hook is no more than that: nothing is added.
//!
//! A name with characters that a careless script could trip over (quotes, spaces, `|`, `$`, a
//! leading `-`) is not put to it: such a name has no aliases from here.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::local_part_rules::LocalPartRules;
use super::resolve::LookupFailure;
use super::target::{AliasTarget, parse_targets};
use crate::mail::{LocalPart, Mailbox, printable};
use crate::observe::{CounterFamily, Metrics};
use crate::sys::{Clock as _, Moment, OnStop, Program, ProgramExit, StopFlag, SystemClock, is_hook_present};

/// Time that one run has.
const RUN_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs at once; a session that asks waits for its turn.
const RUNS_AT_ONCE_MAX: usize = 4;

/// Most that a run may print, in octets: some thousand addresses.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// Lines of its standard error that one run may put into the log.
const LOGGED_LINES_MAX: usize = 20;

/// Where the hook finds programs.
const PROGRAM_SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the hook is, and how names are spelled.
#[derive(Debug, Clone)]
pub struct AliasHookSettings {
    /// The program; it need not be there.
    pub program: PathBuf,
    /// Where it runs.
    pub working_directory: PathBuf,
    /// For `BASE_NAME`.
    pub local_part_rules: LocalPartRules,
    /// The request to stop.
    pub stop: Arc<StopFlag>,
}

/// Asks the hook. Shared by all sessions.
pub struct AliasHook {
    settings: AliasHookSettings,
    /// Who holds a turn may run it.
    permits: (Sender<()>, Receiver<()>),
    runs: CounterFamily,
}

impl AliasHook {
    /// The hook at its place, whether it is there or not.
    #[must_use]
    pub fn new(settings: AliasHookSettings, metrics: &Metrics) -> Self {
        let turns = bounded(RUNS_AT_ONCE_MAX);
        for _ in 0..RUNS_AT_ONCE_MAX {
            let _ = turns.0.try_send(());
        }
        let asked = metrics.counter_family("alias_hook", "Runs of hooks/alias-resolve, by result", "result");
        Self { settings, permits: turns, runs: asked }
    }

    /// What the hook adds to the aliases of `mailbox`; back by `end`, or little later.
    ///
    /// # Errors
    /// [`CannotTell`] when it failed, with why: it may work later.
    pub fn look_up(&self, mailbox: &Mailbox, end: Moment) -> Result<Vec<AliasTarget>, LookupFailure> {
        if !is_safe_for_scripts(mailbox.local_part.as_str()) {
            return Ok(Vec::new());
        }
        let program = &self.settings.program;
        let answer = match is_hook_present(program) {
            Ok(false) => return Ok(Vec::new()),
            Ok(true) => self
                .run(mailbox, end)
                .and_then(|output| parse_output(&output, mailbox))
                .map_err(|why| format!("{} {why}", program.display())),
            Err(complaint) => Err(complaint),
        };
        let result = match &answer {
            Ok(targets) if targets.is_empty() => "nothing",
            Ok(_) => "targets",
            Err(_) => "failed",
        };
        self.runs.add_one(result);
        answer.map_err(LookupFailure)
    }

    fn run(&self, mailbox: &Mailbox, end: Moment) -> Result<Vec<u8>, String> {
        let (give_back, take) = &self.permits;
        let patience = RUN_TIME_MAX.min(end.since(SystemClock.now()));
        take.recv_timeout(patience).map_err(|_| "is asked too much at once".to_owned())?;
        let turn = RunPermit(give_back);
        let time = RUN_TIME_MAX.min(end.since(SystemClock.now()));
        let (ended, errors) = Program {
            executable: &self.settings.program.to_string_lossy(),
            arguments: &[mailbox.to_string()],
            environment: &self.environment(mailbox),
            working_directory: &self.settings.working_directory,
            time_max: time,
            output_octets_max: OUTPUT_OCTETS_MAX + 1,
            stop: &self.settings.stop,
            on_stop: OnStop::EndAtOnce,
        }
        .run_with_separate_stderr(&mut io::empty());
        drop(turn);
        for line in
            errors.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).take(LOGGED_LINES_MAX)
        {
            log::warn!(target: "hook", "hooks/alias-resolve: {}", printable(line, 300));
        }
        match ended {
            ProgramExit::Exited { code: 0, output } if output.len() > OUTPUT_OCTETS_MAX => {
                Err(format!("printed more than {OUTPUT_OCTETS_MAX} octets for {mailbox}"))
            }
            ProgramExit::Exited { code: 0, output } => Ok(output),
            ProgramExit::Exited { code, .. } => Err(format!("ended with exit status {code} for {mailbox}")),
            ProgramExit::Killed { signal, .. } => Err(format!("was killed by signal {signal}")),
            ProgramExit::DeadlinePassed { .. } => {
                Err(format!("took longer than {} ms for {mailbox} and was ended", time.as_millis()))
            }
            ProgramExit::Stopped { .. } => {
                Err(format!("was not asked to the end for {mailbox}: the server is stopping"))
            }
            ProgramExit::NotStarted(error) => Err(format!("cannot be run: {error}; mend or remove it")),
            ProgramExit::InputFailed(error) | ProgramExit::WaitFailed(error) => {
                Err(format!("was lost: {error}"))
            }
        }
    }

    fn environment(&self, mailbox: &Mailbox) -> [(&'static str, OsString); 5] {
        let local_part = &mailbox.local_part;
        let base = self.settings.local_part_rules.candidate_users(local_part).pop();
        [
            ("PATH", PROGRAM_SEARCH_PATH.into()),
            ("LANG", "C.UTF-8".into()),
            ("LOCAL_PART", local_part.as_str().into()),
            ("BASE_NAME", base.as_ref().map_or(local_part.as_str(), LocalPart::as_str).into()),
            ("DOMAIN", mailbox.domain.to_unicode().into()),
        ]
    }
}

/// Gives a turn back, come what may.
struct RunPermit<'a>(&'a Sender<()>);

impl Drop for RunPermit<'_> {
    fn drop(&mut self) {
        // There is room: this is the turn that was taken.
        let _ = self.0.try_send(());
    }
}

/// Nothing in it means anything to a shell that forgot its quotes, or to [`targets`].
fn is_safe_for_scripts(name: &str) -> bool {
    let is_fine = |c: char| c.is_alphanumeric() || "!#%+-./=?^_{}~'".contains(c);
    !name.starts_with('-') && name.chars().all(is_fine)
}

/// The lines that the hook printed.
fn parse_output(output: &[u8], mailbox: &Mailbox) -> Result<Vec<AliasTarget>, String> {
    let text = std::str::from_utf8(output).map_err(|_| format!("printed what is no UTF-8 for {mailbox}"))?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let more = parse_targets(line, &mailbox.domain).map_err(|(problem, remedy)| {
            let line = index + 1;
            format!("printed something on line {line} for {mailbox} that cannot be read: {problem}; {remedy}")
        })?;
        found.extend(more.into_iter().filter(|target| !found.contains(target)).collect::<Vec<_>>());
    }
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A hook with this script for `/bin/sh`.
    fn hook_with_script(script: &str) -> (tempfile::TempDir, AliasHook) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("alias-resolve");
        // By another process: a thread of ours that forks meanwhile would hold the file open for
        // writing, and a file that is being written cannot be run.
        let text = format!("#!/bin/sh\n{script}\n");
        let wrote = std::process::Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", &text])
            .arg(&program)
            .status();
        assert!(wrote.unwrap().success());
        let directory = dir.path().to_owned();
        let spelling = LocalPartRules { drop_characters: ".".to_owned(), ..LocalPartRules::default() };
        let stop = Arc::new(StopFlag::new().unwrap());
        let settings =
            AliasHookSettings { program, working_directory: directory, local_part_rules: spelling, stop };
        (dir, AliasHook::new(settings, &Metrics::default()))
    }

    fn look_up_within(hook: &AliasHook, address: &str, time: Duration) -> Result<Vec<String>, String> {
        let found = hook.look_up(&Mailbox::parse(address).unwrap(), SystemClock.now() + time);
        found.map(|targets| targets.iter().map(ToString::to_string).collect()).map_err(|e| e.to_string())
    }

    fn look_up(hook: &AliasHook, address: &str) -> Result<Vec<String>, String> {
        look_up_within(hook, address, Duration::from_secs(60))
    }

    #[test]
    fn what_it_prints_is_read_as_right_sides() {
        let (_dir, hook) = hook_with_script(
            "echo \"# for $1\"; echo \"bo, *@second.example\"; echo; echo oops >&2\n\
             echo \"$LOCAL_PART-$BASE_NAME@$DOMAIN, bo\"; echo '| /bin/x y'",
        );
        assert_eq!(
            look_up(&hook, "A.na+x@bücher.example").unwrap(),
            ["bo@bücher.example", "*@second.example", "A.na+x-ana@bücher.example", "| /bin/x y"]
        );
    }

    #[test]
    fn no_hook_and_a_hook_that_says_nothing_add_nothing() {
        let (dir, hook) = hook_with_script("exit 0");
        assert!(look_up(&hook, "ana@here.example").unwrap().is_empty());
        std::fs::remove_file(dir.path().join("alias-resolve")).unwrap();
        assert!(look_up(&hook, "ana@here.example").unwrap().is_empty());
    }

    #[test]
    fn a_hook_that_fails_has_not_said_that_there_is_nobody() {
        for (script, says) in [
            ("exit 3", "exit status 3 for ana@here.example"),
            ("kill -9 $$", "signal 9"),
            ("echo bo; echo a b", "on line 2 for ana@here.example"),
            ("printf '\\377'", "no UTF-8"),
            ("yes bo, | head -c 70000", "more than 65536 octets"),
        ] {
            let (_dir, hook) = hook_with_script(script);
            let error = look_up(&hook, "ana@here.example").unwrap_err();
            assert!(error.contains(says) && error.contains("/alias-resolve "), "{error}");
        }
        let (_dir, slow) = hook_with_script("sleep 600");
        let error = look_up_within(&slow, "ana@here.example", Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("was ended"), "{error}");
        let (dir, closed) = hook_with_script("echo bo");
        let file = dir.path().join("alias-resolve");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(look_up(&closed, "ana@here.example").unwrap_err().contains("make it so with chmod +x"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert!(look_up(&closed, "ana@here.example").unwrap_err().contains("a symbolic link to nothing"));
    }

    #[test]
    fn a_name_that_a_careless_script_could_trip_over_is_not_put_to_it() {
        let (_dir, hook) = hook_with_script("echo \"$1\"");
        for name in ["|x", "$x", "`x`", "\"a b\"", "\"a,b\"", "-x", "\"a\\\"b\"", "\"x@y\""] {
            assert_eq!(look_up(&hook, &format!("{name}@here.example")).unwrap(), [""; 0], "{name}");
        }
        assert_eq!(look_up(&hook, "o'brien@here.example").unwrap(), ["o'brien@here.example"]);
    }

    #[test]
    fn only_so_many_run_at_once() {
        let (dir, hook) = hook_with_script("echo x >>runs; while [ ! -e go ]; do sleep 0.02; done");
        std::thread::scope(|scope| {
            let ask = || look_up(&hook, "ana@here.example");
            let threads: Vec<_> = (0..RUNS_AT_ONCE_MAX).map(|_| scope.spawn(ask)).collect();
            let runs = || std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().len() / 2;
            while runs() < RUNS_AT_ONCE_MAX {
                std::thread::yield_now();
            }
            let error = look_up_within(&hook, "bo@here.example", Duration::from_millis(20)).unwrap_err();
            assert!(error.contains("too much at once"), "{error}");
            std::fs::write(dir.path().join("go"), "").unwrap();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        });
        assert!(look_up(&hook, "bo@here.example").unwrap().is_empty(), "the turns have come back");
    }
}
