//! Whom we believe what: accounts that others keep, networks, our users, hooks, and old devices.

use super::{Key, Section, list, quoted, time};
use crate::config::sections::{HookFailure, Sender};

pub(super) const SECTIONS: &[Section] = &[
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
