//! The hook `hooks/alias-resolve ADDRESS`: a program of the operator that has more aliases.
//!
//! Each name of a local domain that is looked up is given to the hook once, as its one argument;
//! `LOCAL_PART`, `BASE_NAME` (without suffix and dropped characters) and `DOMAIN` in its environment are
//! the parts. Each line of its standard output is a right side as in an alias file. The targets on all
//! lines are added to those of the files; without output nothing is added. Standard error goes to the log.
//!
//! If the hook fails, is too slow or prints a line that cannot be read, the address is not unknown: the
//! client gets 451. This also holds for a look-up that is under way when the server stops, where the hook
//! is ended. If there is no hook, nothing is added.
//!
//! A name with characters that a careless script could misread (quotes, spaces, `|`, `$`, a leading `-`)
//! is not given to the hook: it has no aliases from there.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::local_part_rules::LocalPartRules;
use super::resolve::LookupFailure;
use super::target::{AliasTarget, parse_targets};
use crate::mail::{LocalPart, Mailbox};
use crate::observe::{CounterFamily, Metrics};
use crate::sys::{
    Clock as _, HookExit, Moment, OnStop, PROGRAM_SEARCH_PATH, Program, StopFlag, SystemClock,
    is_hook_present, run_hook,
};

/// Longest time of one run.
const RUN_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs at the same time; another session waits for a permit.
const RUNS_AT_ONCE_MAX: usize = 4;

/// Octets that a run may print: some thousand addresses.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// The settings of the hook.
#[derive(Debug, Clone)]
pub struct AliasHookSettings {
    /// The program, which need not be there.
    pub program: PathBuf,
    /// The directory in which it runs.
    pub working_directory: PathBuf,
    /// For `BASE_NAME`.
    pub local_part_rules: LocalPartRules,
    /// The request to stop.
    pub stop: Arc<StopFlag>,
}

/// Runs the hook. All sessions share it.
pub struct AliasHook {
    settings: AliasHookSettings,
    /// A thread that has taken a permit may run it.
    permits: (Sender<()>, Receiver<()>),
    runs: CounterFamily,
}

impl AliasHook {
    /// The hook, whether it is installed or not.
    #[must_use]
    pub fn new(settings: AliasHookSettings, metrics: &Metrics) -> Self {
        let permits = bounded(RUNS_AT_ONCE_MAX);
        for _ in 0..RUNS_AT_ONCE_MAX {
            let _ = permits.0.try_send(());
        }
        let runs =
            metrics.counter_family("hook_alias_resolve", "Runs of hooks/alias-resolve, by result", "result");
        Self { settings, permits, runs }
    }

    /// The targets that the hook adds to the aliases of `mailbox`. Returns by `end`, or little later.
    ///
    /// # Errors
    /// [`LookupFailure`] with the reason if the hook has failed: it may work later.
    pub fn look_up(&self, mailbox: &Mailbox, end: Moment) -> Result<Vec<AliasTarget>, LookupFailure> {
        if !is_safe_for_scripts(mailbox.local_part.as_str()) {
            return Ok(Vec::new());
        }
        let program = self.settings.program.display();
        let answer = match self.run(mailbox, end) {
            HookExit::NotInstalled => return Ok(Vec::new()),
            HookExit::Exited { code: 0, output } => {
                parse_output(&output, mailbox).map_err(|why| format!("{program} {why}"))
            }
            HookExit::Exited { code, .. } => {
                Err(format!("{program} ended with exit status {code} for {mailbox}"))
            }
            HookExit::Stopped => {
                Err(format!("{program} was ended while it looked up {mailbox}: the server is stopping"))
            }
            HookExit::InputFailed(e) => Err(format!("{program} got no input: {e}")),
            HookExit::Failed(why) => Err(format!("{program} {why}; it was to look up {mailbox}")),
            HookExit::NotUsable(complaint) => Err(complaint),
        };
        let result = match &answer {
            Ok(targets) if targets.is_empty() => "empty",
            Ok(_) => "targets",
            Err(_) => "failed",
        };
        self.runs.add_one(result);
        answer.map_err(LookupFailure)
    }

