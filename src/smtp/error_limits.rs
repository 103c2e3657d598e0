//! Limits the errors of a client, and the commands that do not lead to a message.
//!
//! Everything is counted between two queued messages: a client that sends mail may make mistakes again.
//! There are three counts, because the three things cost differently: errors (their limit is an option),
//! temporary refusals, and valid commands that do not lead to a message.

use super::reply::Reply;

/// Commands that do not lead to a message by themselves: EHLO, HELO, MAIL, RSET, NOOP, VRFY and HELP. A
/// message takes three of them, with STARTTLS; a client that verifies each recipient first, or keeps a
/// connection open, sends about ten.
const JUNK_COMMANDS_MAX: u32 = 100;

/// Replies 4yz. A client may send all of its recipients at once and get 452 for those above the limit (RFC
/// 5321 §4.5.3.1.10), so that a long list is not an error.
const DEFERRALS_MAX: u32 = 1000;

/// What a client has done since its last message was queued.
#[derive(Debug)]
pub(super) struct ErrorLimits {
    errors_max: u32,
    errors: u32,
    deferrals: u32,
    junk_commands: u32,
}

/// A limit is reached: the reply is 421.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorLimitReached {
    /// Too many refusals, permanent or temporary.
    Refusals,
    /// Too many commands without a message.
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
    /// Counts from zero; `errors_max` replies 5yz are allowed.
    pub(super) fn new(errors_max: u32) -> Self {
        Self { errors_max, errors: 0, deferrals: 0, junk_commands: 0 }
    }

    /// Counts a command that does not lead to a message by itself.
    pub(super) fn count_junk_command(&mut self) -> Result<(), ErrorLimitReached> {
        self.junk_commands = self.junk_commands.saturating_add(1);
        if self.junk_commands > JUNK_COMMANDS_MAX { Err(ErrorLimitReached::JunkCommands) } else { Ok(()) }
    }

    /// Counts a refusal before it is sent.
    pub(super) fn count_refusal(&mut self, reply: &Reply) -> Result<(), ErrorLimitReached> {
        let (count, max) = if reply.is_permanent() {
            (&mut self.errors, self.errors_max)
        } else {
            (&mut self.deferrals, DEFERRALS_MAX)
        };
        *count = count.saturating_add(1);
        if *count > max { Err(ErrorLimitReached::Refusals) } else { Ok(()) }
    }

    /// A message was queued: counts from zero again.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.errors_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_limit_and_a_message_clears_them_all() {
        let mut limits = ErrorLimits::new(2);
        for _ in 0..2 {
            for _ in 0..JUNK_COMMANDS_MAX {
                assert_eq!(limits.count_junk_command(), Ok(()));
            }
            for _ in 0..DEFERRALS_MAX {
                assert_eq!(limits.count_refusal(&Reply::new(452, 5, 3, "")), Ok(()));
            }
            for _ in 0..2 {
                assert_eq!(limits.count_refusal(&Reply::new(550, 1, 1, "")), Ok(()));
            }
            assert_eq!(limits.count_junk_command(), Err(ErrorLimitReached::JunkCommands));
            assert_eq!(limits.count_refusal(&Reply::new(452, 5, 3, "")), Err(ErrorLimitReached::Refusals));
            assert_eq!(limits.count_refusal(&Reply::new(550, 1, 1, "")), Err(ErrorLimitReached::Refusals));
            limits.reset();
        }
    }
}
