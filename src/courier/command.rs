//! The operator's delivery agent: procmail, maildrop, dovecot-lda …
//!
//! One run for each recipient, never by way of a shell: an address is put into an argument unchanged and
//! unquoted. These placeholders are filled in:
//!
//! | | |
//! |---|---|
//! | `%from%` | the reverse-path; empty if it is null, as procmail's and maildrop's `-f` expect |
//! | `%from_user%` `%from_domain%` | its parts; empty if it is null |
//! | `%to%` | the recipient |
//! | `%to_user%` `%to_domain%` | its parts: the user as in our users file, the domain in U-labels |
//!
//! An address may begin with a hyphen, and the agent would take it for an option. If an argument of the
//! operator begins with a placeholder and the value begins with `-`, the recipient is refused for good
//! (5.1.3, or 5.1.7 for the sender's address).
//!
//! Exit status 0 is delivered, 75 transient, every other permanent. An agent that is missing, was
//! killed by a signal or ran past its deadline is a transient failure: the operator can mend that.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use super::contract::Delivery;
use super::final_delivery::LineEnds;
use super::program::{ProgramRun, RetryRule};
use super::template::Template;
use crate::mail::{Failure, Mailbox, Recipient, ReversePath};

/// The operator's delivery agent.
#[derive(Debug, Clone)]
pub struct CommandSettings {
    /// A path, or a name to be found in PATH.
    pub program: String,
    /// Its arguments, with placeholders.
    pub arguments: Vec<String>,
    /// The line ends of its standard input.
    pub line_ends: LineEnds,
    /// Time for one recipient.
    pub deadline: Duration,
    /// The working directory.
    pub directory: PathBuf,
}

/// The placeholders, without `%`.
const PLACEHOLDERS: &[&str] = &["from", "from_user", "from_domain", "to", "to_user", "to_domain"];

impl CommandSettings {
    /// The run for one recipient.
    ///
    /// # Errors
    /// An address would be taken for an option.
    pub(super) fn program_run(
        &self,
        delivery: &Delivery<'_>,
        recipient: &Recipient,
    ) -> Result<ProgramRun<'_>, Failure> {
        let values = PlaceholderValues::new(&delivery.envelope.reverse_path, recipient.final_mailbox());
        let arguments: Result<Vec<_>, _> = self
            .arguments
            .iter()
            .map(|raw| values.fill_argument(&Template::new(raw, PLACEHOLDERS)))
            .collect();
        Ok(ProgramRun {
            program: &self.program,
            arguments: Cow::Owned(arguments?),
            directory: &self.directory,
            line_ends: self.line_ends,
            time_limit: self.deadline,
            retry_rule: RetryRule::OperatorProgram,
        })
    }
}

