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

use super::item::{Notice, State};
use crate::courier::Message;
use crate::dsn::{Action, Original};
use crate::mail::{Envelope, Fields, Notify, Reason, Recipient, Ret};

/// What an attempt changed, as far as a sender may hear of it.
pub(super) struct Changes<'a> {
    pub(super) envelope: &'a Envelope,
    /// New states, by position.
    pub(super) states: &'a [(usize, State)],
    /// What was reported of positions before, though it settled nothing.
    pub(super) told: &'a [(usize, Notice)],
    /// The next hop is the last: a mailbox here, or a program.
    pub(super) is_last_hop: bool,
    /// The message has waited for so long that who waits on is delayed.
    pub(super) is_late: bool,
}

/// What is to be reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// Up to three reports: of failures, of delays, of successes. None is empty.
    pub(super) reports: Vec<Due>,
    /// Somebody failed, and this stands against a report.
    pub(super) silence: Option<&'static str>,
}

/// One report to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) kind: Kind,
    pub(super) entries: Vec<(usize, Action, Reason)>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Failure,
    Delay,
    Success,
}

impl Kind {
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
pub(super) fn wants_delay(envelope: &Envelope, notify: Notify) -> bool {
    // Left to us when the sender did not say. A user of ours can do something about it, others
    // have mail servers that tell them.
    !envelope.reverse_path.is_null() && notify.on_delay(envelope.login.is_some())
}

/// What an attempt's states ask for.
pub(super) fn owed(changes: &Changes<'_>) -> Owed {
    let Changes { envelope, states, .. } = changes;
    let has_failed = states.iter().any(|(_, state)| matches!(state, State::Failed(_) | State::Expired(_)));
    if envelope.reverse_path.is_null() {
        let silence = has_failed.then_some("the reverse-path is null");
        return Owed { silence, ..Owed::default() };
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
        let notify = envelope.notify(recipient);
        match state {
            State::Failed(reason) if notify.on_failure() => add(&mut failures, Action::Failed, reason),
            State::Expired(reason) if notify.on_failure() => add(&mut failures, Action::Expired, reason),
            State::Waiting(Some(reason))
                if changes.is_late
                    && wants_delay(envelope, notify)
                    && !changes.told.contains(&(*position, Notice::Delayed)) =>
            {
                add(&mut delays, Action::Delayed, reason);
            }
            // Also a server that keeps our mailboxes may take it upon itself.
            State::Delivered(reason) if notify.on_success() && !takes_dsn(reason) => {
                let action = if changes.is_last_hop { Action::Delivered } else { Action::Relayed };
                add(&mut successes, action, reason);
            }
            _ => {}
        }
    }
    let silence = (has_failed && failures.is_empty()).then_some("the sender asked for none (NOTIFY)");
    let lists = [(Kind::Failure, failures), (Kind::Delay, delays), (Kind::Success, successes)];
    let reports = lists.into_iter().filter(|(_, entries)| !entries.is_empty());
    Owed { reports: reports.map(|(kind, entries)| Due { kind, entries }).collect(), silence }
}

fn takes_dsn(reason: &Reason) -> bool {
    reason.remote.as_ref().is_some_and(|remote| remote.takes_dsn)
}

/// The first of those behind an alias speaks for all of them, once.
fn is_newly_expanded(changes: &Changes<'_>, position: usize, recipient: &Recipient) -> bool {
    let Changes { envelope, told, .. } = changes;
    recipient.notify.on_success()
        && !told.contains(&(position, Notice::Expanded))
        && envelope.is_expanded(recipient)
        && envelope.recipients.iter().position(|one| one.original == recipient.original) == Some(position)
}

/// More of a message than this is not returned.
const COPY_OCTETS_MAX: u64 = 64 * 1024;

/// As much of the message as is returned.
pub(super) fn original(envelope: &Envelope, message: &dyn Message, kind: Kind) -> io::Result<Original> {
    let mut octets = Vec::new();
    message.open()?.take(COPY_OCTETS_MAX).read_to_end(&mut octets)?;
    // RET is about failures; other reports return the header (RFC 3461 §4.3). What may travel
    // over TLS only does not come back over who knows what (RFC 8689 §5).
    let may_be_whole = kind == Kind::Failure && envelope.ret != Some(Ret::Headers) && !envelope.requiretls;
    if message.octets() <= COPY_OCTETS_MAX && may_be_whole {
        return Ok(Original::Whole(octets));
    }
    octets.truncate(Fields::section_length(&octets));
    Ok(Original::Headers(octets))
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
        let mut recipient = Recipient::mailbox(Mailbox::parse("bo@there.example").unwrap());
        recipient.notify = notify;
        Envelope::new(MessageId::new(at, 0), at, reverse_path, vec![recipient])
    }

    fn when(words: &str) -> Notify {
        match words {
            "" => Notify::Unsaid,
            "never" => Notify::Never,
            words => Notify::When {
                success: words.contains("success"),
                failure: words.contains("failure"),
                delay: words.contains("delay"),
            },
        }
    }

