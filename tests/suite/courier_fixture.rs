//! A fixture of the SMTP courier: peers that follow a script, a zone file, and a message.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::courier::smtp::{CredentialsByName, Settings, SmtpCourier, SmtpCourierParts};
use postrider::courier::{Courier as _, Delivery, Message};
use postrider::dns::Zone;
use postrider::domaininfo::{self, DomainInfo};
use postrider::fakes::{PeerLog, ScriptedConnector, SeededRandom};
use postrider::mail::{
    Destination, Domain, Envelope, MessageId, Outcome, Recipient, ReversePath, Timestamp, Via,
};
use postrider::observe::{Metrics, Traces};
use postrider::route::Router;
use postrider::sys::{Clock, Connector, SystemClock, SystemDisk, SystemRandom};
use postrider::tls::{SecurityLevel, TlsClient};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

const ZONE: &str = "
there.example.      MX 10 mx1.there.example.
there.example.      MX 20 mx2.there.example.
mx1.there.example.  A  192.0.2.1
mx2.there.example.  A  192.0.2.2
one.example.        MX 10 mx.one.example.
mx.one.example.     A  192.0.2.3
two.example.        MX 10 mx.one.example.
bücher.example.     MX 10 mx.one.example.
bare.example.       A  192.0.2.4
twice.example.      MX 10 mx.twice.example.
mx.twice.example.   A  192.0.2.5
mx.twice.example.   AAAA 2001:db8::5
null.example.       MX 0 .
broken.example.     SERVFAIL
empty.example.      EMPTY
hostless.example.   MX 10 empty.example.
hostless.example.   MX 20 nowhere.example.
maybe.example.      MX 10 empty.example.
maybe.example.      MX 20 broken.example.
maybe.example.      MX 30 nowhere.example.
loop.example.       MX 10 mx.loop.example.
mx.loop.example.    A  127.0.0.1
";
pub const MX1: &str = "192.0.2.1:25";
pub const MX2: &str = "192.0.2.2:25";
pub const MX_ONE: &str = "192.0.2.3:25";
pub const MESSAGE: &str = "Subject: hello\r\n\r\nDear Bo,\r\n.dot\r\n";

// The script of a server without extensions, in pieces: each is written once.
macro_rules! to_ehlo {
    () => {
        "
    S: 220 mx
    C: EHLO here.example
    S: 250 mx"
    };
}
macro_rules! mail_to_data {
    () => {
        "
    C: MAIL FROM:<ana@here.example>
    S: 250 ok
    C: RCPT TO:<bo@*
    S: 250 ok
    C: DATA"
    };
}
macro_rules! message {
    () => {
        "
    S: 354 go
    ! message
    S: 250 2.0.0 queued as 4711"
    };
}
macro_rules! quit {
    () => {
        "
    C: QUIT
    S: 221 bye"
    };
}
/// From the greeting to the reply to EHLO.
pub const DIALOG_TO_EHLO: &str = to_ehlo!();
/// From MAIL to DATA, without the reply to DATA.
pub const DIALOG_MAIL_TO_DATA: &str = mail_to_data!();
/// One transaction: from MAIL to the reply to the message.
pub const DIALOG_TRANSACTION: &str = concat!(mail_to_data!(), message!());
/// One transaction and the end of the session.
pub const DIALOG_MAIL_TO_QUIT: &str = concat!(mail_to_data!(), message!(), quit!());
pub const DIALOG_QUIT: &str = quit!();
/// A whole session.
pub const DIALOG_TO_BO: &str = concat!(to_ehlo!(), mail_to_data!(), message!(), quit!());
pub const DIALOG_TO_STARTTLS: &str = "
    S: 220 mx
    C: EHLO here.example
    S: 250-mx|250 STARTTLS
    C: STARTTLS";
/// The dialog of a message that is sent by TLS, with the certificate of that name.
pub fn dialog_over_tls(certificate: &str) -> String {
    let after_greeting = DIALOG_TO_BO.trim().strip_prefix("S: 220 mx").unwrap();
    format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! tls {certificate}\n{after_greeting}")
}

pub struct TestMessage {
    pub octets: Vec<u8>,
    pub declared_octets: u64,
    pub has_read_error: bool,
}

impl TestMessage {
    pub fn new(text: &str) -> Self {
        Self { octets: text.as_bytes().to_vec(), declared_octets: text.len() as u64, has_read_error: false }
    }
}

impl Message for TestMessage {
    fn octets(&self) -> u64 {
        self.declared_octets
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let octets = Cursor::new(&self.octets);
        Ok(if self.has_read_error { Box::new(octets.chain(FailingReader)) } else { Box::new(octets) })
    }
}

struct FailingReader;

impl Read for FailingReader {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("bad sector"))
    }
}

/// What a courier works with, and one message.
pub struct CourierFixture {
    pub dial: Arc<ScriptedConnector>,
    pub peer_levels: Arc<DomainInfo>,
    pub settings: Settings,
    pub roots: RootCertStore,
    pub metrics: Metrics,
    pub traces: Arc<Traces>,
    pub clock: Arc<dyn Clock>,
    pub message: TestMessage,
    pub envelope: Envelope,
    /// How long an attempt may take.
    pub attempt_timeout: Duration,
    pub logins: CredentialsByName,
    _folder: TempDir,
}

