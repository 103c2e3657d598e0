//! A stub resolver: asks name servers, blocking.
//!
//! Guarantees to return by the deadline, and never to take a failure for an answer: unless a server says
//! clearly that a record or a name exists or does not, and after all servers were asked, the result is
//! [`DnsError::Temporary`]. Answers are cached for their time to live.
//!
//! Does not resolve from the root, does not validate (it asks for the AD bit and does not use it), does not
//! read `/etc/hosts`. Called by couriers and sessions through [`Resolver`], from many threads at once.
//! Standards: RFC 1035, 2308, 6761 §6.3 (localhost), 8020; for the exchange with one server see
//! `name_server_client`.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::{Name, Rtype};

use super::budget::Budget;
use super::cache::{LookupResult, ResponseCache};
use super::error::DnsError;
use super::name_server_client::NameServerClient;
use super::name_servers::{NameServerSource, Settings};
use super::resolver::{Mx, Resolver, is_localhost, reverse_name};
use super::response::{ParsedResponse, RecordData};
use crate::mail::Domain;
use crate::sys::{Clock, Connector, Moment, Mutex, Random, StopFlag};

/// Queries for one name where servers do not follow CNAMEs to their end.
const CNAME_QUERIES_MAX: usize = 8;

/// Asks name servers. Shared by threads.
pub struct StubResolver {
    servers: NameServerSource,
    client: NameServerClient,
    clock: Arc<dyn Clock>,
    /// Position of the server that answered last, which is asked first.
    preferred_server: AtomicUsize,
    cache: Mutex<ResponseCache>,
}

