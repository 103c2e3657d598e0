//! When a report is owed, about whom, and what of.
//!
//! Reports are owed for each attempt: at once when a recipient fails, not when the last one is
//! done; those of one kind that an attempt brings about are one report. Never to a null
//! reverse-path (RFC 5321 §6.1), and only what the sender asked for (RFC 3461 §4.1). How a report
//! looks is `dsn`'s business, who writes and puts it `clerk`'s.
//!
//! | NOTIFY | failed, expired | delayed | delivered, relayed, expanded |
//! |---|---|---|---|
//! | none | yes | mail that a user of ours submitted | no |
//! | `NEVER` | no | no | no |
//! | `FAILURE`, `DELAY`, `SUCCESS` | if named | if named | if named |
//!
//! A success is ours to report when we delivered (*delivered*), or when the next hop does not do
//! DSN (*relayed*). Behind an alias with several targets it is reported once, when they have been
//! found (*expanded*), and not for each of them (RFC 3461 §5.2.7.2).

use std::io::{self, Read as _};

use crate::courier::Message;
use crate::dsn::{Action, ReturnedContent};
use crate::mail::{Envelope, HeaderFields, Notify, Reason, Recipient, Ret};
use crate::spool::{Notice, RecipientState};

/// What an attempt changed, as far as a sender may hear of it.
pub(super) struct AttemptChanges<'a> {
    pub(super) envelope: &'a Envelope,
    /// New states, by position.
    pub(super) states: &'a [(usize, RecipientState)],
    /// What was reported of positions before, though it settled nothing.
    pub(super) notices: &'a [(usize, Notice)],
    /// The next hop is the last: a mailbox here, or a program.
    pub(super) is_last_hop: bool,
    /// The message has waited for so long that who waits on is delayed.
    pub(super) is_delayed: bool,
}

/// What is to be reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BounceDecision {
    /// Up to three reports: of failures, of delays, of successes. None is empty.
    pub(super) bounces: Vec<PlannedBounce>,
    /// Somebody failed, and this stands against a report.
    pub(super) suppression_reason: Option<&'static str>,
}

/// One report to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlannedBounce {
    pub(super) kind: BounceKind,
    pub(super) entries: Vec<(usize, Action, Reason)>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BounceKind {
    Failure,
    Delay,
    Success,
}

impl BounceKind {
    /// For counters and the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Delay => "delay",
            Self::Success => "success",
        }
    }
}

/// A report of delays is owed for this recipient, when its time has come.
pub(super) fn wants_delay_notice(envelope: &Envelope, notify: Notify) -> bool {
    // Left to us when the sender did not say. A user of ours can do something about it, others
    // have mail servers that tell them.
    !envelope.reverse_path.is_null() && notify.includes_delay(envelope.authenticated_user.is_some())
}

/// What an attempt's states ask for.
pub(super) fn decide_bounces(changes: &AttemptChanges<'_>) -> BounceDecision {
    let AttemptChanges { envelope, states, .. } = changes;
    let has_failed = states
        .iter()
        .any(|(_, state)| matches!(state, RecipientState::Failed(_) | RecipientState::Expired(_)));
    if envelope.reverse_path.is_null() {
        let silence = has_failed.then_some("the reverse-path is null");
        return BounceDecision { suppression_reason: silence, ..BounceDecision::default() };
    }
    let [mut failures, mut delays, mut successes] = [const { Vec::new() }; 3];
    for (position, state) in *states {
        let Some(recipient) = envelope.recipients.get(*position) else { continue };
        let add = |list: &mut Vec<_>, action, reason: &Reason| {
            list.push((*position, action, reason.clone()));
        };
        if is_newly_expanded(changes, *position, recipient) {
            add(&mut successes, Action::Expanded, &Reason::new(0, 0, "forwarded to several"));
        }
        let notify = envelope.effective_notify(recipient);
        match state {
            RecipientState::Failed(reason) if notify.includes_failure() => {
                add(&mut failures, Action::Failed, reason)
            }
            RecipientState::Expired(reason) if notify.includes_failure() => {
                add(&mut failures, Action::Expired, reason)
            }
            RecipientState::Waiting(Some(reason))
                if changes.is_delayed
                    && wants_delay_notice(envelope, notify)
                    && !changes.notices.contains(&(*position, Notice::Delayed)) =>
            {
                add(&mut delays, Action::Delayed, reason);
            }
            // Also a server that keeps our mailboxes may take it upon itself.
            RecipientState::Delivered(reason) if notify.includes_success() && !has_dsn_support(reason) => {
                let action = if changes.is_last_hop { Action::Delivered } else { Action::Relayed };
                add(&mut successes, action, reason);
            }
            _ => {}
        }
    }
    let silence = (has_failed && failures.is_empty()).then_some("the sender asked for none (NOTIFY)");
    let lists =
        [(BounceKind::Failure, failures), (BounceKind::Delay, delays), (BounceKind::Success, successes)];
    let reports = lists.into_iter().filter(|(_, entries)| !entries.is_empty());
    BounceDecision {
        bounces: reports.map(|(kind, entries)| PlannedBounce { kind, entries }).collect(),
        suppression_reason: silence,
    }
}

