//! `postrider alias`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;

use super::arguments::AliasCommand as Subcommand;
use super::terminal::{ErrorLines, ask_server, format_field, pretty_json};
use crate::control::ControlRequest;
use crate::mail::{Domain, Mailbox};

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Subcommand) -> Result<String, ErrorLines> {
    match command {
        Subcommand::Resolve { address: name, json } => {
            let address = Mailbox::parse(name)
                .map_err(|e| vec![format!("{name}: {e}; write one such as ana@example.org")])?;
            let answer = ask_server(config_dir, &ControlRequest::AliasResolve { address })?;
            match (has_error(&answer), json) {
                (false, true) => Ok(pretty_json(&answer)),
                (false, false) => Ok(format_tree(&answer, config_dir)),
                (true, true) => {
                    // A program reads it all the same. Nobody reads on: that is fine, as in `run`.
                    let _ = io::stdout().write_all(pretty_json(&answer).as_bytes());
                    Err(vec![format!("the aliases behind {name} have a mistake; see \"kind\": \"error\"")])
                }
                (true, false) => Err(format_tree(&answer, config_dir).lines().map(str::to_owned).collect()),
            }
        }
        Subcommand::List { domain, json } => {
            let domain = domain.as_deref().map(Domain::parse).transpose();
            let domain = domain.map_err(|e| vec![format!("{e}; write one such as example.org")])?;
            let answer = ask_server(config_dir, &ControlRequest::AliasList { domain })?;
            Ok(if *json { pretty_json(&answer) } else { format_list(&answer, config_dir) })
        }
    }
}

fn array_field<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn has_error(step: &Value) -> bool {
    format_field(step.get("kind")) == "error" || array_field(step, "steps").iter().any(has_error)
}

/// A line for each step, below the one that it follows from.
fn format_tree(root: &Value, config_dir: &Path) -> String {
    let mut lines = Vec::new();
    append_step(root, "", "", &mut lines);
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (left, origin) in lines {
        let line = match origin {
            Some(origin) => format!("{left:width$}  {}", relative_origin(&origin, config_dir)),
            None => left,
        };
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `branch` stands before this step's name, `trunk` before the names of those below it.
fn append_step(step: &Value, branch: &str, trunk: &str, lines: &mut Vec<(String, Option<String>)>) {
    let name = format_field(step.get("name"));
    let detail = step.get("detail").and_then(Value::as_str);
    let what = match (format_field(step.get("kind")).as_str(), detail) {
        ("error", Some(problem)) => format!("WRONG: {problem}"),
        ("user", Some(user)) if user != name => format!("user {user}"),
        ("catch-all", _) => "nobody, so it is the catch-all's".to_owned(),
        ("duplicate", _) => "as above, counts once".to_owned(),
        (what, _) => what.to_owned(),
    };
    let origin = step.get("origin").and_then(Value::as_str).map(str::to_owned);
    lines.push((format!("{branch}{name}: {what}"), origin));
    let below = array_field(step, "steps");
    for (position, one) in below.iter().enumerate() {
        let (corner, wall) = if position + 1 == below.len() { ("└ ", "  ") } else { ("├ ", "│ ") };
        append_step(one, &format!("{trunk}{corner}"), &format!("{trunk}{wall}"), lines);
    }
}

fn format_list(answer: &Value, config_dir: &Path) -> String {
    let mut text = String::new();
    for alias in array_field(answer, "aliases") {
        let targets: Vec<_> =
            array_field(alias, "targets").iter().map(|target| format_field(Some(target))).collect();
        let origin = format_field(alias.get("origin"));
        let name = format_field(alias.get("name"));
        let _ = writeln!(text, "{name}: {}  {}", targets.join(", "), relative_origin(&origin, config_dir));
    }
    if text.is_empty() { "there are no aliases\n".to_owned() } else { text }
}

/// Files below the configuration directory without it.
fn relative_origin<'a>(origin: &'a str, config_dir: &Path) -> &'a str {
    origin.strip_prefix(&*config_dir.to_string_lossy()).map_or(origin, |rest| rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_step_stands_below_the_one_that_it_follows_from() {
        let answer = json!({"name": "team@here.example", "kind": "alias", "steps": [
            {"name": "ana+x@here.example", "kind": "user", "detail": "ana@here.example",
             "origin": "/etc/postrider/domains/here.example/aliases:1", "steps": []},
            {"name": "more@here.example", "kind": "alias", "origin": "hooks/alias-resolve", "steps": [
                {"name": "ana@here.example", "kind": "duplicate", "origin": "/b:1", "steps": []},
            ]},
            {"name": "bo@here.example", "kind": "user", "detail": "bo@here.example", "origin": "/b:2", "steps": []},
        ]});
        assert!(!has_error(&answer));
        assert_eq!(
            format_tree(&answer, Path::new("/etc/postrider")),
            "team@here.example: alias\n\
             ├ ana+x@here.example: user ana@here.example  domains/here.example/aliases:1\n\
             ├ more@here.example: alias                   hooks/alias-resolve\n\
             │ └ ana@here.example: as above, counts once  /b:1\n\
             └ bo@here.example: user                      /b:2\n"
        );
        let dangling = json!({"name": "x", "kind": "alias", "steps": [
            {"name": "eve", "kind": "error", "detail": "alias x leads nowhere", "origin": "/a:1"}]});
        assert!(has_error(&dangling));
        assert_eq!(
            format_tree(&dangling, Path::new("/")),
            "x: alias\n└ eve: WRONG: alias x leads nowhere  a:1\n"
        );
    }
}
