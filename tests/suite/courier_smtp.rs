//! One attempt of the SMTP courier, against peers that follow a script.

use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::courier::smtp::{HelloMode, Logins, Parts, Settings, SmtpCourier};
use postrider::courier::{Courier as _, Delivery, Message};
use postrider::dns::Zone;
use postrider::domaininfo::{self, DomainInfo};
use postrider::fakes::{Heard, ScriptedDial, SeededRandom};
use postrider::mail::{
    Destination, Domain, Envelope, Mailbox, MessageId, Outcome, Recipient, ReversePath, Timestamp, Via,
};
use postrider::observe::{Metrics, Traces};
use postrider::route::Router;
use postrider::sys::{Clock as _, Dial, SystemClock, SystemDial, SystemDisk, SystemRandom};
use postrider::tls::{Level, TlsClient};
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
";
const MX1: &str = "192.0.2.1:25";
const MX2: &str = "192.0.2.2:25";
const ONE: &str = "192.0.2.3:25";
const LETTER: &str = "Subject: hello\r\n\r\nDear Bo,\r\n.dot\r\n";

/// What an old and simple server hears, from greeting to goodbye.
const LETTER_TO_BO: &str = "
    S: 220 mx
    C: EHLO here.example
    S: 250 mx
    C: MAIL FROM:<ana@here.example>
    S: 250 ok
    C: RCPT TO:<bo@*
    S: 250 ok
    C: DATA
    S: 354 go
    ! message
    S: 250 2.0.0 queued as 4711
    C: QUIT
    S: 221 bye";
const GREETING: &str = "
    S: 220 mx
    C: EHLO here.example
    S: 250 mx";
const BO_TO_DATA: &str = "
    C: MAIL FROM:<ana@here.example>
    S: 250 ok
    C: RCPT TO:<bo@*
    S: 250 ok
    C: DATA";
const GOODBYE: &str = "
    C: QUIT
    S: 221 bye";
const TO_STARTTLS: &str = "
    S: 220 mx
    C: EHLO here.example
    S: 250-mx|250 STARTTLS
    C: STARTTLS";
/// The rest of a letter that goes out by TLS, with the certificate of that name.
fn encrypted(certificate: &str) -> String {
    let after_greeting = LETTER_TO_BO.trim().strip_prefix("S: 220 mx").unwrap();
    format!("{TO_STARTTLS}\nS: 220 go\n! tls {certificate}\n{after_greeting}")
}

struct Letter {
    octets: Vec<u8>,
    claimed: u64,
    breaks_off: bool,
}

impl Letter {
    fn new(text: &str) -> Self {
        Self { octets: text.as_bytes().to_vec(), claimed: text.len() as u64, breaks_off: false }
    }
}

impl Message for Letter {
    fn octets(&self) -> u64 {
        self.claimed
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let octets = Cursor::new(&self.octets);
        Ok(if self.breaks_off { Box::new(octets.chain(Broken)) } else { Box::new(octets) })
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("bad sector"))
    }
}

