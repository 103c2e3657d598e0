//! Who we are, where mail comes in, and how much of it.

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
                description: "The name by which other servers know this host: in the greeting, in Received \
                        fields and in reports. It must be fully qualified. Without this key it is the name \
                        that the host gives itself.",
                default: "",
                example: "\"mail.example.org\"",
                effective_value: |c| Some(quoted(&c.hostname.to_string())),
            },
            KeyDescription {
                name: "data-dir",
                description: "Where postrider keeps its own files: the spool, what it knows about other domains, \
                        its control socket, and Maildirs unless they have a path of their own. A relative \
                        path counts from the directory of this file, here and everywhere below.",
                default: "\"/var/lib/postrider\"",
                example: "",
                effective_value: |c| Some(quoted(&c.data_dir.to_string_lossy())),
            },
            KeyDescription {
                name: "grace",
                description: "How long messages and attempts under way may go on when the server is told to stop.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| quoted_duration(c.grace),
            },
            KeyDescription {
                name: "postmaster",
                description: "Who reads mail for postmaster and abuse of every local domain that has neither an alias \
                        nor a user of that name; such mail must always be taken. Without this key the \
                        postmaster of this host's own domain, or of the first domain, does.",
                default: "",
                example: "\"ana@example.org\"",
                effective_value: |c| c.postmaster.as_ref().map(|mailbox| quoted(&mailbox.to_string())),
            },
        ],
    },
    SectionDescription {
        name: "listen",
        description: "Where clients find us. Each key is a list of addresses with ports (\":25\" is port 25 of \
                every address of this host), or \"systemd\" for the sockets that the service manager passes \
                under the key's name. An empty list switches a service off. A proxy in front of us uses an \
                address of its own, marked with the word proxy: \"127.0.0.1:2525 proxy\".",
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
                description: "Mail from our users, with STARTTLS and a login: port 587.",
                default: "\"systemd\"",
                example: "[\":587\"]",
                effective_value: |c| Some(format_listen_entries(&c.listen.submission)),
            },
            KeyDescription {
                name: "submissions",
                description: "Mail from our users, with TLS from the first octet and a login: port 465.",
                default: "\"systemd\"",
                example: "[\":465\"]",
                effective_value: |c| Some(format_listen_entries(&c.listen.submissions)),
            },
            KeyDescription {
                name: "proxy-from",
                description: "Addresses and networks of proxies (HAProxy and its like). A connection from there to \
                        a listener that is marked with proxy must begin with a PROXY header, version 1 or \
                        2, before TLS; the client that it names is the client for all that follows. \
                        Connections from elsewhere are taken as they are.",
                default: "[]",
                example: "[\"127.0.0.1\"]",
                effective_value: |c| Some(list(c.listen.proxy_from.iter().map(ToString::to_string))),
            },
            KeyDescription {
                name: "monitoring",
                description: "Web pages and metrics for the operator; off without this key. The pages ask for no \
                        password: keep them on a loopback address.",
                default: "",
                example: "\"127.0.0.1:1099\"",
                effective_value: |c| c.listen.monitoring.map(|address| quoted(&address.to_string())),
            },
        ],
    },
    SectionDescription {
        name: "limits",
        description: "Ceilings, so that no client can use up the host.",
        keys: &[
            KeyDescription {
                name: "message-size-max",
                description: "Largest message taken, in octets or as a text such as \"50 MiB\"; from 64 KiB to 1 GiB.",
                default: "\"50 MiB\"",
                example: "",
                effective_value: |c| Some(quoted(&show_size(c.limits.message_octets_max))),
            },
            KeyDescription {
                name: "recipients-max",
                description: "Recipients of one message in one transaction; the client sends the rest in another. \
                        From 100 to 10000.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.recipients_max),
            },
            KeyDescription {
                name: "received-max",
                description: "Received fields in a message before we think that it goes round in circles; from 10 \
                        to 1000.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.received_max),
            },
            KeyDescription {
                name: "sessions-max",
                description: "Clients at once. Each costs a thread and some 100 KiB.",
                default: "400",
                example: "",
                effective_value: |c| number(c.limits.sessions_max),
            },
            KeyDescription {
                name: "sessions-per-address-max",
                description: "Clients at once from one IPv4 address, or from one IPv6 network of 64 bits (a /64): \
                        one host has all of its addresses.",
                default: "50",
                example: "",
                effective_value: |c| number(c.limits.sessions_per_address_max),
            },
            KeyDescription {
                name: "sessions-per-network-max",
                description: "Clients at once from one IPv4 network of 24 bits, or from one IPv6 network of 48 bits, \
                        so that nobody takes all places who has many addresses. Where an address may have \
                        more than this, a network may have as many.",
                default: "100",
                example: "",
                effective_value: |c| number(c.limits.sessions_per_network_max),
            },
            KeyDescription {
                name: "greeting-delay",
                description: "How long a client on the smtp port waits for its greeting, at most 1m. One that speaks \
                        before it is greeted is turned away; a few seconds keep out many that only send spam.",
                default: "\"0s\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.greeting_delay),
            },
            KeyDescription {
                name: "errors-max",
                description: "Refusals (replies 5yz) that a client may earn between two messages that we take; then we \
                        hang up. Whatever is set here, 1000 replies 4yz or 100 commands that lead to no \
                        message are the end too.",
                default: "10",
                example: "",
                effective_value: |c| number(c.limits.errors_max),
            },
            KeyDescription {
                name: "command-timeout",
                description: "How long a client may be silent, and how long one command may take to arrive.",
                default: "\"5m\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.command_timeout),
            },
            KeyDescription {
                name: "message-timeout",
                description: "How long one message may take to arrive.",
                default: "\"20m\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.message_timeout),
            },
            KeyDescription {
                name: "session-timeout",
                description: "How long a client may stay.",
                default: "\"1h\"",
                example: "",
                effective_value: |c| quoted_duration(c.limits.session_timeout),
            },
        ],
    },
    SectionDescription {
        name: "limits.address-per-hour",
        description: "What a client that has not logged in may do in an hour, counted by IPv4 address or IPv6 \
                network of 64 bits. It may do all of it at once, and gets it back at an even pace; until then \
                it hears 450 or 421 and comes again. 0 is no limit. This host's own addresses and \
                relay.networks are not counted.",
        keys: &[
            KeyDescription {
                name: "connections",
                description: "Connections; one more hears 421.",
                default: "1000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.connections),
            },
            KeyDescription {
                name: "messages",
                description: "Messages begun.",
                default: "1000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.messages),
            },
            KeyDescription {
                name: "recipients",
                description: "Recipients named.",
                default: "5000",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.recipients),
            },
            KeyDescription {
                name: "unknown-recipients",
                description: "Recipients named who do not exist; after that every recipient is put off, so that \
                        nobody finds out who does.",
                default: "200",
                example: "",
                effective_value: |c| number(c.limits.address_per_hour.unknown_recipients),
            },
        ],
    },
    SectionDescription {
        name: "limits.login-per-hour",
        description: "What a user who has logged in may do in an hour, from wherever; 0 is no limit. It bounds \
                what somebody can do who has stolen a password.",
        keys: &[
            KeyDescription {
                name: "messages",
                description: "Messages begun.",
                default: "500",
                example: "",
                effective_value: |c| number(c.limits.login_per_hour.messages),
            },
            KeyDescription {
                name: "recipients",
                description: "Recipients named.",
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
        if listener.has_proxy_preface { format!("{place} proxy") } else { place }
    };
    match listeners {
        [one] if one.source == SocketSource::Systemd => quoted(&shown(one)),
        listeners => list(listeners.iter().map(shown)),
    }
}
