//! What the host says of itself.

/// The host's name: fully qualified if the host or its resolver knows it so, else as it is set.
/// None if it has none. May ask DNS and has no deadline: only for start-up.
#[must_use]
pub fn host_name() -> Option<String> {
    let name = dns_lookup::get_hostname().ok().filter(|name| !name.is_empty())?;
    if name.contains('.') {
        return Some(name);
    }
    // As `hostname --fqdn` does: /etc/hosts or DNS may know the whole name.
    let hints = dns_lookup::AddrInfoHints { flags: nix::libc::AI_CANONNAME, ..Default::default() };
    let canonical = dns_lookup::getaddrinfo(Some(&name), None, Some(hints))
        .ok()
        .and_then(|mut found| found.find_map(|info| info.ok()?.canonname))
        .filter(|canonical| canonical.contains('.'));
    Some(canonical.unwrap_or(name))
}
