//! `postrider queue`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::arguments::{self, QueueCommand};
use super::terminal::{ErrorLines, ask_server, format_field, pretty_json};
use crate::control::{ControlRequest, MessagePart};
use crate::mail::{MessageId, NextHop, printable};
use crate::queue::{QueueChange, Selection};

/// Messages that are named one by one; more are counted.
const MESSAGES_LISTED_MAX: usize = 20;
/// A line of a message on a terminal.
const LINE_OCTETS_MAX: usize = 4000;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &QueueCommand) -> Result<String, ErrorLines> {
    let change = |which: &arguments::RequiredMessageSelection, change, words| {
        let which = parse_selection(&which.ids, &which.criteria)?;
        let answer = ask_server(config_dir, &ControlRequest::QueueChange { selection: which, change })?;
        format_changes(&answer, words)
    };
    match command {
        QueueCommand::List { selection: which, limit, json } => {
            let which = parse_selection(&which.ids, &which.criteria)?;
            let is_all = which.is_all();
            let answer =
                ask_server(config_dir, &ControlRequest::QueueList { selection: which, limit: *limit })?;
            Ok(if *json { pretty_json(&answer) } else { format_list(&answer, is_all) })
        }
        QueueCommand::Show { id, header, message, json } => {
            let part = match (header, message) {
                (true, _) => Some(MessagePart::Header),
                (false, true) => Some(MessagePart::Message),
                (false, false) => None,
            };
            let answer = ask_server(config_dir, &ControlRequest::QueueShow { id: parse_id(id)?, part })?;
            match part {
                Some(_) => output_message(&answer),
                None if *json => Ok(pretty_json(&answer)),
                None => Ok(format_message(&answer)),
            }
        }
        QueueCommand::Retry { selection: which } => change(which, QueueChange::Retry, "tried now"),
        QueueCommand::Hold { selection: which } => change(which, QueueChange::Hold, "held"),
        QueueCommand::Release { selection: which } => change(which, QueueChange::Release, "released"),
        QueueCommand::Reroute { selection: which, via, direct: _ } => {
            let via = via.iter().map(|raw| parse_next_hop(raw)).collect::<Result<_, _>>()?;
            change(which, QueueChange::Reroute { via }, "rerouted")
        }
        QueueCommand::Remove { selection: which, bounce } => {
            let bounce_text = bounce.clone().map(|words| match words.as_str() {
                "" => "returned by the operator of this server".to_owned(),
                _ => words,
            });
            change(which, QueueChange::Remove { bounce_text }, "removed")
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

fn parse_selection(ids: &[String], who: &arguments::SelectionCriteria) -> Result<Selection, ErrorLines> {
    let parse = |raw: &Option<String>| {
        raw.as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|e: crate::queue::AddressPatternError| vec![e.to_string()])
    };
    let ids = match ids {
        [one] if one == "all" => Vec::new(),
        ids => ids.iter().map(|raw| parse_id(raw)).collect::<Result<_, _>>()?,
    };
    let (from, to) = (parse(&who.from)?, parse(&who.to)?);
    Ok(Selection { ids, from, to, destination: who.destination.clone(), is_held: who.held })
}

/// What a command did. What it did not do makes it fail.
fn format_changes(answer: &Value, done: &str) -> Result<String, ErrorLines> {
    let of = |name| answer.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut lines = Vec::new();
    let mut say = |ids: &[Value], one: &str, more: &str| match ids.len() {
        0..=MESSAGES_LISTED_MAX => {
            lines.extend(ids.iter().map(|id| format!("{} {one}", format_field(Some(id)))))
        }
        count => lines.push(format!("{count} messages {more}")),
    };
    say(of("changed"), &format!("is {done}"), &format!("are {done}"));
    let later =
        format!("being tried just now, and {done} when that attempt is over, if anything of it still waits");
    say(of("pending"), &format!("is {later}"), &format!("are {later}"));
    let refused = of("refused").iter();
    let mut wrong: Vec<_> = refused
        .map(|one| format!("{} {}", format_field(one.get("id")), format_field(one.get("reason"))))
        .collect();
    match answer.get("not-processed").and_then(Value::as_u64).unwrap_or(0) {
        0 => {}
        left => wrong
            .push(format!("{left} messages were not looked at, it took too long: give the command again")),
    }
    if wrong.is_empty() && lines.is_empty() {
        return Err(vec!["no message in the queue is meant".to_owned()]);
    }
    if wrong.is_empty() { Ok(lines.join("\n") + "\n") } else { Err([lines, wrong].concat()) }
}

/// The octets of a message, to a file or pipe as they are; to a terminal what it may be sent.
fn output_message(answer: &Value) -> Result<String, ErrorLines> {
    let text = answer.get("base64").and_then(Value::as_str).unwrap_or_default();
    let octets =
        STANDARD.decode(text).map_err(|e| vec![format!("the server's answer is not base64: {e}")])?;
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        let lines = octets.split(|octet| *octet == b'\n');
        let shown = lines.map(|line| printable(line.strip_suffix(b"\r").unwrap_or(line), LINE_OCTETS_MAX));
        return Ok(shown.collect::<Vec<_>>().join("\n"));
    }
    // Nobody reads on: that is fine, as in `run`.
    let _ = out.write_all(&octets);
    Ok(String::new())
}

/// A line for each message, and below it one for each recipient.
fn format_list(answer: &Value, is_all: bool) -> String {
    let messages = array_field(answer, "messages");
    let mut text = String::new();
    for message in messages {
        let field = |name| format_field(message.get(name));
        let _ = writeln!(
            text,
            "{}  {:>5}  {:>10}  from {}  {}",
            field("id"),
            format_age(message.get("age-seconds")),
            format!("{} B", field("octets")),
            field("reverse-path"),
            format_next_attempt(message),
        );
        format_recipients(&mut text, message);
    }
    let count = answer.get("count").and_then(Value::as_u64).unwrap_or(0);
    let more = count.saturating_sub(u64::try_from(messages.len()).unwrap_or(u64::MAX));
    if more > 0 && is_all {
        let _ = writeln!(text, "and {more} more");
    }
    match text.is_empty() {
        true if count > 0 => format!("none of the {count} messages in the queue\n"),
        true => "the queue is empty\n".to_owned(),
        false => text,
    }
}

fn format_recipients(text: &mut String, message: &Value) {
    for recipient in array_field(message, "recipients") {
        let field = |name| format_field(recipient.get(name));
        let _ = write!(text, "    {:<10} {}", field("state"), field("recipient"));
        if let Some(original) = recipient.get("original").and_then(Value::as_str) {
            let _ = write!(text, " (for {original})");
        }
        match recipient.get("reason").and_then(Value::as_str) {
            Some(reason) => drop(writeln!(text, ": {reason}")),
            None => text.push('\n'),
        }
    }
}

/// One message, a fact on each line.
fn format_message(answer: &Value) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let field = |name| format_field(answer.get(name));
    fact("message", field("id"));
    fact("from", field("reverse-path"));
    for name in ["authenticated-user", "client", "helo-name", "tls", "envid", "ret"] {
        if answer.get(name).is_some_and(|value| !value.is_null()) {
            fact(name, field(name));
        }
    }
    fact("octets", field("octets"));
    fact("arrived", format!("{}, {} ago", field("arrived"), format_age(answer.get("age-seconds"))));
    fact("attempts", field("attempts"));
    fact("now", format_next_attempt(answer));
    format_recipients(&mut text, answer);
    let history = array_field(answer, "history");
    if !history.is_empty() {
        text.push_str("history\n");
    }
    for event in history {
        let field = |name| format_field(event.get(name));
        let (at, state, recipient) = (field("time"), field("state"), field("recipient"));
        let _ = write!(text, "    {at}  attempt {}  {state:<10} {recipient}", field("attempt"));
        match event.get("reason").and_then(Value::as_str) {
            Some(reason) => drop(writeln!(text, ": {reason}")),
            None => text.push('\n'),
        }
    }
    text
}

