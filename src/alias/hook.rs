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

use super::resolve::CannotTell;
use super::spelling::Spelling;
use super::target::{Target, targets};
use crate::mail::{LocalPart, Mailbox, printable};
use crate::observe::{CounterFamily, Metrics};
use crate::sys::{AtStop, Clock as _, Ended, Moment, Program, Stop, SystemClock, is_hook_there};

/// Time that one run has.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs at once; a session that asks waits for its turn.
const AT_ONCE: usize = 4;

/// Most that a run may print, in octets: some thousand addresses.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// Lines of its standard error that one run may put into the log.
const LOGGED_LINES_MAX: usize = 20;

/// Where the hook finds programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the hook is, and how names are spelled.
#[derive(Debug, Clone)]
pub struct AliasHookSettings {
    /// The program; it need not be there.
    pub program: PathBuf,
    /// Where it runs.
    pub directory: PathBuf,
    /// For `BASE_NAME`.
    pub spelling: Spelling,
    /// The request to stop.
    pub stop: Arc<Stop>,
}

/// Asks the hook. Shared by all sessions.
pub struct AliasHook {
    settings: AliasHookSettings,
    /// Who holds a turn may run it.
    turns: (Sender<()>, Receiver<()>),
    asked: CounterFamily,
}

impl AliasHook {
    /// The hook at its place, whether it is there or not.
    #[must_use]
    pub fn new(settings: AliasHookSettings, metrics: &Metrics) -> Self {
        let turns = bounded(AT_ONCE);
        for _ in 0..AT_ONCE {
            let _ = turns.0.try_send(());
        }
        let asked = metrics.family("alias_hook", "Runs of hooks/alias-resolve, by result", "result");
        Self { settings, turns, asked }
    }

    /// What the hook adds to the aliases of `mailbox`; back by `end`, or little later.
    ///
    /// # Errors
    /// [`CannotTell`] when it failed, with why: it may work later.
    pub fn ask(&self, mailbox: &Mailbox, end: Moment) -> Result<Vec<Target>, CannotTell> {
        if !is_harmless(mailbox.local_part.as_str()) {
            return Ok(Vec::new());
        }
        let program = &self.settings.program;
        let answer = match is_hook_there(program) {
            Ok(false) => return Ok(Vec::new()),
            Ok(true) => self
                .run(mailbox, end)
                .and_then(|output| read(&output, mailbox))
                .map_err(|why| format!("{} {why}", program.display())),
            Err(complaint) => Err(complaint),
        };
        let result = match &answer {
            Ok(targets) if targets.is_empty() => "nothing",
            Ok(_) => "targets",
            Err(_) => "failed",
        };
        self.asked.add_one(result);
        answer.map_err(CannotTell)
    }

    fn run(&self, mailbox: &Mailbox, end: Moment) -> Result<Vec<u8>, String> {
        let (give_back, take) = &self.turns;
        let patience = DEADLINE.min(end.since(SystemClock.now()));
        take.recv_timeout(patience).map_err(|_| "is asked too much at once".to_owned())?;
        let turn = Turn(give_back);
        let time = DEADLINE.min(end.since(SystemClock.now()));
        let (ended, errors) = Program {
            program: &self.settings.program.to_string_lossy(),
            arguments: &[mailbox.to_string()],
            environment: &self.environment(mailbox),
            directory: &self.settings.directory,
            time,
            output_octets_max: OUTPUT_OCTETS_MAX + 1,
            stop: &self.settings.stop,
            at_stop: AtStop::End,
        }
        .run_apart(&mut io::empty());
        drop(turn);
        for line in
            errors.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).take(LOGGED_LINES_MAX)
        {
            log::warn!(target: "hook", "hooks/alias-resolve: {}", printable(line, 300));
        }
        match ended {
            Ended::Exited { code: 0, output } if output.len() > OUTPUT_OCTETS_MAX => {
                Err(format!("printed more than {OUTPUT_OCTETS_MAX} octets for {mailbox}"))
            }
            Ended::Exited { code: 0, output } => Ok(output),
            Ended::Exited { code, .. } => Err(format!("ended with exit status {code} for {mailbox}")),
            Ended::Killed { signal, .. } => Err(format!("was killed by signal {signal}")),
            Ended::DeadlinePassed { .. } => {
                Err(format!("took longer than {} ms for {mailbox} and was ended", time.as_millis()))
            }
            Ended::Stopped { .. } => {
                Err(format!("was not asked to the end for {mailbox}: the server is stopping"))
            }
            Ended::NotStarted(error) => Err(format!("cannot be run: {error}; mend or remove it")),
            Ended::InputFailed(error) | Ended::Lost(error) => Err(format!("was lost: {error}")),
        }
    }

    fn environment(&self, mailbox: &Mailbox) -> [(&'static str, OsString); 5] {
        let local_part = &mailbox.local_part;
        let base = self.settings.spelling.users(local_part).pop();
        [
            ("PATH", PATH.into()),
            ("LANG", "C.UTF-8".into()),
            ("LOCAL_PART", local_part.as_str().into()),
            ("BASE_NAME", base.as_ref().map_or(local_part.as_str(), LocalPart::as_str).into()),
            ("DOMAIN", mailbox.domain.to_unicode().into()),
        ]
    }
}

