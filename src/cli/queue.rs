//! `postrider queue`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::{QueueCommand, RequiredMessageSelection, SelectionCriteria};
use super::terminal::{ErrorLines, ask_server, pretty_json};
use crate::control::{
    ChangeAnswer, HistoryEvent, ListedMessage, ListedRecipient, MessagePart, QueueList, ShownMessage,
};
use crate::mail::{MessageId, NextHop, Ret, printable};
use crate::queue::{AddressPatternError, QueueChange, Selection};

/// Messages that are named one by one; more are counted.
const MESSAGES_LISTED_MAX: usize = 20;
/// Octets of a message's line that are shown on a terminal.
const LINE_OCTETS_MAX: usize = 4000;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &QueueCommand) -> Result<String, ErrorLines> {
    let change = |selection: &RequiredMessageSelection, change, done| {
        let selection = parse_selection(&selection.ids, &selection.criteria)?;
        let answer = ask_server(config_dir, |server| server.queue_change(selection, change))?;
        format_changes(&answer, done)
    };
    match command {
        QueueCommand::List { selection, limit, json } => {
            let selection = parse_selection(&selection.ids, &selection.criteria)?;
            let is_all = selection.is_all();
            let list = ask_server(config_dir, |server| server.queue_list(selection, *limit))?;
            Ok(if *json { pretty_json(&list) } else { format_list(&list, is_all) })
        }
        QueueCommand::Show { id, header, message, json } => {
            let part = match (header, message) {
                (true, _) => Some(MessagePart::Header),
                (false, true) => Some(MessagePart::Message),
                (false, false) => None,
            };
            let id = parse_id(id)?;
            let shown = ask_server(config_dir, |server| server.queue_show(id, part))?;
            match part {
                Some(_) => output_message(&shown),
                None if *json => Ok(pretty_json(&shown)),
                None => Ok(format_message(&shown)),
            }
        }
        QueueCommand::Retry { selection } => change(selection, QueueChange::Retry, "tried now"),
        QueueCommand::Hold { selection } => change(selection, QueueChange::Hold, "held"),
        QueueCommand::Release { selection } => change(selection, QueueChange::Release, "released"),
        QueueCommand::Reroute { selection, via, direct: _ } => {
            let via = via.iter().map(|raw| parse_next_hop(raw)).collect::<Result<_, _>>()?;
            change(selection, QueueChange::Reroute { via }, "rerouted")
        }
        QueueCommand::Remove { selection, bounce } => {
            let bounce_text = bounce.clone().map(|text| match text.as_str() {
                "" => "returned by the operator of this server".to_owned(),
                _ => text,
            });
            change(selection, QueueChange::Remove { bounce_text }, "removed")
        }
    }
}

fn parse_id(raw: &str) -> Result<MessageId, ErrorLines> {
    raw.parse().map_err(|e| vec![format!("{e}; write one that `postrider queue list` prints")])
}

fn parse_next_hop(raw: &str) -> Result<NextHop, ErrorLines> {
    NextHop::parse(raw)
        .map_err(|e| vec![format!("{}; write mx.example.org, mx.example.org:25 or 192.0.2.1:25", e.problem)])
}

fn parse_selection(ids: &[String], criteria: &SelectionCriteria) -> Result<Selection, ErrorLines> {
    let parse = |raw: &Option<String>| {
        raw.as_deref().map(str::parse).transpose().map_err(|e: AddressPatternError| vec![e.to_string()])
    };
    let ids = match ids {
        [one] if one == "all" => Vec::new(),
        ids => ids.iter().map(|raw| parse_id(raw)).collect::<Result<_, _>>()?,
    };
    let (from, to) = (parse(&criteria.from)?, parse(&criteria.to)?);
    Ok(Selection { ids, from, to, destination: criteria.destination.clone(), is_held: criteria.held })
}

