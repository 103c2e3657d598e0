//! `postrider alias`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use super::arguments::AliasCommand as Subcommand;
use super::terminal::{ErrorLines, ask_server, pretty_json};
use crate::control::{AliasList, AliasStep, AliasStepKind};
use crate::mail::{Domain, Mailbox};

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Subcommand) -> Result<String, ErrorLines> {
    match command {
        Subcommand::Resolve { address: name, json } => {
            let address = Mailbox::parse(name)
                .map_err(|e| vec![format!("{name}: {e}; write one such as ana@example.org")])?;
            let root = ask_server(config_dir, |server| server.alias_resolve(address))?;
            match (root.has_error(), json) {
                (false, true) => Ok(pretty_json(&root)),
                (false, false) => Ok(format_tree(&root, config_dir)),
                (true, true) => {
                    // A program reads the JSON all the same. A closed pipe is no error, as in `run`.
                    let _ = io::stdout().write_all(pretty_json(&root).as_bytes());
                    Err(vec![format!("the aliases behind {name} have a mistake; see \"kind\": \"error\"")])
                }
                (true, false) => Err(format_tree(&root, config_dir).lines().map(str::to_owned).collect()),
            }
        }
        Subcommand::List { domain, json } => {
            let domain = domain.as_deref().map(Domain::parse).transpose();
            let domain = domain.map_err(|e| vec![format!("{e}; write one such as example.org")])?;
            let list = ask_server(config_dir, |server| server.alias_list(domain))?;
            Ok(if *json { pretty_json(&list) } else { format_list(&list, config_dir) })
        }
    }
}

/// A line for each step, below the one that it follows from.
fn format_tree(root: &AliasStep, config_dir: &Path) -> String {
    let mut lines = Vec::new();
    append_step(root, "", "", &mut lines);
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (left, origin) in lines {
        let line = match origin {
            Some(origin) => format!("{left:width$}  {}", relative_origin(origin, config_dir)),
            None => left,
        };
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `branch` precedes the name of this step, `trunk` the names of the steps below it.
fn append_step<'a>(
    step: &'a AliasStep,
    branch: &str,
    trunk: &str,
    lines: &mut Vec<(String, Option<&'a str>)>,
) {
    let AliasStep { name, kind, detail, origin, steps } = step;
    let meaning = match (kind, detail) {
        (AliasStepKind::Error, Some(problem)) => format!("WRONG: {problem}"),
        (AliasStepKind::User, Some(user)) if user != name => format!("user {user}"),
        (AliasStepKind::CatchAll, _) => "nobody, so it is the catch-all's".to_owned(),
        (AliasStepKind::Duplicate, _) => "as above, counts once".to_owned(),
        (
            AliasStepKind::User
            | AliasStepKind::Remote
            | AliasStepKind::Via
            | AliasStepKind::Program
            | AliasStepKind::Alias
            | AliasStepKind::Postmaster
            | AliasStepKind::Error,
            _,
        ) => kind.name().to_owned(),
    };
    lines.push((format!("{branch}{name}: {meaning}"), origin.as_deref()));
    for (position, next) in steps.iter().enumerate() {
        let (corner, wall) = if position + 1 == steps.len() { ("└ ", "  ") } else { ("├ ", "│ ") };
        append_step(next, &format!("{trunk}{corner}"), &format!("{trunk}{wall}"), lines);
    }
}

fn format_list(list: &AliasList, config_dir: &Path) -> String {
    let mut text = String::new();
    for alias in &list.aliases {
        let origin = relative_origin(&alias.origin, config_dir);
        let _ = writeln!(text, "{}: {}  {origin}", alias.name, alias.targets.join(", "));
    }
    if text.is_empty() { "there are no aliases\n".to_owned() } else { text }
}

/// Files below the configuration directory without it.
fn relative_origin<'a>(origin: &'a str, config_dir: &Path) -> &'a str {
    origin.strip_prefix(&*config_dir.to_string_lossy()).map_or(origin, |rest| rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, kind: AliasStepKind, detail: &str, origin: &str, steps: Vec<AliasStep>) -> AliasStep {
        let text = |raw: &str| (!raw.is_empty()).then(|| raw.to_owned());
        AliasStep { name: name.to_owned(), kind, detail: text(detail), origin: text(origin), steps }
    }

    #[test]
    fn every_step_stands_below_the_one_that_it_follows_from() {
        let (user, alias) = (AliasStepKind::User, AliasStepKind::Alias);
        let duplicate = step("ana@here.example", AliasStepKind::Duplicate, "", "/b:1", vec![]);
        let below = vec![
            step(
                "ana+x@here.example",
                user,
                "ana@here.example",
                "/etc/postrider/domains/here.example/aliases:1",
                vec![],
            ),
            step("more@here.example", alias, "", "hooks/alias-resolve", vec![duplicate]),
            step("bo@here.example", user, "bo@here.example", "/b:2", vec![]),
        ];
        let root = step("team@here.example", alias, "", "", below);
        assert!(!root.has_error());
        assert_eq!(
            format_tree(&root, Path::new("/etc/postrider")),
            "team@here.example: alias\n\
             ├ ana+x@here.example: user ana@here.example  domains/here.example/aliases:1\n\
             ├ more@here.example: alias                   hooks/alias-resolve\n\
             │ └ ana@here.example: as above, counts once  /b:1\n\
             └ bo@here.example: user                      /b:2\n"
        );
        let mistake = step("eve", AliasStepKind::Error, "alias x leads nowhere", "/a:1", vec![]);
        let dangling = step("x", alias, "", "", vec![mistake]);
        assert!(dangling.has_error());
        assert_eq!(
            format_tree(&dangling, Path::new("/")),
            "x: alias\n└ eve: WRONG: alias x leads nowhere  a:1\n"
        );
    }
}