    fn run(&self, mailbox: &Mailbox, end: Moment) -> HookExit {
        // A look-up without a hook waits for nobody's run.
        if let Ok(false) = is_hook_present(&self.settings.program) {
            return HookExit::NotInstalled;
        }
        let (permits, take) = &self.permits;
        let remaining = || RUN_TIME_MAX.min(end.since(SystemClock.now()));
        if take.recv_timeout(remaining()).is_err() {
            return HookExit::Failed("is asked too much at once".to_owned());
        }
        let _permit = RunPermit(permits);
        let program = Program {
            executable: &self.settings.program.to_string_lossy(),
            arguments: &[mailbox.to_string()],
            environment: &self.environment(mailbox),
            working_directory: &self.settings.working_directory,
            time_max: remaining(),
            // One more than is allowed, so that an output that is too long is noticed.
            output_octets_max: OUTPUT_OCTETS_MAX + 1,
            stop: &self.settings.stop,
            on_stop: OnStop::EndAtOnce,
        };
        run_hook("hooks/alias-resolve", &program, &mut io::empty())
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

/// Gives the permit back when it is dropped.
struct RunPermit<'a>(&'a Sender<()>);

impl Drop for RunPermit<'_> {
    fn drop(&mut self) {
        // There is room: the permit was taken from there.
        let _ = self.0.try_send(());
    }
}

/// The name means nothing else to a shell script without quotes, or in an alias file.
fn is_safe_for_scripts(name: &str) -> bool {
    let is_safe = |c: char| c.is_alphanumeric() || "!#%+-./=?^_{}~'".contains(c);
    !name.starts_with('-') && name.chars().all(is_safe)
}

/// The targets on the lines that the hook printed.
fn parse_output(output: &[u8], mailbox: &Mailbox) -> Result<Vec<AliasTarget>, String> {
    if output.len() > OUTPUT_OCTETS_MAX {
        return Err(format!("printed more than {OUTPUT_OCTETS_MAX} octets for {mailbox}"));
    }
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
        let local_part_rules =
            LocalPartRules { drop_characters: ".".to_owned(), ..LocalPartRules::default() };
        let stop = Arc::new(StopFlag::new().unwrap());
        let settings = AliasHookSettings { program, working_directory: directory, local_part_rules, stop };
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
    fn each_printed_line_is_read_as_a_right_side() {
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
    fn no_hook_and_a_hook_without_output_add_nothing() {
        let (dir, hook) = hook_with_script("exit 0");
        assert!(look_up(&hook, "ana@here.example").unwrap().is_empty());
        std::fs::remove_file(dir.path().join("alias-resolve")).unwrap();
        assert!(look_up(&hook, "ana@here.example").unwrap().is_empty());
    }

    #[test]
    fn the_look_up_fails_when_the_hook_fails() {
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
    fn a_name_that_a_careless_script_could_misread_is_not_given_to_the_hook() {
        let (_dir, hook) = hook_with_script("echo \"$1\"");
        for name in ["|x", "$x", "`x`", "\"a b\"", "\"a,b\"", "-x", "\"a\\\"b\"", "\"x@y\""] {
            assert_eq!(look_up(&hook, &format!("{name}@here.example")).unwrap(), [""; 0], "{name}");
        }
        assert_eq!(look_up(&hook, "o'brien@here.example").unwrap(), ["o'brien@here.example"]);
    }

    #[test]
    fn the_number_of_runs_at_the_same_time_is_limited() {
        let (dir, hook) = hook_with_script("echo x >>runs; while [ ! -e go ]; do sleep 0.02; done");
        std::thread::scope(|scope| {
            let run = || look_up(&hook, "ana@here.example");
            let threads: Vec<_> = (0..RUNS_AT_ONCE_MAX).map(|_| scope.spawn(run)).collect();
            let runs = || std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().len() / 2;
            while runs() < RUNS_AT_ONCE_MAX {
                std::thread::yield_now();
            }
            let error = look_up_within(&hook, "bo@here.example", Duration::from_millis(20)).unwrap_err();
            assert!(error.contains("is asked too much at once"), "{error}");
            std::fs::write(dir.path().join("go"), "").unwrap();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        });
        assert!(look_up(&hook, "bo@here.example").unwrap().is_empty(), "the permits are given back");
    }
}
