//! The lines of a reply: one for each item of a list, then one that ends it.
//!
//! The last line has `answer` or `error`, so a reply that was cut short is noticed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::ControlAnswer;
use super::request::VERSION;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct ReplyLine<T> {
    version: u32,
    #[serde(flatten)]
    content: LineContent<T>,
}

/// What a line holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LineContent<T> {
    /// One item of a list.
    Item(T),
    /// The end, with what is not in the items.
    Answer(T),
    /// The end: the daemon cannot, or will not; a sentence for the person who asked.
    Error(String),
}

/// The answer to a list, beside its items.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MessageCount {
    pub(super) count: usize,
}

/// The answer that holds nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Nothing {}

/// Why a reply has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReplyError {
    /// The daemon said so.
    Refused(String),
    /// It is not a reply of this version.
    NotUnderstood,
    /// The last line is missing.
    CutShort,
}

/// Writes the lines of a reply.
///
/// # Errors
/// When a value has no JSON, which no answer of ours is.
pub(super) fn encode(result: &Result<ControlAnswer, String>) -> serde_json::Result<Vec<u8>> {
    let mut octets = Vec::new();
    match result {
        Ok(ControlAnswer::Done) => end(&mut octets, Nothing {})?,
        Ok(ControlAnswer::QueueList(list)) => {
            items(&mut octets, &list.messages)?;
            end(&mut octets, MessageCount { count: list.count })?;
        }
        Ok(ControlAnswer::QueueShow(message)) => end(&mut octets, message)?,
        Ok(ControlAnswer::QueueChange(change)) => end(&mut octets, change)?,
        Ok(ControlAnswer::PeerList(list)) => {
            items(&mut octets, &list.peers)?;
            end(&mut octets, Nothing {})?;
        }
        Ok(ControlAnswer::PeerShow(peer)) => end(&mut octets, peer)?,
        Ok(ControlAnswer::AliasResolve(step)) => end(&mut octets, step)?,
        Ok(ControlAnswer::AliasList(list)) => {
            items(&mut octets, &list.aliases)?;
            end(&mut octets, Nothing {})?;
        }
        Ok(ControlAnswer::Status(status)) => end(&mut octets, status)?,
        Err(error) => append(&mut octets, LineContent::<()>::Error(error.clone()))?,
    }
    Ok(octets)
}

fn items<T: Serialize>(octets: &mut Vec<u8>, items: &[T]) -> serde_json::Result<()> {
    items.iter().try_for_each(|item| append(octets, LineContent::Item(item)))
}

fn end(octets: &mut Vec<u8>, answer: impl Serialize) -> serde_json::Result<()> {
    append(octets, LineContent::Answer(answer))
}

fn append<T: Serialize>(octets: &mut Vec<u8>, content: LineContent<T>) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *octets, &ReplyLine { version: VERSION, content })?;
    octets.push(b'\n');
    Ok(())
}

