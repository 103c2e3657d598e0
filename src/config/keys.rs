//! The table of keys, for people: what each is for, its default, and how to print it.
//!
//! From this one table come the commented sample file, the manual page and the output of
//! `postrider check`; a test compares the checked-in files with it, and the defaults written here
//! with those that `sections` gives.

use std::fmt::Write as _;
use std::time::Duration;

use super::sections::{
    CommandDelivery, Config, Hello, HookFailure, LineEnds, Listener, LmtpDelivery, Local, MaildirDelivery,
    PipeTrouble, Place, Sender,
};
use super::units::{show_duration, show_size};

/// A section of the file, with its keys.
struct Section {
    /// Empty for what stands above all sections.
    name: &'static str,
    about: &'static str,
    keys: &'static [Key],
}

/// One key.
struct Key {
    name: &'static str,
    /// In the words of an operator; ends up in the sample file and the manual page.
    about: &'static str,
    /// As TOML; empty if there is none.
    default: &'static str,
    /// Shown where there is no default.
    example: &'static str,
    /// The value in force as TOML; none if it does not apply.
    show: fn(&Config) -> Option<String>,
}

const SECTIONS: &[Section] = &[
    Section {
        name: "",
        about: "",
        keys: &[
            Key {
                name: "hostname",
                about: "The name by which other servers know this host: in the greeting, in Received \
                        fields and in reports. It must be fully qualified. Without this key it is the name \
                        that the host gives itself.",
                default: "",
                example: "\"mail.example.org\"",
                show: |c| Some(quoted(&c.hostname.to_string())),
            },
            Key {
                name: "data-dir",
                about: "Where postrider keeps its own files: the spool, what it knows about other domains, \
                        its control socket, and Maildirs unless they have a path of their own. A relative \
                        path counts from the directory of this file, here and everywhere below.",
                default: "\"/var/lib/postrider\"",
                example: "",
                show: |c| Some(quoted(&c.data_dir.to_string_lossy())),
            },
            Key {
                name: "grace",
                about: "How long messages and attempts under way may go on when the server is told to stop.",
                default: "\"30s\"",
                example: "",
                show: |c| time(c.grace),
            },
            Key {
                name: "postmaster",
                about: "Who reads mail for postmaster and abuse of every local domain that has neither an alias \
                        nor a user of that name; such mail must always be taken. Without this key the \
                        postmaster of this host's own domain, or of the first domain, does.",
                default: "",
                example: "\"ana@example.org\"",
                show: |c| c.postmaster.as_ref().map(|mailbox| quoted(&mailbox.to_string())),
            },
        ],
    },
    Section {
        name: "listen",
        about: "Where clients find us. Each key is a list of addresses with ports (\":25\" is port 25 of \
                every address of this host), or \"systemd\" for the sockets that the service manager passes \
                under the key's name. An empty list switches a service off. A proxy in front of us uses an \
                address of its own, marked with the word proxy: \"127.0.0.1:2525 proxy\".",
        keys: &[
            Key {
                name: "smtp",
                about: "Mail from other servers: port 25.",
                default: "\"systemd\"",
                example: "[\":25\"]",
                show: |c| Some(listeners(&c.listen.smtp)),
            },
            Key {
                name: "submission",
                about: "Mail from our users, with STARTTLS and a login: port 587.",
                default: "\"systemd\"",
                example: "[\":587\"]",
                show: |c| Some(listeners(&c.listen.submission)),
            },
            Key {
                name: "submissions",
                about: "Mail from our users, with TLS from the first octet and a login: port 465.",
                default: "\"systemd\"",
                example: "[\":465\"]",
                show: |c| Some(listeners(&c.listen.submissions)),
            },
            Key {
                name: "proxy-from",
                about: "Addresses and networks of proxies (HAProxy and its like). A connection from there to \
                        a listener that is marked with proxy must begin with a PROXY preface, version 1 or \
                        2, before TLS; the client that it names is the client for all that follows. \
                        Connections from elsewhere are taken as they are.",
                default: "[]",
                example: "[\"127.0.0.1\"]",
                show: |c| Some(list(c.listen.proxy_from.iter().map(ToString::to_string))),
            },
            Key {
                name: "monitoring",
                about: "Web pages and metrics for the operator; off without this key. The pages ask for no \
                        password: keep them on a loopback address.",
                default: "",
                example: "\"127.0.0.1:1099\"",
                show: |c| c.listen.monitoring.map(|address| quoted(&address.to_string())),
            },
        ],
    },
    Section {
        name: "limits",
        about: "Ceilings, so that no client can use up the host.",
        keys: &[
            Key {
                name: "message-size-max",
                about: "Largest message taken, in octets or as a text such as \"50 MiB\"; from 64 KiB to 1 GiB.",
                default: "\"50 MiB\"",
                example: "",
                show: |c| Some(quoted(&show_size(c.limits.message_octets_max))),
            },
            Key {
                name: "recipients-max",
                about: "Recipients of one message in one transaction; the client sends the rest in another. \
                        From 100 to 10000.",
                default: "100",
                example: "",
                show: |c| number(c.limits.recipients_max),
            },
            Key {
                name: "received-max",
                about: "Received fields in a message before we think that it goes round in circles; from 10 \
                        to 1000.",
                default: "100",
                example: "",
                show: |c| number(c.limits.received_max),
            },
            Key {
                name: "sessions-max",
                about: "Clients at once. Each costs a thread and some 100 KiB.",
                default: "400",
                example: "",
                show: |c| number(c.limits.sessions_max),
            },
            Key {
                name: "sessions-per-address-max",
                about: "Clients at once from one IPv4 address, or from one IPv6 network of 64 bits (a /64): \
                        one host has all of its addresses.",
                default: "50",
                example: "",
                show: |c| number(c.limits.sessions_per_address_max),
            },
            Key {
                name: "sessions-per-network-max",
                about: "Clients at once from one IPv4 network of 24 bits, or from one IPv6 network of 48 bits, \
                        so that nobody takes all places who has many addresses. Where an address may have \
                        more than this, a network may have as many.",
                default: "100",
                example: "",
                show: |c| number(c.limits.sessions_per_network_max),
            },
            Key {
                name: "greeting-delay",
                about: "How long a client on the smtp port waits for its greeting, at most 1m. One that speaks \
                        before it is greeted is turned away; a few seconds keep out many that only send spam.",
                default: "\"0s\"",
                example: "",
                show: |c| time(c.limits.greeting_delay),
            },
            Key {
                name: "errors-max",
                about: "Refusals (replies 5yz) that a client may earn between two messages that we take; then we \
                        hang up. Whatever is set here, 1000 replies 4yz or 100 commands that lead to no \
                        message are the end too.",
                default: "10",
                example: "",
                show: |c| number(c.limits.errors_max),
            },
            Key {
                name: "command-timeout",
                about: "How long a client may be silent, and how long one command may take to arrive.",
                default: "\"5m\"",
                example: "",
                show: |c| time(c.limits.command_timeout),
            },
            Key {
                name: "message-timeout",
                about: "How long one message may take to arrive.",
                default: "\"20m\"",
                example: "",
                show: |c| time(c.limits.message_timeout),
            },
            Key {
                name: "session-timeout",
                about: "How long a client may stay.",
                default: "\"1h\"",
                example: "",
                show: |c| time(c.limits.session_timeout),
            },
        ],
    },
    Section {
        name: "limits.address-per-hour",
        about: "What a client that has not logged in may do in an hour, counted by IPv4 address or IPv6 \
                network of 64 bits. It may do all of it at once, and gets it back at an even pace; until then \
                it hears 450 or 421 and comes again. 0 is no limit. This host's own addresses and \
                relay.networks are not counted.",
        keys: &[
            Key {
                name: "connections",
                about: "Connections; one more hears 421.",
                default: "1000",
                example: "",
                show: |c| number(c.limits.address_per_hour.connections),
            },
            Key {
                name: "messages",
                about: "Messages begun.",
                default: "1000",
                example: "",
                show: |c| number(c.limits.address_per_hour.messages),
            },
            Key {
                name: "recipients",
                about: "Recipients named.",
                default: "5000",
                example: "",
                show: |c| number(c.limits.address_per_hour.recipients),
            },
            Key {
                name: "unknown-recipients",
                about: "Recipients named who do not exist; after that every recipient is put off, so that \
                        nobody finds out who does.",
                default: "200",
                example: "",
                show: |c| number(c.limits.address_per_hour.unknown_recipients),
            },
        ],
    },
    Section {
        name: "limits.login-per-hour",
        about: "What a user who has logged in may do in an hour, from wherever; 0 is no limit. It bounds \
                what somebody can do who has stolen a password.",
        keys: &[
            Key {
                name: "messages",
                about: "Messages begun.",
                default: "500",
                example: "",
                show: |c| number(c.limits.login_per_hour.messages),
            },
            Key {
                name: "recipients",
                about: "Recipients named.",
                default: "3000",
                example: "",
                show: |c| number(c.limits.login_per_hour.recipients),
            },
        ],
    },
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
    Section {
        name: "dovecot",
        about: "Users and passwords of a Dovecot on this host; docs/dovecot.md shows its side.",
        keys: &[
            Key {
                name: "auth",
                about: "\"auto\" asks Dovecot for users of local domains who stand in no users file: whether \
                        there is a mailbox, and whether a password is right. \"off\" does not.",
                default: "\"off\"",
                example: "",
                show: |c| Some(quoted(if c.dovecot.is_asked { "auto" } else { "off" })),
            },
            Key {
                name: "client-socket",
                about: "Where passwords are asked. Without this key it is looked for at each use: \
                        auth-postrider-client, then auth-client, in /run/dovecot and /var/run/dovecot.",
                default: "",
                example: "\"/run/dovecot/auth-postrider-client\"",
                show: |c| c.dovecot.client.as_ref().map(|path| quoted(&path.to_string_lossy())),
            },
            Key {
                name: "userdb-socket",
                about: "Where mailboxes are asked about. Without this key it is looked for at each use: \
                        auth-postrider-userdb, then auth-userdb, in the same directories.",
                default: "",
                example: "\"/run/dovecot/auth-postrider-userdb\"",
                show: |c| c.dovecot.userdb.as_ref().map(|path| quoted(&path.to_string_lossy())),
            },
        ],
    },
    Section {
        name: "relay",
        about: "",
        keys: &[Key {
            name: "networks",
            about: "Clients that may send to anybody without a login. Whoever can reach this host from there \
                    can send spam in your name: prefer logins.",
            default: "[]",
            example: "[\"192.0.2.0/24\", \"2001:db8::/64\"]",
            show: |c| Some(list(c.relay.networks.iter().map(ToString::to_string))),
        }],
    },
    Section {
        name: "submission",
        about: "",
        keys: &[Key {
            name: "sender",
            about: "In whose name a user who has logged in may write, in MAIL FROM and in the From and Sender \
                    fields. \"bound\": in their own, in that of aliases which lead to them, and in those that \
                    the file domains/DOMAIN/senders lists (\"ana: info@here.example, *@club.example\"). \
                    \"any\": in any name.",
            default: "\"bound\"",
            example: "",
            show: |c| {
                Some(quoted(match c.submission.sender {
                    Sender::Bound => "bound",
                    Sender::Any => "any",
                }))
            },
        }],
    },
    Section {
        name: "hooks",
        about: "The programs hooks/rcpt and hooks/post-data, if they are there: they judge a recipient and a \
                whole message.",
        keys: &[
            Key {
                name: "failure",
                about: "What a hook means that cannot be run, is killed, or is out of time: \"defer\" tells the \
                        client to try again later, \"accept\" goes on as if the hook were not there.",
                default: "\"defer\"",
                example: "",
                show: |c| {
                    Some(quoted(match c.hooks.failure {
                        HookFailure::Defer => "defer",
                        HookFailure::Accept => "accept",
                    }))
                },
            },
            Key {
                name: "rcpt-deadline",
                about: "Time for hooks/rcpt; then it is ended, with its children. From 1 s to 5 min.",
                default: "\"5s\"",
                example: "",
                show: |c| time(c.hooks.rcpt_deadline),
            },
            Key {
                name: "post-data-deadline",
                about: "The same for hooks/post-data.",
                default: "\"1m\"",
                example: "",
                show: |c| time(c.hooks.post_data_deadline),
            },
        ],
    },
    Section {
        name: "leniency",
        about: "What is overlooked, and in whom: for old devices of your own.",
        keys: &[Key {
            name: "bare-line-ends",
            about: "Clients that may end a line inside a message with LF or CR alone; it becomes a proper line \
                    end. From all others such a message is refused and the connection closed, because it is \
                    how a second message is smuggled inside a first. Even here a dot between such line ends \
                    does not end a message.",
            default: "[]",
            example: "[\"192.0.2.7\"]",
            show: |c| Some(list(c.leniency.bare_line_ends.iter().map(ToString::to_string))),
        }],
    },
];