fn format_next_attempt(message: &Value) -> String {
    match message.get("held").and_then(Value::as_bool) {
        Some(true) => "held".to_owned(),
        _ => match message.get("due").and_then(Value::as_str) {
            Some(due) => format!("next attempt {due}"),
            None => "next attempt now".to_owned(),
        },
    }
}

fn array_field<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// In the largest unit that fits: `3d`, `4h`, `5m`, `6s`.
fn format_age(seconds: Option<&Value>) -> String {
    match seconds.and_then(Value::as_u64) {
        Some(seconds @ 0..60) => format!("{seconds}s"),
        Some(seconds @ 60..3600) => format!("{}m", seconds / 60),
        Some(seconds @ 3600..172_800) => format!("{}h", seconds / 3600),
        Some(seconds) => format!("{}d", seconds / 86_400),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_listed_with_its_recipients() {
        let answer = json!({"count": 3, "messages": [{
            "id": "01h2xcejqtf2nbrexx3v", "age-seconds": 7300, "octets": 1234,
            "reverse-path": "<ana@here.example>", "due": "2026-11-23T05:00:00Z",
            "recipients": [
                {"recipient": "bo@there.example", "original": "list@here.example", "state": "deferred",
                    "reason": "4.4.1 no answer"},
                {"recipient": "eve@there.example", "original": null, "state": "delivered", "reason": null},
            ],
        }]});
        assert_eq!(
            format_list(&answer, true),
            "01h2xcejqtf2nbrexx3v     2h      1234 B  from <ana@here.example>  next attempt 2026-11-23T05:00:00Z\n    \
             deferred   bo@there.example (for list@here.example): 4.4.1 no answer\n    \
             delivered  eve@there.example\nand 2 more\n"
        );
        assert!(
            !format_list(&answer, false).contains("more"),
            "who asked for some did not ask for the others"
        );
        assert_eq!(format_list(&json!({"count": 0, "messages": []}), true), "the queue is empty\n");
        assert_eq!(
            format_list(&json!({"count": 7, "messages": []}), false),
            "none of the 7 messages in the queue\n"
        );
        assert_eq!(format_next_attempt(&json!({"due": null, "held": false})), "next attempt now");
        assert_eq!(format_next_attempt(&json!({"due": null, "held": true})), "held");
    }

    #[test]
    fn what_was_not_done_makes_a_command_fail() {
        let answer = |refused: Value, left: u64| json!({"changed": ["1a"], "pending": ["2b"], "refused": refused, "not-processed": left});
        let good = format_changes(&answer(json!([]), 0), "held").unwrap();
        assert!(good.starts_with("1a is held\n2b is being tried just now"), "{good}");
        let bad = format_changes(&answer(json!([{"id": "3c", "reason": "is not held"}]), 9), "released")
            .unwrap_err();
        assert_eq!((bad.len(), bad[2].as_str()), (4, "3c is not held"));
        assert!(format_changes(&json!({}), "held").is_err(), "nothing was meant");
        let many = json!({"changed": vec!["1a"; 21]});
        assert_eq!(format_changes(&many, "held").unwrap(), "21 messages are held\n");
    }
}
