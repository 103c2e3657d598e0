//! Documents the keys about Dovecot, relay networks, submission, hooks and leniency.

use super::{KeyDescription, SectionDescription, list, quoted, quoted_duration};
use crate::config::sections::{HookFailureSetting, SenderSetting};

pub(super) const SECTIONS: &[SectionDescription] = &[
    SectionDescription {
        name: "dovecot",
        description: "Users and passwords of a Dovecot server on this host; docs/dovecot.md describes \
                Dovecot's configuration.",
        keys: &[
            KeyDescription {
                name: "auth",
                description: "\"auto\" asks Dovecot about users of local domains who are not in a users \
                        file: whether the mailbox exists, and whether a password is right. \"off\" does \
                        not ask Dovecot.",
                default: "\"off\"",
                example: "",
                effective_value: |c| Some(quoted(if c.dovecot.is_enabled { "auto" } else { "off" })),
            },
            KeyDescription {
                name: "client-socket",
                description: "The socket for passwords. Without this key the server searches for it at \
                        each use: auth-postrider-client, then auth-client, in /run/dovecot and \
                        /var/run/dovecot.",
                default: "",
                example: "\"/run/dovecot/auth-postrider-client\"",
                effective_value: |c| {
                    c.dovecot.client_socket.as_ref().map(|path| quoted(&path.to_string_lossy()))
                },
            },
            KeyDescription {
                name: "userdb-socket",
                description: "The socket for mailboxes. Without this key the server searches for it at \
                        each use: auth-postrider-userdb, then auth-userdb, in the same directories.",
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
            description: "Clients that may send to any address without a login. Every program that can \
                    reach this host from these networks can send spam in your name: prefer logins.",
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
            description: "The sender addresses that a user who has logged in may use, in MAIL FROM and in \
                    the From and Sender fields. \"bound\": the user's own address, aliases that lead to \
                    the user, and the addresses that the file domains/DOMAIN/senders lists (\"ana: \
                    info@here.example, *@club.example\"). \"any\": any address.",
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
        description: "The programs hooks/rcpt and hooks/post-data, if they exist: they accept or refuse a \
                recipient, and a whole message.",
        keys: &[
            KeyDescription {
                name: "on-failure",
                description: "The answer if a hook cannot be run, is killed, or exceeds its time: \
                        \"defer\" asks the client to try again later, \"accept\" continues without the \
                        hook.",
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
                description: "Maximum time for hooks/rcpt, from 1 s to 5 min. After it the hook and its \
                        child processes are killed.",
                default: "\"5s\"",
                example: "",
                effective_value: |c| quoted_duration(c.hooks.rcpt_timeout),
            },
            KeyDescription {
                name: "post-data-timeout",
                description: "Maximum time for hooks/post-data, from 1 s to 5 min. After it the hook and \
                        its child processes are killed.",
                default: "\"1m\"",
                example: "",
                effective_value: |c| quoted_duration(c.hooks.post_data_timeout),
            },
        ],
    },
    SectionDescription {
        name: "leniency",
        description: "Deviations from the standards that are tolerated from old devices of your own.",
        keys: &[KeyDescription {
            name: "bare-line-ends",
            description: "Clients that may end a line inside a message with LF or CR alone; the server \
                    replaces it with CRLF. From all other clients such a message is refused and the \
                    connection is closed, because such line endings allow a second message to be smuggled \
                    inside the first (SMTP smuggling). Also for these clients a dot between such line \
                    endings does not end a message.",
            default: "[]",
            example: "[\"192.0.2.7\"]",
            effective_value: |c| Some(list(c.leniency.bare_line_ends.iter().map(ToString::to_string))),
        }],
    },
];