/// A courier in a world of its own.
pub(crate) struct World {
    dial: Arc<ScriptedDial>,
    info: Arc<DomainInfo>,
    pub(crate) settings: Settings,
    roots: RootCertStore,
    metrics: Metrics,
    pub(crate) traces: Arc<Traces>,
    letter: Letter,
    envelope: Envelope,
    /// How long an attempt may take.
    patience: Duration,
    pub(crate) logins: Logins,
    _folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
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
            info: Arc::new(info.unwrap()),
            settings: Settings::new(domain("mail.here.example")),
            roots: RootCertStore::empty(),
            metrics,
            traces: Traces::new(clock),
            letter: Letter::new(LETTER),
            envelope: Envelope::new(
                MessageId::new(now, 7),
                now,
                ReversePath::Mailbox(mailbox("ana@here.example")),
                Vec::new(),
            ),
            patience: Duration::from_secs(60),
            logins: Logins::new(),
            _folder: folder,
        }
    }

    fn from(mut self, sender: &str) -> Self {
        self.envelope.reverse_path = match sender {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(mailbox(sender)),
        };
        self
    }

    pub(crate) fn peer(self, address: &str, script: &str) -> Self {
        self.dial.peer(address, script);
        self
    }

    pub(crate) fn knows(self, name: &str, level: Level) -> Self {
        self.info.check_outgoing(&domain(name), level).unwrap();
        self
    }

    /// A certificate of our own making for `host`, under a name for scripts.
    pub(crate) fn self_signed(self, name: &str, host: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        self.dial.certificate(name, server_config(vec![cert.der().clone()], &signing_key));
        self
    }

    /// A certificate for `host` from an authority that we trust.
    pub(crate) fn vouched(mut self, name: &str, host: &str) -> Self {
        let (root, config) = authority(host);
        self.roots.add(root).unwrap();
        self.dial.certificate(name, config);
        self
    }

    pub(crate) fn to(&self, recipients: &[&str]) -> Vec<Outcome> {
        let recipients: Vec<_> = recipients.iter().map(|raw| Recipient::mailbox(mailbox(raw))).collect();
        self.carry(&recipients)
    }

    pub(crate) fn carry(&self, recipients: &[Recipient]) -> Vec<Outcome> {
        self.carry_by(self.dial.clone(), recipients)
    }

    fn carry_by(&self, dial: Arc<dyn Dial>, recipients: &[Recipient]) -> Vec<Outcome> {
        let parts = Parts {
            resolver: Arc::new(Zone::parse(ZONE).unwrap()),
            dial,
            domaininfo: self.info.clone(),
            tls: Arc::new(TlsClient::with_roots(self.roots.clone())),
            random: Arc::new(SeededRandom::new(1)),
            clock: Arc::new(SystemClock),
            logins: Arc::new(ArcSwap::from_pointee(self.logins.clone())),
            router: Arc::new(ArcSwap::from_pointee(Router::new(
                ["here.example", "bücher.here.example"].map(domain),
            ))),
        };
        let courier = SmtpCourier::new(self.settings.clone(), parts, &self.metrics);
        courier.carry(&Delivery {
            envelope: &self.envelope,
            recipients: &recipients.iter().collect::<Vec<_>>(),
            message: &self.letter,
            deadline: SystemClock.now() + self.patience,
            more_follows: false,
            trace: &self.traces.begin("attempt", "test"),
        })
    }

    /// Every peer is content, every script was used, and every connection is closed.
    pub(crate) fn over(&self) -> Heard {
        let heard = self.dial.finish();
        assert_eq!(heard.mistakes, [""; 0], "{:#?}", self.traces.list());
        assert_eq!(heard.open, 0, "connections left open");
        assert!(heard.unused.is_empty(), "nobody came to {:?}", heard.unused);
        heard
    }

    pub(crate) fn known(&self, name: &str) -> Level {
        self.info.known(&domain(name)).outgoing
    }
}

fn domain(raw: &str) -> Domain {
    Domain::parse(raw).unwrap()
}

/// A recipient at hosts that the operator has named.
pub(crate) fn via(address: &str, hosts: &str) -> Recipient {
    let mailbox = mailbox(address);
    let destination = Destination::Via { mailbox: mailbox.clone(), via: Via::parse(hosts).unwrap() };
    Recipient { destination, ..Recipient::mailbox(mailbox) }
}

fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

pub(crate) fn statuses(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(Outcome::status).collect()
}

fn server_config(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    Arc::new(config.unwrap())
}

/// An authority's own certificate, and a server with one that it signed.
fn authority(host: &str) -> (CertificateDer<'static>, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    (root.der().clone(), server_config(vec![leaf.der().clone()], &key))
}

// From host to host.

#[test]
fn a_letter_goes_to_the_first_mx_host_dot_stuffed_and_ends_with_quit() {
    let world = World::new().peer(MX1, LETTER_TO_BO);
    let outcomes = world.to(&["bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"]);
    assert_eq!(
        outcomes[0].reason().to_string(),
        "accepted: mx1.there.example said: 250 2.0.0 queued as 4711"
    );
    let heard = world.over();
    assert_eq!(heard.messages, [b"Subject: hello\r\n\r\nDear Bo,\r\n..dot\r\n.\r\n"]);
}

