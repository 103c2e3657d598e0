//! What the host says of itself.

use std::sync::mpsc;
use std::time::Duration;

use super::thread::spawn;

/// How long the host's resolver may take. With name servers that do not answer, the C library alone would
/// take half a minute.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The host's name: fully qualified if the host or its resolver knows it so, else as it is set.
/// None if it has none. May ask DNS, for a few seconds: only for start-up.
#[must_use]
pub fn host_name() -> Option<String> {
    let name = dns_lookup::get_hostname().ok().filter(|name| !name.is_empty())?;
    if name.contains('.') {
        return Some(name);
    }
    let asked = name.clone();
    let canonical = run_with_timeout(RESOLVER_TIMEOUT, move || canonical_name(&asked)).flatten();
    Some(canonical.unwrap_or(name))
}

/// What `ask` finds out if that takes no longer than `patience`. Otherwise nobody waits for it any more.
fn run_with_timeout<T: Send + 'static>(
    patience: Duration,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::sync_channel(1);
    spawn("host-name", move || drop(tell.send(ask()))).ok()?;
    told.recv_timeout(patience).ok()
}

/// As `hostname --fqdn` does: /etc/hosts or DNS may know the whole name.
fn canonical_name(name: &str) -> Option<String> {
    let hints = dns_lookup::AddrInfoHints { flags: nix::libc::AI_CANONNAME, ..Default::default() };
    dns_lookup::getaddrinfo(Some(name), None, Some(hints))
        .ok()
        .and_then(|mut found| found.find_map(|info| info.ok()?.canonname))
        .filter(|canonical| canonical.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_does_not_answer_is_not_waited_for() {
        let (hold, held) = mpsc::channel::<()>();
        assert_eq!(run_with_timeout(Duration::from_millis(50), move || held.recv().is_ok()), None);
        drop(hold);
        assert_eq!(run_with_timeout(Duration::from_secs(60), || 7), Some(7));
    }
}
