//! The name of this host.

use std::sync::mpsc;
use std::time::Duration;

use super::thread::spawn;

/// How long the resolver of the host may take. If no name server answers, the C library takes half a minute.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The name of this host: fully qualified if the host or its resolver has such a name, otherwise as it is set.
/// `None` if the host has no name. May query DNS for a few seconds: called only at the start.
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

/// The result of `ask`; `None` if it takes longer than `timeout`. The thread goes on then.
fn run_with_timeout<T: Send + 'static>(
    timeout: Duration,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn("host-name", move || drop(sender.send(ask()))).ok()?;
    receiver.recv_timeout(timeout).ok()
}

/// The fully qualified name from /etc/hosts or DNS, like `hostname --fqdn`.
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
    fn a_resolver_that_does_not_answer_is_abandoned_after_the_timeout() {
        let (hold, held) = mpsc::channel::<()>();
        assert_eq!(run_with_timeout(Duration::from_millis(50), move || held.recv().is_ok()), None);
        drop(hold);
        assert_eq!(run_with_timeout(Duration::from_secs(60), || 7), Some(7));
    }
}
