//! To the operator's delivery agent: procmail, maildrop, dovecot-lda …
//!
//! One run for each recipient, never by way of a shell: an address is put into an argument as it
//! is, and nothing is taken out of it. In arguments, these are filled in:
//!
//! | | |
//! |---|---|
//! | `%from%` | the reverse-path; empty if it is null, as procmail's and maildrop's `-f` want it |
//! | `%from_user%` `%from_domain%` | its parts; empty if it is null |
//! | `%to%` | the recipient |
//! | `%to_user%` `%to_domain%` | its parts: the user as our users file has it, the domain in U-labels |
//!
//! An address may begin with a hyphen, and the agent would take it for an option. Where the
//! operator's argument begins with a place and what is put in begins with `-`, the recipient is
//! refused for good (5.1.3, or 5.1.7 if it is the sender's address).
//!
//! Exit status 0 is delivered, 75 transient, every other permanent. An agent that is missing, that
//! a signal killed or that ran past its deadline is transient: an operator can mend that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::contract::{Courier, Delivery};
use super::final_delivery::LineEnds;
use super::program::{EXIT_TEMPFAIL, ProgramRun, RunError, trace_outcome};
use super::template::Template;
use crate::mail::{Failure, Mailbox, Outcome, Reason, Recipient, ReversePath};
use crate::sys::{Clock, StopFlag};

/// The operator's delivery agent.
#[derive(Debug, Clone)]
pub struct CommandSettings {
    /// A path, or a name to be found in PATH.
    pub program: String,
    /// Its arguments, with places to fill in.
    pub arguments: Vec<String>,
    /// What ends a line of what it reads.
    pub line_ends: LineEnds,
    /// Time it has for one recipient.
    pub deadline: Duration,
    /// Where it runs.
    pub directory: PathBuf,
}

/// Delivers by the operator's delivery agent.
pub struct CommandCourier {
    settings: CommandSettings,
    arguments: Vec<Template>,
    clock: Arc<dyn Clock>,
    stop: Arc<StopFlag>,
}

/// The places, `%` left out.
const PLACEHOLDERS: &[&str] = &["from", "from_user", "from_domain", "to", "to_user", "to_domain"];

impl CommandCourier {
    /// A courier that runs this agent, until it is time to `stop`.
    #[must_use]
    pub fn new(settings: CommandSettings, clock: Arc<dyn Clock>, stop: Arc<StopFlag>) -> Self {
        let arguments = settings.arguments.iter().map(|raw| Template::new(raw, PLACEHOLDERS)).collect();
        Self { settings, arguments, clock, stop }
    }

    fn deliver(&self, delivery: &Delivery<'_>, recipient: &Recipient) -> Result<Reason, Failure> {
        let words = PlaceholderValues::new(&delivery.envelope.reverse_path, recipient.final_mailbox());
        let arguments: Result<Vec<_>, _> =
            self.arguments.iter().map(|template| words.fill_argument(template)).collect();
        let run = ProgramRun {
            program: &self.settings.program,
            arguments: &arguments?,
            directory: &self.settings.directory,
            line_ends: self.settings.line_ends,
            time_limit: self.settings.deadline,
            stop: &self.stop,
        };
        run.run(&*self.clock, delivery, recipient).map_err(|trouble| match trouble {
            RunError::Exited(EXIT_TEMPFAIL, reason) => Failure::Transient(reason),
            RunError::Exited(_, reason) => Failure::Permanent(reason),
            RunError::Killed(reason) | RunError::NotStarted(reason) | RunError::LocalFailure(reason) => {
                Failure::Transient(reason)
            }
        })
    }
}

impl Courier for CommandCourier {
    fn name(&self) -> &'static str {
        "command"
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let carry =
            |recipient: &&Recipient| trace_outcome(delivery, recipient, self.deliver(delivery, recipient));
        delivery.recipients.iter().map(carry).collect()
    }
}

/// What is put into the places.
struct PlaceholderValues {
    from: String,
    from_user: String,
    from_domain: String,
    to: String,
    to_user: String,
    to_domain: String,
}

impl PlaceholderValues {
    fn new(reverse_path: &ReversePath, to: &Mailbox) -> Self {
        let from = reverse_path.mailbox();
        Self {
            from: from.map(ToString::to_string).unwrap_or_default(),
            from_user: from.map(|from| from.local_part.as_str().to_owned()).unwrap_or_default(),
            from_domain: from.map(|from| from.domain.to_unicode()).unwrap_or_default(),
            to: to.to_string(),
            to_user: to.local_part.comparison_key(),
            to_domain: to.domain.to_unicode(),
        }
    }

