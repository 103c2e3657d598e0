//! The hooks of sessions: programs of the operator that accept or refuse a recipient or a message.
//!
//! `hooks/rcpt` runs for each recipient that is otherwise accepted, `hooks/post-data` for each whole message
//! before it is queued. A hook that is not installed is skipped. The environment has the circumstances, and
//! the standard input of `post-data` is the message as it will be queued, with LF line ends. Exit status 0
//! accepts, 20 refuses permanently, and any other refuses for now. The last line of standard output is the
//! text of the reply, and may begin with an enhanced status. When `post-data` accepts, its output is header
//! fields for the top of the message; malformed fields are left out. Standard error goes to the log.
//!
//! A hook that gives no answer (it cannot be run, is killed, or is ended with its children at its deadline)
//! defers or accepts, as the operator has set. A hook runs on the thread of its session, so that there are
//! never more hooks than sessions. When the server stops, `rcpt` is ended at once, and `post-data` at the end
//! of the time for messages that are being received; the reply is then 4yz, whatever the operator has set.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::circumstances::Circumstances;
use super::local_recipients::LocalRecipients;
use crate::mail::{
    AddedField, Failure, ForwardPath, Mailbox, MessageId, Recipient, ReversePath, SpfResult, printable,
};
use crate::observe::{CounterFamily, Metrics, Trace};
use crate::smtp::{Answer, EnhancedStatus, Verdict};
use crate::sys::{
    HookExit, LfReader, OnStop, PROGRAM_SEARCH_PATH, Program, StopFlag, is_hook_present, nonempty_lines,
    run_hook,
};

/// The settings of the hooks.
#[derive(Debug, Clone)]
pub struct SessionHookSettings {
    /// The configuration directory, in which hooks run; they are in `hooks/` below it.
    pub config_dir: PathBuf,
    /// The effect of a hook that gives no answer.
    pub fallback: HookFallback,
    /// Longest time of a run of `rcpt`.
    pub rcpt_timeout: Duration,
    /// Longest time of a run of `post-data`.
    pub post_data_timeout: Duration,
    /// The request to stop.
    pub stop: Arc<StopFlag>,
}

/// The effect of a hook that gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFallback {
    /// The client may try again later.
    Defer,
    /// As if the hook were not installed.
    Accept,
}

/// Runs hooks.
pub struct SessionHooks {
    settings: SessionHookSettings,
    local_recipients: Arc<dyn LocalRecipients>,
    rcpt_results: CounterFamily,
    post_data_results: CounterFamily,
}

/// The result of a hook.
#[derive(Debug)]
enum HookResult {
    /// There is no such hook.
    NotInstalled,
    /// Accepted, with this output.
    Accepted(Vec<u8>),
    /// Refused, permanently or for now.
    Rejected(Failure),
    /// The hook gave no answer, for this reason.
    Failed(String),
}

/// The hooks of sessions.
#[derive(Debug, Clone, Copy)]
enum SessionHook {
    Rcpt,
    PostData,
}

impl SessionHook {
    /// The name of its file.
    fn name(self) -> &'static str {
        match self {
            Self::Rcpt => "rcpt",
            Self::PostData => "post-data",
        }
    }

    fn path(self, config_dir: &Path) -> PathBuf {
        config_dir.join("hooks").join(self.name())
    }

    /// The detail of the status X.7 in a permanent refusal without a status: delivery not authorised, or
    /// undefined for a message, since the reason is not known (RFC 3463 §3.8).
    fn default_detail(self) -> u16 {
        match self {
            Self::Rcpt => 1,
            Self::PostData => 0,
        }
    }

    /// A client without an answer to RCPT tries again; a message was received whole and may be queued.
    fn on_stop(self) -> OnStop {
        match self {
            Self::Rcpt => OnStop::EndAtOnce,
            Self::PostData => OnStop::FinishByDeadline,
        }
    }
}

/// The exit status of a permanent refusal.
const EXIT_REFUSED: i32 = 20;
/// Octets of output: fields, or a reason.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;
/// Octets of a hook's reason in the reply.
const REASON_OCTETS_MAX: usize = 400;
/// Octets of recipients in the environment: Linux allows 128 KiB for one variable.
const RECIPIENTS_OCTETS_MAX: usize = 100 * 1024;
/// Longest line of a header section (RFC 5322 §2.1.1).
const FIELD_LINE_OCTETS_MAX: usize = 998;

