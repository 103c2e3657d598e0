//! How much a client may do that brings no mail nearer.
//!
//! Everything is counted between two messages that we queue: a client that brings mail may make
//! mistakes again. Three counts, because three things cost differently: what the client does wrong
//! (the operator says how much of it), what we put off, and commands that are fine and lead nowhere.

use super::reply::Reply;

/// Commands that lead nowhere: EHLO, HELO, MAIL, RSET, NOOP, VRFY and HELP. A message takes three of
/// them, with STARTTLS; a client that asks about every recipient first, or keeps a connection open,
/// some ten.
const JUNK_COMMANDS_MAX: u32 = 100;

/// Replies 4yz. A client may send all of its recipients at once and hear 452 for those above the
/// limit (RFC 5321 §4.5.3.1.10), so that one with a long list is in its right.
const DEFERRALS_MAX: u32 = 1000;

/// What a client has done since its last message was queued.
#[derive(Debug)]
pub(super) struct ErrorLimits {
    errors_max: u32,
    errors: u32,
    deferrals: u32,
    junk_commands: u32,
}

/// Patience is at its end: the reply is 421.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorLimitReached {
    /// By refusals, of either kind.
    Refusals,
    /// By commands.
    JunkCommands,
}

impl ErrorLimitReached {
    /// Why the server closes the connection, for the reply.
    pub(super) fn reply_text(self) -> &'static str {
        match self {
            Self::Refusals => "too many errors",
            Self::JunkCommands => "too many commands without a message",
        }
    }
}

impl ErrorLimits {
    /// Nothing was done so far; `errors_max` replies 5yz are borne.
    pub(super) fn new(errors_max: u32) -> Self {
        Self { errors_max, errors: 0, deferrals: 0, junk_commands: 0 }
    }

    /// A command came that may lead nowhere.
    pub(super) fn count_junk_command(&mut self) -> Result<(), ErrorLimitReached> {
        self.junk_commands = self.junk_commands.saturating_add(1);
        if self.junk_commands > JUNK_COMMANDS_MAX { Err(ErrorLimitReached::JunkCommands) } else { Ok(()) }
    }

    /// We are about to say no.
    pub(super) fn count_refusal(&mut self, reply: &Reply) -> Result<(), ErrorLimitReached> {
        let (count, max) = if reply.is_permanent() {
            (&mut self.errors, self.errors_max)
        } else {
            (&mut self.deferrals, DEFERRALS_MAX)
        };
        *count = count.saturating_add(1);
        if *count > max { Err(ErrorLimitReached::Refusals) } else { Ok(()) }
    }

    /// A message was queued: everything is forgotten.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.errors_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_limit_and_a_message_clears_them_all() {
        let mut patience = ErrorLimits::new(2);
        for _ in 0..2 {
            for _ in 0..JUNK_COMMANDS_MAX {
                assert_eq!(patience.count_junk_command(), Ok(()));
            }
            for _ in 0..DEFERRALS_MAX {
                assert_eq!(patience.count_refusal(&Reply::new(452, 5, 3, "")), Ok(()));
            }
            for _ in 0..2 {
                assert_eq!(patience.count_refusal(&Reply::new(550, 1, 1, "")), Ok(()));
            }
            assert_eq!(patience.count_junk_command(), Err(ErrorLimitReached::JunkCommands));
            assert_eq!(patience.count_refusal(&Reply::new(452, 5, 3, "")), Err(ErrorLimitReached::Refusals));
            assert_eq!(patience.count_refusal(&Reply::new(550, 1, 1, "")), Err(ErrorLimitReached::Refusals));
            patience.reset();
        }
    }
}