    fn value(&self, place: &str) -> &str {
        match place {
            "from" => &self.from,
            "from_user" => &self.from_user,
            "from_domain" => &self.from_domain,
            "to" => &self.to,
            "to_user" => &self.to_user,
            _ => &self.to_domain,
        }
    }

    fn fill_argument(&self, template: &Template) -> Result<String, Failure> {
        let argument = template.fill(|place| self.value(place));
        match template.leading_placeholder(|place| self.value(place)) {
            Some(place) if argument.starts_with('-') => {
                let (detail, whose) =
                    if place.starts_with("from") { (7, "sender's") } else { (3, "recipient's") };
                let text = format!("the {whose} address begins with a hyphen, like an option of a program");
                Err(Failure::permanent(1, detail, text))
            }
            _ => Ok(argument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::test_delivery::{TestDelivery, script};
    use crate::sys::SystemClock;

    fn courier(program: &str, arguments: &[&str], line_ends: LineEnds) -> CommandCourier {
        let settings = CommandSettings {
            program: program.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            line_ends,
            deadline: Duration::from_secs(30),
            directory: "/".into(),
        };
        CommandCourier::new(settings, Arc::new(SystemClock), Arc::new(StopFlag::new().unwrap()))
    }

    /// Read by a shell and not run by its name: while another test starts a program, that one holds
    /// every file that is open for writing, and the kernel refuses to run such a file.
    fn scripted(script: &str, arguments: &[&str], line_ends: LineEnds) -> CommandCourier {
        courier("sh", &[&[script], arguments].concat(), line_ends)
    }

    fn shell(text: &str) -> CommandCourier {
        courier("sh", &["-c", text], LineEnds::Lf)
    }

    fn program_output(outcome: &Outcome) -> &str {
        outcome.reason().response.as_ref().map_or("", |remote| &remote.text)
    }

    #[test]
    fn addresses_reach_the_agent_as_they_are_and_no_shell_sees_them() {
        let dir = tempfile::tempdir().unwrap();
        let show = script(&dir, "show", "for word; do echo \"[$word]\"; done");
        let places = ["%from%", "%from_user%", "%from_domain%", "%to%", "%to_user%", "to=%to_domain%"];
        let courier = scripted(&show, &places, LineEnds::Lf);
        let trial = TestDelivery::new("d'arc$(id)@XN--BCHER-KVA.example", &["O'Brien;`id`@here.example"]);
        let outcomes = trial.attempt(&courier);
        assert_eq!(outcomes[0].status(), "2.0.0", "{outcomes:?}");
        assert_eq!(
            program_output(&outcomes[0]),
            "[\"d'arc$(id)\"@bücher.example] [d'arc$(id)] [bücher.example] \
             [\"O'Brien;`id`\"@here.example] [o'brien;`id`] [to=here.example]"
        );
    }

    #[test]
    fn what_is_put_in_is_not_filled_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let show = script(&dir, "show", "echo \"[$1]\"");
        let outcomes = TestDelivery::new("ana@there.example", &["%from%@here.example"]).attempt(&scripted(
            &show,
            &["%to%"],
            LineEnds::Lf,
        ));
        assert_eq!(program_output(&outcomes[0]), "[%from%@here.example]");
    }

    #[test]
    fn the_user_is_named_as_our_users_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let show = script(&dir, "show", "echo \"$1 $2\"");
        let courier = scripted(&show, &["%to_user%", "%to_domain%"], LineEnds::Lf);
        let outcomes = TestDelivery::new("", &["ANA@xn--bcher-kva.test"]).attempt(&courier);
        assert_eq!(program_output(&outcomes[0]), "ana bücher.test");
    }

    #[test]
    fn a_null_reverse_path_is_an_empty_word() {
        let dir = tempfile::tempdir().unwrap();
        let show = script(&dir, "show", "echo \"$# [$1] [$2] <$SENDER>\"");
        let outcomes = TestDelivery::new("", &["bo@here.example"]).attempt(&scripted(
            &show,
            &["-f", "%from%"],
            LineEnds::Lf,
        ));
        assert_eq!(program_output(&outcomes[0]), "2 [-f] [] <>");
    }

    #[test]
    fn an_address_is_never_taken_for_an_option() {
        let refused = |template: &str, from: &str, to: &str| {
            TestDelivery::new(from, &[to]).attempt(&courier("echo", &[template], LineEnds::Lf))[0].status()
        };
        assert_eq!(refused("%to_user%", "", "-rf@here.example"), "5.1.3");
        assert_eq!(refused("%from%%to%", "", "-rf@here.example"), "5.1.3");
        assert_eq!(refused("%to%", "", "\u{ff0d}rf@here.example"), "2.0.0", "as it was written");
        assert_eq!(refused("%to_user%", "", "\u{ff0d}rf@here.example"), "5.1.3", "as PRECIS has it");
        assert_eq!(refused("%from%", "-rf@there.example", "bo@here.example"), "5.1.7");
        assert_eq!(refused("-d%to_user%", "", "-rf@here.example"), "2.0.0");
        assert_eq!(refused("to=%to_user%", "", "-rf@here.example"), "2.0.0");
    }

    #[test]
    fn the_message_comes_with_its_paths_on_top_and_the_line_ends_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let take = script(&dir, "take", "cat > \"$1\"");
        let file = dir.path().join("letter").display().to_string();
        let top = "Return-Path: <ana@there.example>\nDelivered-To: bo@here.example\n";
        let message = "Subject: hello\n\nDear Bo\n";
        for (line_ends, expected) in [
            (LineEnds::Lf, format!("{top}{message}")),
            (LineEnds::CrLf, format!("{top}{message}").replace('\n', "\r\n")),
        ] {
            let trial = TestDelivery::new("ana@there.example", &["bo@here.example"]);
            assert_eq!(trial.attempt(&scripted(&take, &[&file], line_ends))[0].status(), "2.0.0");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
        }
    }