type EnvironmentVariables = Vec<(&'static str, OsString)>;

impl SessionHooks {
    /// `local_recipients` has the local domains.
    #[must_use]
    pub fn new(
        settings: SessionHookSettings,
        local_recipients: Arc<dyn LocalRecipients>,
        metrics: &Metrics,
    ) -> Self {
        // A hook is started in this directory, and found from there.
        let config_dir = std::path::absolute(&settings.config_dir).unwrap_or(settings.config_dir);
        let settings = SessionHookSettings { config_dir, ..settings };
        let rcpt = metrics.counter_family("hook_rcpt", "Runs of hooks/rcpt, by result", "result");
        let post_data =
            metrics.counter_family("hook_post_data", "Runs of hooks/post-data, by result", "result");
        Self { settings, local_recipients, rcpt_results: rcpt, post_data_results: post_data }
    }

    /// The problems of the two hooks below a configuration directory: a sentence each.
    #[must_use]
    pub fn installation_problems(config_dir: &Path) -> Vec<String> {
        [SessionHook::Rcpt, SessionHook::PostData]
            .iter()
            .filter_map(|hook| is_hook_present(&hook.path(config_dir)).err())
            .collect()
    }

    /// Runs the hook for a recipient that is otherwise accepted.
    pub(super) fn run_rcpt_hook(
        &self,
        circumstances: &Circumstances<'_>,
        forward_path: &ForwardPath,
        verdict: Verdict,
        trace: &Trace,
    ) -> Verdict {
        if !matches!(verdict.answer, Answer::Recipients(_)) || !self.may_exist(SessionHook::Rcpt) {
            return verdict;
        }
        let address = match forward_path {
            ForwardPath::Postmaster => "postmaster".to_owned(),
            ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
        };
        let mut environment = self.environment(circumstances);
        environment.push(("RCPT", address.into()));
        let result =
            self.run(SessionHook::Rcpt, &environment, &mut io::empty(), self.settings.rcpt_timeout, trace);
        match self.apply_result(SessionHook::Rcpt, result, trace) {
            Ok(_) => verdict,
            Err(refusal) => refusal,
        }
    }

    /// There is a hook for messages.
    pub(super) fn has_message_hook(&self) -> bool {
        self.may_exist(SessionHook::PostData)
    }

    /// Runs the hook for a whole message; the fields to put on top of it.
    pub(super) fn run_post_data_hook(
        &self,
        circumstances: &Circumstances<'_>,
        id: MessageId,
        recipients: &[Recipient],
        message: &mut dyn Read,
        trace: &Trace,
    ) -> Result<Vec<AddedField>, Verdict> {
        let mut environment = self.environment(circumstances);
        environment.push(("QUEUE_ID", id.as_str().into()));
        environment.extend(recipient_variables(recipients));
        let time = self.settings.post_data_timeout;
        let result = self.run(SessionHook::PostData, &environment, &mut LfReader::new(message), time, trace);
        let output = self.apply_result(SessionHook::PostData, result, trace)?;
        parse_fields(&output).or_else(|why| {
            self.post_data_results.add_one("malformed");
            log::error!(target: "hook", "{id}: what hooks/post-data printed is left out: {why}");
            trace.add_error(format!("what hooks/post-data printed is left out: {why}"));
            Ok(Vec::new())
        })
    }

    fn may_exist(&self, hook: SessionHook) -> bool {
        !matches!(is_hook_present(&hook.path(&self.settings.config_dir)), Ok(false))
    }

    /// Counts the result, and decides for a hook without an answer.
    fn apply_result(&self, hook: SessionHook, result: HookResult, trace: &Trace) -> Result<Vec<u8>, Verdict> {
        let counter = match hook {
            SessionHook::Rcpt => &self.rcpt_results,
            SessionHook::PostData => &self.post_data_results,
        };
        match result {
            HookResult::NotInstalled => Ok(Vec::new()),
            HookResult::Accepted(output) => {
                counter.add_one("accepted");
                trace.add_event(format!("hooks/{} accepts", hook.name()));
                Ok(output)
            }
            HookResult::Rejected(failure) => {
                counter.add_one(match failure {
                    Failure::Permanent(_) => "refused",
                    Failure::Transient(_) => "deferred",
                });
                Err(Verdict::refused(failure).with_reason(format!("hooks/{} has refused", hook.name())))
            }
            HookResult::Failed(why) => {
                counter.add_one("failed");
                log::error!(target: "hook", "{why}");
                trace.add_error(why.as_str());
                match self.settings.fallback {
                    HookFallback::Accept => Ok(Vec::new()),
                    HookFallback::Defer => {
                        let failure = Failure::transient(3, 0, "Local error, try again later");
                        Err(Verdict::refused(failure).with_reason(why))
                    }
                }
            }
        }
    }

    fn run(
        &self,
        hook: SessionHook,
        environment: &[(&'static str, OsString)],
        input: &mut dyn Read,
        time: Duration,
        trace: &Trace,
    ) -> HookResult {
        let name = format!("hooks/{}", hook.name());
        let path = hook.path(&self.settings.config_dir);
        trace.add_event(format!("running {name}"));
        let program = Program {
            executable: &path.to_string_lossy(),
            arguments: &[],
            environment,
            working_directory: &self.settings.config_dir,
            time_max: time,
            // One more than is allowed, so that an output that is too long is noticed.
            output_octets_max: OUTPUT_OCTETS_MAX + 1,
            stop: &self.settings.stop,
            on_stop: hook.on_stop(),
        };
        match run_hook(&name, &program, input) {
            HookExit::NotInstalled => HookResult::NotInstalled,
            HookExit::NotUsable(complaint) => HookResult::Failed(complaint),
            HookExit::Exited { code: 0, output } => HookResult::Accepted(output),
            HookExit::Exited { code, output } => {
                HookResult::Rejected(failure_from_exit(code, &output, hook.default_detail()))
            }
            HookExit::Stopped => {
                HookResult::Rejected(Failure::transient(3, 2, "This server is stopping, try again later"))
            }
            // The fault is in the spool, not in the hook: `fallback` does not apply.
            HookExit::InputFailed(e) => {
                log::error!(target: "hook", "{}: could not be given the message: {e}", path.display());
                let text = "Your message could not be read back, try again later";
                HookResult::Rejected(Failure::transient(3, 0, text))
            }
            HookExit::Failed(why) => HookResult::Failed(format!("{}: {why}", path.display())),
        }
    }

    fn environment(&self, circumstances: &Circumstances<'_>) -> EnvironmentVariables {
        let flag = |is: bool| OsString::from(if is { "1" } else { "0" });
        let text = |text: Option<String>| OsString::from(text.unwrap_or_default());
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-.[]:".contains(*c);
        let mailbox = circumstances.reverse_path.and_then(ReversePath::mailbox);
        let spf = circumstances.sender.and_then(|facts| facts.spf);
        let is_local = mailbox.is_some_and(|mailbox| self.local_recipients.is_local(&mailbox.domain));
        let mut environment = vec![
            ("PATH", std::env::var_os("PATH").unwrap_or_else(|| PROGRAM_SEARCH_PATH.into())),
            ("PWD", self.settings.config_dir.clone().into()),
            ("REMOTE_ADDR", circumstances.peer.to_string().into()),
            ("REMOTE_NAME", text(circumstances.reverse_name().map(|name| name.as_ascii().to_owned()))),
            ("EHLO_DOMAIN", circumstances.hello.chars().filter(is_plain).collect::<String>().into()),
            ("EHLO_DOMAIN_RAW", circumstances.hello.into()),
            ("MAIL_FROM", text(mailbox.map(ToString::to_string))),
            ("AUTH_AS", text(circumstances.login.map(ToString::to_string))),
            ("ON_TLS", flag(circumstances.tls.is_some())),
            ("SPF_PASS", flag(spf == Some(SpfResult::Pass))),
            ("FROM_LOCAL_DOMAIN", flag(is_local)),
        ];
        environment
            .extend(["USER", "SHELL"].iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        environment
    }
}

/// The recipients as the client named them, each once, as far as there is room, and their number.
fn recipient_variables(recipients: &[Recipient]) -> EnvironmentVariables {
    let mut named: Vec<&Mailbox> = Vec::new();
    for recipient in recipients {
        // The targets of an alias are adjacent.
        if named.last() != Some(&&recipient.forward_path) {
            named.push(&recipient.forward_path);
        }
    }
    let mut text = String::new();
    for mailbox in &named {
        // A space separates recipients, so none may contain one.
        let shown = mailbox.to_string().replace(' ', "\\x20");
        if text.len() + shown.len() >= RECIPIENTS_OCTETS_MAX {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&shown);
    }
    vec![("RCPT_TO", text.into()), ("RCPT_COUNT", named.len().to_string().into())]
}

/// The refusal for exit status `code` and the last line of output.
fn failure_from_exit(code: i32, output: &[u8], default_detail: u16) -> Failure {
    let text = nonempty_lines(output).next_back().unwrap_or_default();
    let text = printable(text, REASON_OCTETS_MAX);
    // A client without SMTPUTF8 gets replies in ASCII (RFC 6531 §3.7.4.2).
    let text: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let class = if code == EXIT_REFUSED { 5 } else { 4 };
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let (subject, detail, text) = match EnhancedStatus::parse(word) {
        Some(status) if status.class == class => (status.subject, status.detail, rest),
        Some(_) | None => (7, if class == 5 { default_detail } else { 0 }, text.as_str()),
    };
    match (code, text) {
        (EXIT_REFUSED, "") => Failure::permanent(subject, detail, "This is against the rules of this server"),
        (EXIT_REFUSED, text) => Failure::permanent(subject, detail, text),
        (_, "") => Failure::transient(subject, detail, "This server cannot decide now, try again later"),
        (_, text) => Failure::transient(subject, detail, text),
    }
}

/// The output of a hook as fields; the reason if it is malformed.
fn parse_fields(output: &[u8]) -> Result<Vec<AddedField>, String> {
    if output.is_empty() {
        return Ok(Vec::new());
    }
    if output.len() > OUTPUT_OCTETS_MAX {
        return Err(format!("it is longer than {OUTPUT_OCTETS_MAX} octets"));
    }
    let text = std::str::from_utf8(output).ok().filter(|text| text.is_ascii());
    let text = text.ok_or("it is not ASCII")?;
    let text = text.strip_suffix('\n').ok_or("its last line has no end")?;
    let mut fields = String::with_capacity(text.len() + 64);
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let wrong = |what: &str| format!("line {}: {what}", index + 1);
        if line.trim().is_empty() {
            return Err(wrong("it is empty"));
        }
        if line.len() > FIELD_LINE_OCTETS_MAX {
            return Err(wrong("it is longer than 998 octets"));
        }
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(wrong("it has a control character"));
        }
        if line.starts_with([' ', '\t']) {
            if index == 0 {
                return Err(wrong("it continues nothing"));
            }
        } else {
            let name = line.split_once(':').map(|(name, _)| name);
            if !name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())) {
                return Err(wrong("it is neither `Name: value` nor begins with a space"));
            }
        }
        fields.push_str(line);
        fields.push_str("\r\n");
    }
    AddedField::parse_all(&fields).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: i32, output: &str) -> String {
        failure_from_exit(code, output.as_bytes(), 1).to_string()
    }

    #[test]
    fn the_last_line_is_the_reason_and_may_begin_with_a_status() {
        for (code, output, subject, detail, text) in [
            (20, "looking\nThis is spam\n", 7, 1, "This is spam"),
            (20, "5.7.28 Too much of it\n\n \n", 7, 28, "Too much of it"),
            (20, "4.7.1 not his to say\n", 7, 1, "4.7.1 not his to say"),
            (20, "", 7, 1, "This is against the rules of this server"),
            (20, "5.3.4", 3, 4, "This is against the rules of this server"),
            (1, "4.2.2 Full", 2, 2, "Full"),
            (75, "5.7.1 later", 7, 0, "5.7.1 later"),
            (127, "", 7, 0, "This server cannot decide now, try again later"),
            (20, "a\rb\x1b[31m \u{e9}", 7, 1, "a\\x0db\\x1b[31m ?"),
            (20, "5.1111.1 x", 7, 1, "5.1111.1 x"),
            (20, "5.+1.1 x", 7, 1, "5.+1.1 x"),
        ] {
            let failure = failure_from_exit(code, output.as_bytes(), 1);
            assert_eq!(matches!(failure, Failure::Permanent(_)), code == 20, "{}", shown(code, output));
            let reason = failure.reason();
            assert_eq!((reason.subject, reason.detail, &*reason.text), (subject, detail, text), "{output:?}");
        }
        let long = failure_from_exit(20, "x".repeat(10_000).as_bytes(), 1);
        assert_eq!(long.reason().text.len(), REASON_OCTETS_MAX + 1, "and one for what was cut off");
    }

    #[test]
    fn only_well_formed_fields_are_added() {
        for (output, expected) in [
            ("", ""),
            ("X-Spam: no\n", "X-Spam: no\r\n"),
            ("A: b\r\n\tc: d\nE:\n", "A: b\r\n\tc: d\r\nE:\r\n"),
        ] {
            let fields = parse_fields(output.as_bytes()).unwrap();
            assert_eq!(fields.iter().map(AddedField::as_str).collect::<String>(), expected);
        }
        for (output, says) in [
            ("X-Spam: no", "its last line has no end"),
            ("\n", "line 1: it is empty"),
            ("A: b\n\nhello\n", "line 2: it is empty"),
            ("A: b\n \t\n", "line 2: it is empty"),
            (" a: b\n", "line 1: it continues nothing"),
            ("hello\n", "line 1: it is neither"),
            ("two words: x\n", "line 1: it is neither"),
            (": x\n", "line 1: it is neither"),
            ("A: b\rC: d\n", "line 1: it has a control character"),
            ("A: \0\n", "line 1: it has a control character"),
            ("A: é\n", "it is not ASCII"),
            (&format!("A: {}\n", "x".repeat(1000)), "line 1: it is longer than 998 octets"),
            (&"A: b\n".repeat(14_000), "it is longer than 65536 octets"),
        ] {
            let error = parse_fields(output.as_bytes()).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