/// What a command did. It fails if a message was not changed.
fn format_changes(answer: &ChangeAnswer, done: &str) -> Result<String, ErrorLines> {
    let mut lines = Vec::new();
    let mut append = |ids: &[MessageId], state: &str| match ids.len() {
        0..=MESSAGES_LISTED_MAX => lines.extend(ids.iter().map(|id| format!("{id} is {state}"))),
        count => lines.push(format!("{count} messages are {state}")),
    };
    append(&answer.changed, done);
    let pending =
        format!("being tried just now, and {done} when that attempt is over, if anything of it still waits");
    append(&answer.pending, &pending);
    let mut errors: Vec<_> = answer.refused.iter().map(|one| format!("{} {}", one.id, one.reason)).collect();
    match answer.not_processed {
        0 => {}
        count => errors
            .push(format!("{count} messages were not looked at, it took too long: give the command again")),
    }
    if errors.is_empty() && lines.is_empty() {
        return Err(vec!["no queued message matches".to_owned()]);
    }
    if errors.is_empty() { Ok(lines.join("\n") + "\n") } else { Err([lines, errors].concat()) }
}

/// The octets of a message: unchanged to a file or pipe, and to a terminal without control characters.
fn output_message(shown: &ShownMessage) -> Result<String, ErrorLines> {
    let text = shown.base64.as_deref().unwrap_or_default();
    let octets =
        STANDARD.decode(text).map_err(|e| vec![format!("the server's answer is not base64: {e}")])?;
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        let lines = octets.split(|octet| *octet == b'\n');
        let shown = lines.map(|line| printable(line.strip_suffix(b"\r").unwrap_or(line), LINE_OCTETS_MAX));
        return Ok(shown.collect::<Vec<_>>().join("\n"));
    }
    // A closed pipe is no error, as in `run`.
    let _ = out.write_all(&octets);
    Ok(String::new())
}

/// A line for each message, and below it one for each recipient.
fn format_list(list: &QueueList, is_all: bool) -> String {
    let QueueList { count, messages } = list;
    let mut text = String::new();
    for message in messages {
        let _ = writeln!(
            text,
            "{}  {:>5}  {:>10}  from {}  {}",
            message.id,
            format_age(message.age_seconds),
            format!("{} B", message.octets),
            message.reverse_path,
            format_next_attempt(message),
        );
        format_recipients(&mut text, message);
    }
    let more = count.saturating_sub(messages.len());
    if more > 0 && is_all {
        let _ = writeln!(text, "and {more} more");
    }
    match text.is_empty() {
        true if *count > 0 => format!("none of the {count} messages in the queue\n"),
        true => "the queue is empty\n".to_owned(),
        false => text,
    }
}

fn format_recipients(text: &mut String, message: &ListedMessage) {
    for ListedRecipient { recipient, original, state, reason } in &message.recipients {
        let _ = write!(text, "    {:<10} {recipient}", state.name());
        if let Some(original) = original {
            let _ = write!(text, " (for {original})");
        }
        format_reason(text, reason.as_deref());
    }
}

/// The end of a line that has a reason, if there is one.
fn format_reason(text: &mut String, reason: Option<&str>) {
    match reason {
        Some(reason) => drop(writeln!(text, ": {reason}")),
        None => text.push('\n'),
    }
}

/// One message, a fact on each line.
fn format_message(shown: &ShownMessage) -> String {
    let ShownMessage { message, history, .. } = shown;
    let mut text = String::new();
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<12} {value}");
        }
    };
    fact("message", Some(message.id.to_string()));
    fact("from", Some(message.reverse_path.clone()));
    fact("user", shown.authenticated_user.clone());
    fact("client", shown.client.map(|address| address.to_string()));
    fact("helo", shown.helo_name.clone());
    fact("tls", shown.tls.clone());
    fact("envid", shown.envid.clone());
    fact(
        "ret",
        shown.ret.map(|ret| match ret {
            Ret::Full => "full".to_owned(),
            Ret::Headers => "headers".to_owned(),
        }),
    );
    fact("octets", Some(message.octets.to_string()));
    fact("arrived", Some(format!("{}, {} ago", message.arrived, format_age(message.age_seconds))));
    fact("attempts", Some(message.attempts.to_string()));
    fact("now", Some(format_next_attempt(message)));
    format_recipients(&mut text, message);
    if !history.is_empty() {
        text.push_str("history\n");
    }
    for HistoryEvent { time, attempt, recipient, state, reason } in history {
        let recipient = recipient.as_deref().unwrap_or("-");
        let _ = write!(text, "    {time}  attempt {attempt}  {:<10} {recipient}", state.name());
        format_reason(&mut text, reason.as_deref());
    }
    text
}

