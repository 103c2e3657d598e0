//! `postrider domain`.

use std::path::Path;

use serde_json::Value;

use super::table::Domain as Subcommand;
use super::terminal::{Failed, ask, pretty, text_of};
use crate::control::Request;
use crate::mail::Domain;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Subcommand) -> Result<String, Failed> {
    match command {
        Subcommand::List { json } => {
            let answer = ask(config_dir, &Request::DomainList)?;
            Ok(if *json { pretty(&answer) } else { list(&answer) })
        }
        Subcommand::Show { domain } => {
            ask(config_dir, &Request::DomainShow { domain: parse(domain)? }).map(|answer| pretty(&answer))
        }
        Subcommand::Forget { domain } => {
            let domain = parse(domain)?;
            ask(config_dir, &Request::DomainForget { domain: domain.clone() })?;
            Ok(format!("{domain} is forgotten\n"))
        }
    }
}

fn parse(raw: &str) -> Result<Domain, Failed> {
    Domain::parse(raw).map_err(|e| vec![format!("{e}; write one such as example.org")])
}

/// One line for each domain: the level of mail that comes from it and goes to it.
fn list(answer: &Value) -> String {
    let domains = answer.get("domains").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut lines = format!("{:<40} {:<16} {:<16}\n", "domain", "incoming", "outgoing");
    for domain in domains {
        let field = |name| text_of(domain.get(name));
        lines.push_str(&format!(
            "{:<40} {:<16} {:<16}\n",
            field("domain"),
            field("incoming"),
            field("outgoing")
        ));
    }
    if domains.is_empty() { "no domain is known yet\n".to_owned() } else { lines }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_domain_has_a_line() {
        let answer = json!({"domains": [
            {"domain": "there.example", "incoming": "tls", "outgoing": "tls-verified"},
            {"domain": "elsewhere.example", "incoming": "plain", "outgoing": null},
        ]});
        let lines: Vec<_> =
            list(&answer).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["domain incoming outgoing", "there.example tls tls-verified", "elsewhere.example plain -"]
        );
        assert_eq!(list(&json!({"domains": []})), "no domain is known yet\n");
    }
}
