//! The name servers to ask, and the timeout for each.
//!
//! They are those that the operator names, or those of the host's resolv.conf (resolv.conf(5): `nameserver`,
//! and of `options` `timeout` and `attempts`). That file is checked before each query and read again when
//! it has changed, because hosts move between networks. A search list has no meaning for mail and is ignored.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::{Mutex, read_text};

/// Larger than any real resolv.conf.
const RESOLV_CONF_OCTETS_MAX: u64 = 65_536;
/// Name servers that are used; glibc uses three.
const NAME_SERVERS_MAX: usize = 8;
const DNS_PORT: u16 = 53;

/// The name servers, and how long to wait for them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers to ask, in this order. If empty, those of `resolv_conf` are asked.
    pub servers: Vec<SocketAddr>,
    /// The host's own list of servers. Default: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How long to wait for one server's reply. Default: 5 s. `options timeout` of `resolv_conf` replaces it.
    pub timeout: Duration,
    /// How many times to ask each server that does not reply. Default: 2. `options attempts` of
    /// `resolv_conf` replaces it.
    pub attempts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

/// The servers, timeout and attempts in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameServers {
    /// At least one.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
}

/// Reads the list of servers again when it has changed.
pub(super) struct NameServerSource {
    settings: Settings,
    loaded: Mutex<LoadedNameServers>,
}

struct LoadedNameServers {
    servers: Arc<NameServers>,
    resolv_conf_version: Option<ResolvConfVersion>,
}

/// Differs after every change of the file: inode, length, time of modification.
type ResolvConfVersion = (u64, u64, i64, i64);

impl NameServerSource {
    pub(super) fn new(settings: Settings) -> Self {
        let servers = NameServers {
            addresses: if settings.servers.is_empty() {
                vec![local_name_server()]
            } else {
                settings.servers.clone()
            },
            timeout: settings.timeout,
            attempts: settings.attempts.max(1),
        };
        Self {
            settings,
            loaded: Mutex::new(LoadedNameServers { servers: Arc::new(servers), resolv_conf_version: None }),
        }
    }

    /// The servers to ask now. If the file cannot be read, the servers in force stay.
    pub(super) fn current(&self) -> Arc<NameServers> {
        let path = &self.settings.resolv_conf;
        let state = if self.settings.servers.is_empty() { fs::metadata(path).ok() } else { None };
        let state = state.map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        {
            let current = self.loaded.lock();
            if state.is_none() || state == current.resolv_conf_version {
                return Arc::clone(&current.servers);
            }
        }
        let text = match read_text(path, RESOLV_CONF_OCTETS_MAX) {
            Ok(text) => text,
            Err(error) => {
                log::warn!("{}: {error}; asking the same name servers as before", path.display());
                return Arc::clone(&self.loaded.lock().servers);
            }
        };
        let servers = Arc::new(parse_resolv_conf(&text, &self.settings));
        let mut current = self.loaded.lock();
        current.servers = Arc::clone(&servers);
        current.resolv_conf_version = state;
        servers
    }
}

/// resolv.conf(5): without a `nameserver` line, the server on this host is asked.
fn local_name_server() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT)
}

fn parse_resolv_conf(text: &str, settings: &Settings) -> NameServers {
    let mut servers =
        NameServers { addresses: Vec::new(), timeout: settings.timeout, attempts: settings.attempts.max(1) };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => match words.next().and_then(|raw| raw.parse::<IpAddr>().ok()) {
                Some(address) if servers.addresses.len() < NAME_SERVERS_MAX => {
                    servers.addresses.push(SocketAddr::new(address, DNS_PORT));
                }
                Some(_) => {}
                None => log::warn!("resolv.conf: no address in {line:?}; the line is ignored"),
            },
            Some("options") => {
                for option in words {
                    match option.split_once(':').and_then(|(name, value)| Some((name, value.parse().ok()?))) {
                        // The bounds are glibc's.
                        Some(("timeout", seconds)) => {
                            servers.timeout = Duration::from_secs(u64::from(u32::clamp(seconds, 1, 30)));
                        }
                        Some(("attempts", times)) => servers.attempts = u32::clamp(times, 1, 5),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if servers.addresses.is_empty() {
        servers.addresses.push(local_name_server());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{SystemDisk, SystemRandom, replace_file};

    fn addresses_as_text(servers: &NameServers) -> Vec<String> {
        servers.addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn resolv_conf_names_servers_timeout_and_attempts() {
        let text = "# made by hand\nsearch here.example\nnameserver 192.0.2.1\n\
                    nameserver 2001:db8::1 # second\nnameserver ns.example\n\
                    options rotate timeout:2 attempts:99 trust-ad\n";
        let servers = parse_resolv_conf(text, &Settings::default());
        assert_eq!(addresses_as_text(&servers), ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!((servers.timeout, servers.attempts), (Duration::from_secs(2), 5));
        assert_eq!(addresses_as_text(&parse_resolv_conf("", &Settings::default())), ["127.0.0.1:53"]);
    }

    #[test]
    fn a_changed_resolv_conf_is_read_again_and_a_missing_one_keeps_the_servers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let write = |text: &str| replace_file(&SystemDisk, &SystemRandom, &path, text.as_bytes()).unwrap();
        let source = NameServerSource::new(Settings { resolv_conf: path.clone(), ..Settings::default() });
        assert_eq!(addresses_as_text(&source.current()), ["127.0.0.1:53"]);
        write("nameserver 192.0.2.1\n");
        assert_eq!(addresses_as_text(&source.current()), ["192.0.2.1:53"]);
        write("nameserver 192.0.2.2\n");
        assert_eq!(addresses_as_text(&source.current()), ["192.0.2.2:53"]);
        crate::sys::Disk::remove(&SystemDisk, &path).unwrap();
        assert_eq!(addresses_as_text(&source.current()), ["192.0.2.2:53"]);
    }

    #[test]
    fn servers_that_the_operator_names_are_used_instead_of_those_of_the_host() {
        let server = "192.0.2.9:5353".parse().unwrap();
        let source = NameServerSource::new(Settings { servers: vec![server], ..Settings::default() });
        assert_eq!(source.current().addresses, [server]);
    }
}
