//! When mail is tried, for whom it is, and who carries it.

use super::{KeyDescription, SectionDescription, list, number, quoted, quoted_duration};
use crate::config::sections::{
    CommandDelivery, Config, Exit75Setting, HelloSetting, LineEndsSetting, LmtpDelivery, LocalDelivery,
    MaildirDelivery,
};
use crate::config::units::show_duration;

pub(super) const SECTIONS: &[SectionDescription] = &[
    SectionDescription {
        name: "queue",
        description: "Mail that waits.",
        keys: &[
            KeyDescription {
                name: "lifetime",
                description: "When a message has waited for so long, we give up and tell its sender.",
                default: "\"5d\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.lifetime),
            },
            KeyDescription {
                name: "retry",
                description: "Waits after the first, second, … attempt that did not work; the last one repeats. A \
                        little is taken off at random, so that not everything comes due at once.",
                default: "[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"4h\"]",
                example: "",
                effective_value: |c| Some(list(c.queue.retry.iter().map(|wait| show_duration(*wait)))),
            },
            KeyDescription {
                name: "delay-warning",
                description: "When a message has waited for so long, its sender is told once that we go on trying: \
                        users who submitted it here, and others if they asked. As long as `lifetime`, and \
                        nobody is.",
                default: "\"4h\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.delay_warning),
            },
            KeyDescription {
                name: "messages-max",
                description: "Messages in the queue; when it is full, clients are told to try again later.",
                default: "20000",
                example: "",
                effective_value: |c| number(c.queue.messages_max),
            },
            KeyDescription {
                name: "local-threads",
                description: "Deliveries at once on this host.",
                default: "16",
                example: "",
                effective_value: |c| number(c.queue.local_threads),
            },
            KeyDescription {
                name: "remote-threads",
                description: "Deliveries at once to other hosts.",
                default: "16",
                example: "",
                effective_value: |c| number(c.queue.remote_threads),
            },
            KeyDescription {
                name: "attempts-per-destination-max",
                description: "Deliveries at once to one destination, so that a slow one does not hold all threads.",
                default: "4",
                example: "",
                effective_value: |c| number(c.queue.attempts_per_destination_max),
            },
            KeyDescription {
                name: "probe-interval-max",
                description: "A destination that does not answer is tried with one message at a time, after 1m, 2m, 4m \
                        and so on, and at last this often; its other mail waits meanwhile.",
                default: "\"15m\"",
                example: "",
                effective_value: |c| quoted_duration(c.queue.probe_interval_max),
            },
        ],
    },
    SectionDescription {
        name: "aliases",
        description: "How names of local domains are compared, in alias files and among users.",
        keys: &[
            KeyDescription {
                name: "suffix-separators",
                description: "Each of these characters begins a suffix: mail for ana+lists goes to ana, unless \
                        ana+lists is an alias or a user. Empty: there are no suffixes.",
                default: "\"+\"",
                example: "",
                effective_value: |c| Some(quoted(&c.aliases.suffix_separators)),
            },
            KeyDescription {
                name: "drop-characters",
                description: "Characters that do not count in a name: with \".\" mail for a.na goes to ana, unless \
                        a.na is a user.",
                default: "\"\"",
                example: "",
                effective_value: |c| Some(quoted(&c.aliases.drop_characters)),
            },
        ],
    },
    SectionDescription {
        name: "delivery",
        description: "How mail leaves.",
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
        description: "Used if local = \"maildir\". The server makes what is missing, as the user that it runs as.",
        keys: &[KeyDescription {
            name: "path",
            description: "A user's Maildir, with %user% and %domain% filled in. The default is \
                    mail/%domain%/%user% in the data directory.",
            default: "\"/var/lib/postrider/mail/%domain%/%user%\"",
            example: "",
            effective_value: |c| maildir(c).map(|m| quoted(&m.path)),
        }],
    },
    SectionDescription {
        name: "delivery.command",
        description: "Used if local = \"command\": a delivery agent such as procmail, maildrop or dovecot-lda. It \
                reads the message on standard input. Exit status 0 means delivered; 75, a missing program or \
                one that was killed means that we try again; any other status returns the message. No shell \
                sees the arguments.",
        keys: &[
            KeyDescription {
                name: "program",
                description: "A path, or a name to be found in PATH. An agent that changes to the recipient's user \
                        must be allowed to by the service: see NoNewPrivileges in postrider.service.",
                default: "",
                example: "\"/usr/bin/procmail\"",
                effective_value: |c| command(c).map(|m| quoted(&m.program)),
            },
            KeyDescription {
                name: "arguments",
                description: "Its arguments, one text each. %from% %from_user% %from_domain% %to% %to_user% \
                        %to_domain% are filled in.",
                default: "[]",
                example: "[\"-f\", \"%from%\", \"-d\", \"%to_user%\"]",
                effective_value: |c| command(c).map(|m| list(&m.arguments)),
            },
            KeyDescription {
                name: "line-ends",
                description: "What ends a line of the message: \"lf\" for procmail and maildrop, \"crlf\" for agents \
                        that want it as it came.",
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
                description: "After this it is killed, and the message is tried again later.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| command(c).and_then(|m| quoted_duration(m.timeout)),
            },
        ],
    },
    SectionDescription {
        name: "delivery.lmtp",
        description: "Used if local = \"lmtp\": a server that keeps the mailboxes, such as Dovecot.",
        keys: &[KeyDescription {
            name: "address",
            description: "Where it listens: \"unix:/run/dovecot/lmtp\", or an address with a port such as \
                    \"127.0.0.1:24\". Mail goes there in plain text. Port 25 is not for LMTP.",
            default: "",
            example: "\"unix:/run/dovecot/lmtp\"",
            effective_value: |c| lmtp(c).map(|m| quoted(&m.address.to_string())),
        }],
    },
    SectionDescription {
        name: "delivery.pipe",
        description: "Programs that an alias file names.",
        keys: &[
            KeyDescription {
                name: "timeout",
                description: "After this the program is killed, and the message returned.",
                default: "\"30s\"",
                example: "",
                effective_value: |c| quoted_duration(c.delivery.pipe.timeout),
            },
            KeyDescription {
                name: "exit-75",
                description: "What exit status 75 means: \"permanent\" like any other failure, or \"transient\", so \
                        that it is tried again.",
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
        description: "To other servers.",
        keys: &[
            KeyDescription {
                name: "port",
                description: "The port of other servers. Anything but 25 is for tests and tunnels.",
                default: "25",
                example: "",
                effective_value: |c| Some(c.delivery.smtp.port.to_string()),
            },
            KeyDescription {
                name: "hello",
                description: "The name with which we introduce ourselves to other servers. \"sender-domain\" says \
                        the sender's domain if it is one of ours, and the hostname otherwise: choose it when \
                        each domain is to stand on its own, with an address record (and SPF for its HELO \
                        name) that leads to this host. \"hostname\" always says the hostname: choose it when \
                        only the hostname has such records, or when receivers compare our greeting with the \
                        reverse name of our address, which can be one name only.",
                default: "\"sender-domain\"",
                example: "",
                effective_value: |c| match c.delivery.smtp.hello {
                    HelloSetting::SenderDomain => Some(quoted("sender-domain")),
                    HelloSetting::Hostname => Some(quoted("hostname")),
                },
            },
            KeyDescription {
                name: "via",
                description: "Hosts that take all mail for other domains, tried in this order, instead of each \
                        domain's own: for a host that may not send mail itself. Behind them stand tls=required or \
                        tls=verified and the name of a login in credentials.toml. See docs/aliases.md.",
                default: "",
                example: "\"smtp.relay.example:587 login=relay1\"",
                effective_value: |c| c.delivery.smtp.via.as_ref().map(|via| quoted(&via.to_string())),
            },
            KeyDescription {
                name: "messages-per-connection-max",
                description: "While there is more mail for a server, the connection to it is used for the next message: \
                        for so many of them. With 1, each has a connection of its own.",
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
            description: "Recursive resolvers, with a port if it is not 53. Without any, those of the host's \
                    /etc/resolv.conf.",
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
