//! One address: TLS, the legacy TLS library, plain text; and what is known of the domain.
//!
//! A handshake that fails may be the peer's old age or somebody in between who would rather read
//! along. What we know of the domain decides which it is taken for: the next, weaker method is tried,
//! on a new connection, only if the domain was never seen at a level that this method cannot reach.
//! A STARTTLS that is offered and then refused leaves plain text on the same connection: no other
//! library would be told anything else.
//! And whatever the connection turns out to be worth is compared once more before MAIL, because a
//! peer may simply not offer STARTTLS any more.

use std::net::SocketAddr;

use super::attempt::{Attempt, Counters};
use super::kept::Key;
use super::session::{Open, Security, Session, words};
use crate::courier::Host;
use crate::domaininfo::DomainInfo;
use crate::mail::{Domain, Failure, TlsPolicy, Via};
use crate::smtp::client::{Addressee, Answer, Client, Credentials, Encryption, Plan, Protocol};
use crate::tls::{HandshakeError, Level};

/// How a connection is to be encrypted, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// STARTTLS if offered, with rustls.
    Tls,
    /// STARTTLS if offered, with OpenSSL.
    #[cfg(feature = "legacy-tls")]
    LegacyTls,
    /// No STARTTLS.
    Plain,
}

impl Method {
    /// The best level that this method can reach.
    const fn best(self) -> Level {
        match self {
            Self::Tls => Level::TlsVerified,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Level::TlsUnverified,
            Self::Plain => Level::Plain,
        }
    }

    const fn next(self) -> Option<Self> {
        match self {
            #[cfg(feature = "legacy-tls")]
            Self::Tls => Some(Self::LegacyTls),
            #[cfg(not(feature = "legacy-tls"))]
            Self::Tls => Some(Self::Plain),
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Some(Self::Plain),
            Self::Plain => None,
        }
    }

    const fn encryption(self) -> Encryption {
        match self {
            Self::Tls => Encryption::WhenOffered,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Encryption::WhenOffered,
            Self::Plain => Encryption::Never,
        }
    }
}

/// Connections to one address in one attempt, where the peer limits what each of them carries.
const CONNECTIONS_MAX: usize = 20;

/// The port on which TLS begins before the greeting.
const SUBMISSIONS: u16 = 465;

/// Where to go.
pub(super) struct Place<'a> {
    pub(super) host: &'a Host,
    pub(super) address: SocketAddr,
    /// None for an MX host.
    pub(super) terms: Option<Terms<'a>>,
}

/// What the operator says of a host that he has named.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) via: &'a Via,
    /// What to log in with.
    pub(super) login: Option<&'a Credentials>,
}

impl Place<'_> {
    /// Whose memory this connection adds to, and is compared with. A host that the operator has named
    /// stands by its own name: how well it is reached says nothing of the domains behind it.
    fn reputation<'r>(&'r self, recipient: &'r Addressee) -> &'r Domain {
        if self.terms.is_some() { &self.host.name } else { &recipient.mailbox.domain }
    }

    /// Nothing else is spoken on this port (RFC 8314 §7.3).
    fn is_tls_from_the_start(&self) -> bool {
        self.terms.is_some() && self.address.port() == SUBMISSIONS
    }

    /// What the connection must be worth, whatever is known.
    fn demanded(&self) -> Level {
        match self.terms.map(|terms| terms.via.tls) {
            Some(TlsPolicy::Opportunistic) if self.is_tls_from_the_start() => Level::TlsUnverified,
            None | Some(TlsPolicy::Opportunistic) => Level::Plain,
            Some(TlsPolicy::Required) => Level::TlsUnverified,
            Some(TlsPolicy::Verified) => Level::TlsVerified,
        }
    }
}

