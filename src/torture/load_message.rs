//! Messages of the load generator: each has a number and can be recognised as complete.

/// Messages that can be told apart, and whole ones from others.
pub(super) struct LoadMessage;

impl LoadMessage {
    const BODY_LINE: &'static str = "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";

    pub(super) fn format(number: usize, lines: usize) -> String {
        let body = format!("{}\r\n", Self::BODY_LINE).repeat(lines);
        format!("Subject: number-{number} of {lines}\r\n\r\n{body}")
    }

    /// The number, if all of it is there; line ends are those of the mailbox.
    pub(super) fn parse_number(octets: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(octets).ok()?;
        let subject = text.split_once("\nSubject: number-")?.1.lines().next()?;
        let (number, expected) = subject.split_once(" of ")?;
        let lines = text.trim_end().lines().rev().take_while(|line| *line == Self::BODY_LINE).count();
        (Ok(lines) == expected.parse()).then_some(number.parse().ok()?)
    }
}

/// Sizes of letters, in lines of 72 octets.
#[derive(Clone, Copy)]
pub(super) enum MessageSizes {
    /// Every seventh is large: it has a file of its own from the beginning.
    Mixed,
    /// 4 KiB.
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
    fn a_letter_is_recognised_only_when_it_is_whole() {
        for number in [1, 7] {
            let letter =
                format!("Received: x\r\n{}", LoadMessage::format(number, MessageSizes::Mixed.lines(number)));
            assert_eq!(LoadMessage::parse_number(letter.as_bytes()), Some(number));
            assert_eq!(LoadMessage::parse_number(letter.replace("\r\n", "\n").as_bytes()), Some(number));
            assert_eq!(LoadMessage::parse_number(&letter.as_bytes()[..letter.len() - 3]), None);
            assert_eq!(LoadMessage::parse_number(&letter.as_bytes()[..letter.len() - 72]), None);
        }
    }
}
