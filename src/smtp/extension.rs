//! Service extensions: what EHLO announces (RFC 5321 §4.1.1.1, §2.2).
//!
//! One value for both sides: our server writes it, our client reads a peer's.

use super::reply::Reply;

/// The extensions that we know and a server offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets; 0 says that there is no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): mechanisms in upper case; empty without the extension.
    pub auth: Vec<String>,
    /// HELP.
    pub help: bool,
}

impl Extensions {
    /// One line for each, as they stand behind the first line of EHLO's reply.
    #[must_use]
    pub fn to_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut offer = |is_offered: bool, line: &str| {
            if is_offered {
                lines.push(line.to_owned());
            }
        };
        offer(self.pipelining, "PIPELINING");
        offer(self.size.is_some(), &format!("SIZE {}", self.size.unwrap_or(0)));
        offer(self.eight_bit_mime, "8BITMIME");
        offer(self.smtputf8, "SMTPUTF8");
        offer(self.starttls, "STARTTLS");
        offer(!self.auth.is_empty(), &format!("AUTH {}", self.auth.join(" ")));
        offer(self.help, "HELP");
        offer(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        lines
    }

    /// Reads a peer's reply to EHLO. What we do not know or cannot read is not offered.
    #[must_use]
    pub fn read(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offered.pipelining = true,
                // RFC 1870 §4: without a number nothing is said about a limit.
                "SIZE" => offered.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "8BITMIME" => offered.eight_bit_mime = true,
                "ENHANCEDSTATUSCODES" => offered.enhanced_status_codes = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "STARTTLS" => offered.starttls = true,
                "AUTH" => offered.auth.extend(words.map(str::to_ascii_uppercase)),
                "HELP" => offered.help = true,
                _ => {}
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ehlo(lines: &[String]) -> Reply {
        let mut reply = Reply::plain(250, "there.example");
        reply.lines.extend_from_slice(lines);
        reply
    }

    #[test]
    fn what_our_server_offers_our_client_understands() {
        let all = Extensions {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            enhanced_status_codes: true,
            smtputf8: true,
            starttls: true,
            auth: vec!["PLAIN".to_owned()],
            help: true,
        };
        for extensions in [all, Extensions::default()] {
            assert_eq!(Extensions::read(&ehlo(&extensions.to_lines())), extensions);
        }
    }

    #[test]
    fn odd_offers_are_read_kindly() {
        let lines = ["size", "auth login Plain", "XCLIENT ADDR", "", "SIZE x"].map(str::to_owned);
        let offered = Extensions::read(&ehlo(&lines));
        assert_eq!(offered.size, Some(0));
        assert_eq!(offered.auth, ["LOGIN", "PLAIN"]);
        assert!(!offered.starttls);
    }
}