#[test]
fn hosts_are_asked_in_order_until_one_answers() {
    let world = World::new().peer(MX1, "! refuse").peer(MX2, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    let dialled: Vec<_> = world.over().dialled.iter().map(ToString::to_string).collect();
    assert_eq!(dialled, [MX1, MX2]);
}

#[test]
fn when_no_host_can_be_reached_the_reason_says_which_and_why() {
    let world = World::new().peer(MX1, "! refuse").peer(MX2, "! refuse");
    let outcomes = world.to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.4.1 no connection to mx2.there.example [192.0.2.2]:25: connection refused"
    );
    world.over();
}

#[test]
fn a_5yz_greeting_moves_on_to_the_next_host_and_is_transient_at_the_end() {
    let refusal = format!("S: 554 5.3.2 go away {GOODBYE}");
    let world = World::new().peer(MX1, &refusal).peer(MX2, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    world.over();
    let world = World::new().peer(ONE, &refusal);
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(outcomes[0].to_string(), "4.3.2 refused the session: mx.one.example said: 554 5.3.2 go away");
    world.over();
}

#[test]
fn what_a_host_said_before_outweighs_that_the_next_cannot_be_reached() {
    let world = World::new().peer(MX1, &format!("S: 450 4.3.2 later {GOODBYE}")).peer(MX2, "! refuse");
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["4.3.2"]);
    world.over();
}

#[test]
fn without_mx_the_domain_itself_is_asked_and_a_literal_is_dialled() {
    let world = World::new().peer("192.0.2.4:25", LETTER_TO_BO).peer("192.0.2.9:25", LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@bare.example"])), ["2.0.0"]);
    assert_eq!(statuses(&world.to(&["bo@[192.0.2.9]"])), ["2.0.0"]);
    world.over();
}

#[test]
fn dns_decides_when_there_is_nobody_to_ask() {
    let world = World::new();
    for (to, status) in [
        ("bo@null.example", "5.1.10"),
        ("bo@nowhere.example", "5.1.2"),
        ("bo@broken.example", "4.4.3"),
        ("bo@hostless.example", "5.4.4"),
        ("bo@maybe.example", "4.4.3"),
    ] {
        assert_eq!(statuses(&world.to(&[to])), [status], "{to}");
    }
    assert!(world.over().dialled.is_empty());
}

#[test]
fn named_hosts_are_asked_instead_of_mx_hosts() {
    let world = World::new().peer("192.0.2.2:2525", "! refuse").peer("192.0.2.9:25", LETTER_TO_BO);
    let via = via("bo@null.example", "mx2.there.example:2525 192.0.2.9");
    assert_eq!(statuses(&world.carry(&[via])), ["2.0.0"]);
    world.over();
}

#[test]
fn an_attempt_is_back_by_its_deadline_although_a_peer_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new();
    world.patience = Duration::from_millis(300);
    let host = listener.local_addr().unwrap();
    let via = via("bo@one.example", &format!("{host} {host} {host}"));
    let began = SystemClock.now();
    let outcomes = world.carry_by(Arc::new(SystemDial), &[via]);
    assert!(
        SystemClock.now().since(began) < Duration::from_secs(20),
        "the greeting alone may take five minutes"
    );
    assert_eq!(statuses(&outcomes), ["4.4.2"]);
    assert!(outcomes[0].reason().text.contains("broke off at the greeting: timed out"), "{}", outcomes[0]);
}

// What a host says of each recipient.