/// Reads the lines of a reply: the items, and the answer that ends them.
pub(super) fn decode<I: DeserializeOwned, A: DeserializeOwned>(
    octets: &[u8],
) -> Result<(Vec<I>, A), ReplyError> {
    let mut items = Vec::new();
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if !line.ends_with(b"\n") {
            return Err(ReplyError::CutShort);
        }
        match serde_json::from_slice(line).map_err(|_| ReplyError::NotUnderstood)? {
            ReplyLine::<Value> { content: LineContent::Error(error), .. } => {
                return Err(ReplyError::Refused(error));
            }
            ReplyLine { version: VERSION, content: LineContent::Item(item) } => {
                items.push(serde_json::from_value(item).map_err(|_| ReplyError::NotUnderstood)?);
            }
            ReplyLine { version: VERSION, content: LineContent::Answer(answer) } => {
                let answer = serde_json::from_value(answer).map_err(|_| ReplyError::NotUnderstood)?;
                return Ok((items, answer));
            }
            ReplyLine { .. } => return Err(ReplyError::NotUnderstood),
        }
    }
    Err(ReplyError::CutShort)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::json;

    use super::*;
    use crate::control::answer::{
        AliasList, AliasStep, AliasStepKind, ChangeAnswer, DeliveryState, HistoryEvent, ListedAlias,
        ListedMessage, ListedRecipient, PeerList, QueueList, RefusedChange, ShownMessage, StatusAnswer,
    };
    use crate::domaininfo::PeerEntry;
    use crate::fakes::assert_golden;
    use crate::mail::{BodyType, Domain, MessageId, Ret};

    fn id() -> MessageId {
        "01h2xcejqtf2nbrexx3v".parse().unwrap()
    }

    fn message() -> ListedMessage {
        let recipient = |original: Option<&str>, state, reason: Option<&str>| ListedRecipient {
            recipient: "bo@there.example".to_owned(),
            original: original.map(str::to_owned),
            state,
            reason: reason.map(str::to_owned),
        };
        ListedMessage {
            id: id(),
            arrived: "2026-11-23T04:00:00Z".to_owned(),
            age_seconds: 7300,
            octets: 1234,
            reverse_path: "<ana@here.example>".to_owned(),
            attempts: 3,
            due: Some("2026-11-23T07:00:00Z".to_owned()),
            held: false,
            recipients: vec![
                recipient(Some("list@here.example"), DeliveryState::Deferred, Some("4.4.1 no answer")),
                recipient(None, DeliveryState::Waiting, None),
            ],
        }
    }

    fn shown() -> ShownMessage {
        ShownMessage {
            message: message(),
            authenticated_user: Some("ana@here.example".to_owned()),
            client: Some([192, 0, 2, 7].into()),
            helo_name: Some("laptop.here.example".to_owned()),
            tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".to_owned()),
            body: BodyType::EightBitMime,
            smtputf8: false,
            ret: Some(Ret::Headers),
            envid: None,
            history: vec![HistoryEvent {
                time: "2026-11-23T04:00:01Z".to_owned(),
                attempt: 1,
                recipient: Some("bo@there.example".to_owned()),
                state: DeliveryState::Deferred,
                reason: Some("4.4.1 no answer".to_owned()),
            }],
            base64: Some("U3ViamVjdDogaGVsbG8NCg==".to_owned()),
        }
    }

    fn peer() -> PeerEntry {
        serde_json::from_value(json!({
            "domain": "bücher.example", "incoming": "tls", "incoming-seen": "2026-01-01T00:00:00.000Z",
            "outgoing": "plain", "outgoing-seen": null,
        }))
        .unwrap()
    }

    fn alias_step(kind: AliasStepKind, steps: Vec<AliasStep>) -> AliasStep {
        let origin = Some("/etc/postrider/domains/here.example/aliases:1".to_owned());
        let detail = (kind == AliasStepKind::Error).then(|| "there is no such user".to_owned());
        AliasStep { name: "ana@here.example".to_owned(), kind, detail, origin, steps }
    }

    fn change() -> ChangeAnswer {
        ChangeAnswer {
            changed: vec![id()],
            pending: vec![id()],
            refused: vec![RefusedChange { id: id(), reason: "is not held".to_owned() }],
            not_processed: 2,
        }
    }

    fn alias() -> ListedAlias {
        ListedAlias {
            name: "team@here.example".to_owned(),
            targets: vec!["ana".to_owned(), "bo@there.example".to_owned()],
            origin: "/etc/postrider/domains/here.example/aliases:1".to_owned(),
        }
    }

    fn status() -> StatusAnswer {
        StatusAnswer {
            version: "0.1.0".to_owned(),
            hostname: Domain::parse("mx.here.example").unwrap(),
            uptime_seconds: 273_600,
            sessions: 2,
            queue: 7,
            certificate_seconds: None,
        }
    }

    /// Every answer that there is.
    fn answers() -> Vec<Result<ControlAnswer, String>> {
        let steps =
            [AliasStepKind::User, AliasStepKind::Remote, AliasStepKind::CatchAll, AliasStepKind::Error];
        let steps = steps.into_iter().map(|kind| alias_step(kind, Vec::new())).collect();
        vec![
            Ok(ControlAnswer::Done),
            Ok(ControlAnswer::QueueList(QueueList { count: 3, messages: vec![message(), message()] })),
            Ok(ControlAnswer::QueueShow(Box::new(shown()))),
            Ok(ControlAnswer::QueueChange(change())),
            Ok(ControlAnswer::PeerList(PeerList { peers: vec![peer()] })),
            Ok(ControlAnswer::PeerShow(peer())),
            Ok(ControlAnswer::AliasResolve(alias_step(AliasStepKind::Alias, steps))),
            Ok(ControlAnswer::AliasList(AliasList { aliases: vec![alias()] })),
            Ok(ControlAnswer::Status(status())),
            Err("there is no such message".to_owned()),
        ]
    }

    #[test]
    fn answers_are_the_lines_of_the_golden_file() {
        let lines: Vec<u8> = answers().iter().flat_map(|answer| encode(answer).unwrap()).collect();
        assert_golden("control-answers.jsonl", std::str::from_utf8(&lines).unwrap());
    }

    #[test]
    fn an_answer_is_read_back_as_it_was_written() {
        fn assert_read_back<T: DeserializeOwned + PartialEq + Debug>(answer: ControlAnswer, value: &T) {
            let (items, read) = decode::<Nothing, T>(&encode(&Ok(answer)).unwrap()).unwrap();
            assert_eq!((items.len(), &read), (0, value));
        }
        assert_read_back(ControlAnswer::QueueShow(Box::new(shown())), &shown());
        assert_read_back(ControlAnswer::QueueChange(change()), &change());
        assert_read_back(ControlAnswer::PeerShow(peer()), &peer());
        assert_read_back(ControlAnswer::Status(status()), &status());
        let list = QueueList { count: 3, messages: vec![message(), message()] };
        let lines = encode(&Ok(ControlAnswer::QueueList(list))).unwrap();
        let (messages, rest) = decode::<ListedMessage, MessageCount>(&lines).unwrap();
        assert_eq!((messages, rest.count), (vec![message(), message()], 3));
    }

    #[test]
    fn a_reply_that_is_cut_short_is_not_an_answer() {
        let list = AliasList { aliases: vec![alias()] };
        let lines = encode(&Ok(ControlAnswer::AliasList(list))).unwrap();
        for length in 0..lines.len() {
            let error = decode::<ListedAlias, Nothing>(&lines[..length]).unwrap_err();
            assert_eq!(error, ReplyError::CutShort, "{length}");
        }
    }

    #[test]
    fn an_error_is_understood_in_every_version_and_an_answer_only_in_ours() {
        let decoded = |line: &[u8]| decode::<Nothing, Nothing>(line).unwrap_err();
        assert_eq!(decoded(b"{\"version\":2,\"error\":\"no\"}\n"), ReplyError::Refused("no".to_owned()));
        assert_eq!(decoded(b"{\"version\":2,\"answer\":{}}\n"), ReplyError::NotUnderstood);
        assert_eq!(decoded(b"220 mx.here.example ESMTP\n"), ReplyError::NotUnderstood);
    }
}