/// Names that may stand in a section: its keys and the sections below it.
pub(super) fn known(section: &str) -> Vec<&'static str> {
    let keys = SECTIONS.iter().filter(|s| s.name == section).flat_map(|s| s.keys.iter().map(|key| key.name));
    let below = SECTIONS.iter().filter_map(|s| match s.name.rsplit_once('.') {
        Some((above, name)) if above == section => Some(name),
        None if section.is_empty() && !s.name.is_empty() => Some(s.name),
        _ => None,
    });
    keys.chain(below).collect()
}

impl Config {
    /// The configuration in force, defaults included, as a file that would say the same.
    #[must_use]
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            let values: Vec<_> =
                section.keys.iter().filter_map(|key| Some((key.name, (key.show)(self)?))).collect();
            if values.is_empty() {
                continue;
            }
            if !section.name.is_empty() {
                let _ = writeln!(text, "\n[{}]", section.name);
            }
            for (name, value) in values {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
        text
    }
}

/// The commented sample file: every key with its default, switched off by a `#` without a space.
#[must_use]
pub fn sample() -> String {
    let mut text = String::from(
        "# postrider.toml: the configuration of the mail server postrider.\n\
         #\n\
         # A line that begins with # and a letter is a default: take away the # to change it. After a\n\
         # change, run `postrider check`, then restart the server. postrider.toml(5) says the same.\n",
    );
    for section in SECTIONS {
        if !section.name.is_empty() {
            let _ = write!(text, "\n\n[{}]\n", section.name);
            comment(&mut text, section.about);
        }
        for key in section.keys {
            text.push('\n');
            comment(&mut text, key.about);
            if !key.example.is_empty() {
                let _ = writeln!(text, "# For example: {} = {}", key.name, key.example);
            }
            if !key.default.is_empty() {
                let _ = writeln!(text, "#{} = {}", key.name, key.default);
            }
        }
    }
    text
}

