//! Listening sockets: bound by us, or taken over from the service manager.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::config::{Listen, Listener, Place};
use crate::inbound::Role;

/// A listening socket.
pub(super) struct Open {
    /// What is spoken on it.
    pub(super) role: Role,
    /// Proxies may use it.
    pub(super) proxy: bool,
    pub(super) socket: TcpListener,
}

/// Every listening socket of the configuration.
///
/// # Errors
/// A sentence with the address and the remedy, for the first one that cannot be had, or if there
/// is none at all.
pub(super) fn open(listen: &Listen) -> Result<Vec<Open>, String> {
    let mut passed = Passed::take();
    let mut sockets = Vec::new();
    for (role, wanted) in [
        (Role::Smtp, &listen.smtp),
        (Role::Submission, &listen.submission),
        (Role::Submissions, &listen.submissions),
    ] {
        for &Listener { place, proxy } in wanted {
            let found = match place {
                Place::Address(address) => {
                    vec![bound(address).and_then(listening).map_err(|e| cannot_listen(role, address, &e))?]
                }
                Place::Systemd => passed.named(role.name()),
            };
            sockets.extend(found.into_iter().map(|socket| Open { role, proxy, socket }));
        }
    }
    for name in passed.unused() {
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

fn cannot_listen(role: Role, address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it: stop that, or choose another address",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need socket activation or CAP_NET_BIND_SERVICE"
        }
        _ => "",
    };
    format!("[listen] {}: cannot listen on {address}: {error}{remedy}", role.name())
}

/// Has the address, and turns clients away until it listens.
pub(super) fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
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

/// Lets clients in, with as many waiting connections as the host allows: a burst of clients is served
/// late rather than dropped. The standard library's own number is much smaller.
pub(super) fn listening(bound: OwnedFd) -> io::Result<TcpListener> {
    listen(&bound, Backlog::MAXCONN)?;
    Ok(TcpListener::from(bound))
}

/// Sockets that the service manager passed, by name (sd_listen_fds(3)).
struct Passed {
    names: Vec<String>,
    sockets: ListenFd,
}

impl Passed {
    fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { names: names.split(':').map(str::to_owned).collect(), sockets: ListenFd::from_env() }
    }

    fn named(&mut self, name: &str) -> Vec<TcpListener> {
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

    /// The names of those that nobody has taken. Our copies of them are closed.
    fn unused(&mut self) -> Vec<String> {
        let Self { names, sockets } = self;
        let places = names.iter().enumerate().take(sockets.len());
        let left = places.filter(|(place, _)| !matches!(sockets.take_tcp_listener(*place), Ok(None)));
        left.map(|(_, name)| name.clone()).collect()
    }
}

/// Allows as many open files as the host lets us: two for each session, one for each attempt.
pub(super) fn raise_open_files() {
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
        let first = bound("127.0.0.1:0".parse().unwrap()).and_then(listening).unwrap();
        let address = first.local_addr().unwrap();
        let listen = Listen {
            smtp: vec![Listener { place: Place::Address(address), proxy: false }],
            submission: Vec::new(),
            submissions: Vec::new(),
            ..Listen::default()
        };
        let error = open(&listen).err().unwrap();
        assert!(error.contains(&address.to_string()) && error.contains("another program has it"), "{error}");
    }
}
