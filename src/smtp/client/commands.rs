//! Writes the commands of a transaction: RSET, MAIL, RCPT and DATA, singly or in a group.
//!
//! A recipient or a message that needs an extension which the peer lacks is refused here, before a command
//! mentions it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use super::plan::{Plan, PlannedRecipient, Protocol};
use super::{Client, ClientStep, Wait};
use crate::mail::{Failure, Mailbox, Notify, Ret, ReversePath};

/// The next command of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextCommand {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
    Nothing,
}

/// A command whose reply has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingCommand {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
}

/// Most commands in one pipelined group, so that the socket buffers of both sides hold it (RFC 2920 §3.1):
/// 100 commands are under 32 KiB, and so are their replies.
const GROUP_COMMANDS_MAX: usize = 100;

impl Client {
    /// Refuses what this peer cannot take. A message that is too large for one host of a domain is too
    /// large for all of them; an extension that this host lacks another host may have.
    pub(super) fn refuse_unsendable(&mut self) {
        let Plan { protocol, reverse_path, recipients, message_octets, has_8bit, has_utf8_header, .. } =
            &self.plan;
        let host = &self.plan.peer_description();
        // RFC 1870 §6.
        if let Some(limit) = self.extensions.size.filter(|limit| *limit > 0 && message_octets > limit) {
            let text = format!("the message has {message_octets} octets, and {host} takes at most {limit}");
            return self.progress.settle_remaining(&Failure::permanent(3, 4, text).into());
        }
        let sender_needs_utf8 = reverse_path.mailbox().is_some_and(Mailbox::needs_smtputf8);
        let lacks_smtputf8 = match protocol {
            Protocol::Smtp => !self.extensions.smtputf8,
            // Departs from RFC 6531 §3.5: a mailbox stores any octets, and a bounce at this point would
            // help nobody. A server that cannot take them refuses.
            Protocol::Lmtp => false,
        };
        let for_all = match () {
            // RFC 6531 §3.5: mail that needs SMTPUTF8 is not sent without it, and not converted.
            () if sender_needs_utf8 && lacks_smtputf8 => Some(no_smtputf8(host, "the sender's address")),
            () if *has_utf8_header && lacks_smtputf8 => Some(no_smtputf8(host, "the message's header")),
            // RFC 6152 §3: there is no conversion to 7 bits, so that the message fails.
            () if *has_8bit && !self.extensions.eight_bit_mime => Some(Failure::permanent(
                6,
                3,
                format!("the message has 8-bit octets, and {host} does not offer 8BITMIME"),
            )),
            () => None,
        };
        for (n, recipient) in recipients.iter().enumerate() {
            let failure = match &for_all {
                Some(failure) => Some(failure.clone()),
                None if recipient.mailbox.needs_smtputf8() && lacks_smtputf8 => {
                    Some(no_smtputf8(host, "the recipient's address"))
                }
                None => None,
            };
            if let Some(failure) = failure {
                self.progress.leave_to_other_hosts(n, failure);
            }
        }
    }

    /// RFC 6531 §3.4: SMTPUTF8 is requested only if something needs it.
    fn asks_for_smtputf8(&self) -> bool {
        let mut waiting =
            self.plan.recipients.iter().enumerate().filter(|(n, _)| self.progress.is_waiting(*n));
        self.extensions.smtputf8
            && (self.plan.has_utf8_header
                || self.plan.reverse_path.mailbox().is_some_and(Mailbox::needs_smtputf8)
                || waiting.any(|(_, recipient)| recipient.mailbox.needs_smtputf8()))
    }

