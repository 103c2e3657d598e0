//! Whom we believe what: accounts that others keep, networks, our users, hooks, and old devices.

use super::{KeyDescription, SectionDescription, list, quoted, quoted_duration};
use crate::config::sections::{HookFailureSetting, SenderSetting};

pub(super) const SECTIONS: &[SectionDescription] = &[
    SectionDescription {
        name: "dovecot",
        description: "Users and passwords of a Dovecot on this host; docs/dovecot.md shows its side.",
        keys: &[
            KeyDescription {
                name: "auth",
                description: "\"auto\" asks Dovecot for users of local domains who stand in no users file: whether \
                        there is a mailbox, and whether a password is right. \"off\" does not.",
                default: "\"off\"",
                example: "",
                effective_value: |c| Some(quoted(if c.dovecot.is_enabled { "auto" } else { "off" })),
            },
            KeyDescription {
                name: "client-socket",
                description: "Where passwords are asked. Without this key it is looked for at each use: \
                        auth-postrider-client, then auth-client, in /run/dovecot and /var/run/dovecot.",
                default: "",
                example: "\"/run/dovecot/auth-postrider-client\"",
                effective_value: |c| {
                    c.dovecot.client_socket.as_ref().map(|path| quoted(&path.to_string_lossy()))
                },
            },
            KeyDescription {
                name: "userdb-socket",
                description: "Where mailboxes are asked about. Without this key it is looked for at each use: \
                        auth-postrider-userdb, then auth-userdb, in the same directories.",
                default: "",
                example: "\"/run/dovecot/auth-postrider-userdb\"",
                effective_value: |c| {
                    c.dovecot.userdb_socket.as_ref().map(|path| quoted(&path.to_string_lossy()))
                },
            },
        ],
    },
    SectionDescription {
        name: "relay",
        description: "",
        keys: &[KeyDescription {
            name: "networks",
            description: "Clients that may send to anybody without a login. Whoever can reach this host from there \
                    can send spam in your name: prefer logins.",
            default: "[]",
            example: "[\"192.0.2.0/24\", \"2001:db8::/64\"]",
            effective_value: |c| Some(list(c.relay.networks.iter().map(ToString::to_string))),
        }],
    },
    SectionDescription {
        name: "submission",
        description: "",
        keys: &[KeyDescription {
            name: "sender",
            description: "In whose name a user who has logged in may write, in MAIL FROM and in the From and Sender \
                    fields. \"bound\": in their own, in that of aliases which lead to them, and in those that \
                    the file domains/DOMAIN/senders lists (\"ana: info@here.example, *@club.example\"). \
                    \"any\": in any name.",
            default: "\"bound\"",
            example: "",
            effective_value: |c| {
                Some(quoted(match c.submission.sender {
                    SenderSetting::Bound => "bound",
                    SenderSetting::Any => "any",
                }))
            },
        }],
    },
    SectionDescription {
        name: "hooks",
        description: "The programs hooks/rcpt and hooks/post-data, if they are there: they judge a recipient and a \
                whole message.",
        keys: &[
            KeyDescription {
                name: "on-failure",
                description: "What a hook means that cannot be run, is killed, or is out of time: \"defer\" tells the \
                        client to try again later, \"accept\" goes on as if the hook were not there.",
                default: "\"defer\"",
                example: "",
                effective_value: |c| {
                    Some(quoted(match c.hooks.on_failure {
                        HookFailureSetting::Defer => "defer",
                        HookFailureSetting::Accept => "accept",
                    }))
                },
            },
            KeyDescription {
                name: "rcpt-timeout",
                description: "Time for hooks/rcpt; then it is ended, with its children. From 1 s to 5 min.",
                default: "\"5s\"",
                example: "",
                effective_value: |c| quoted_duration(c.hooks.rcpt_timeout),
            },
            KeyDescription {
                name: "post-data-timeout",
                description: "The same for hooks/post-data.",
                default: "\"1m\"",
                example: "",
                effective_value: |c| quoted_duration(c.hooks.post_data_timeout),
            },
        ],
    },
    SectionDescription {
        name: "leniency",
        description: "What is overlooked, and in whom: for old devices of your own.",
        keys: &[KeyDescription {
            name: "bare-line-ends",
            description: "Clients that may end a line inside a message with LF or CR alone; it becomes a proper line \
                    end. From all others such a message is refused and the connection closed, because it is \
                    how a second message is smuggled inside a first. Even here a dot between such line ends \
                    does not end a message.",
            default: "[]",
            example: "[\"192.0.2.7\"]",
            effective_value: |c| Some(list(c.leniency.bare_line_ends.iter().map(ToString::to_string))),
        }],
    },
];