#[test]
fn one_of_three_recipients_is_refused_and_the_others_get_their_letter() {
    let script = format!(
        "{GREETING}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@one.example>
        S: 250 ok
        C: RCPT TO:<cy@one.example>
        S: 550 5.1.1 no such mailbox
        C: RCPT TO:<di@one.example>
        S: 250 ok
        C: DATA
        S: 354 go
        ! message
        S: 250 2.0.0 ok {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    let outcomes = world.to(&["bo@one.example", "cy@one.example", "di@one.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0", "5.1.1", "2.0.0"]);
    assert_eq!(
        outcomes[1].reason().to_string(),
        "refused the recipient: mx.one.example said: 550 5.1.1 no such mailbox"
    );
    world.over();
}

#[test]
fn a_peer_with_pipelining_hears_the_group_before_it_answers() {
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-PIPELINING|250 SIZE 1000
        C: MAIL FROM:<ana@here.example> SIZE={}
        C: RCPT TO:<bo@one.example>
        C: RCPT TO:<cy@one.example>
        C: DATA
        S: 250 ok|552 5.5.3 too many|250 ok|354 go
        ! message
        S: 250 2.0.0 ok {GOODBYE}",
        LETTER.len()
    );
    let world = World::new().peer(ONE, &script);
    let outcomes = world.to(&["bo@one.example", "cy@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.5.3", "2.0.0"], "552 to RCPT counts as 452");
    world.over();
}

#[test]
fn when_all_are_refused_a_354_is_answered_by_a_lone_dot() {
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250 PIPELINING
        C: MAIL FROM:<ana@here.example>
        C: RCPT TO:<bo@one.example>
        C: DATA
        S: 250 ok|550 5.1.1 no|354 go
        C: .
        S: 250 ok {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["5.1.1"]);
    world.over();
}

#[test]
fn a_recipient_put_off_by_one_host_is_not_carried_to_the_next_in_the_same_attempt() {
    let script = format!(
        "{GREETING}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@there.example>
        S: 450 4.2.0 greylisted {GOODBYE}"
    );
    let world = World::new().peer(MX1, &script);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["4.2.0"]);
    world.over();
}

#[test]
fn a_421_or_a_lost_connection_before_the_dot_goes_on_to_the_next_host() {
    for end in
        ["S: 421 4.3.2 shutting down", "! close", "! silence", "S: this is not SMTP", "S: 354 go\n! close"]
    {
        let script = format!("{GREETING} {BO_TO_DATA}\n{end}");
        let world = World::new().peer(MX1, &script).peer(MX2, LETTER_TO_BO);
        assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"], "{end}");
        world.over();
    }
}

#[test]
fn a_connection_lost_after_the_dot_is_transient_and_no_other_host_is_asked() {
    for end in ["! close", "! silence"] {
        let world = World::new().peer(MX1, &format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\n{end}"));
        let outcomes = world.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.4.2"]);
        assert!(outcomes[0].reason().text.contains("the final dot"), "{}", outcomes[0]);
        world.over();
    }
}

#[test]
fn a_delivered_letter_stays_delivered_whatever_happens_to_the_goodbye() {
    for end in ["! close", "C: QUIT\n! close", "C: QUIT\n! silence", "C: QUIT\nS: rubbish"] {
        let script = format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\nS: 250 ok\n{end}");
        let world = World::new().peer(ONE, &script);
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"], "{end}");
        world.over();
    }
}

#[test]
fn a_5yz_to_the_dot_is_permanent() {
    let script = format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\nS: 554 5.6.0 spam {GOODBYE}");
    let world = World::new().peer(MX1, &script);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["5.6.0"]);
    world.over();
}