/// The values of the placeholders.
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

    fn value(&self, placeholder: &str) -> &str {
        match placeholder {
            "from" => &self.from,
            "from_user" => &self.from_user,
            "from_domain" => &self.from_domain,
            "to" => &self.to,
            "to_user" => &self.to_user,
            _ => &self.to_domain,
        }
    }

    fn fill_argument(&self, template: &Template) -> Result<String, Failure> {
        let argument = template.fill(|placeholder| self.value(placeholder));
        match template.leading_placeholder(|placeholder| self.value(placeholder)) {
            Some(placeholder) if argument.starts_with('-') => {
                let (detail, owner) =
                    if placeholder.starts_with("from") { (7, "sender's") } else { (3, "recipient's") };
                let text = format!("the {owner} address begins with a hyphen, like an option of a program");
                Err(Failure::permanent(1, detail, text))
            }
            _ => Ok(argument),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::courier::ProgramCourier;
    use crate::courier::test_delivery::{TestDelivery, script};
    use crate::mail::Outcome;
    use crate::sys::{StopFlag, SystemClock};

    fn settings(program: &str, arguments: &[&str], line_ends: LineEnds) -> CommandSettings {
        CommandSettings {
            program: program.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            line_ends,
            deadline: Duration::from_secs(30),
            directory: "/".into(),
        }
    }

    fn courier_with(settings: CommandSettings) -> ProgramCourier {
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        ProgramCourier::command(settings, Arc::new(SystemClock), Arc::new(StopFlag::new().unwrap()))
    }

    fn courier(program: &str, arguments: &[&str], line_ends: LineEnds) -> ProgramCourier {
        courier_with(settings(program, arguments, line_ends))
    }

    /// The script is read by a shell and not run by its name: a program that another test starts at the
    /// same time inherits every file that is open for writing, and the kernel refuses to run such a file.
    fn scripted(script: &str, arguments: &[&str], line_ends: LineEnds) -> ProgramCourier {
        courier("sh", &[&[script], arguments].concat(), line_ends)
    }

    fn shell(text: &str) -> ProgramCourier {
        courier("sh", &["-c", text], LineEnds::Lf)
    }

    fn program_output(outcome: &Outcome) -> &str {
        outcome.reason().response.as_ref().map_or("", |remote| &remote.text)
    }

    #[test]
    fn addresses_reach_the_agent_as_they_are_and_no_shell_sees_them() {
        let dir = tempfile::tempdir().unwrap();
        let show = script(&dir, "show", "for word; do echo \"[$word]\"; done");
        let placeholders = ["%from%", "%from_user%", "%from_domain%", "%to%", "%to_user%", "to=%to_domain%"];
        let courier = scripted(&show, &placeholders, LineEnds::Lf);
        let delivery = TestDelivery::new("d'arc$(id)@XN--BCHER-KVA.example", &["O'Brien;`id`@here.example"]);
        let outcomes = delivery.attempt(&courier);
        assert_eq!(outcomes[0].status(), "2.0.0", "{outcomes:?}");
        assert_eq!(
            program_output(&outcomes[0]),
            "[\"d'arc$(id)\"@bücher.example] [d'arc$(id)] [bücher.example] \
             [\"O'Brien;`id`\"@here.example] [o'brien;`id`] [to=here.example]"
        );
    }

    #[test]
    fn a_value_with_a_placeholder_in_it_is_not_filled_in_again() {
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
    fn the_user_has_the_spelling_of_our_users_file() {
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
    fn the_agent_reads_the_message_below_its_paths_with_the_line_ends_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let take = script(&dir, "take", "cat > \"$1\"");
        let file = dir.path().join("message").display().to_string();
        let top = "Return-Path: <ana@there.example>\nDelivered-To: bo@here.example\n";
        let message = "Subject: hello\n\nDear Bo\n";
        for (line_ends, expected) in [
            (LineEnds::Lf, format!("{top}{message}")),
            (LineEnds::CrLf, format!("{top}{message}").replace('\n', "\r\n")),
        ] {
            let delivery = TestDelivery::new("ana@there.example", &["bo@here.example"]);
            assert_eq!(delivery.attempt(&scripted(&take, &[&file], line_ends))[0].status(), "2.0.0");
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
        let delivery = TestDelivery::new("", &["bo@here.example"]);
        assert_eq!(delivery.attempt(&courier("/no/such/agent", &[], LineEnds::Lf))[0].status(), "4.3.5");
        let killed = &delivery.attempt(&shell("kill -9 $$"))[0];
        assert_eq!(killed.status(), "4.3.0");
        assert!(killed.to_string().contains("signal 9"), "{killed}");
        let mut slow = settings("sh", &["-c", "echo still busy; sleep 60"], LineEnds::Lf);
        slow.deadline = Duration::from_millis(300);
        let late = &delivery.attempt(&courier_with(slow))[0];
        assert_eq!(late.status(), "4.3.0");
        assert!(late.to_string().contains("took longer"), "{late}");
        assert_eq!(program_output(late), "still busy");
    }

    #[test]
    fn the_output_of_the_agent_is_kept_for_the_bounce_on_one_line() {
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
        let mut delivery = TestDelivery::new("", &["bo@here.example"]);
        delivery.fail_after(4);
        let outcomes = delivery.attempt(&scripted(&take, &[taken.to_str().unwrap()], LineEnds::Lf));
        assert_eq!(outcomes[0].status(), "4.3.0", "{outcomes:?}");
        assert!(!taken.exists());
    }

    #[test]
    fn no_program_is_run_past_the_deadline_of_the_attempt() {
        let mut delivery = TestDelivery::new("", &["bo@here.example"]);
        delivery.expire();
        assert_eq!(delivery.attempt(&shell("exit 1"))[0].status(), "4.3.0");
    }
}
