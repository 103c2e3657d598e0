//! `postrider peer`.

use std::path::Path;

use super::arguments::PeerCommand as Subcommand;
use super::terminal::{ErrorLines, ask_server, pretty_json};
use crate::control::PeerList;
use crate::mail::Domain;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &Subcommand) -> Result<String, ErrorLines> {
    match command {
        Subcommand::List { json } => {
            let list = ask_server(config_dir, |server| server.peer_list())?;
            Ok(if *json { pretty_json(&list) } else { format_list(&list) })
        }
        Subcommand::Show { domain } => {
            let domain = parse_domain(domain)?;
            ask_server(config_dir, |server| server.peer_show(domain)).map(|peer| pretty_json(&peer))
        }
        Subcommand::Forget { domain } => {
            let domain = parse_domain(domain)?;
            ask_server(config_dir, |server| server.peer_forget(domain.clone()))?;
            Ok(format!("{domain} is forgotten\n"))
        }
    }
}

fn parse_domain(raw: &str) -> Result<Domain, ErrorLines> {
    Domain::parse(raw).map_err(|e| vec![format!("{e}; write one such as example.org")])
}

/// One line for each domain: the levels of mail from it and to it.
fn format_list(list: &PeerList) -> String {
    if list.peers.is_empty() {
        return "no domain is known yet\n".to_owned();
    }
    let line = |domain: &str, incoming: &str, outgoing: &str| {
        format!("{domain:<40} {incoming:<16} {outgoing:<16}\n")
    };
    let peers = list
        .peers
        .iter()
        .map(|peer| line(&peer.domain.to_string(), &peer.incoming.to_string(), &peer.outgoing.to_string()));
    line("domain", "incoming", "outgoing") + &peers.collect::<String>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_domain_has_a_line() {
        let peer = |domain, incoming, outgoing| {
            serde_json::from_value(json!({"domain": domain, "incoming": incoming, "outgoing": outgoing}))
                .unwrap()
        };
        let peers = vec![
            peer("there.example", "tls", "tls-verified"),
            peer("elsewhere.example", "plain", "tls-unverified"),
        ];
        let lines: Vec<_> = format_list(&PeerList { peers })
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "domain incoming outgoing",
                "there.example tls tls-verified",
                "elsewhere.example plain tls-unverified"
            ]
        );
        assert_eq!(format_list(&PeerList { peers: Vec::new() }), "no domain is known yet\n");
    }
}