/// The part of postrider.toml(5) that describes the keys, in the man macros.
#[must_use]
pub fn manual() -> String {
    let mut page = String::new();
    for section in SECTIONS {
        let title = match section.name {
            "" => "Above all sections".to_owned(),
            name => format!("[{name}]"),
        };
        let _ = writeln!(page, ".SS \"{title}\"");
        if !section.about.is_empty() {
            let _ = writeln!(page, "{}", roff(section.about));
        }
        for key in section.keys {
            let _ = writeln!(page, ".TP\n.B {}", roff(key.name));
            let _ = writeln!(page, "{}", roff(key.about));
            if !key.default.is_empty() {
                let _ = writeln!(page, ".br\nDefault: {}", roff(key.default));
            }
            if !key.example.is_empty() {
                let _ = writeln!(page, ".br\nFor example: {}", roff(key.example));
            }
        }
    }
    page
}

/// Text as roff prints it: no hyphen becomes a dash, no line begins with a control character.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// The text as comment lines of at most 98 characters.
fn comment(out: &mut String, about: &str) {
    let mut line = String::from("#");
    for word in about.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 98 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    if line != "#" {
        let _ = writeln!(out, "{line}");
    }
}

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

fn listeners(listeners: &[Listener]) -> String {
    let shown = |listener: &Listener| {
        let place = match listener.place {
            Place::Address(address) => address.to_string(),
            Place::Systemd => "systemd".to_owned(),
        };
        if listener.proxy { format!("{place} proxy") } else { place }
    };
    match listeners {
        [one] if one.place == Place::Systemd => quoted(&shown(one)),
        listeners => list(listeners.iter().map(shown)),
    }
}

fn number(number: usize) -> Option<String> {
    Some(number.to_string())
}

fn time(duration: Duration) -> Option<String> {
    Some(quoted(&show_duration(duration)))
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string. Its escapes are those of JSON, and one more for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::HostFacts;
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn the_defaults_that_people_read_are_the_defaults() {
        let defaults = Config::defaults(Domain::parse("mail.example.org").unwrap());
        for section in SECTIONS {
            for key in section.keys {
                assert!(!key.default.is_empty() || !key.example.is_empty(), "{}", key.name);
                if let Some(value) = (key.show)(&defaults).filter(|_| key.name != "hostname") {
                    assert_eq!(value, key.default, "{}.{}", section.name, key.name);
                }
            }
        }
    }

    #[test]
    fn the_sample_with_every_default_switched_on_changes_nothing() {
        let on: String = sample()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert!(on.contains("\nmessage-size-max = "));
        let host = HostFacts { hostname: &|| Some("mail.example.org".to_owned()) };
        let file = Path::new("/etc/postrider/postrider.toml");
        let read = |text: &str| Config::parse(text, file, &host).unwrap().effective();
        assert_eq!(read(&on), read(""));
        assert_eq!(read(&sample()), read(""));
    }
}