fn format_next_attempt(message: &ListedMessage) -> String {
    match (message.held, &message.due) {
        (true, _) => "held".to_owned(),
        (false, Some(due)) => format!("next attempt {due}"),
        (false, None) => "next attempt now".to_owned(),
    }
}

/// In the largest unit that fits: `3d`, `4h`, `5m`, `6s`.
fn format_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        172_800.. => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{DeliveryState, RefusedChange};

    fn id() -> MessageId {
        "01h2xcejqtf2nbrexx3v".parse().unwrap()
    }

    fn message() -> ListedMessage {
        let recipient =
            |recipient: &str, original: Option<&str>, state, reason: Option<&str>| ListedRecipient {
                recipient: recipient.to_owned(),
                original: original.map(str::to_owned),
                state,
                reason: reason.map(str::to_owned),
            };
        let (deferred, delivered) = (DeliveryState::Deferred, DeliveryState::Delivered);
        ListedMessage {
            id: id(),
            arrived: "2026-11-23T03:00:00Z".to_owned(),
            age_seconds: 7300,
            octets: 1234,
            reverse_path: "<ana@here.example>".to_owned(),
            attempts: 1,
            due: Some("2026-11-23T05:00:00Z".to_owned()),
            held: false,
            recipients: vec![
                recipient("bo@there.example", Some("list@here.example"), deferred, Some("4.4.1 no answer")),
                recipient("eve@there.example", None, delivered, None),
            ],
        }
    }

    #[test]
    fn a_message_is_listed_with_its_recipients() {
        let list = QueueList { count: 3, messages: vec![message()] };
        assert_eq!(
            format_list(&list, true),
            "01h2xcejqtf2nbrexx3v     2h      1234 B  from <ana@here.example>  next attempt 2026-11-23T05:00:00Z\n    \
             deferred   bo@there.example (for list@here.example): 4.4.1 no answer\n    \
             delivered  eve@there.example\nand 2 more\n"
        );
        assert!(!format_list(&list, false).contains("more"), "the selection leaves the others out");
        let empty = |count| QueueList { count, messages: Vec::new() };
        assert_eq!(format_list(&empty(0), true), "the queue is empty\n");
        assert_eq!(format_list(&empty(7), false), "none of the 7 messages in the queue\n");
        assert_eq!(format_next_attempt(&ListedMessage { due: None, ..message() }), "next attempt now");
        assert_eq!(format_next_attempt(&ListedMessage { held: true, ..message() }), "held");
    }

    #[test]
    fn a_command_fails_if_a_message_was_not_changed() {
        let good = ChangeAnswer { changed: vec![id()], pending: vec![id()], ..ChangeAnswer::default() };
        let text = format_changes(&good, "held").unwrap();
        assert!(text.starts_with(&format!("{0} is held\n{0} is being tried just now", id())), "{text}");
        let refused = vec![RefusedChange { id: id(), reason: "is not held".to_owned() }];
        let bad =
            format_changes(&ChangeAnswer { refused, not_processed: 9, ..good }, "released").unwrap_err();
        assert_eq!((bad.len(), bad[2].as_str()), (4, format!("{} is not held", id()).as_str()));
        assert!(format_changes(&ChangeAnswer::default(), "held").is_err(), "no message matches");
        let many = ChangeAnswer { changed: vec![id(); 21], ..ChangeAnswer::default() };
        assert_eq!(format_changes(&many, "held").unwrap(), "21 messages are held\n");
    }
}