fn has_dsn_support(reason: &Reason) -> bool {
    reason.response.as_ref().is_some_and(|remote| remote.has_accepted_dsn)
}

/// The first of those behind an alias speaks for all of them, once.
fn is_newly_expanded(changes: &AttemptChanges<'_>, position: usize, recipient: &Recipient) -> bool {
    let AttemptChanges { envelope, notices: told, .. } = changes;
    recipient.notify.includes_success()
        && !told.contains(&(position, Notice::Expanded))
        && envelope.is_expanded(recipient)
        && envelope.recipients.iter().position(|one| one.forward_path == recipient.forward_path)
            == Some(position)
}

/// More of a message than this is not returned.
const RETURNED_OCTETS_MAX: u64 = 64 * 1024;

/// As much of the message as is returned.
pub(super) fn returned_content(
    envelope: &Envelope,
    message: &dyn Message,
    kind: BounceKind,
) -> io::Result<ReturnedContent> {
    let mut octets = Vec::new();
    message.open()?.take(RETURNED_OCTETS_MAX).read_to_end(&mut octets)?;
    // RET is about failures; other reports return the header (RFC 3461 §4.3). What may travel
    // over TLS only does not come back over who knows what (RFC 8689 §5).
    let may_be_whole =
        kind == BounceKind::Failure && envelope.ret != Some(Ret::Headers) && !envelope.requiretls;
    if message.octets() <= RETURNED_OCTETS_MAX && may_be_whole {
        return Ok(ReturnedContent::FullMessage(octets));
    }
    octets.truncate(HeaderFields::section_octets(&octets));
    Ok(ReturnedContent::Headers(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Destination, Mailbox, MessageId, ReversePath, Timestamp};

    const LATE: bool = true;

    fn envelope(from: &str, notify: Notify) -> Envelope {
        let at = Timestamp::from_millis(0);
        let reverse_path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Mailbox(Mailbox::parse(from).unwrap()),
        };
        let mut recipient = Recipient::for_mailbox(Mailbox::parse("bo@there.example").unwrap());
        recipient.notify = notify;
        Envelope::new(MessageId::new(at, 0), at, reverse_path, vec![recipient])
    }

    fn when(words: &str) -> Notify {
        match words {
            "" => Notify::Unspecified,
            "never" => Notify::Never,
            words => Notify::When {
                success: words.contains("success"),
                failure: words.contains("failure"),
                delay: words.contains("delay"),
            },
        }
    }

    /// Every report that is owed, with its actions: `failure failed; success relayed`.
    fn shown(changes: &AttemptChanges<'_>) -> String {
        let one = |due: &PlannedBounce| {
            let words: Vec<_> = due.entries.iter().map(|(_, action, _)| action.as_str()).collect();
            format!("{} {}", due.kind.name(), words.join(" "))
        };
        decide_bounces(changes).bounces.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_reported_follows_from_notify_the_next_hop_and_the_outcome() {
        let said = |takes_dsn: bool| {
            let reason = Reason::new(0, 0, "accepted").with_response("mx.there.example", "250 2.0.0 ok");
            if takes_dsn { reason.with_dsn_accepted() } else { reason }
        };
        let no = Reason::new(1, 1, "no such mailbox");
        // By NOTIFY: a failure, a delay, delivery here, by a hop without and by a hop with DSN. To a
        // server here with DSN, nothing.
        let table = [
            ("", ["failure failed", "", "", "", ""]),
            ("never", ["", "", "", "", ""]),
            ("failure", ["failure failed", "", "", "", ""]),
            ("delay", ["", "delay delayed", "", "", ""]),
            ("success", ["", "", "success delivered", "success relayed", ""]),
            ("success,failure", ["failure failed", "", "success delivered", "success relayed", ""]),
            ("failure,delay", ["failure failed", "delay delayed", "", "", ""]),
            (
                "success,failure,delay",
                ["failure failed", "delay delayed", "success delivered", "success relayed", ""],
            ),
        ];
        for (notify, expected) in table {
            let states = [
                (RecipientState::Failed(no.clone()), false),
                (RecipientState::Waiting(Some(no.clone())), false),
                (RecipientState::Delivered(no.clone()), true),
                (RecipientState::Delivered(said(false)), false),
                (RecipientState::Delivered(said(true)), false),
                (RecipientState::Delivered(said(true)), true),
            ];
            for ((state, is_last_hop), expected) in states.into_iter().zip(expected.into_iter().chain([""])) {
                let states = [(0, state)];
                for from in ["ana@here.example", ""] {
                    let envelope = &envelope(from, when(notify));
                    let changes = AttemptChanges {
                        envelope,
                        states: &states,
                        notices: &[],
                        is_last_hop,
                        is_delayed: LATE,
                    };
                    let expected = if from.is_empty() { "" } else { expected };
                    assert_eq!(shown(&changes), expected, "NOTIFY={notify} from <{from}>: {states:?}");
                }
            }
        }
    }

    #[test]
    fn an_expired_recipient_is_a_failure_and_a_failure_nobody_hears_of_says_why() {
        let expired = [(0, RecipientState::Expired(Reason::new(4, 1, "busy")))];
        let of = |envelope: &Envelope| {
            decide_bounces(&AttemptChanges {
                envelope,
                states: &expired,
                notices: &[],
                is_last_hop: false,
                is_delayed: LATE,
            })
        };
        let report = of(&envelope("ana@here.example", Notify::Unspecified));
        assert_eq!(report.bounces[0].entries[0].1, Action::Expired);
        assert_eq!(report.suppression_reason, None);
        for (from, notify) in [("", ""), ("ana@here.example", "never"), ("ana@here.example", "success,delay")]
        {
            let owed = of(&envelope(from, when(notify)));
            assert!(owed.bounces.is_empty() && owed.suppression_reason.is_some(), "{from} {notify}");
        }
    }

    #[test]
    fn a_delay_is_told_once_when_it_is_long_and_unasked_only_to_our_users() {
        let busy = [(0, RecipientState::Waiting(Some(Reason::new(4, 1, "busy"))))];
        let told = [(0, Notice::Delayed)];
        let mut ana = envelope("ana@here.example", Notify::Unspecified);
        let of = |envelope: &Envelope, told: &[_], is_late| {
            shown(&AttemptChanges {
                envelope,
                states: &busy,
                notices: told,
                is_last_hop: false,
                is_delayed: is_late,
            })
        };
        assert_eq!(of(&ana, &[], LATE), "");
        ana.authenticated_user = Some(Mailbox::parse("ana@here.example").unwrap());
        assert_eq!(of(&ana, &[], LATE), "delay delayed");
        assert_eq!(of(&ana, &told, LATE), "");
        assert_eq!(of(&ana, &[], !LATE), "");
    }

    #[test]
    fn an_alias_of_several_is_reported_once_and_its_failures_are_all() {
        let mut list = envelope("ana@here.example", when("success,failure"));
        for raw in ["cy@there.example", "eve@there.example"] {
            let mut other = list.recipients[0].clone();
            other.destination = Destination::Mailbox(Mailbox::parse(raw).unwrap());
            list.recipients.push(other);
        }
        let yes = RecipientState::Delivered(Reason::new(0, 0, "taken"));
        let no = RecipientState::Failed(Reason::new(1, 1, "no such mailbox"));
        let of = |states: &[(usize, RecipientState)], told: &[_]| {
            shown(&AttemptChanges {
                envelope: &list,
                states,
                notices: told,
                is_last_hop: true,
                is_delayed: LATE,
            })
        };
        let all = [(0, yes.clone()), (1, no.clone()), (2, no)];
        assert_eq!(of(&all, &[]), "failure failed failed; success expanded");
        assert_eq!(of(&all, &[(0, Notice::Expanded)]), "failure failed failed");
        assert_eq!(of(&[(1, yes)], &[]), "", "the first speaks for them");
    }

    struct TestMessage(Vec<u8>);

    impl Message for TestMessage {
        fn octets(&self) -> u64 {
            self.0.len() as u64
        }

        fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
            Ok(Box::new(self.0.as_slice()))
        }
    }

    #[test]
    fn the_message_comes_back_whole_unless_it_is_long_or_its_head_was_asked_for() {
        const HEAD: &[u8] = b"Subject: hello\r\n\r\n";
        let letter = |octets: u64| {
            let mut all = HEAD.to_vec();
            all.resize(usize::try_from(octets).unwrap(), b'x');
            TestMessage(all)
        };
        let mut ana = envelope("ana@here.example", Notify::default());
        let of = |envelope: &Envelope, letter: &TestMessage| {
            returned_content(envelope, letter, BounceKind::Failure).unwrap()
        };
        let whole = letter(RETURNED_OCTETS_MAX);
        assert_eq!(of(&ana, &whole), ReturnedContent::FullMessage(whole.0.clone()));
        let head = || ReturnedContent::Headers(HEAD.to_vec());
        assert_eq!(of(&ana, &letter(RETURNED_OCTETS_MAX + 1)), head());
        ana.ret = Some(Ret::Headers);
        assert_eq!(of(&ana, &letter(100)), head());
        ana.ret = Some(Ret::Full);
        assert_eq!(of(&ana, &letter(20)), ReturnedContent::FullMessage(letter(20).0));
        assert_eq!(of(&ana, &letter(RETURNED_OCTETS_MAX + 1)), head(), "our limit comes first");
        assert_eq!(
            returned_content(&ana, &letter(20), BounceKind::Success).unwrap(),
            head(),
            "RET is about failures"
        );
        ana.requiretls = true;
        assert_eq!(of(&ana, &letter(20)), head(), "what may not travel in the clear stays here");
    }
}