    /// Writes the next command, or a group of commands to a peer with PIPELINING.
    pub(super) fn next_group(&mut self) -> ClientStep {
        let room = if self.extensions.pipelining { GROUP_COMMANDS_MAX } else { 1 };
        let mut octets = Vec::new();
        while self.pending_commands.len() < room {
            let Some((asked, line)) = self.next_command() else { break };
            self.pending_commands.push_back(asked);
            octets.extend_from_slice(line.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        match self.pending_commands.front() {
            Some(asked) => ClientStep::Send(octets, asked.wait()),
            None => self.finish(),
        }
    }

    fn next_command(&mut self) -> Option<(PendingCommand, String)> {
        loop {
            match self.next {
                NextCommand::Rset if self.progress.has_waiting() => {
                    self.next = NextCommand::Mail;
                    return Some((PendingCommand::Rset, "RSET".to_owned()));
                }
                NextCommand::Mail if self.progress.has_waiting() => {
                    self.next = NextCommand::Rcpt(0);
                    self.named_domains.clear();
                    return Some((PendingCommand::Mail, self.mail_command()));
                }
                NextCommand::Rset | NextCommand::Mail => self.next = NextCommand::Nothing,
                NextCommand::Rcpt(n) => {
                    self.next = NextCommand::Rcpt(n + 1);
                    match self.plan.recipients.get(n) {
                        Some(recipient) if self.progress.is_waiting(n) && self.has_room_for(recipient) => {
                            self.named_domains.push(recipient.mailbox.domain.clone());
                            return Some((PendingCommand::Rcpt(n), self.rcpt_command(recipient)));
                        }
                        Some(_) => {}
                        None => self.next = NextCommand::Data,
                    }
                }
                NextCommand::Data => {
                    self.next = NextCommand::Nothing;
                    let in_flight =
                        self.pending_commands.iter().any(|asked| matches!(asked, PendingCommand::Rcpt(_)));
                    if in_flight || self.progress.has_accepted() {
                        return Some((PendingCommand::Data, "DATA".to_owned()));
                    }
                }
                NextCommand::Nothing => return None,
            }
        }
    }

    /// RFC 9422 §4.2, §4.3: recipients above the limit wait for the next transaction.
    fn has_room_for(&self, recipient: &PlannedRecipient) -> bool {
        let is_below =
            |max: Option<NonZeroU32>, count: usize| max.is_none_or(|max| count < max.get() as usize);
        let limits = &self.extensions.limits;
        if !is_below(limits.rcpt_max, self.named_domains.len()) {
            return false;
        }
        let Some(_) = limits.rcpt_domain_max else { return true };
        let domains: BTreeSet<_> = self.named_domains.iter().collect();
        domains.contains(&recipient.mailbox.domain) || is_below(limits.rcpt_domain_max, domains.len())
    }

    fn rcpt_command(&self, recipient: &PlannedRecipient) -> String {
        let mailbox = match self.plan.protocol {
            Protocol::Smtp => wire_address(&recipient.mailbox),
            // A mailbox has one name at its server: the domain is in A-labels for every local part.
            Protocol::Lmtp => recipient.mailbox.to_ascii_domain(),
        };
        let mut line = format!("RCPT TO:<{mailbox}>");
        if self.extensions.dsn {
            // RFC 3461 §5.2.1: ORCPT is passed on unchanged.
            line.push_str(&notify_parameter(recipient.notify).unwrap_or_default());
            if let Some(orcpt) = recipient.orcpt.as_deref().filter(|orcpt| is_graphic(orcpt)) {
                line.push_str(" ORCPT=");
                line.push_str(orcpt);
            }
        }
        line
    }

    fn mail_command(&self) -> String {
        let mut line = match &self.plan.reverse_path {
            ReversePath::Null => "MAIL FROM:<>".to_owned(),
            ReversePath::Mailbox(mailbox) => format!("MAIL FROM:<{}>", wire_address(mailbox)),
        };
        if self.extensions.size.is_some() {
            line.push_str(&format!(" SIZE={}", self.plan.message_octets));
        }
        if self.plan.has_8bit {
            line.push_str(" BODY=8BITMIME");
        }
        if self.asks_for_smtputf8() {
            line.push_str(" SMTPUTF8");
        }
        if self.extensions.dsn {
            match self.plan.ret {
                Some(Ret::Full) => line.push_str(" RET=FULL"),
                Some(Ret::Headers) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = self.plan.envid.as_deref().filter(|envid| is_graphic(envid)) {
                line.push_str(" ENVID=");
                line.push_str(envid);
            }
        }
        line
    }
}

impl PendingCommand {
    pub(super) const fn wait(self) -> Wait {
        match self {
            Self::Rset | Self::Mail => Wait::Mail,
            Self::Rcpt(_) => Wait::Rcpt,
            Self::Data => Wait::Data,
        }
    }
}

/// The address on the wire: the domain in A-labels, which every peer accepts, unless the local part needs
/// SMTPUTF8 anyway (RFC 6531 §3.2).
fn wire_address(mailbox: &Mailbox) -> String {
    if mailbox.needs_smtputf8() { mailbox.to_string() } else { mailbox.to_ascii_domain() }
}

/// The parameter NOTIFY (RFC 3461 §4.1); none if the sender sent none.
fn notify_parameter(notify: Notify) -> Option<String> {
    match notify {
        Notify::Unspecified => None,
        Notify::Never | Notify::When { success: false, failure: false, delay: false } => {
            Some(" NOTIFY=NEVER".to_owned())
        }
        Notify::When { success, failure, delay } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let wanted: Vec<_> =
                words.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, word)| word).collect();
            Some(format!(" NOTIFY={}", wanted.join(",")))
        }
    }
}

/// The value has no space and no line end, so that it stays one parameter.
fn is_graphic(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_graphic())
}

fn no_smtputf8(host: &str, what: &str) -> Failure {
    Failure::permanent(6, 7, format!("{what} is not ASCII, and {host} does not offer SMTPUTF8"))
}
