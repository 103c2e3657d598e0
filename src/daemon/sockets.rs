//! Listening sockets: bound here, or passed by systemd.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::config::{ListenConfig, ListenEntry, SocketSource};
use crate::inbound::ListenerRole;

/// A listening socket.
pub(super) struct ListeningSocket {
    /// The protocol, and what its clients may do.
    pub(super) role: ListenerRole,
    /// Connections from proxies begin with a PROXY header.
    pub(super) is_behind_proxy: bool,
    pub(super) socket: TcpListener,
}

/// Opens every listening socket of the configuration.
///
/// # Errors
/// A sentence with the address and the remedy for the first socket that cannot be opened, or if there is
/// none at all.
pub(super) fn open_listeners(listen: &ListenConfig) -> Result<Vec<ListeningSocket>, String> {
    let mut passed = PassedSockets::from_env();
    let mut sockets = Vec::new();
    for (role, wanted) in [
        (ListenerRole::Smtp, &listen.smtp),
        (ListenerRole::Submission, &listen.submission),
        (ListenerRole::Submissions, &listen.submissions),
    ] {
        for &ListenEntry { source: place, has_proxy_header: proxy } in wanted {
            let found = match place {
                SocketSource::Address(address) => {
                    vec![
                        bind_socket(address)
                            .and_then(start_listening)
                            .map_err(|e| listen_error(role, address, &e))?,
                    ]
                }
                SocketSource::Systemd => passed.take_named(role.name()),
            };
            sockets.extend(found.into_iter().map(|socket| ListeningSocket {
                role,
                is_behind_proxy: proxy,
                socket,
            }));
        }
    }
    for name in passed.close_unused() {
        log::warn!(
            "the service manager passed a socket named {name}, for which [listen] has no use: clients will wait \
             there in vain; name it smtp, submission or submissions, or switch it off"
        );
    }
    if sockets.is_empty() {
        return Err(
            "there is nothing to listen on: the service manager passed no socket named smtp, submission or \
                    submissions; enable postrider-smtp.socket, or give addresses in [listen]"
                .to_owned(),
        );
    }
    Ok(sockets)
}

fn listen_error(role: ListenerRole, address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it: stop that, or choose another address",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need socket activation or CAP_NET_BIND_SERVICE"
        }
        _ => "",
    };
    format!("[listen] {}: cannot listen on {address}: {error}{remedy}", role.name())
}

/// Binds the address; connections are refused until [`start_listening`].
pub(super) fn bind_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the host's default is.
        setsockopt(&descriptor, sockopt::Ipv6V6Only, &false)?;
    }
    bind(descriptor.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(descriptor)
}

/// Accepts connections, with the longest backlog that the host allows: clients of a burst are served late
/// and not refused. The standard library's backlog is much shorter.
pub(super) fn start_listening(bound: OwnedFd) -> io::Result<TcpListener> {
    listen(&bound, Backlog::MAXCONN)?;
    Ok(TcpListener::from(bound))
}

/// Sockets that systemd passed, by name (sd_listen_fds(3)).
struct PassedSockets {
    names: Vec<String>,
    sockets: ListenFd,
}

impl PassedSockets {
    fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { names: names.split(':').map(str::to_owned).collect(), sockets: ListenFd::from_env() }
    }

    fn take_named(&mut self, name: &str) -> Vec<TcpListener> {
        let mut found = Vec::new();
        for (place, theirs) in self.names.iter().enumerate() {
            if theirs != name || place >= self.sockets.len() {
                continue;
            }
            match self.sockets.take_tcp_listener(place) {
                Ok(Some(socket)) => found.push(socket),
                Ok(None) => {}
                Err(e) => log::error!("the socket that the service manager calls {name} is of no use: {e}"),
            }
        }
        found
    }

    /// The names of the sockets that nothing has used. This process closes its copies.
    fn close_unused(&mut self) -> Vec<String> {
        let Self { names, sockets } = self;
        let places = names.iter().enumerate().take(sockets.len());
        let left = places.filter(|(place, _)| !matches!(sockets.take_tcp_listener(*place), Ok(None)));
        left.map(|(_, name)| name.clone()).collect()
    }
}

/// Raises the limit of open files to what the host allows: a session needs two, an attempt one.
pub(super) fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(hard) => log::debug!("up to {hard} open files"),
        Err(e) => log::warn!("the limit of open files stays as it is: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named_with_a_remedy() {
        let first = bind_socket("127.0.0.1:0".parse().unwrap()).and_then(start_listening).unwrap();
        let address = first.local_addr().unwrap();
        let listen = ListenConfig {
            smtp: vec![ListenEntry { source: SocketSource::Address(address), has_proxy_header: false }],
            submission: Vec::new(),
            submissions: Vec::new(),
            ..ListenConfig::default()
        };
        let error = open_listeners(&listen).err().unwrap();
        assert!(error.contains(&address.to_string()) && error.contains("another program has it"), "{error}");
    }
}
