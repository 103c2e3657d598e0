//! Documents the keys about the queue, aliases, delivery and DNS.

use super::{KeyDescription, SectionDescription, list, number, quoted, quoted_duration};
use crate::config::sections::{
    CommandDelivery, Config, Exit75Setting, HelloSetting, LineEndsSetting, LmtpDelivery, LocalDelivery,
    MaildirDelivery,
};
use crate::config::units::show_duration;

pub(super) const SECTIONS: &[SectionDescription] = &[
    SectionDescription {
        name: "queue",
        description: "Accepted messages that wait for delivery.",
        keys: &[
            KeyDescription {
                name: "lifetime",
                description: "A message that has waited for this time is returned to its sender in a \
                        bounce.",
                default: "\"5d\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.lifetime),
            },
            KeyDescription {
                name: "retry",
                description: "The wait after the first, the second and each later failed attempt. The last \
                        value repeats. Each wait is shortened by a small random amount, so that the \
                        attempts spread over time.",
                default: "[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"4h\"]",
                example: "",
                effective_value: |c| Some(list(c.queue.retry.iter().map(|wait| show_duration(*wait)))),
            },
            KeyDescription {
                name: "delay-warning",
                description: "A sender gets one delay warning when a message has waited for this time: \
                        users who submitted it here, and other senders if they asked for it (RFC 3461). \
                        With a value as long as `lifetime` no warning is sent.",
                default: "\"4h\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.delay_warning),
            },
            KeyDescription {
                name: "messages-max",
                description: "Maximum number of messages in the queue. When the queue is full, clients get \
                        452 and try again later.",
                default: "20000",
                example: "",
                effective_value: |c| number(c.queue.messages_max),
            },
            KeyDescription {
                name: "local-threads",
                description: "Maximum number of concurrent deliveries on this host.",
                default: "16",
                example: "",
                effective_value: |c| number(c.queue.local_threads),
            },
            KeyDescription {
                name: "remote-threads",
                description: "Maximum number of concurrent deliveries to other hosts.",
                default: "16",
                example: "",
                effective_value: |c| number(c.queue.remote_threads),
            },
            KeyDescription {
                name: "attempts-per-destination-max",
                description: "Maximum number of concurrent deliveries to one destination, so that a slow \
                        destination does not occupy all threads.",
                default: "4",
                example: "",
                effective_value: |c| number(c.queue.attempts_per_destination_max),
            },
            KeyDescription {
                name: "probe-interval-max",
                description: "A destination that does not answer is probed with one message at a time, \
                        after 1m, 2m, 4m and so on; this is the longest interval. The other mail for the \
                        destination waits.",
                default: "\"15m\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.probe_interval_max),
            },
        ],
    },
    SectionDescription {
        name: "aliases",
        description: "How local parts of local domains are compared, in alias files and in users files.",
        keys: &[
            KeyDescription {
                name: "suffix-separators",
                description: "Each of these characters begins a suffix: mail for ana+lists goes to ana, \
                        unless ana+lists is an alias or a user. An empty text switches suffixes off.",
                default: "\"+\"",
                example: "",
                effective_value: |c| Some(quoted(&c.aliases.suffix_separators)),
            },
            KeyDescription {
                name: "drop-characters",
                description: "Characters that are ignored in a local part: with \".\" mail for a.na goes \
                        to ana, unless a.na is a user.",
                default: "\"\"",
                example: "",
                effective_value: |c| Some(quoted(&c.aliases.drop_characters)),
            },
        ],
    },
    SectionDescription {
        name: "delivery",
        description: "How messages are delivered.",
        keys: &[KeyDescription {
            name: "local",
            description: "How mail for a local domain is delivered: \"maildir\", \"command\" or \"lmtp\", each with \
                    a section of its own.",
            default: "\"maildir\"",
            example: "",
            effective_value: |c| match c.delivery.local {
                LocalDelivery::Maildir(_) => Some(quoted("maildir")),
                LocalDelivery::Command(_) => Some(quoted("command")),
                LocalDelivery::Lmtp(_) => Some(quoted("lmtp")),
            },
        }],
    },
    SectionDescription {
        name: "delivery.maildir",
        description: "Used if local = \"maildir\". The server creates missing directories as the user that \
                it runs as.",
        keys: &[KeyDescription {
            name: "path",
            description: "The path of a user's Maildir; %user% and %domain% are replaced. The default is \
                    mail/%domain%/%user% in the data directory.",
            default: "\"/var/lib/postrider/mail/%domain%/%user%\"",
            example: "",
            effective_value: |c| maildir(c).map(|m| quoted(&m.path)),
        }],
    },
    SectionDescription {
        name: "delivery.command",
        description: "Used if local = \"command\": a delivery agent such as procmail, maildrop or \
                dovecot-lda. The agent reads the message on standard input. Exit status 0 means delivered. \
                Exit status 75, a missing program and a killed program mean that the message is tried \
                again later. Any other status returns the message to its sender. The arguments are not \
                passed through a shell.",
        keys: &[
            KeyDescription {
                name: "program",
                description: "A path, or a name that is searched in PATH. If the agent changes to the \
                        recipient's user, the service must permit it: see NoNewPrivileges in \
                        postrider.service.",
                default: "",
                example: "\"/usr/bin/procmail\"",
                effective_value: |c| command(c).map(|m| quoted(&m.program)),
            },
            KeyDescription {
                name: "arguments",
                description: "The arguments of the program, one text each. %from% %from_user% \
                        %from_domain% %to% %to_user% %to_domain% are replaced.",
                default: "[]",
                example: "[\"-f\", \"%from%\", \"-d\", \"%to_user%\"]",
                effective_value: |c| command(c).map(|m| list(&m.arguments)),
            },
            KeyDescription {
                name: "line-ends",
                description: "The line ending of the message: \"lf\" for procmail and maildrop, \"crlf\" \
                        for agents that expect the line endings of SMTP.",
                default: "\"lf\"",
                example: "",
                effective_value: |c| {
                    command(c).map(|m| match m.line_ends {
                        LineEndsSetting::Lf => quoted("lf"),
                        LineEndsSetting::Crlf => quoted("crlf"),
                    })
                },
            },
            KeyDescription {
                name: "timeout",
                description: "The program is killed after this time, and the message is tried again later.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| command(c).and_then(|m| quoted_duration(m.timeout)),
            },
        ],
    },
    SectionDescription {
        name: "delivery.lmtp",
        description: "Used if local = \"lmtp\": a server that stores the mailboxes, such as Dovecot.",
        keys: &[KeyDescription {
            name: "address",
            description: "The address of the LMTP server: \"unix:/run/dovecot/lmtp\", or an address with a \
                    port such as \"127.0.0.1:24\". The connection has no TLS. Port 25 is not allowed for \
                    LMTP (RFC 2033).",
            default: "",
            example: "\"unix:/run/dovecot/lmtp\"",
            effective_value: |c| lmtp(c).map(|m| quoted(&m.address.to_string())),
        }],
    },
    SectionDescription {
        name: "delivery.pipe",
        description: "Programs to which an alias pipes mail.",
        keys: &[
            KeyDescription {
                name: "timeout",
                description: "The program is killed after this time, and the message is returned to its \
                        sender.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| quoted_duration(c.delivery.pipe.timeout),
            },
            KeyDescription {
                name: "exit-75",
                description: "The meaning of exit status 75: \"permanent\" returns the message like any \
                        other failure, \"transient\" tries the message again later.",
                default: "\"permanent\"",
                example: "",
                effective_value: |c| match c.delivery.pipe.exit_75 {
                    Exit75Setting::Permanent => Some(quoted("permanent")),
                    Exit75Setting::Transient => Some(quoted("transient")),
                },
            },
        ],
    },
    SectionDescription {
        name: "delivery.smtp",
        description: "Delivery to other mail servers.",
        keys: &[
            KeyDescription {
                name: "port",
                description: "The TCP port of other mail servers. A value other than 25 is for tests and \
                        tunnels.",
                default: "25",
                example: "",
                effective_value: |c| Some(c.delivery.smtp.port.to_string()),
            },
            KeyDescription {
                name: "hello",
                description: "The name in EHLO to other servers. \"sender-domain\" sends the sender's \
                        domain if it is a local domain, and the hostname otherwise. It requires that each \
                        local domain has an address record that points to this host, and SPF for its HELO \
                        name. \"hostname\" always sends the hostname. Choose it if only the hostname has \
                        such records, or if receivers compare the EHLO name with the reverse name of this \
                        host's address.",
                default: "\"sender-domain\"",
                example: "",
                effective_value: |c| match c.delivery.smtp.hello {
                    HelloSetting::SenderDomain => Some(quoted("sender-domain")),
                    HelloSetting::Hostname => Some(quoted("hostname")),
                },
            },
            KeyDescription {
                name: "via",
                description: "Relay hosts (smarthosts) for all mail to other domains, tried in this order \
                        instead of the MX hosts of each domain. Each host may be followed by tls=required \
                        or tls=verified, and by login= with the name of a login in credentials.toml. See \
                        docs/aliases.md.",
                default: "",
                example: "\"smtp.relay.example:587 login=relay1\"",
                effective_value: |c| c.delivery.smtp.via.as_ref().map(|via| quoted(&via.to_string())),
            },
            KeyDescription {
                name: "messages-per-connection-max",
                description: "Maximum number of messages on one connection to another server. With 1, each \
                        message has a connection of its own.",
                default: "100",
                example: "",
                effective_value: |c| number(c.delivery.smtp.messages_per_connection_max),
            },
        ],
    },
    SectionDescription {
        name: "dns",
        description: "",
        keys: &[KeyDescription {
            name: "servers",
            description: "Recursive resolvers, with a port if it is not 53. With an empty list the \
                    resolvers in /etc/resolv.conf are used.",
            default: "[]",
            example: "[\"127.0.0.1\", \"[::1]:5353\"]",
            effective_value: |c| Some(list(c.dns.servers.iter().map(ToString::to_string))),
        }],
    },
];

fn maildir(config: &Config) -> Option<&MaildirDelivery> {
    match &config.delivery.local {
        LocalDelivery::Maildir(maildir) => Some(maildir),
        LocalDelivery::Command(_) | LocalDelivery::Lmtp(_) => None,
    }
}

fn command(config: &Config) -> Option<&CommandDelivery> {
    match &config.delivery.local {
        LocalDelivery::Maildir(_) | LocalDelivery::Lmtp(_) => None,
        LocalDelivery::Command(command) => Some(command),
    }
}

fn lmtp(config: &Config) -> Option<&LmtpDelivery> {
    match &config.delivery.local {
        LocalDelivery::Maildir(_) | LocalDelivery::Command(_) => None,
        LocalDelivery::Lmtp(lmtp) => Some(lmtp),
    }
}
