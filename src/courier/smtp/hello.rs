//! The name in EHLO.
//!
//! Always a public host name: peers refuse or distrust a client that calls itself `localhost` or has no
//! name (RFC 5321 §4.1.1.1). Chosen once for an attempt, so that a new connection with other TLS has the
//! same name.

use super::settings::HelloMode;
use crate::dns::is_localhost;
use crate::mail::{Domain, ReversePath};
use crate::route::Router;

/// The name for mail from this reverse-path.
pub(super) fn hello_name(
    mode: HelloMode,
    hostname: &Domain,
    reverse_path: &ReversePath,
    router: &Router,
) -> Domain {
    match (mode, reverse_path.mailbox().map(|mailbox| &mailbox.domain)) {
        (HelloMode::SenderDomain, Some(domain)) if router.is_local(domain) && is_public_name(domain) => {
            domain.clone()
        }
        // The reverse-path is null or not of a local domain, or the operator wants the host's name.
        (HelloMode::SenderDomain | HelloMode::Hostname, _) => hostname.clone(),
    }
}

/// The name means the same host to the peer as to us.
fn is_public_name(domain: &Domain) -> bool {
    domain.is_qualified() && !is_localhost(domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;

    fn name_for(mode: HelloMode, reverse_path: &str) -> String {
        let ours = ["bücher.example", "here.example", "box", "box.localhost"];
        let router = Router::new(ours.map(|raw| Domain::parse(raw).unwrap()));
        let reverse_path = match reverse_path {
            "" => ReversePath::Null,
            raw => ReversePath::Mailbox(Mailbox::parse(raw).unwrap()),
        };
        let hostname = Domain::parse("mail.here.example").unwrap();
        hello_name(mode, &hostname, &reverse_path, &router).as_ascii().to_owned()
    }

    #[test]
    fn mail_of_a_local_domain_goes_out_under_its_name_in_a_labels() {
        assert_eq!(name_for(HelloMode::SenderDomain, "ana@here.example"), "here.example");
        assert_eq!(name_for(HelloMode::SenderDomain, "ana@bücher.example"), "xn--bcher-kva.example");
    }

    #[test]
    fn other_mail_goes_out_under_the_name_of_the_host() {
        for sender in
            ["", "eve@elsewhere.example", "ana@localhost", "ana@box", "ana@box.localhost", "a@[192.0.2.9]"]
        {
            assert_eq!(name_for(HelloMode::SenderDomain, sender), "mail.here.example", "{sender}");
        }
    }

    #[test]
    fn with_hostname_all_mail_goes_out_under_the_name_of_the_host() {
        for sender in ["", "ana@here.example", "eve@elsewhere.example"] {
            assert_eq!(name_for(HelloMode::Hostname, sender), "mail.here.example", "{sender}");
        }
    }
}