    #[test]
    fn exit_75_is_transient_and_every_other_failure_permanent() {
        let status = |code: i32| {
            TestDelivery::new("", &["bo@here.example"])
                .attempt(&shell(&format!("cat >/dev/null; exit {code}")))[0]
                .status()
        };
        assert_eq!(status(0), "2.0.0");
        assert_eq!(status(75), "4.3.0");
        assert_eq!(status(67), "5.1.1");
        for code in [1, 2, 74, 76, 126, 127, 255] {
            assert_eq!(status(code), "5.3.0", "{code}");
        }
    }

    #[test]
    fn an_agent_that_is_missing_killed_or_late_is_transient() {
        let trial = TestDelivery::new("", &["bo@here.example"]);
        assert_eq!(trial.attempt(&courier("/no/such/agent", &[], LineEnds::Lf))[0].status(), "4.3.5");
        let killed = &trial.attempt(&shell("kill -9 $$"))[0];
        assert_eq!(killed.status(), "4.3.0");
        assert!(killed.to_string().contains("signal 9"), "{killed}");
        let mut slow = shell("echo still busy; sleep 60");
        slow.settings.deadline = Duration::from_millis(300);
        let late = &trial.attempt(&slow)[0];
        assert_eq!(late.status(), "4.3.0");
        assert!(late.to_string().contains("took longer"), "{late}");
        assert_eq!(program_output(late), "still busy");
    }

    #[test]
    fn what_the_agent_says_is_kept_for_the_report_on_one_line() {
        let agent = shell("echo 'no such folder:'; printf '  \\033[31mInbox\\n' >&2; exit 1");
        let outcomes = TestDelivery::new("", &["bo@here.example"]).attempt(&agent);
        assert_eq!(program_output(&outcomes[0]), "no such folder: \\x1b[31mInbox");
    }

    #[test]
    fn each_recipient_has_a_run_and_an_outcome_of_its_own() {
        let agent = courier("sh", &["-c", "[ \"$1\" = bo ]", "sh", "%to_user%"], LineEnds::Lf);
        let outcomes = TestDelivery::new("", &["ana@here.example", "bo@here.example", "cy@here.example"])
            .attempt(&agent);
        let statuses: Vec<_> = outcomes.iter().map(Outcome::status).collect();
        assert_eq!(statuses, ["5.3.0", "2.0.0", "5.3.0"]);
    }

    #[test]
    fn a_message_that_cannot_be_read_is_not_delivered_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        let take = script(&dir, "take", "cat >/dev/null && touch \"$1\"");
        let mut trial = TestDelivery::new("", &["bo@here.example"]);
        trial.fail_after(4);
        let outcomes = trial.attempt(&scripted(&take, &[taken.to_str().unwrap()], LineEnds::Lf));
        assert_eq!(outcomes[0].status(), "4.3.0", "{outcomes:?}");
        assert!(!taken.exists());
    }

    #[test]
    fn past_the_attempts_deadline_nothing_is_run() {
        let mut trial = TestDelivery::new("", &["bo@here.example"]);
        trial.expire();
        assert_eq!(trial.attempt(&shell("exit 1"))[0].status(), "4.3.0");
    }
}