impl StubResolver {
    /// A stub resolver with an empty cache.
    #[must_use]
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        dial: Arc<dyn Connector>,
    ) -> Self {
        Self {
            servers: NameServerSource::new(settings),
            client: NameServerClient::new(Arc::clone(&clock), random, dial),
            clock,
            preferred_server: AtomicUsize::new(0),
            cache: Mutex::new(ResponseCache::new()),
        }
    }

    /// The same resolver, which waits for no server once `stop` is requested: for look-ups that do not
    /// decide about mail.
    #[must_use]
    pub fn interruptible_by(self, stop: Arc<StopFlag>) -> Self {
        Self { client: self.client.interruptible_by(stop), ..self }
    }

    /// The records of one type, from the cache or from a server.
    fn look_up(&self, name: &Domain, kind: Rtype, deadline: Moment) -> LookupResult {
        // Fails only for a name that is too long for DNS, and such a name cannot exist.
        let asked = Name::vec_from_str(name.as_ascii()).map_err(|_| DnsError::NoSuchDomain)?;
        let key = (name.as_ascii().to_owned(), kind);
        if let Some(answer) = self.cache.lock().get(&key, self.clock.now()) {
            return answer;
        }
        let (answer, ttl) = self.resolve(asked, kind, deadline);
        if let Some(ttl) = ttl {
            self.cache.lock().insert(key, answer.clone(), ttl, self.clock.now());
        }
        answer
    }

    /// The answer, and how long it may be cached; `None` if not at all.
    fn resolve(
        &self,
        mut name: Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> (LookupResult, Option<Duration>) {
        let mut longest = Duration::MAX;
        for _ in 0..CNAME_QUERIES_MAX {
            match self.query_servers(&name, kind, deadline) {
                Ok(ParsedResponse::Records(records, ttl)) => return (Ok(records), Some(ttl.min(longest))),
                Ok(ParsedResponse::NoData(ttl)) => return (Ok(Vec::new()), ttl.map(|ttl| ttl.min(longest))),
                Ok(ParsedResponse::NoSuchDomain(ttl)) => {
                    return (Err(DnsError::NoSuchDomain), ttl.map(|ttl| ttl.min(longest)));
                }
                Ok(ParsedResponse::Cname(target, ttl)) => {
                    longest = longest.min(ttl);
                    name = target;
                }
                Ok(ParsedResponse::Unusable(why) | ParsedResponse::EdnsRejected(why)) => {
                    return (Err(DnsError::Temporary(why)), Some(longest));
                }
                Err(error) => {
                    // After the caller's deadline it is unknown whether a server would have answered.
                    let keep = (self.clock.now() < deadline).then_some(longest);
                    return (Err(error), keep);
                }
            }
        }
        (Err(DnsError::Temporary("too many CNAMEs".to_owned())), Some(longest))
    }

    /// Asks the servers, one after the other, until one says something about the name. The error
    /// says what went wrong last; never [`DnsError::NoSuchDomain`].
    fn query_servers(
        &self,
        name: &Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> Result<ParsedResponse, DnsError> {
        let servers = self.servers.current();
        let count = servers.addresses.len();
        let first = self.preferred_server.load(Ordering::Relaxed);
        let mut order: Vec<_> =
            servers.addresses.iter().enumerate().cycle().skip(first % count.max(1)).take(count).collect();
        let mut last_error = DnsError::BudgetExhausted("no time is left");
        for _ in 0..servers.attempts {
            let mut silent = Vec::new();
            for (position, server) in order {
                let now = self.clock.now();
                if now >= deadline {
                    return Err(last_error);
                }
                let until = deadline.min(now + servers.timeout);
                match self.client.query(*server, name, kind, until) {
                    Ok(ParsedResponse::Unusable(why) | ParsedResponse::EdnsRejected(why)) => {
                        // The server would answer the same again.
                        last_error = DnsError::Temporary(format!("{server} says {why}"));
                    }
                    Ok(response) => {
                        self.preferred_server.store(position, Ordering::Relaxed);
                        return Ok(response);
                    }
                    Err(error) => {
                        last_error = DnsError::Temporary(match error.kind() {
                            io::ErrorKind::TimedOut => format!("{server} does not answer"),
                            _ => format!("{server}: {error}"),
                        });
                        silent.push((position, server));
                    }
                }
            }
            order = silent;
        }
        Err(last_error)
    }
}

impl Resolver for StubResolver {
    fn mx_records(&self, name: &Domain, budget: &Budget) -> Result<Vec<Mx>, DnsError> {
        let deadline = budget.take_lookup()?;
        if is_localhost(name) {
            return Ok(Vec::new());
        }
        let records = self.look_up(name, Rtype::MX, deadline)?;
        Ok(records
            .into_iter()
            .filter_map(|record| match record {
                RecordData::Mx(mx) => Some(mx),
                RecordData::Address(_) | RecordData::Ptr(_) => None,
            })
            .collect())
    }

    fn addresses(&self, host: &Domain, budget: &Budget) -> Result<Vec<IpAddr>, DnsError> {
        let deadline = budget.take_lookup()?;
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let v4 = match self.look_up(host, Rtype::A, deadline) {
            Err(DnsError::NoSuchDomain) => return Err(DnsError::NoSuchDomain),
            other => other,
        };
        let records = match (v4, self.look_up(host, Rtype::AAAA, deadline)) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                v4
            }
            // RFC 4074 §4: servers that support A and not AAAA may answer anything to a question for AAAA.
            (Ok(v4), Err(DnsError::NoSuchDomain)) => v4,
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => some,
            (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
        };
        Ok(records
            .into_iter()
            .filter_map(|record| match record {
                RecordData::Address(address) => Some(address),
                RecordData::Mx(_) | RecordData::Ptr(_) => None,
            })
            .collect())
    }

    fn ptr_names(&self, address: IpAddr, budget: &Budget) -> Result<Vec<Domain>, DnsError> {
        let deadline = budget.take_lookup()?;
        let records = self.look_up(&reverse_name(address)?, Rtype::PTR, deadline)?;
        Ok(records
            .into_iter()
            .filter_map(|record| match record {
                RecordData::Ptr(name) => Some(name),
                RecordData::Address(_) | RecordData::Mx(_) => None,
            })
            .collect())
    }
}
