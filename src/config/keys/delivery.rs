//! When mail is tried, for whom it is, and who carries it.

use super::{Key, Section, list, number, quoted, time};
use crate::config::sections::{
    CommandDelivery, Config, Hello, LineEnds, LmtpDelivery, Local, MaildirDelivery, PipeTrouble,
};
use crate::config::units::show_duration;

pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "queue",
        about: "Mail that waits.",
        keys: &[
            Key {
                name: "lifetime",
                about: "When a message has waited for so long, we give up and tell its sender.",
                default: "\"5d\"",
                example: "",
                show: |c| time(c.queue.lifetime),
            },
            Key {
                name: "retry",
                about: "Waits after the first, second, … attempt that did not work; the last one repeats. A \
                        little is taken off at random, so that not everything comes due at once.",
                default: "[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"4h\"]",
                example: "",
                show: |c| Some(list(c.queue.retry.iter().map(|wait| show_duration(*wait)))),
            },
            Key {
                name: "delay-report",
                about: "When a message has waited for so long, its sender is told once that we go on trying: \
                        users who submitted it here, and others if they asked. As long as `lifetime`, and \
                        nobody is.",
                default: "\"4h\"",
                example: "",
                show: |c| time(c.queue.delay_report),
            },
            Key {
                name: "messages-max",
                about: "Messages in the queue; when it is full, clients are told to try again later.",
                default: "20000",
                example: "",
                show: |c| number(c.queue.messages_max),
            },
            Key {
                name: "local-threads",
                about: "Deliveries at once on this host.",
                default: "16",
                example: "",
                show: |c| number(c.queue.local_threads),
            },
            Key {
                name: "remote-threads",
                about: "Deliveries at once to other hosts.",
                default: "16",
                example: "",
                show: |c| number(c.queue.remote_threads),
            },
            Key {
                name: "attempts-per-destination-max",
                about: "Deliveries at once to one destination, so that a slow one does not hold all threads.",
                default: "4",
                example: "",
                show: |c| number(c.queue.attempts_per_destination_max),
            },
            Key {
                name: "probe-every",
                about: "A destination that does not answer is tried with one message at a time, after 1m, 2m, 4m \
                        and so on, and at last this often; its other mail waits meanwhile.",
                default: "\"15m\"",
                example: "",
                show: |c| time(c.queue.probe_every),
            },
        ],
    },
    Section {
        name: "aliases",
        about: "How names of local domains are compared, in alias files and among users.",
        keys: &[
            Key {
                name: "suffix-separators",
                about: "Each of these characters begins a suffix: mail for ana+lists goes to ana, unless \
                        ana+lists is an alias or a user. Empty: there are no suffixes.",
                default: "\"+\"",
                example: "",
                show: |c| Some(quoted(&c.aliases.suffix_separators)),
            },
            Key {
                name: "drop-characters",
                about: "Characters that do not count in a name: with \".\" mail for a.na goes to ana, unless \
                        a.na is a user.",
                default: "\"\"",
                example: "",
                show: |c| Some(quoted(&c.aliases.drop_characters)),
            },
        ],
    },
    Section {
        name: "delivery",
        about: "How mail leaves.",
        keys: &[Key {
            name: "local",
            about: "How mail for a local domain is delivered: \"maildir\", \"command\" or \"lmtp\", each with \
                    a section of its own.",
            default: "\"maildir\"",
            example: "",
            show: |c| match c.delivery.local {
                Local::Maildir(_) => Some(quoted("maildir")),
                Local::Command(_) => Some(quoted("command")),
                Local::Lmtp(_) => Some(quoted("lmtp")),
            },
        }],
    },
    Section {
        name: "delivery.maildir",
        about: "Used if local = \"maildir\". The server makes what is missing, as the user that it runs as.",
        keys: &[Key {
            name: "path",
            about: "A user's Maildir, with %user% and %domain% filled in. The default is \
                    mail/%domain%/%user% in the data directory.",
            default: "\"/var/lib/postrider/mail/%domain%/%user%\"",
            example: "",
            show: |c| maildir(c).map(|m| quoted(&m.path)),
        }],
    },
    Section {
        name: "delivery.command",
        about: "Used if local = \"command\": a delivery agent such as procmail, maildrop or dovecot-lda. It \
                reads the message on standard input. Exit status 0 means delivered; 75, a missing program or \
                one that was killed means that we try again; any other status returns the message. No shell \
                sees the arguments.",
        keys: &[
            Key {
                name: "program",
                about: "A path, or a name to be found in PATH. An agent that changes to the recipient's user \
                        must be allowed to by the service: see NoNewPrivileges in postrider.service.",
                default: "",
                example: "\"/usr/bin/procmail\"",
                show: |c| command(c).map(|m| quoted(&m.program)),
            },
            Key {
                name: "arguments",
                about: "Its arguments, one text each. %from% %from_user% %from_domain% %to% %to_user% \
                        %to_domain% are filled in.",
                default: "[]",
                example: "[\"-f\", \"%from%\", \"-d\", \"%to_user%\"]",
                show: |c| command(c).map(|m| list(&m.arguments)),
            },
            Key {
                name: "line-ends",
                about: "What ends a line of the message: \"lf\" for procmail and maildrop, \"crlf\" for agents \
                        that want it as it came.",
                default: "\"lf\"",
                example: "",
                show: |c| {
                    command(c).map(|m| match m.line_ends {
                        LineEnds::Lf => quoted("lf"),
                        LineEnds::Crlf => quoted("crlf"),
                    })
                },
            },
            Key {
                name: "deadline",
                about: "After this it is killed, and the message is tried again later.",
                default: "\"30s\"",
                example: "",
                show: |c| command(c).and_then(|m| time(m.deadline)),
            },
        ],
    },
    Section {
        name: "delivery.lmtp",
        about: "Used if local = \"lmtp\": a server that keeps the mailboxes, such as Dovecot.",
        keys: &[Key {
            name: "address",
            about: "Where it listens: \"unix:/run/dovecot/lmtp\", or an address with a port such as \
                    \"127.0.0.1:24\". Mail goes there in plain text. Port 25 is not for LMTP.",
            default: "",
            example: "\"unix:/run/dovecot/lmtp\"",
            show: |c| lmtp(c).map(|m| quoted(&m.address.to_string())),
        }],
    },
    Section {
        name: "delivery.pipe",
        about: "Programs that an alias file names.",
        keys: &[
            Key {
                name: "deadline",
                about: "After this the program is killed, and the message returned.",
                default: "\"30s\"",
                example: "",
                show: |c| time(c.delivery.pipe.deadline),
            },
            Key {
                name: "exit-75",
                about: "What exit status 75 means: \"permanent\" like any other failure, or \"transient\", so \
                        that it is tried again.",
                default: "\"permanent\"",
                example: "",
                show: |c| match c.delivery.pipe.exit_75 {
                    PipeTrouble::Permanent => Some(quoted("permanent")),
                    PipeTrouble::Transient => Some(quoted("transient")),
                },
            },
        ],
    },
    Section {
        name: "delivery.smtp",
        about: "To other servers.",
        keys: &[
            Key {
                name: "port",
                about: "The port of other servers. Anything but 25 is for tests and tunnels.",
                default: "25",
                example: "",
                show: |c| Some(c.delivery.smtp.port.to_string()),
            },
            Key {
                name: "hello",
                about: "The name with which we introduce ourselves to other servers. \"sender-domain\" says \
                        the sender's domain if it is one of ours, and the hostname otherwise: choose it when \
                        each domain is to stand on its own, with an address record (and SPF for its HELO \
                        name) that leads to this host. \"hostname\" always says the hostname: choose it when \
                        only the hostname has such records, or when receivers compare our greeting with the \
                        reverse name of our address, which can be one name only.",
                default: "\"sender-domain\"",
                example: "",
                show: |c| match c.delivery.smtp.hello {
                    Hello::SenderDomain => Some(quoted("sender-domain")),
                    Hello::Hostname => Some(quoted("hostname")),
                },
            },
            Key {
                name: "via",
                about: "Hosts that take all mail for other domains, tried in this order, instead of each \
                        domain's own: for a host that may not send mail itself. Behind them stand tls=required or \
                        tls=verified and the name of a login in credentials.toml. See docs/aliases.md.",
                default: "",
                example: "\"smtp.relay.example:587 login=relay1\"",
                show: |c| c.delivery.smtp.via.as_ref().map(|via| quoted(&via.to_string())),
            },
            Key {
                name: "messages-per-connection-max",
                about: "While there is more mail for a server, the connection to it is used for the next message: \
                        for so many of them. With 1, each has a connection of its own.",
                default: "100",
                example: "",
                show: |c| number(c.delivery.smtp.messages_per_connection_max),
            },
        ],
    },
    Section {
        name: "dns",
        about: "",
        keys: &[Key {
            name: "servers",
            about: "Recursive resolvers, with a port if it is not 53. Without any, those of the host's \
                    /etc/resolv.conf.",
            default: "[]",
            example: "[\"127.0.0.1\", \"[::1]:5353\"]",
            show: |c| Some(list(c.dns.servers.iter().map(ToString::to_string))),
        }],
    },
];

fn maildir(config: &Config) -> Option<&MaildirDelivery> {
    match &config.delivery.local {
        Local::Maildir(maildir) => Some(maildir),
        Local::Command(_) | Local::Lmtp(_) => None,
    }
}

fn command(config: &Config) -> Option<&CommandDelivery> {
    match &config.delivery.local {
        Local::Maildir(_) | Local::Lmtp(_) => None,
        Local::Command(command) => Some(command),
    }
}

fn lmtp(config: &Config) -> Option<&LmtpDelivery> {
    match &config.delivery.local {
        Local::Maildir(_) | Local::Command(_) => None,
        Local::Lmtp(lmtp) => Some(lmtp),
    }
}
