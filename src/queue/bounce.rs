//! Decides which bounces (DSNs) an attempt leads to, and for which recipients.
//!
//! A bounce is due after each attempt: at once when a recipient fails, not when the last recipient is
//! settled. The recipients of one kind are in one bounce. No bounce goes to a null reverse-path (RFC 5321
//! §6.1), and only those that the sender asked for are sent (RFC 3461 §4.1). `dsn` writes the text,
//! `bounce_writer` queues it.
//!
//! | NOTIFY | failed, expired | delayed | delivered, relayed, expanded |
//! |---|---|---|---|
//! | none | yes | if a local user submitted the message | no |
//! | `NEVER` | no | no | no |
//! | `FAILURE`, `DELAY`, `SUCCESS` | if named | if named | if named |
//!
//! A success is reported when this host delivered the message (*delivered*), or when the next hop does not
//! support DSN (*relayed*). For an alias with several targets it is reported once, when the targets are known
//! (*expanded*), and not for each target (RFC 3461 §5.2.7.2).

use std::io::{self, Read as _};

use crate::courier::Message;
use crate::dsn::{Action, ReturnedContent};
use crate::mail::{Envelope, HeaderFields, Notify, Reason, Recipient, Ret};
use crate::spool::{Notice, RecipientState};

/// What an attempt changed, as far as bounces are concerned.
pub(super) struct AttemptChanges<'a> {
    pub(super) envelope: &'a Envelope,
    /// New states, by position.
    pub(super) states: &'a [(usize, RecipientState)],
    /// Notices that the sender got before, by position.
    pub(super) notices: &'a [(usize, Notice)],
    /// The courier delivers to a mailbox of this host or to a program.
    pub(super) is_final_delivery: bool,
    /// The message has waited for so long that its waiting recipients are delayed.
    pub(super) is_delayed: bool,
}

/// The bounces to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BounceDecision {
    /// Up to three bounces: for failures, delays and successes. None of them is empty.
    pub(super) bounces: Vec<PlannedBounce>,
    /// Why no bounce is sent, although a recipient failed.
    pub(super) suppression_reason: Option<&'static str>,
}

/// One bounce to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlannedBounce {
    pub(super) kind: BounceKind,
    pub(super) entries: Vec<(usize, Action, Reason)>,
}

/// The kinds of bounces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BounceKind {
    Failure,
    Delay,
    Success,
}

impl BounceKind {
    /// The name in counters and in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Delay => "delay",
            Self::Success => "success",
        }
    }
}

/// Whether the sender gets a delay notice about this recipient, when it is time for that.
pub(super) fn wants_delay_notice(envelope: &Envelope, notify: Notify) -> bool {
    // If the sender did not specify, the server decides: local users get notices, others get them from their
    // own mail servers.
    !envelope.reverse_path.is_null() && notify.includes_delay(envelope.authenticated_user.is_some())
}

/// Decides which bounces the changes of an attempt lead to.
pub(super) fn decide_bounces(changes: &AttemptChanges<'_>) -> BounceDecision {
    let AttemptChanges { envelope, states, .. } = changes;
    let has_failed = states
        .iter()
        .any(|(_, state)| matches!(state, RecipientState::Failed(_) | RecipientState::Expired(_)));
    if envelope.reverse_path.is_null() {
        let suppression_reason = has_failed.then_some("the reverse-path is null");
        return BounceDecision { suppression_reason, ..BounceDecision::default() };
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
            // Also the LMTP server of the local mailboxes may support DSN, and then reports itself.
            RecipientState::Delivered(reason) if notify.includes_success() && !has_dsn_support(reason) => {
                let action = if changes.is_final_delivery { Action::Delivered } else { Action::Relayed };
                add(&mut successes, action, reason);
            }
            _ => {}
        }
    }
    let suppression_reason =
        (has_failed && failures.is_empty()).then_some("the sender asked for none (NOTIFY)");
    let lists =
        [(BounceKind::Failure, failures), (BounceKind::Delay, delays), (BounceKind::Success, successes)];
    let due = lists.into_iter().filter(|(_, entries)| !entries.is_empty());
    BounceDecision {
        bounces: due.map(|(kind, entries)| PlannedBounce { kind, entries }).collect(),
        suppression_reason,
    }
}