impl CourierFixture {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let metrics = Metrics::default();
        let clock = Arc::new(SystemClock);
        let info = DomainInfo::open(
            Arc::new(SystemDisk),
            Arc::new(SystemRandom),
            clock.clone(),
            &metrics,
            domaininfo::Settings::new(folder.path().join("domaininfo")),
        );
        let now = Timestamp::from_millis(1_767_225_600_000);
        Self {
            dial: Arc::default(),
            peer_levels: Arc::new(info.unwrap()),
            settings: Settings::new(domain("mail.here.example")),
            roots: RootCertStore::empty(),
            metrics,
            traces: Traces::new(clock.clone()),
            clock,
            message: TestMessage::new(MESSAGE),
            envelope: Envelope::new(
                MessageId::new(now, 7),
                now,
                ReversePath::Mailbox(mailbox("ana@here.example")),
                Vec::new(),
            ),
            attempt_timeout: Duration::from_secs(60),
            logins: CredentialsByName::new(),
            _folder: folder,
        }
    }

    pub fn with_sender(mut self, sender: &str) -> Self {
        self.envelope.reverse_path = match sender {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(mailbox(sender)),
        };
        self
    }

    pub fn with_peer(self, address: &str, script: &str) -> Self {
        self.dial.add_peer(address, script);
        self
    }

    pub fn with_known_level(self, name: &str, level: SecurityLevel) -> Self {
        self.peer_levels.check_outgoing(&domain(name), level).unwrap();
        self
    }

    /// A self-signed certificate for `host`, under a name for scripts.
    pub fn with_self_signed_certificate(self, name: &str, host: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        self.dial.add_certificate(name, server_config(vec![cert.der().clone()], &signing_key));
        self
    }

    /// A certificate for `host` from a trusted authority.
    pub fn with_trusted_certificate(mut self, name: &str, host: &str) -> Self {
        let (root, config) = trusted_certificate(host);
        self.roots.add(root).unwrap();
        self.dial.add_certificate(name, config);
        self
    }

    pub fn deliver_to(&self, recipients: &[&str]) -> Vec<Outcome> {
        let recipients: Vec<_> = recipients.iter().map(|raw| Recipient::for_mailbox(mailbox(raw))).collect();
        self.deliver(&recipients)
    }

    pub fn deliver(&self, recipients: &[Recipient]) -> Vec<Outcome> {
        self.attempt(&self.courier(), recipients, false)
    }

    pub fn deliver_with_dial(&self, dial: Arc<dyn Connector>, recipients: &[Recipient]) -> Vec<Outcome> {
        self.attempt(&self.courier_with(dial), recipients, false)
    }

    /// A courier for several messages.
    pub fn courier(&self) -> SmtpCourier {
        self.courier_with(self.dial.clone())
    }

    fn courier_with(&self, dial: Arc<dyn Connector>) -> SmtpCourier {
        let parts = SmtpCourierParts {
            resolver: Arc::new(Zone::parse(ZONE).unwrap()),
            dial,
            domaininfo: self.peer_levels.clone(),
            tls: Arc::new(TlsClient::with_roots(self.roots.clone())),
            random: Arc::new(SeededRandom::new(1)),
            clock: self.clock.clone(),
            credentials: Arc::new(ArcSwap::from_pointee(self.logins.clone())),
            router: Arc::new(ArcSwap::from_pointee(Router::new(
                ["here.example", "bücher.here.example"].map(domain),
            ))),
        };
        SmtpCourier::new(Arc::new(ArcSwap::from_pointee(self.settings.clone())), parts, &self.metrics)
    }

    /// Delivers the message by a courier that may have carried others.
    pub fn deliver_with_courier(
        &self,
        courier: &SmtpCourier,
        to: &str,
        is_more_mail_expected: bool,
    ) -> Vec<Outcome> {
        self.attempt(courier, &[Recipient::for_mailbox(mailbox(to))], is_more_mail_expected)
    }

    fn attempt(
        &self,
        courier: &SmtpCourier,
        recipients: &[Recipient],
        is_more_mail_expected: bool,
    ) -> Vec<Outcome> {
        courier.attempt(&Delivery {
            envelope: &self.envelope,
            recipients: &recipients.iter().collect::<Vec<_>>(),
            message: &self.message,
            deadline: self.clock.now() + self.attempt_timeout,
            is_more_mail_expected,
            trace: &self.traces.begin("attempt", "test"),
        })
    }

    /// Every dialog followed its script, every script was used, and every connection is closed.
    pub fn assert_finished(&self) -> PeerLog {
        let log = self.dial.finish();
        assert_eq!(log.mismatches, [""; 0], "{:#?}", self.traces.list());
        assert_eq!(log.open_connections, 0, "connections left open");
        assert!(log.unused_scripts.is_empty(), "no connection to {:?}", log.unused_scripts);
        log
    }

    pub fn known_level(&self, name: &str) -> SecurityLevel {
        self.peer_levels.get(&domain(name)).outgoing
    }
}

pub fn domain(raw: &str) -> Domain {
    Domain::parse(raw).unwrap()
}

/// A recipient at hosts that the operator has named.
pub fn recipient_via(address: &str, hosts: &str) -> Recipient {
    let mailbox = mailbox(address);
    let destination = Destination::Via { mailbox: mailbox.clone(), via: Via::parse(hosts).unwrap() };
    Recipient { destination, ..Recipient::for_mailbox(mailbox) }
}

pub use crate::queue_fixture::mailbox;

pub fn statuses(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(Outcome::status).collect()
}

pub fn server_config(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    Arc::new(config.unwrap())
}

/// An authority's own certificate, and a server with a certificate that it signed.
pub fn trusted_certificate(host: &str) -> (CertificateDer<'static>, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    (root.der().clone(), server_config(vec![leaf.der().clone()], &key))
}