impl Attempt<'_> {
    /// Asks this address on behalf of `recipients`; one answer each, in order. On as many connections
    /// as it takes: a peer may limit what one of them carries.
    pub(super) fn visit(&self, place: &Place<'_>, recipients: &[Addressee]) -> Vec<Answer> {
        let mut answers = vec![Answer::NotAsked; recipients.len()];
        for _ in 0..CONNECTIONS_MAX {
            let is_left =
                |(position, _): &(usize, &Addressee)| answers.get(*position) == Some(&Answer::NotAsked);
            let (positions, left): (Vec<usize>, Vec<Addressee>) =
                recipients.iter().enumerate().filter(is_left).map(|(n, one)| (n, one.clone())).unzip();
            if left.is_empty() {
                return answers;
            }
            for (position, answer) in positions.into_iter().zip(self.ask_once(place, &left)) {
                if let Some(slot) = answers.get_mut(position) {
                    *slot = answer;
                }
            }
        }
        let failure = Failure::transient(4, 5, format!("{} takes few recipients at once", place.host.name));
        answers.iter_mut().filter(|answer| **answer == Answer::NotAsked).for_each(|answer| {
            *answer = Answer::Open(failure.clone());
        });
        answers
    }

    /// One connection: one that was kept if there is one, or a new one, or a few of them if TLS gives
    /// trouble.
    fn ask_once(&self, place: &Place<'_>, recipients: &[Addressee]) -> Vec<Answer> {
        if let Some(answers) = self.go_on(place, recipients) {
            return answers;
        }
        let mut method = Method::Tls;
        loop {
            let plan = self.plan(place, recipients, method);
            let shown = plan.place();
            let (answers, error) = match self.connect(place, plan, method) {
                Ok(ended) => (ended.answers, ended.handshake_error),
                Err(failure) => return vec![Answer::Open(failure); recipients.len()],
            };
            let Some(error) = error else { return answers };
            match self.weaker(place, method, recipients) {
                Ok(next) => {
                    self.delivery.trace.event(format!("trying {shown} again: {next:?}"));
                    method = next;
                }
                Err(refused) => {
                    let failures =
                        recipients.iter().map(|one| refused.failure(place.reputation(one), &shown, &error));
                    return failures.map(Answer::Open).collect();
                }
            }
        }
    }

    fn plan(&self, place: &Place<'_>, recipients: &[Addressee], method: Method) -> Plan {
        Plan {
            protocol: Protocol::Smtp,
            host: place.host.name.clone(),
            endpoint: place.address.into(),
            hello: self.hello.clone(),
            reverse_path: self.delivery.envelope.reverse_path.clone(),
            recipients: recipients.to_vec(),
            ret: self.delivery.envelope.ret,
            envid: self.delivery.envelope.envid.clone(),
            message_octets: self.delivery.message.octets(),
            has_8bit: self.facts.has_8bit,
            has_utf8_header: self.facts.has_utf8_header,
            encryption: if place.is_tls_from_the_start() {
                Encryption::FromTheStart
            } else {
                method.encryption()
            },
            login: place.terms.and_then(|terms| terms.login).cloned(),
        }
    }

    fn connect(
        &self,
        place: &Place<'_>,
        plan: Plan,
        method: Method,
    ) -> Result<super::session::Ended, Failure> {
        let courier = self.courier;
        let trace = self.delivery.trace;
        let shown = plan.place();
        trace.event(format!("connecting to {shown}"));
        let connect_by =
            self.delivery.deadline.min(courier.parts.clock.now() + courier.settings.timeouts.connect);
        let began = courier.parts.clock.now();
        if !courier.absent.ask(place.address, began) {
            let text = format!("no connection to {shown}: it did not answer others a moment ago");
            trace.error(text.clone());
            return Err(Failure::transient(4, 1, text).of_destination());
        }
        let silent = || courier.absent.silent(place.address, began, courier.parts.clock.now());
        let stream = courier.parts.dial.dial(&place.address.into(), connect_by).map_err(|error| {
            silent();
            let text = format!("no connection to {shown}: {}", words(&error));
            trace.error(text.clone());
            // Refused, unreachable, timed out: all of them may be better later.
            Failure::transient(4, 1, text).of_destination()
        })?;
        let recipients = plan.recipients.clone();
        let mut ended = self.session(place, method).begin(stream, plan, |level, client| {
            courier.absent.answered(place.address, began);
            courier.counters.tls.add_one(&level.to_string());
            self.check(place, level, &recipients, &shown, client);
        });
        if ended.is_silent {
            silent();
        } else {
            courier.absent.answered(place.address, began);
        }
        if let Some(open) = ended.open.take() {
            self.keep_or_part(place, method, open);
        }
        Ok(ended)
    }

    /// Asks by a connection that was kept; nothing if there is none, or it was of no more use.
    fn go_on(&self, place: &Place<'_>, recipients: &[Addressee]) -> Option<Vec<Answer>> {
        let open = self.courier.kept.take(&self.key(place))?;
        let plan = self.plan(place, recipients, Method::Tls);
        let shown = plan.place();
        self.delivery.trace.event(format!("going on with a connection to {shown}"));
        let mut ended = self.session(place, Method::Tls).go_on(open, plan, |level, client| {
            self.check(place, level, recipients, &shown, client);
        });
        if let Some(open) = ended.open.take() {
            self.keep_or_part(place, Method::Tls, open);
        }
        if ended.is_stale {
            self.delivery.trace.event("it was of no more use");
            return None;
        }
        Some(ended.answers)
    }

    /// A connection by a weaker method than the best is not for the next message: its domain may be
    /// known for more, and a new handshake may work.
    fn keep_or_part(&self, place: &Place<'_>, method: Method, open: Open) {
        let kept = &self.courier.kept;
        let is_best = method == Method::Tls && open.client.refused_starttls().is_none();
        if self.delivery.more_follows && is_best && open.client.can_go_on() {
            kept.keep(self.key(place), open);
        } else {
            self.delivery.trace.event("> QUIT");
            kept.part(open);
        }
    }

    fn key(&self, place: &Place<'_>) -> Key {
        Key { host: place.host.name.clone(), address: place.address, hello: self.hello.clone() }
    }

    fn session<'s>(&'s self, place: &'s Place<'_>, method: Method) -> Session<'s> {
        let courier = self.courier;
        Session {
            clock: &*courier.parts.clock,
            timeouts: &courier.settings.timeouts,
            deadline: self.delivery.deadline,
            trace: self.delivery.trace,
            message: self.delivery.message,
            security: Some(Security { tls: &courier.parts.tls, method, host: &place.host.name }),
        }
    }

    /// Withholds whoever's domain deserves better than this.
    fn check(
        &self,
        place: &Place<'_>,
        level: Level,
        recipients: &[Addressee],
        shown: &str,
        client: &mut Client,
    ) {
        let offered = match client.refused_starttls() {
            Some(reply) => format!("{shown} now refuses STARTTLS ({reply})"),
            None => format!("{shown} now offers {level}"),
        };
        let Counters { level_check, .. } = &self.courier.counters;
        let mut checked: Vec<(&Domain, Option<Failure>)> = Vec::new();
        for (position, recipient) in recipients.iter().enumerate() {
            let domain = place.reputation(recipient);
            let failure = match checked.iter().find(|(known, _)| *known == domain) {
                Some((_, failure)) => failure.clone(),
                None => {
                    let text = if level < place.demanded() {
                        Some(not_as_demanded(place.demanded(), &offered))
                    } else {
                        let lower = self.courier.parts.domaininfo.check_outgoing(domain, level).err();
                        lower.map(|lower| too_low(domain, lower.known, &offered))
                    };
                    let failure = text.map(|text| Failure::transient(7, 5, text));
                    level_check.add_one(if failure.is_none() { "passed" } else { "refused" });
                    if let Some(failure) = &failure {
                        self.delivery.trace.error(failure.to_string());
                    }
                    checked.push((domain, failure.clone()));
                    failure
                }
            };
            if let Some(failure) = failure {
                client.withhold(position, failure);
            }
        }
    }

    /// The next method, if it is good enough for at least one of the domains.
    fn weaker<'a>(
        &self,
        place: &'a Place<'_>,
        method: Method,
        recipients: &'a [Addressee],
    ) -> Result<Method, Refused<'a>> {
        let info: &DomainInfo = &self.courier.parts.domaininfo;
        let known = |one: &'a Addressee| {
            let domain = place.reputation(one);
            (domain, info.known(domain).outgoing)
        };
        let known: Vec<_> = recipients.iter().map(known).collect();
        let demanded = place.demanded();
        let floor = known.iter().map(|(_, level)| *level).min().unwrap_or_default().max(demanded);
        match method.next() {
            Some(next) if next.best() >= floor => Ok(next),
            // The legacy library could do no better than plain text's neighbour; nothing is left.
            Some(_) | None => Err(Refused { known, demanded }),
        }
    }
}

/// No weaker method is allowed: what is known of each domain.
struct Refused<'a> {
    known: Vec<(&'a Domain, Level)>,
    demanded: Level,
}

impl Refused<'_> {
    fn failure(&self, domain: &Domain, shown: &str, error: &HandshakeError) -> Failure {
        let level =
            self.known.iter().find(|(known, _)| *known == domain).map_or(Level::Plain, |(_, level)| *level);
        let offered = format!("the TLS handshake with {shown} now fails ({error})");
        let text = if self.demanded > level {
            not_as_demanded(self.demanded, &offered)
        } else {
            too_low(domain, level, &offered)
        };
        Failure::transient(7, 5, text).of_destination()
    }
}

/// The operator has said how mail goes to this host, and in no other way.
fn not_as_demanded(demanded: Level, offered: &str) -> String {
    format!("mail goes there at {demanded} or not at all, as the operator says, and {offered}; it waits")
}

/// What was known, what was offered, and what the operator can do if that is how it should be.
fn too_low(domain: &Domain, known: Level, offered: &str) -> String {
    format!(
        "{domain} was reached at {known} before, and {offered}; the mail waits. If this change is wanted: \
         postrider domain forget {domain}"
    )
}