fn has_dsn_support(reason: &Reason) -> bool {
    reason.response.as_ref().is_some_and(|remote| remote.has_accepted_dsn)
}

/// Whether the success of an alias with several targets is reported now: once, with its first target.
fn is_newly_expanded(changes: &AttemptChanges<'_>, position: usize, recipient: &Recipient) -> bool {
    let AttemptChanges { envelope, notices, .. } = changes;
    recipient.notify.includes_success()
        && !notices.contains(&(position, Notice::Expanded))
        && envelope.is_expanded(recipient)
        && envelope.recipients.iter().position(|one| one.forward_path == recipient.forward_path)
            == Some(position)
}

/// A longer message is not returned as a whole.
const RETURNED_OCTETS_MAX: u64 = 64 * 1024;

/// The part of the message that a bounce returns.
pub(super) fn returned_content(
    envelope: &Envelope,
    message: &dyn Message,
    kind: BounceKind,
) -> io::Result<ReturnedContent> {
    let mut octets = Vec::new();
    message.open()?.take(RETURNED_OCTETS_MAX).read_to_end(&mut octets)?;
    // RET applies to failures; other bounces return the header section (RFC 3461 §4.3). A message that
    // requires TLS is not returned as a whole, because the bounce may travel without TLS (RFC 8689 §5).
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

    /// The bounces, with their actions: `failure failed; success relayed`.
    fn shown(changes: &AttemptChanges<'_>) -> String {
        let one = |due: &PlannedBounce| {
            let words: Vec<_> = due.entries.iter().map(|(_, action, _)| action.as_str()).collect();
            format!("{} {}", due.kind.name(), words.join(" "))
        };
        decide_bounces(changes).bounces.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn bounces_follow_from_notify_the_next_hop_and_the_outcome() {
        let accepted = |has_dsn: bool| {
            let reason = Reason::new(0, 0, "accepted").with_response("mx.there.example", "250 2.0.0 ok");
            if has_dsn { reason.with_dsn_accepted() } else { reason }
        };
        let no = Reason::new(1, 1, "no such mailbox");
        // By NOTIFY: a failure, a delay, local delivery, a hop without and a hop with DSN. A local server
        // with DSN reports itself.
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
                (RecipientState::Delivered(accepted(false)), false),
                (RecipientState::Delivered(accepted(true)), false),
                (RecipientState::Delivered(accepted(true)), true),
            ];
            for ((state, is_final_delivery), expected) in
                states.into_iter().zip(expected.into_iter().chain([""]))
            {
                let states = [(0, state)];
                for from in ["ana@here.example", ""] {
                    let envelope = &envelope(from, when(notify));
                    let changes = AttemptChanges {
                        envelope,
                        states: &states,
                        notices: &[],
                        is_final_delivery,
                        is_delayed: LATE,
                    };
                    let expected = if from.is_empty() { "" } else { expected };
                    assert_eq!(shown(&changes), expected, "NOTIFY={notify} from <{from}>: {states:?}");
                }
            }
        }
    }

    #[test]
    fn an_expired_recipient_is_a_failure_and_a_failure_without_a_bounce_has_a_reason() {
        let expired = [(0, RecipientState::Expired(Reason::new(4, 1, "busy")))];
        let of = |envelope: &Envelope| {
            decide_bounces(&AttemptChanges {
                envelope,
                states: &expired,
                notices: &[],
                is_final_delivery: false,
                is_delayed: LATE,
            })
        };
        let decision = of(&envelope("ana@here.example", Notify::Unspecified));
        assert_eq!(decision.bounces[0].entries[0].1, Action::Expired);
        assert_eq!(decision.suppression_reason, None);
        for (from, notify) in [("", ""), ("ana@here.example", "never"), ("ana@here.example", "success,delay")]
        {
            let decision = of(&envelope(from, when(notify)));
            assert!(decision.bounces.is_empty() && decision.suppression_reason.is_some(), "{from} {notify}");
        }
    }

    #[test]
    fn a_long_delay_is_reported_once_and_without_notify_only_to_local_users() {
        let busy = [(0, RecipientState::Waiting(Some(Reason::new(4, 1, "busy"))))];
        let notices = [(0, Notice::Delayed)];
        let mut ana = envelope("ana@here.example", Notify::Unspecified);
        let of = |envelope: &Envelope, notices: &[_], is_delayed| {
            shown(&AttemptChanges { envelope, states: &busy, notices, is_final_delivery: false, is_delayed })
        };
        assert_eq!(of(&ana, &[], LATE), "");
        ana.authenticated_user = Some(Mailbox::parse("ana@here.example").unwrap());
        assert_eq!(of(&ana, &[], LATE), "delay delayed");
        assert_eq!(of(&ana, &notices, LATE), "");
        assert_eq!(of(&ana, &[], !LATE), "");
    }

    #[test]
    fn an_alias_of_several_is_reported_once_and_all_its_failures_are() {
        let mut list = envelope("ana@here.example", when("success,failure"));
        for raw in ["cy@there.example", "eve@there.example"] {
            let mut other = list.recipients[0].clone();
            other.destination = Destination::Mailbox(Mailbox::parse(raw).unwrap());
            list.recipients.push(other);
        }
        let yes = RecipientState::Delivered(Reason::new(0, 0, "taken"));
        let no = RecipientState::Failed(Reason::new(1, 1, "no such mailbox"));
        let of = |states: &[(usize, RecipientState)], notices: &[_]| {
            shown(&AttemptChanges {
                envelope: &list,
                states,
                notices,
                is_final_delivery: true,
                is_delayed: LATE,
            })
        };
        let all = [(0, yes.clone()), (1, no.clone()), (2, no)];
        assert_eq!(of(&all, &[]), "failure failed failed; success expanded");
        assert_eq!(of(&all, &[(0, Notice::Expanded)]), "failure failed failed");
        assert_eq!(of(&[(1, yes)], &[]), "", "only with the first target");
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
    fn a_message_is_returned_whole_unless_it_is_long_or_ret_asks_for_the_header() {
        const HEAD: &[u8] = b"Subject: hello\r\n\r\n";
        let message = |octets: u64| {
            let mut all = HEAD.to_vec();
            all.resize(usize::try_from(octets).unwrap(), b'x');
            TestMessage(all)
        };
        let mut ana = envelope("ana@here.example", Notify::default());
        let of = |envelope: &Envelope, message: &TestMessage| {
            returned_content(envelope, message, BounceKind::Failure).unwrap()
        };
        let whole = message(RETURNED_OCTETS_MAX);
        assert_eq!(of(&ana, &whole), ReturnedContent::FullMessage(whole.0.clone()));
        let head = || ReturnedContent::Headers(HEAD.to_vec());
        assert_eq!(of(&ana, &message(RETURNED_OCTETS_MAX + 1)), head());
        ana.ret = Some(Ret::Headers);
        assert_eq!(of(&ana, &message(100)), head());
        ana.ret = Some(Ret::Full);
        assert_eq!(of(&ana, &message(20)), ReturnedContent::FullMessage(message(20).0));
        assert_eq!(of(&ana, &message(RETURNED_OCTETS_MAX + 1)), head(), "the limit has priority");
        assert_eq!(
            returned_content(&ana, &message(20), BounceKind::Success).unwrap(),
            head(),
            "RET applies to failures"
        );
        ana.requiretls = true;
        assert_eq!(of(&ana, &message(20)), head(), "a message that requires TLS is not returned");
    }
}
