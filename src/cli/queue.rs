//! `postrider queue`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::table::Queue;
use super::terminal::{Failed, ask, pretty, text_of};
use crate::control::{Request, Which};

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Queue) -> Result<String, Failed> {
    match command {
        Queue::List { json } => {
            let answer = ask(config_dir, &Request::QueueList)?;
            Ok(if *json { pretty(&answer) } else { list(&answer) })
        }
        Queue::Retry { id } => {
            let which: Which = id.parse().map_err(|e| vec![format!("{e}; or write all")])?;
            ask(config_dir, &Request::QueueRetry { which })?;
            Ok(match which {
                Which::All => "every message is tried now\n".to_owned(),
                Which::One(id) => format!("{id} is tried now\n"),
            })
        }
        Queue::Remove { id } => {
            let id = id.parse().map_err(|e| vec![format!("{e}")])?;
            ask(config_dir, &Request::QueueRemove { id })?;
            Ok(format!("{id} is removed\n"))
        }
    }
}

/// A line for each message, and below it one for each recipient.
fn list(answer: &Value) -> String {
    let messages = answer.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    for message in messages {
        let field = |name| text_of(message.get(name));
        let _ = writeln!(
            text,
            "{}  {:>5}  {:>10}  from {}  next attempt {}",
            field("id"),
            age(message.get("age-seconds")),
            format!("{} B", field("octets")),
            field("reverse-path"),
            field("due"),
        );
        let recipients = message.get("recipients").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for recipient in recipients {
            let field = |name| text_of(recipient.get(name));
            let _ = write!(text, "    {:<10} {}", field("state"), field("recipient"));
            match recipient.get("reason").and_then(Value::as_str) {
                Some(reason) => drop(writeln!(text, ": {reason}")),
                None => text.push('\n'),
            }
        }
    }
    let count = answer.get("count").and_then(Value::as_u64).unwrap_or(0);
    let more = count.saturating_sub(u64::try_from(messages.len()).unwrap_or(u64::MAX));
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    if text.is_empty() { "the queue is empty\n".to_owned() } else { text }
}

/// In the largest unit that fits: `3d`, `4h`, `5m`, `6s`.
fn age(seconds: Option<&Value>) -> String {
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
                {"recipient": "bo@there.example", "state": "deferred", "reason": "4.4.1 no answer"},
                {"recipient": "eve@there.example", "state": "delivered", "reason": null},
            ],
        }]});
        assert_eq!(
            list(&answer),
            "01h2xcejqtf2nbrexx3v     2h      1234 B  from <ana@here.example>  next attempt 2026-11-23T05:00:00Z\n    \
             deferred   bo@there.example: 4.4.1 no answer\n    delivered  eve@there.example\n\
             and 2 more\n"
        );
        assert_eq!(list(&json!({"messages": []})), "the queue is empty\n");
    }
}
