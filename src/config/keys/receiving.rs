//! Documents the keys about the host, its listeners and the limits of clients.

use super::{KeyDescription, SectionDescription, list, number, quoted, quoted_duration};
use crate::config::sections::{ListenEntry, SocketSource};
use crate::config::units::show_size;

pub(super) const SECTIONS: &[SectionDescription] = &[
    SectionDescription {
        name: "",
        description: "",
        keys: &[
            KeyDescription {
                name: "hostname",
                description: "The name of this host in the greeting, in Received fields and in bounces. It \
                        must be fully qualified. Without this key the server uses the host name of the \
                        system.",
                default: "",
                example: "\"mail.example.org\"",
                effective_value: |c| Some(quoted(&c.hostname.to_string())),
            },
            KeyDescription {
                name: "data-dir",
                description: "The directory for postrider's own files: the spool, the security levels of \
                        other domains, the control socket, and Maildirs unless delivery.maildir sets \
                        another path. Here and in all other keys a relative path is relative to the \
                        directory of this file.",
                default: "\"/var/lib/postrider\"",
                example: "",
                effective_value: |c| Some(quoted(&c.data_dir.to_string_lossy())),
            },
            KeyDescription {
                name: "grace",
                description: "How long sessions and delivery attempts may continue after the server got a \
                        signal to stop.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| quoted_duration(c.grace),
            },
            KeyDescription {
                name: "postmaster",
                description: "The address that gets mail for postmaster and abuse of each local domain \
                        that has neither an alias nor a user of that name; such mail must always be \
                        accepted (RFC 5321 section 4.5.1). Without this key the mail goes to the \
                        postmaster of this host's own domain, or of the first local domain.",
                default: "",
                example: "\"ana@example.org\"",
                effective_value: |c| c.postmaster.as_ref().map(|mailbox| quoted(&mailbox.to_string())),
            },
        ],
    },
    SectionDescription {
        name: "listen",
        description: "The addresses on which the server listens. Each key is a list of addresses with \
                ports (\":25\" is port 25 of every address of this host), or \"systemd\" for the sockets \
                that the service manager passes under the key's name. An empty list switches the service \
                off. The word proxy after an address marks a listener for a proxy: \"127.0.0.1:2525 \
                proxy\". A proxy needs a listener of its own.",
        keys: &[
            KeyDescription {
                name: "smtp",
                description: "Mail from other servers: port 25.",
                default: "\"systemd\"",
                example: "[\":25\"]",
                effective_value: |c| Some(format_listen_entries(&c.listen.smtp)),
            },
            KeyDescription {
                name: "submission",
                description: "Mail from local users, with STARTTLS and a login: port 587.",
                default: "\"systemd\"",
                example: "[\":587\"]",
                effective_value: |c| Some(format_listen_entries(&c.listen.submission)),
            },
            KeyDescription {
                name: "submissions",
                description: "Mail from local users, with TLS from the first octet and a login: port 465.",
                default: "\"systemd\"",
                example: "[\":465\"]",
                effective_value: |c| Some(format_listen_entries(&c.listen.submissions)),
            },
            KeyDescription {
                name: "proxy-from",
                description: "Addresses and networks of proxies such as HAProxy. A connection from one of \
                        them to a listener with the word proxy must begin with a PROXY header, version 1 \
                        or 2, before TLS. The server uses the client address in the PROXY header for all \
                        limits, rules and logs. Connections from other addresses are handled as ordinary \
                        connections.",
                default: "[]",
                example: "[\"127.0.0.1\"]",
                effective_value: |c| Some(list(c.listen.proxy_from.iter().map(ToString::to_string))),
            },
            KeyDescription {
                name: "monitoring",
                description: "The address of the web pages and metrics for the operator. Without this key \
                        they are off. The pages require no password: use a loopback address.",
                default: "",
                example: "\"127.0.0.1:1099\"",
                effective_value: |c| c.listen.monitoring.map(|address| quoted(&address.to_string())),
            },
        ],
    },
    SectionDescription {
        name: "limits",
        description: "Limits that protect the host against overload by clients.",
        keys: &[
            KeyDescription {
                name: "message-size-max",
                description: "Maximum size of a message, in octets or as a text such as \"50 MiB\"; from \
                        64 KiB to 1 GiB.",
                default: "\"50 MiB\"",
                example: "",
                effective_value: |c| Some(quoted(&show_size(c.limits.message_octets_max))),
            },
            KeyDescription {
                name: "recipients-max",
                description: "Maximum number of recipients in one transaction, from 100 to 10000. The \
                        client sends the other recipients in another transaction.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.recipients_max),
            },
            KeyDescription {
                name: "received-max",
                description: "A message with more Received fields than this is refused as a mail loop; \
                        from 10 to 1000.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.received_max),
            },
            KeyDescription {
                name: "sessions-max",
                description: "Maximum number of concurrent sessions. Each session uses one thread and \
                        about 100 KiB of memory.",
                default: "400",
                example: "",
                effective_value: |c| number(c.limits.sessions_max),
            },
            KeyDescription {
                name: "sessions-per-address-max",
                description: "Maximum number of concurrent sessions from one IPv4 address, or from one \
                        IPv6 network of 64 bits (a /64), because one host usually has all addresses of a \
                        /64.",
                default: "50",
                example: "",
                effective_value: |c| number(c.limits.sessions_per_address_max),
            },
            KeyDescription {
                name: "sessions-per-network-max",
                description: "Maximum number of concurrent sessions from one IPv4 network of 24 bits, or \
                        from one IPv6 network of 48 bits, so that a client with many addresses cannot \
                        occupy all sessions. If sessions-per-address-max is larger, that value also \
                        applies to networks.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.sessions_per_network_max),
            },
            KeyDescription {
                name: "greeting-delay",
                description: "Delay before the greeting on the smtp port, at most 1m. A client that sends \
                        data before the greeting is refused. A delay of a few seconds stops many programs \
                        that only send spam.",
                default: "\"0s\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.greeting_delay),
            },
            KeyDescription {
                name: "errors-max",
                description: "Maximum number of refusals (replies 5yz) between two accepted messages. \
                        After more refusals the server closes the connection. The server also closes it \
                        after 1000 replies 4yz, or after 100 commands without an accepted message; these \
                        two limits are fixed.",
                default: "10",
                example: "",
                effective_value: |c| number(c.limits.errors_max),
            },
            KeyDescription {
                name: "command-timeout",
                description: "Maximum time without data from the client, and maximum time for one command \
                        to arrive.",
                default: "\"5m\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.command_timeout),
            },
            KeyDescription {
                name: "message-timeout",
                description: "Maximum time for one message to arrive.",
                default: "\"20m\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.message_timeout),
            },
            KeyDescription {
                name: "session-timeout",
                description: "Maximum duration of a session.",
                default: "\"1h\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.session_timeout),
            },
        ],
    },
    SectionDescription {
        name: "limits.address-per-hour",
        description: "Rate limits for clients without a login, for each IPv4 address or IPv6 network of 64 \
                bits. A client may use the whole amount at once; it is restored at a constant rate. A \
                client over a limit gets 450 or 421 and may try again later. 0 means no limit. The limits \
                do not apply to this host's own addresses and to relay.networks.",
        keys: &[
            KeyDescription {
                name: "connections",
                description: "Connections in an hour. A client over this limit gets 421.",
                default: "1000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.connections),
            },
            KeyDescription {
                name: "messages",
                description: "MAIL commands in an hour.",
                default: "1000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.messages),
            },
            KeyDescription {
                name: "recipients",
                description: "RCPT commands in an hour.",
                default: "5000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.recipients),
            },
            KeyDescription {
                name: "unknown-recipients",
                description: "RCPT commands for recipients that do not exist, in an hour. A client over \
                        this limit gets 450 for every recipient, so that it cannot find out which \
                        recipients exist.",
                default: "200",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.unknown_recipients),
            },
        ],
    },
    SectionDescription {
        name: "limits.login-per-hour",
        description: "Rate limits for each login, from all addresses together. 0 means no limit. The \
                limits reduce the damage of a stolen password.",
        keys: &[
            KeyDescription {
                name: "messages",
                description: "MAIL commands in an hour.",
                default: "500",
                example: "",
                effective_value: |c| number(c.limits.login_per_hour.messages),
            },
            KeyDescription {
                name: "recipients",
                description: "RCPT commands in an hour.",
                default: "3000",
                example: "",
                effective_value: |c| number(c.limits.login_per_hour.recipients),
            },
        ],
    },
];

fn format_listen_entries(listeners: &[ListenEntry]) -> String {
    let shown = |listener: &ListenEntry| {
        let place = match listener.source {
            SocketSource::Address(address) => address.to_string(),
            SocketSource::Systemd => "systemd".to_owned(),
        };
        if listener.has_proxy_header { format!("{place} proxy") } else { place }
    };
    match listeners {
        [one] if one.source == SocketSource::Systemd => quoted(&shown(one)),
        listeners => list(listeners.iter().map(shown)),
    }
}
