//! Two real servers: one sends mail to the other and remembers the security level.
//!
//! Tests of `courier_tls` and `domaininfo` cover each level. The tests here put the parts
//! together, with the commands by which an operator shows and forgets levels.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use postrider::auth::Accounts;
use postrider::dns::Zone;
use postrider::domaininfo::{self, DomainInfo};
use postrider::fakes::DnsServer;
use postrider::inbound::{
    ConfiguredPolicy, HourlyLimits, LocalRecipients, LoginPolicy, RateLimits, RecipientPolicy, ReverseNames,
    ReversePathPolicy, SenderCheck, SenderLoginPolicy, SenderPermissions, SenderRestriction,
};
use postrider::mail::{Domain, Mailbox, Recipient, SpfResult};
use postrider::observe::Metrics;
use postrider::sys::{SystemClock, SystemDisk, SystemRandom};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::dialogs::on_sockets::{OnSocket, SocketFixture};
use crate::dialogs::{Manner, parse, play};
use crate::test_server::{TestServer, wait_for};

/// Our server, and the host of `there.example`, whose certificate is signed by an authority of the test.
struct TwoServers {
    us: TestServer,
    them: TestServer,
    _dns: DnsServer,
}

impl TwoServers {
    /// `trust` says where our server finds its roots: the name of a variable, and a file or folder
    /// below the other server's, which has the authority in `roots/authority.pem`.
    fn new(trust: Option<(&'static str, &str)>) -> Self {
        let mut them = TestServer::new("");
        them.add_user("bo@there.example", "secret word");
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::create_dir(them.path("roots")).unwrap();
        fs::write(them.path("roots/authority.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["mx.there.example".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        fs::write(them.path("certs/here/fullchain.pem"), leaf.pem()).unwrap();
        fs::write(them.path("certs/here/privkey.pem"), key.serialize_pem()).unwrap();
        them.start();

        let dns = DnsServer::start("there.example. MX 10 mx.there.example.\nmx.there.example. A 127.0.0.1\n");
        let mut us = TestServer::new(&format!(
            "[relay]\nnetworks = [\"127.0.0.0/8\"]\n[dns]\nservers = [\"{}\"]\n\
             [delivery.smtp]\nport = {}\n[queue]\nretry = [\"1s\"]\n",
            dns.address, them.smtp_port
        ));
        // The system's own roots are not used.
        let nothing = us.path("nothing.pem");
        fs::write(&nothing, "").unwrap();
        us.environment = match trust {
            Some((variable, below)) => vec![(variable, them.path(below))],
            None => vec![("SSL_CERT_FILE", nothing)],
        };
        us.start();
        Self { us, them, _dns: dns }
    }

    fn arrived(&self) -> usize {
        self.them.maildir_messages("there.example", "bo").len()
    }

    fn send(&self, subject: &str) {
        assert!(self.us.send_message("ana@here.example", "bo@there.example", subject).starts_with("250"));
    }

    /// Sends a message and waits until it is there.
    fn deliver(&self, subject: &str) {
        let before = self.arrived();
        self.send(subject);
        wait_for(subject, || (self.arrived() > before).then_some(()));
    }

    /// What `postrider peer show` says of the outgoing level.
    fn outgoing(&self) -> String {
        let (code, out, error) = self.us.run_to_end(&["peer", "show", "there.example"]);
        assert_eq!(code, 0, "{error}");
        let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
        shown["outgoing"].as_str().unwrap().to_owned()
    }

    fn file(&self) -> PathBuf {
        self.us.path("data/domaininfo/there.example.json")
    }
}

#[test]
fn a_host_whose_certificate_no_root_has_signed_is_unverified() {
    let both = TwoServers::new(None);
    both.deliver("one");
    assert_eq!(both.outgoing(), "tls-unverified");
}

#[test]
fn roots_are_read_from_the_file_or_directory_in_the_environment() {
    for trust in [("SSL_CERT_FILE", "roots/authority.pem"), ("SSL_CERT_DIR", "roots")] {
        let both = TwoServers::new(Some(trust));
        both.deliver("one");
        assert_eq!(both.outgoing(), "tls-verified", "{trust:?}");
    }
}

#[test]
fn a_lower_level_waits_until_the_operator_makes_the_server_forget() {
    let mut both = TwoServers::new(Some(("SSL_CERT_FILE", "roots/authority.pem")));
    let (code, out, _) = both.us.run_to_end(&["peer", "list"]);
    assert_eq!((code, out.as_str()), (0, "no domain is known yet\n"));
    both.deliver("with tls");
    both.deliver("an equal level passes");
    let (code, out, _) = both.us.run_to_end(&["peer", "list"]);
    assert!(code == 0 && out.contains("there.example") && out.contains("tls-verified"), "{out}");
    assert!(fs::read_to_string(both.file()).unwrap().contains("tls-verified"), "a person can read it");

    // The other server gives up TLS. Our server is killed, and still has the known level.
    both.us.kill();
    fs::remove_dir_all(both.them.path("certs")).unwrap();
    assert_eq!(both.them.stop(), 0);
    both.them.start();
    both.us.start();
    assert_eq!(both.outgoing(), "tls-verified");
    both.send("without tls");
    let listing = wait_for("the refusal", || {
        let (_, out, _) = both.us.run_to_end(&["queue", "list"]);
        out.contains("deferred").then_some(out)
    });
    assert!(listing.contains("tls-verified before") && listing.contains("peer forget"), "{listing}");
    assert_eq!(both.arrived(), 2);

    let (code, out, error) = both.us.run_to_end(&["peer", "forget", "THERE.example"]);
    assert_eq!((code, out.as_str()), (0, "there.example is forgotten\n"), "{error}");
    wait_for("the message that waited", || (both.arrived() == 3).then_some(()));
    assert_eq!(both.outgoing(), "plain");
    let (code, _, error) = both.us.run_to_end(&["peer", "forget", "elsewhere.example"]);
    assert!(code == 1 && error.contains("nothing is known of elsewhere.example"), "{error}");
    let (code, _, error) = both.us.run_to_end(&["peer", "show", "no domain"]);
    assert!(code == 1 && error.contains("write one such as example.org"), "{error}");
}

/// A stand-in for SPF that confirms every sender.
struct Confirmed;

impl SenderCheck for Confirmed {
    fn check_spf(&self, _address: IpAddr, _hello: &str, _mailbox: &Mailbox) -> SpfResult {
        SpfResult::Pass
    }
}

/// A stand-in that accepts every recipient in `here.example`.
struct Everybody;

impl LocalRecipients for Everybody {
    fn is_local(&self, domain: &Domain) -> bool {
        domain.as_ascii() == "here.example"
    }
    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        Ok(vec![Recipient::for_mailbox(mailbox.clone())])
    }
    fn postmaster_domain(&self) -> Domain {
        Domain::parse("here.example").unwrap()
    }
}

impl SenderPermissions for Everybody {
    fn may_send_as(&self, user: &Mailbox, address: &Mailbox) -> bool {
        user == address
    }
}

const PLAIN: &str = "S: 220 *\nC: HELO there.example\nS: 250 *\nC: MAIL FROM:<ana@xn--bcher-kva.example>\n";
const ENCRYPTED: &str = "S: 220 *\nC: STARTTLS\nS: 220 *\ntls: handshake\nC: EHLO there.example\nS: 250-*\nS: 250-*\n\
    S: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\nC: MAIL FROM:<ana@bücher.example> SMTPUTF8\nS: 250 2.1.0 *\n";

#[test]
fn a_confirmed_sender_whose_domain_gives_up_tls_is_refused_at_mail() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let policy = || {
        // Opened again each time, as after a restart.
        let settings = domaininfo::Settings::new(dir.path().to_owned());
        let known = DomainInfo::open(
            Arc::new(SystemDisk),
            Arc::new(SystemRandom),
            Arc::new(SystemClock),
            &metrics,
            settings,
        );
        Arc::new(ConfiguredPolicy {
            rate_limits: Arc::new(RateLimits::new(HourlyLimits::default(), Arc::new(SystemClock), &metrics)),
            reverse_path_policy: ReversePathPolicy::new(
                ReverseNames::new(Arc::new(Zone::default()), Arc::new(SystemClock)),
                Arc::new(Confirmed),
                Arc::new(known.unwrap()),
                &metrics,
            ),
            sender_login_policy: SenderLoginPolicy::new(
                Arc::new(Everybody),
                Arc::new(Everybody),
                SenderRestriction::OwnAddresses,
                &metrics,
            ),
            recipient_policy: RecipientPolicy::new(Arc::new(Everybody), &metrics),
            login_policy: LoginPolicy::new(
                Arc::new(Accounts::new([].into())),
                Arc::new(SystemClock),
                Arc::new(SystemRandom),
                &metrics,
            ),
        })
    };
    let mut fixture = SocketFixture::new();
    for (conversation, last) in [
        (PLAIN, "S: 250 2.1.0 *"),
        (ENCRYPTED, ""),
        (PLAIN, "S: 550 5.7.3 *\nC: MAIL FROM:<>\nS: 250 2.1.0 *"),
        (ENCRYPTED, ""),
    ] {
        let dialog = parse("levels", &format!("# RFC 5321\nlogins: none\n{conversation}{last}\n"));
        let mut wire = OnSocket::with(&mut fixture, &dialog, |services| services.policy = policy());
        play(&dialog, &mut wire, Manner::LineByLine).unwrap();
    }
    let file = fs::read_to_string(dir.path().join("xn--bcher-kva.example.json")).unwrap();
    assert!(file.contains("\"tls\""), "{file}");
}