#[test]
fn a_message_that_cannot_be_read_is_never_ended_with_a_dot() {
    for (claimed, breaks_off) in [(LETTER.len() as u64, true), (LETTER.len() as u64 + 1, false)] {
        let mut world = World::new();
        world.dial.peer(MX1, &format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message"));
        world.letter = Letter { claimed, breaks_off, ..Letter::new(LETTER) };
        let outcomes = world.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.3.0"], "{outcomes:?}");
        let heard = world.dial.finish();
        assert_eq!(heard.messages.len(), 0, "no end was seen");
        assert_eq!(heard.open, 0);
        assert_eq!(heard.dialled.len(), 1, "another host could not help");
    }
}

#[test]
fn a_large_message_is_streamed_and_arrives_whole() {
    let mut world = World::new().peer(ONE, LETTER_TO_BO);
    let text = format!("Subject: long\r\n\r\n{}", ".line\r\n".repeat(100_000));
    world.letter = Letter::new(&text);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    let stuffed = text.replace("\r\n.", "\r\n..") + ".\r\n";
    assert!(world.over().messages == [stuffed.into_bytes()]);
}

// What a host can take.

#[test]
fn a_message_with_8_bit_octets_fails_at_a_peer_without_8bitmime() {
    let mut world = World::new().peer(ONE, &format!("{GREETING} {GOODBYE}"));
    world.envelope.has_8bit = true;
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.3"]);
    world.over();
}

#[test]
fn a_local_part_beyond_ascii_needs_smtputf8_and_fails_alone_without_it() {
    let world = World::new().peer(ONE, LETTER_TO_BO);
    let outcomes = world.to(&["δοκιμή@one.example", "bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.7", "2.0.0"]);
    world.over();
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-8BITMIME|250 SMTPUTF8
        C: MAIL FROM:<ana@here.example> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<δοκιμή@one.example>
        S: 550 5.1.1 no {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    assert_eq!(statuses(&world.to(&["δοκιμή@one.example"])), ["5.1.1"]);
    world.over();
}

#[test]
fn a_host_that_lacks_an_extension_is_passed_over_for_one_that_has_it() {
    let bare = format!("{GREETING} {GOODBYE}");
    let able = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME SMTPUTF8");
    for (letter, status) in
        [("Subject: hi\r\n\r\ngrüße\r\n", "5.6.3"), ("Subject: grüße\r\n\r\nhi\r\n", "5.6.7")]
    {
        let world = || {
            let mut world = World::new().peer(MX1, &bare);
            (world.envelope.has_8bit, world.envelope.smtputf8) = (true, true);
            world.letter = Letter::new(letter);
            world
        };
        let able = if status == "5.6.3" { able.replace(" SMTPUTF8\n", "\n") } else { able.clone() };
        let one_has_it = world().peer(MX2, &able);
        assert_eq!(statuses(&one_has_it.to(&["bo@there.example"])), ["2.0.0"], "{letter}");
        one_has_it.over();
        let none_has_it = world().peer(MX2, &bare);
        let outcomes = none_has_it.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), [status], "{letter}");
        assert!(outcomes[0].reason().text.contains("mx2.there.example"), "{}", outcomes[0]);
        none_has_it.over();
        let nobody_knows = world().peer(MX2, "! refuse");
        assert_eq!(statuses(&nobody_knows.to(&["bo@there.example"])), ["4.4.1"], "{letter}");
        nobody_knows.over();
    }
}

#[test]
fn a_recipient_that_needs_smtputf8_goes_on_alone_to_the_host_that_has_it() {
    let able = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> SMTPUTF8")
        .replace("<bo@*", "<δοκιμή@there.example>");
    let world = World::new().peer(MX1, LETTER_TO_BO).peer(MX2, &able);
    let outcomes = world.to(&["δοκιμή@there.example", "bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"; 2]);
    world.over();
}

#[test]
fn what_a_host_lacks_is_not_asked_for_again_at_its_other_address() {
    for first in ["! refuse", ""] {
        let bare = format!("{GREETING} {GOODBYE}");
        let mut world = World::new();
        world.envelope.has_8bit = true;
        if first.is_empty() {
            world.dial.peer("[2001:db8::5]:25", &bare);
        } else {
            world.dial.peer("[2001:db8::5]:25", first);
            world.dial.peer("192.0.2.5:25", &bare);
        }
        assert_eq!(statuses(&world.to(&["bo@twice.example"])), ["5.6.3"], "{first}");
        world.over();
    }
}

#[test]
fn a_domain_beyond_ascii_goes_out_in_a_labels() {
    let world = World::new().peer(ONE, &LETTER_TO_BO.replace("<bo@*", "<bo@xn--bcher-kva.example>"));
    assert_eq!(statuses(&world.to(&["bo@bücher.example"])), ["2.0.0"]);
    world.over();
}

