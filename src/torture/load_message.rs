//! Messages of the load generator: each has a number and can be recognised as complete.

/// Makes and recognises messages that have a number.
pub(super) struct LoadMessage;

impl LoadMessage {
    const BODY_LINE: &'static str = "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";

    pub(super) fn format(number: usize, lines: usize) -> String {
        let body = format!("{}\r\n", Self::BODY_LINE).repeat(lines);
        format!("Subject: number-{number} of {lines}\r\n\r\n{body}")
    }

    /// The number of a message, if it is complete; line ends may be LF or CR LF.
    pub(super) fn parse_number(octets: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(octets).ok()?;
        let subject = text.split_once("\nSubject: number-")?.1.lines().next()?;
        let (number, expected) = subject.split_once(" of ")?;
        let lines = text.trim_end().lines().rev().take_while(|line| *line == Self::BODY_LINE).count();
        (Ok(lines) == expected.parse()).then_some(number.parse().ok()?)
    }
}

/// Sizes of messages, in lines of 72 octets.
#[derive(Clone, Copy)]
pub(super) enum MessageSizes {
    /// Every seventh message is so large that the spool gives it a file of its own at once.
    Mixed,
    /// Each message has 4 KiB.
    Small,
}

impl MessageSizes {
    pub(super) fn lines(self, number: usize) -> usize {
        match self {
            Self::Mixed if number.is_multiple_of(7) => 3000,
            Self::Mixed => 20,
            Self::Small => 57,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_only_if_it_is_complete() {
        for number in [1, 7] {
            let message =
                format!("Received: x\r\n{}", LoadMessage::format(number, MessageSizes::Mixed.lines(number)));
            assert_eq!(LoadMessage::parse_number(message.as_bytes()), Some(number));
            assert_eq!(LoadMessage::parse_number(message.replace("\r\n", "\n").as_bytes()), Some(number));
            assert_eq!(LoadMessage::parse_number(&message.as_bytes()[..message.len() - 3]), None);
            assert_eq!(LoadMessage::parse_number(&message.as_bytes()[..message.len() - 72]), None);
        }
    }
}