/// Gives a turn back, come what may.
struct Turn<'a>(&'a Sender<()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // There is room: this is the turn that was taken.
        let _ = self.0.try_send(());
    }
}

/// Nothing in it means anything to a shell that forgot its quotes, or to [`targets`].
fn is_harmless(name: &str) -> bool {
    let is_fine = |c: char| c.is_alphanumeric() || "!#%+-./=?^_{}~'".contains(c);
    !name.starts_with('-') && name.chars().all(is_fine)
}

/// The lines that the hook printed.
fn read(output: &[u8], mailbox: &Mailbox) -> Result<Vec<Target>, String> {
    let text = std::str::from_utf8(output).map_err(|_| format!("printed what is no UTF-8 for {mailbox}"))?;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let more = targets(line, &mailbox.domain).map_err(|(problem, remedy)| {
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
    fn hook(script: &str) -> (tempfile::TempDir, AliasHook) {
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
        let spelling = Spelling { drop_characters: ".".to_owned(), ..Spelling::default() };
        let stop = Arc::new(Stop::new().unwrap());
        let settings = AliasHookSettings { program, directory, spelling, stop };
        (dir, AliasHook::new(settings, &Metrics::default()))
    }

    fn ask_by(hook: &AliasHook, address: &str, time: Duration) -> Result<Vec<String>, String> {
        let found = hook.ask(&Mailbox::parse(address).unwrap(), SystemClock.now() + time);
        found.map(|targets| targets.iter().map(ToString::to_string).collect()).map_err(|e| e.to_string())
    }

    fn ask(hook: &AliasHook, address: &str) -> Result<Vec<String>, String> {
        ask_by(hook, address, Duration::from_secs(60))
    }

    #[test]
    fn what_it_prints_is_read_as_right_sides() {
        let (_dir, hook) = hook(
            "echo \"# for $1\"; echo \"bo, *@second.example\"; echo; echo oops >&2\n\
             echo \"$LOCAL_PART-$BASE_NAME@$DOMAIN, bo\"; echo '| /bin/x y'",
        );
        assert_eq!(
            ask(&hook, "A.na+x@bücher.example").unwrap(),
            ["bo@bücher.example", "*@second.example", "A.na+x-ana@bücher.example", "| /bin/x y"]
        );
    }

    #[test]
    fn no_hook_and_a_hook_that_says_nothing_add_nothing() {
        let (dir, hook) = hook("exit 0");
        assert!(ask(&hook, "ana@here.example").unwrap().is_empty());
        std::fs::remove_file(dir.path().join("alias-resolve")).unwrap();
        assert!(ask(&hook, "ana@here.example").unwrap().is_empty());
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
            let (_dir, hook) = hook(script);
            let error = ask(&hook, "ana@here.example").unwrap_err();
            assert!(error.contains(says) && error.contains("/alias-resolve "), "{error}");
        }
        let (_dir, slow) = hook("sleep 600");
        let error = ask_by(&slow, "ana@here.example", Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("was ended"), "{error}");
        let (dir, closed) = hook("echo bo");
        let file = dir.path().join("alias-resolve");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(ask(&closed, "ana@here.example").unwrap_err().contains("make it so with chmod +x"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert!(ask(&closed, "ana@here.example").unwrap_err().contains("a symbolic link to nothing"));
    }

    #[test]
    fn a_name_that_a_careless_script_could_trip_over_is_not_put_to_it() {
        let (_dir, hook) = hook("echo \"$1\"");
        for name in ["|x", "$x", "`x`", "\"a b\"", "\"a,b\"", "-x", "\"a\\\"b\"", "\"x@y\""] {
            assert_eq!(ask(&hook, &format!("{name}@here.example")).unwrap(), [""; 0], "{name}");
        }
        assert_eq!(ask(&hook, "o'brien@here.example").unwrap(), ["o'brien@here.example"]);
    }

    #[test]
    fn only_so_many_run_at_once() {
        let (dir, hook) = hook("echo x >>runs; while [ ! -e go ]; do sleep 0.02; done");
        std::thread::scope(|scope| {
            let ask = || ask(&hook, "ana@here.example");
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(ask)).collect();
            let runs = || std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().len() / 2;
            while runs() < AT_ONCE {
                std::thread::yield_now();
            }
            let error = ask_by(&hook, "bo@here.example", Duration::from_millis(20)).unwrap_err();
            assert!(error.contains("too much at once"), "{error}");
            std::fs::write(dir.path().join("go"), "").unwrap();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        });
        assert!(ask(&hook, "bo@here.example").unwrap().is_empty(), "the turns have come back");
    }
}