#[test]
fn a_header_in_utf8_needs_smtputf8_and_a_body_does_not() {
    let mut world = World::new().peer(ONE, &format!("{GREETING} {GOODBYE}"));
    (world.envelope.smtputf8, world.envelope.has_8bit) = (true, true);
    world.letter = Letter::new("Subject: grüße\r\n\r\nhi\r\n");
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["5.6.7"]);
    world.over();
    let script = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250 8BITMIME")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME");
    world.dial.peer(ONE, &script);
    world.letter = Letter::new("Subject: hi\r\n\r\ngrüße\r\n");
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
}

// The name in EHLO.

#[test]
fn the_hello_name_is_a_domain_of_ours_or_the_host() {
    use HelloMode::{Hostname, SenderDomain};
    for (mode, sender, name) in [
        (SenderDomain, "ana@here.example", "here.example"),
        (SenderDomain, "ana@bücher.here.example", "xn--bcher-kva.here.example"),
        (SenderDomain, "eve@elsewhere.example", "mail.here.example"),
        (SenderDomain, "root@localhost", "mail.here.example"),
        (SenderDomain, "", "mail.here.example"),
        (Hostname, "ana@here.example", "mail.here.example"),
    ] {
        let mut world = World::new().from(sender);
        world.settings.hello = mode;
        world.dial.peer(ONE, &format!("S: 220 mx\nC: EHLO {name}\nS: 451 4.3.0 later {GOODBYE}"));
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["4.3.0"], "{sender}");
        world.over();
    }
}

#[test]
fn the_hello_name_stays_the_same_in_every_retry_of_tls() {
    let broken = format!("{TO_STARTTLS}\nS: 220 go\n! garbage");
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &broken);
    if cfg!(feature = "legacy-tls") {
        world.dial.peer(ONE, &broken);
    }
    world.dial.peer(ONE, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
}

// TLS.

#[test]
fn a_certificate_of_its_own_making_is_tls_unverified() {
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &encrypted("own"));
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
    assert_eq!(world.known("one.example"), Level::TlsUnverified);
    let metrics = world.metrics.to_json();
    assert_eq!(metrics["smtp_out_tls"]["tls-unverified"], 1);
    assert_eq!(metrics["smtp_out_level_check"]["passed"], 1);
    assert_eq!(metrics["smtp_out_attempts"], 1);
}

#[test]
fn a_certificate_from_a_trusted_root_is_tls_verified_if_the_name_is_right() {
    for (host, level) in [
        ("mx.one.example", Level::TlsVerified),
        ("mx.other.example", Level::TlsUnverified),
        ("one.example", Level::TlsUnverified),
    ] {
        let world = World::new().vouched("good", host).peer(ONE, &encrypted("good"));
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
        world.over();
        assert_eq!(world.known("one.example"), level, "{host}");
    }
}

#[test]
fn a_certificate_past_its_time_is_taken_and_is_tls_unverified() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut world = World::new();
    world.roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["mx.one.example".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    world.dial.certificate("old", server_config(vec![leaf.der().clone()], &key));
    let world = world.peer(ONE, &encrypted("old"));
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
    assert_eq!(world.known("one.example"), Level::TlsUnverified);
}

#[test]
fn a_second_connection_is_verified_anew() {
    let world = World::new().vouched("good", "mx.one.example");
    for _ in 0..2 {
        world.dial.peer(ONE, &encrypted("good"));
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"], "the level must not drop");
    }
    world.over();
    assert_eq!(world.metrics.to_json()["smtp_out_tls"]["tls-verified"], 2);
}

#[test]
fn a_reply_injected_behind_starttls_is_thrown_away() {
    let script = encrypted("own").replace("S: 220 go", "S: 220 go|250-mx|250 SIZE 1");
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &script);
    assert_eq!(
        statuses(&world.to(&["bo@one.example"])),
        ["2.0.0"],
        "a limit of one octet was never believed"
    );
    world.over();
}

