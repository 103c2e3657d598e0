//! `postrider peer`.

use std::path::Path;

use serde_json::Value;

use super::arguments::PeerCommand as Subcommand;
use super::terminal::{ErrorLines, ask_server, format_field, pretty_json};
use crate::control::ControlRequest;
use crate::mail::Domain;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Subcommand) -> Result<String, ErrorLines> {
    match command {
        Subcommand::List { json } => {
            let answer = ask_server(config_dir, &ControlRequest::PeerList)?;
            Ok(if *json { pretty_json(&answer) } else { format_list(&answer) })
        }
        Subcommand::Show { domain } => {
            ask_server(config_dir, &ControlRequest::PeerShow { domain: parse_domain(domain)? })
                .map(|answer| pretty_json(&answer))
        }
        Subcommand::Forget { domain } => {
            let domain = parse_domain(domain)?;
            ask_server(config_dir, &ControlRequest::PeerForget { domain: domain.clone() })?;
            Ok(format!("{domain} is forgotten\n"))
        }
    }
}

fn parse_domain(raw: &str) -> Result<Domain, ErrorLines> {
    Domain::parse(raw).map_err(|e| vec![format!("{e}; write one such as example.org")])
}

/// One line for each domain: the level of mail that comes from it and goes to it.
fn format_list(answer: &Value) -> String {
    let domains = answer.get("domains").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut lines = format!("{:<40} {:<16} {:<16}\n", "domain", "incoming", "outgoing");
    for domain in domains {
        let field = |name| format_field(domain.get(name));
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
        let lines: Vec<_> = format_list(&answer)
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            ["domain incoming outgoing", "there.example tls tls-verified", "elsewhere.example plain -"]
        );
        assert_eq!(format_list(&json!({"domains": []})), "no domain is known yet\n");
    }
}
