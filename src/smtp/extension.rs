//! Service extensions: what EHLO announces (RFC 5321 §4.1.1.1, §2.2).
//!
//! One type for both sides: the server writes it, the client reads that of a peer.

use std::num::NonZeroU32;

use super::reply::Reply;

/// The extensions that a server offers, as far as this program has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets; 0 means that there is no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// CHUNKING (RFC 3030 §2).
    pub chunking: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): mechanisms in upper case; empty without the extension.
    pub auth: Vec<String>,
    /// HELP.
    pub help: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// LIMITS (RFC 9422).
    pub limits: LimitsExtension,
}

/// Limits of one connection (RFC 9422 §4); `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitsExtension {
    /// MAILMAX: transactions in a session.
    pub mail_max: Option<NonZeroU32>,
    /// RCPTMAX: recipients in a transaction.
    pub rcpt_max: Option<NonZeroU32>,
    /// RCPTDOMAINMAX: domains of recipients in a transaction.
    pub rcpt_domain_max: Option<NonZeroU32>,
}

impl LimitsExtension {
    /// Reads the words after the keyword. RFC 9422 §3.1: unknown or malformed limits are ignored.
    fn read<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut limits = Self::default();
        for word in words {
            let Some((name, value)) = word.split_once('=') else { continue };
            let value = value.parse().ok();
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => limits.mail_max = value,
                "RCPTMAX" => limits.rcpt_max = value,
                "RCPTDOMAINMAX" => limits.rcpt_domain_max = value,
                _ => {}
            }
        }
        limits
    }

    fn to_line(self) -> String {
        let words =
            [("MAILMAX", self.mail_max), ("RCPTMAX", self.rcpt_max), ("RCPTDOMAINMAX", self.rcpt_domain_max)];
        let given = words.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", value?)));
        format!("LIMITS{}", given.collect::<String>())
    }
}

impl Extensions {
    /// The lines of the reply to EHLO after the first one, one for each extension.
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
        offer(self.chunking, "CHUNKING");
        offer(self.dsn, "DSN");
        offer(self.limits != LimitsExtension::default(), &self.limits.to_line());
        offer(self.starttls, "STARTTLS");
        offer(!self.auth.is_empty(), &format!("AUTH {}", self.auth.join(" ")));
        offer(self.help, "HELP");
        offer(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        lines
    }

    /// Reads the reply of a peer to EHLO. What is unknown or malformed counts as not offered.
    #[must_use]
    pub fn read(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offered.pipelining = true,
                // RFC 1870 §4: SIZE without a number says nothing about a limit.
                "SIZE" => offered.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "8BITMIME" => offered.eight_bit_mime = true,
                "ENHANCEDSTATUSCODES" => offered.enhanced_status_codes = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "CHUNKING" => offered.chunking = true,
                "STARTTLS" => offered.starttls = true,
                "AUTH" => offered.auth.extend(words.map(str::to_ascii_uppercase)),
                "HELP" => offered.help = true,
                "DSN" => offered.dsn = true,
                "LIMITS" => offered.limits = LimitsExtension::read(words),
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
    fn the_client_reads_what_the_server_writes() {
        let all = Extensions {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            enhanced_status_codes: true,
            smtputf8: true,
            chunking: true,
            starttls: true,
            auth: vec!["PLAIN".to_owned()],
            help: true,
            dsn: true,
            limits: LimitsExtension {
                mail_max: NonZeroU32::new(7),
                rcpt_max: NonZeroU32::new(100),
                rcpt_domain_max: NonZeroU32::new(1),
            },
        };
        for extensions in [all, Extensions::default()] {
            assert_eq!(Extensions::read(&ehlo(&extensions.to_lines())), extensions);
        }
    }

    #[test]
    fn malformed_offers_are_ignored() {
        let lines = [
            "size",
            "auth login Plain",
            "XCLIENT ADDR",
            "",
            "SIZE x",
            "limits rcptmax=0 MailMax=20 NEW=1 RCPTDOMAINMAX",
        ]
        .map(str::to_owned);
        let offered = Extensions::read(&ehlo(&lines));
        assert_eq!(offered.size, Some(0));
        assert_eq!(offered.auth, ["LOGIN", "PLAIN"]);
        assert!(!offered.starttls);
        assert_eq!(
            offered.limits,
            LimitsExtension { mail_max: NonZeroU32::new(20), ..LimitsExtension::default() }
        );
    }
}