#[test]
#[cfg(feature = "legacy-tls")]
fn a_failed_handshake_is_tried_again_with_the_legacy_library() {
    let world = World::new()
        .vouched("good", "mx.one.example")
        .peer(ONE, &format!("{TO_STARTTLS}\nS: 220 go\n! close"))
        .peer(ONE, &encrypted("good"));
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
    assert_eq!(world.known("one.example"), Level::TlsUnverified, "it verifies nothing");
}

#[test]
#[cfg(feature = "legacy-tls")]
fn plain_text_comes_after_the_legacy_library_and_on_a_connection_of_its_own() {
    let world = World::new()
        .peer(ONE, &format!("{TO_STARTTLS}\nS: 220 go\n! close"))
        .peer(ONE, &format!("{TO_STARTTLS}\nS: 220 go\n! garbage"))
        .peer(ONE, &LETTER_TO_BO.replace("S: 250 mx", "S: 250-mx|250 STARTTLS"));
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    assert_eq!(world.over().dialled.len(), 3);
    assert_eq!(world.known("one.example"), Level::Plain);
}

#[test]
#[cfg(feature = "legacy-tls")]
fn plain_text_is_not_tried_for_a_domain_that_was_seen_with_tls() {
    let broken = format!("{TO_STARTTLS}\nS: 220 go\n! close");
    let world = World::new().knows("one.example", Level::TlsUnverified).peer(ONE, &broken).peer(ONE, &broken);
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.7.5"]);
    assert_eq!(world.over().dialled.len(), 2);
}

#[test]
fn a_starttls_that_is_refused_leaves_plain_text_if_the_domain_was_never_seen_with_tls() {
    let letter = LETTER_TO_BO.split_once("S: 250 mx").unwrap().1;
    for refusal in ["454 4.7.0 not now", "554 5.7.0 not for you"] {
        let world = World::new().peer(ONE, &format!("{TO_STARTTLS}\nS: {refusal}{letter}"));
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"], "{refusal}");
        world.over();
        assert_eq!(world.known("one.example"), Level::Plain);
    }
}

#[test]
fn a_starttls_that_is_refused_moves_on_to_the_next_host_and_is_transient_at_the_end() {
    let refused = format!("{TO_STARTTLS}\nS: 554 5.7.0 not for you {GOODBYE}");
    let seen = || {
        World::new()
            .self_signed("own", "mx2.there.example")
            .knows("there.example", Level::TlsUnverified)
            .peer(MX1, &refused)
    };
    let world = seen().peer(MX2, &encrypted("own"));
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    world.over();
    let world = seen().peer(MX2, &refused);
    let outcomes = world.to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.7.5 there.example was reached at tls-unverified before, and mx2.there.example [192.0.2.2]:25 now \
         refuses STARTTLS (554 5.7.0 not for you); the mail waits. If this change is wanted: postrider domain \
         forget there.example"
    );
    world.over();
}