    /// Every report that is owed, with its actions: `failure failed; success relayed`.
    fn shown(changes: &Changes<'_>) -> String {
        let one = |due: &Due| {
            let words: Vec<_> = due.entries.iter().map(|(_, action, _)| action.word()).collect();
            format!("{} {}", due.kind.name(), words.join(" "))
        };
        owed(changes).reports.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_reported_follows_from_notify_the_next_hop_and_the_outcome() {
        let said = |takes_dsn: bool| {
            let reason = Reason::new(0, 0, "accepted").with_remote("mx.there.example", "250 2.0.0 ok");
            if takes_dsn { reason.with_dsn_taken() } else { reason }
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
                (State::Failed(no.clone()), false),
                (State::Waiting(Some(no.clone())), false),
                (State::Delivered(no.clone()), true),
                (State::Delivered(said(false)), false),
                (State::Delivered(said(true)), false),
                (State::Delivered(said(true)), true),
            ];
            for ((state, is_last_hop), expected) in states.into_iter().zip(expected.into_iter().chain([""])) {
                let states = [(0, state)];
                for from in ["ana@here.example", ""] {
                    let envelope = &envelope(from, when(notify));
                    let changes =
                        Changes { envelope, states: &states, told: &[], is_last_hop, is_late: LATE };
                    let expected = if from.is_empty() { "" } else { expected };
                    assert_eq!(shown(&changes), expected, "NOTIFY={notify} from <{from}>: {states:?}");
                }
            }
        }
    }

    #[test]
    fn an_expired_recipient_is_a_failure_and_a_failure_nobody_hears_of_says_why() {
        let expired = [(0, State::Expired(Reason::new(4, 1, "busy")))];
        let of = |envelope: &Envelope| {
            owed(&Changes { envelope, states: &expired, told: &[], is_last_hop: false, is_late: LATE })
        };
        let report = of(&envelope("ana@here.example", Notify::Unsaid));
        assert_eq!(report.reports[0].entries[0].1, Action::Expired);
        assert_eq!(report.silence, None);
        for (from, notify) in [("", ""), ("ana@here.example", "never"), ("ana@here.example", "success,delay")]
        {
            let owed = of(&envelope(from, when(notify)));
            assert!(owed.reports.is_empty() && owed.silence.is_some(), "{from} {notify}");
        }
    }

    #[test]
    fn a_delay_is_told_once_when_it_is_long_and_unasked_only_to_our_users() {
        let busy = [(0, State::Waiting(Some(Reason::new(4, 1, "busy"))))];
        let told = [(0, Notice::Delayed)];
        let mut ana = envelope("ana@here.example", Notify::Unsaid);
        let of = |envelope: &Envelope, told: &[_], is_late| {
            shown(&Changes { envelope, states: &busy, told, is_last_hop: false, is_late })
        };
        assert_eq!(of(&ana, &[], LATE), "");
        ana.login = Some(Mailbox::parse("ana@here.example").unwrap());
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
        let yes = State::Delivered(Reason::new(0, 0, "taken"));
        let no = State::Failed(Reason::new(1, 1, "no such mailbox"));
        let of = |states: &[(usize, State)], told: &[_]| {
            shown(&Changes { envelope: &list, states, told, is_last_hop: true, is_late: LATE })
        };
        let all = [(0, yes.clone()), (1, no.clone()), (2, no)];
        assert_eq!(of(&all, &[]), "failure failed failed; success expanded");
        assert_eq!(of(&all, &[(0, Notice::Expanded)]), "failure failed failed");
        assert_eq!(of(&[(1, yes)], &[]), "", "the first speaks for them");
    }

    struct Letter(Vec<u8>);

    impl Message for Letter {
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
            Letter(all)
        };
        let mut ana = envelope("ana@here.example", Notify::default());
        let of = |envelope: &Envelope, letter: &Letter| original(envelope, letter, Kind::Failure).unwrap();
        let whole = letter(COPY_OCTETS_MAX);
        assert_eq!(of(&ana, &whole), Original::Whole(whole.0.clone()));
        let head = || Original::Headers(HEAD.to_vec());
        assert_eq!(of(&ana, &letter(COPY_OCTETS_MAX + 1)), head());
        ana.ret = Some(Ret::Headers);
        assert_eq!(of(&ana, &letter(100)), head());
        ana.ret = Some(Ret::Full);
        assert_eq!(of(&ana, &letter(20)), Original::Whole(letter(20).0));
        assert_eq!(of(&ana, &letter(COPY_OCTETS_MAX + 1)), head(), "our limit comes first");
        assert_eq!(original(&ana, &letter(20), Kind::Success).unwrap(), head(), "RET is about failures");
        ana.requiretls = true;
        assert_eq!(of(&ana, &letter(20)), head(), "what may not travel in the clear stays here");
    }
}