#[test]
fn a_host_that_hangs_up_after_refusing_starttls_is_passed_over() {
    let world = World::new()
        .peer(MX1, &format!("{TO_STARTTLS}\nS: 554 5.7.0 not for you\n! close"))
        .peer(MX2, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    world.over();
}

#[test]
fn nothing_weaker_is_tried_for_a_domain_that_was_seen_verified() {
    let world = World::new()
        .knows("one.example", Level::TlsVerified)
        .peer(ONE, &format!("{TO_STARTTLS}\nS: 220 go\n! close"));
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.7.5"]);
    let text = &outcomes[0].reason().text;
    for words in [
        "one.example was reached at tls-verified before",
        "the TLS handshake with mx.one.example [192.0.2.3]:25 now fails",
        "postrider domain forget one.example",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert_eq!(world.over().dialled.len(), 1);
}

#[test]
fn mail_waits_when_a_host_offers_less_than_its_domain_was_seen_with() {
    let world =
        World::new().knows("one.example", Level::TlsUnverified).peer(ONE, &format!("{GREETING} {GOODBYE}"));
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.7.5 one.example was reached at tls-unverified before, and mx.one.example [192.0.2.3]:25 now offers \
         plain; the mail waits. If this change is wanted: postrider domain forget one.example"
    );
    world.over();
    assert_eq!(world.metrics.to_json()["smtp_out_level_check"]["refused"], 1);
}

#[test]
fn a_host_below_the_known_level_is_passed_over_for_one_that_reaches_it() {
    let world = World::new()
        .vouched("good", "mx2.there.example")
        .self_signed("own", "mx1.there.example")
        .knows("there.example", Level::TlsVerified)
        .peer(MX1, &format!("{TO_STARTTLS}\nS: 220 go\n! tls own\nC: EHLO here.example\nS: 250 mx {GOODBYE}"))
        .peer(MX2, &encrypted("good"));
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    world.over();
}

#[test]
fn a_named_host_stands_by_its_own_name_and_not_by_the_domains_of_its_mail() {
    let world = World::new()
        .knows("two.example", Level::TlsUnverified)
        .knows("mx1.there.example", Level::TlsUnverified)
        .peer(ONE, LETTER_TO_BO);
    let outcomes = world.carry(&[via("bo@two.example", "mx.one.example")]);
    assert_eq!(statuses(&outcomes), ["2.0.0"], "what MX hosts of two.example offered is not its matter");
    let world = world.peer(MX1, &format!("{GREETING} {GOODBYE}"));
    let outcomes = world.carry(&[via("bo@one.example", "mx1.there.example")]);
    assert_eq!(statuses(&outcomes), ["4.7.5"], "it was reached with TLS before");
    world.over();
}

#[test]
fn the_trace_tells_the_whole_story() {
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &encrypted("own"));
    world.to(&["bo@one.example"]);
    let told: Vec<_> = world.traces.list().remove(0).events.into_iter().map(|event| event.text).collect();
    for words in [
        "hosts of one.example: mx.one.example",
        "connecting to mx.one.example [192.0.2.3]:25",
        "< 220 mx",
        "> STARTTLS",
        "TLSv1.3 TLS_AES_256_GCM_SHA384; tls-unverified: ",
        "> MAIL FROM:<ana@here.example>",
        "< 250 2.0.0 queued as 4711",
        "> QUIT",
    ] {
        assert!(told.iter().any(|text| text.starts_with(words)), "{words} in {told:#?}");
    }
    world.over();
}

/// Only a process of its own can be given another `SSL_CERT_FILE`.
#[test]
fn roots_are_read_from_ssl_cert_file() {
    const INNER: &str = "POSTRIDER_TEST_HANDSHAKE";
    if let Some(key) = std::env::var_os(INNER) {
        return verified_by_the_systems_roots(Path::new(&key));
    }
    let folder = TempDir::new().unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.path().join("roots.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), ca_key.serialize_pem()).unwrap();
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "courier_smtp::roots_are_read_from_ssl_cert_file"])
        .env("SSL_CERT_FILE", folder.path().join("roots.pem"))
        .env_remove("SSL_CERT_DIR")
        .env(INNER, folder.path().join("key.pem"))
        .output()
        .unwrap();
    assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stdout));
}

fn verified_by_the_systems_roots(ca_key: &Path) {
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(ca_key).unwrap()).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["mx.one.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();

    let dial = ScriptedDial::default();
    dial.certificate("good", server_config(vec![leaf.der().clone()], &key));
    dial.peer(ONE, "! tls good\nS: 220 mx");
    let deadline = SystemClock.now() + Duration::from_secs(60);
    let stream = dial.dial(&ONE.parse().unwrap(), deadline).unwrap();
    let (client, complaints) = TlsClient::new();
    assert!(complaints.is_empty(), "{complaints:?}");
    let mut secured = client.handshake(stream, &domain("mx.one.example")).unwrap();
    assert_eq!(secured.level, Level::TlsVerified, "{}", secured.because);
    secured.stream.read_exact(&mut [0; 8]).unwrap();
    drop(secured);
    assert_eq!(dial.finish().mistakes, [""; 0]);
}
