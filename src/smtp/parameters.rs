//! The parameters of MAIL and RCPT (RFC 5321 §4.1.1.11), understood.
//!
//! Each extension that EHLO announces and that has parameters has them here, and no other: what is not
//! known is refused with 555, what is known and malformed or said twice with 501. Values are kept as
//! the client encoded them where the next hop is to have them word for word.

use crate::mail::{BodyType, Mailbox, Notify, Ret};

use super::reply::Reply;
use super::reply_table as table;

/// What MAIL asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE: octets that the client says it will send (RFC 1870 §5).
    pub size: Option<u64>,
    /// BODY (RFC 6152 §3).
    pub body: BodyType,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, as xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
}

/// What RCPT asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientParameters {
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
    /// ORCPT, as `addr-type;xtext` (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

/// Octets of ENVID, encoded (RFC 3461 §4.4).
const ENVID_OCTETS_MAX: usize = 100;

/// Octets of ORCPT, encoded (RFC 3461 §4.2).
const ORCPT_OCTETS_MAX: usize = 500;

impl MailParameters {
    /// Reads what stands behind the path.
    ///
    /// # Errors
    /// The reply that tells the client what is wrong: 501 or 555.
    pub(super) fn parse(words: &str) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        parse_each_once(words, |keyword, value| {
            let is_sound = match (keyword, value) {
                ("SIZE", Some(value)) => size(value).map(|size| parameters.size = Some(size)),
                // RFC 3030 §3: not offered, and a server that took it would have to hand it on.
                ("BODY", Some(value)) if value.eq_ignore_ascii_case("BINARYMIME") => {
                    return Err(table::NO_BINARYMIME.into());
                }
                ("BODY", Some(value)) => body(value).map(|body| parameters.body = body),
                ("SMTPUTF8", None) => {
                    parameters.smtputf8 = true;
                    Some(())
                }
                ("RET", Some(value)) => ret(value).map(|ret| parameters.ret = Some(ret)),
                ("ENVID", Some(value)) if value.len() <= ENVID_OCTETS_MAX => {
                    is_printable_xtext(value).then(|| parameters.envid = Some(value.to_owned()))
                }
                // RFC 4954 §5: who wrote it first. From a client that nobody vouches for it is to be
                // treated as `<>`, and we vouch for nobody.
                ("AUTH", Some(value)) => is_submitter(value).then_some(()),
                ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => None,
                _ => return Err(table::unknown_parameter(keyword)),
            };
            is_sound.ok_or_else(|| table::invalid_value(keyword))
        })?;
        Ok(parameters)
    }
}

impl RecipientParameters {
    /// Reads what stands behind the path.
    ///
    /// # Errors
    /// The reply that tells the client what is wrong: 501 or 555.
    pub(super) fn parse(words: &str) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        parse_each_once(words, |keyword, value| {
            let is_sound = match (keyword, value) {
                ("NOTIFY", Some(value)) => notify(value).map(|notify| parameters.notify = notify),
                ("ORCPT", Some(value)) => {
                    is_original_recipient(value).then(|| parameters.orcpt = Some(value.to_owned()))
                }
                ("NOTIFY" | "ORCPT", None) => None,
                _ => return Err(table::unknown_parameter(keyword)),
            };
            is_sound.ok_or_else(|| table::invalid_value(keyword))
        })?;
        Ok(parameters)
    }
}

/// Calls `take` with each keyword in upper case, and its value. None may come twice.
fn parse_each_once(
    words: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
    let mut seen = Vec::new();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
            None => (word.to_ascii_uppercase(), None),
        };
        take(&keyword, value)?;
        if seen.contains(&keyword) {
            return Err(table::repeated_parameter(&keyword));
        }
        seen.push(keyword);
    }
    Ok(())
}

/// RFC 1870 §5: one to twenty digits. What does not fit is larger than any limit.
pub(super) fn size(value: &str) -> Option<u64> {
    let is_number = (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Option<BodyType> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBitMime),
        _ => None,
    }
}

fn ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Headers),
        _ => None,
    }
}

/// RFC 3461 §4.1: NEVER by itself, or some of the others, each once.
fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for keyword in value.split(',') {
        let flag = match keyword.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut success,
            "FAILURE" => &mut failure,
            "DELAY" => &mut delay,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(Notify::When { success, failure, delay })
}

/// RFC 3461 §4.2: the kind of address, and the address. RFC 6533 §3: of the kind `utf-8` it may hold
/// characters beyond ASCII as they are.
fn is_original_recipient(value: &str) -> bool {
    if value.len() > ORCPT_OCTETS_MAX {
        return false;
    }
    let Some((kind, address)) = value.split_once(';') else { return false };
    let is_atom = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~".contains(&octet);
    if kind.is_empty() || !kind.bytes().all(is_atom) {
        return false;
    }
    let ascii: String = match kind.eq_ignore_ascii_case("utf-8") {
        true => address.chars().map(|c| if c.is_ascii() { c } else { 'x' }).collect(),
        false => address.to_owned(),
    };
    is_printable_xtext(&ascii)
}

/// RFC 4954 §5: `<>`, or a mailbox, encoded.
fn is_submitter(value: &str) -> bool {
    let Some(text) = decoded(value).and_then(|octets| String::from_utf8(octets).ok()) else { return false };
    text == "<>" || Mailbox::parse(&text).is_ok()
}

/// What RFC 3461 §4.2 and §4.4 allow inside of their xtext: printable ASCII. Anything else would only
/// ever end a line of a report.
fn is_printable_xtext(value: &str) -> bool {
    decoded(value).is_some_and(|octets| octets.iter().all(|octet| matches!(octet, b' '..=b'~')))
}

/// RFC 3461 §4: printable ASCII without `=`, and `+` only before two upper-case hex digits. Not empty.
fn decoded(xtext: &str) -> Option<Vec<u8>> {
    let hex = |octet: Option<u8>| match octet? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => hex(rest.next())? * 16 + hex(rest.next())?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        });
    }
    (!octets.is_empty()).then_some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Reply>) -> u16 {
        result.expect_err("it is not taken").code
    }

    #[test]
    fn parameters_of_mail_are_known_and_sound_or_refused() {
        let parsed = MailParameters::parse(" SIZE=1000 body=8bitmime  smtputf8 AUTH=<> ret=hdrs ENVID=q+2B1");
        let expected = MailParameters {
            size: Some(1000),
            body: BodyType::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("q+2B1".to_owned()),
        };
        assert_eq!(parsed, Ok(expected));
        assert_eq!(MailParameters::parse(""), Ok(MailParameters::default()));
        assert_eq!(MailParameters::parse("SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert!(MailParameters::parse("AUTH=ana+40there.example").is_ok());
        let long = |n: usize| format!("ENVID={}", "x".repeat(n));
        assert!(MailParameters::parse(&long(100)).is_ok());
        for words in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1 SIZE=1",
            "SIZE=100000000000000000000",
            "BODY=BINARYMIME",
            "BODY=9BIT",
            "BODY",
            "SMTPUTF8=yes",
            "SMTPUTF8 SMTPUTF8",
            "AUTH",
            "AUTH=",
            "AUTH=a+zz",
            "AUTH=nobody",
            "AUTH=+FF",
            "RET",
            "RET=BOTH",
            "RET=FULL RET=FULL",
            "ENVID=",
            "ENVID=a=b",
            "ENVID=a+4",
            "ENVID=a+0D+0Ab",
            "ENVID=+2b",
            "ENVID=é",
            &long(101),
        ] {
            assert_eq!(code(MailParameters::parse(words)), 501, "{words}");
        }
        for words in ["=", "X", "NOTIFY=NEVER", "REQUIRETLS", "HOLDFOR=5", "SIZE=1 COLOUR=blue"] {
            assert_eq!(code(MailParameters::parse(words)), 555, "{words}");
        }
    }

    #[test]
    fn parameters_of_rcpt_are_known_and_sound_or_refused() {
        let when = |success, failure, delay| Notify::When { success, failure, delay };
        for (value, expected) in [
            ("never", Notify::Never),
            ("SUCCESS", when(true, false, false)),
            ("failure,DELAY", when(false, true, true)),
            ("SUCCESS,FAILURE,DELAY", when(true, true, true)),
            ("", Notify::Unspecified),
            ("NEVER,FAILURE", Notify::Unspecified),
            ("FAILURE,NEVER", Notify::Unspecified),
            ("SUCCESS,", Notify::Unspecified),
            ("SUCCESS,SUCCESS", Notify::Unspecified),
            ("SUCCESS FAILURE", Notify::Unspecified),
        ] {
            let notify = RecipientParameters::parse(&format!("NOTIFY={value}")).map(|p| p.notify);
            assert_eq!(notify.unwrap_or_default(), expected, "{value}");
        }
        let long = |n: usize| format!("rfc822;{}", "x".repeat(n - 7));
        for orcpt in ["rfc822;bo+2Bx@here.example", "X-400;c", "utf-8;bö@here.example", &long(500)] {
            let parsed = RecipientParameters::parse(&format!("ORCPT={orcpt}")).unwrap();
            assert_eq!(parsed.orcpt.as_deref(), Some(orcpt));
        }
        for words in [
            "NOTIFY",
            "NOTIFY=NEVER NOTIFY=NEVER",
            "ORCPT",
            "ORCPT=bo@here.example",
            "ORCPT=;bo@here.example",
            "ORCPT=rfc822;",
            "ORCPT=rfc 822;bo",
            "ORCPT=rfc822;a=b",
            "ORCPT=rfc822;a+0Ab",
            "ORCPT=rfc822;bö@here.example",
            &format!("ORCPT={}", long(501)),
        ] {
            assert!(matches!(code(RecipientParameters::parse(words)), 501 | 555), "{words}");
        }
        for words in ["SIZE=1", "RRVS=2014-04-03T23:01:00Z"] {
            assert_eq!(code(RecipientParameters::parse(words)), 555, "{words}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_them_panic(words in "([A-Z]{0,7}=?[ -~é;+,]{0,12} ?){0,4}") {
            let _ = MailParameters::parse(&words);
            let _ = RecipientParameters::parse(&words);
        }

        #[test]
        fn what_is_kept_for_a_report_never_ends_its_line(octets in prop::collection::vec(any::<u8>(), 1..20)) {
            let xtext: String = octets.iter().map(|octet| format!("+{octet:02X}")).collect();
            let is_printable = octets.iter().all(|octet| (b' '..=b'~').contains(octet));
            prop_assert_eq!(MailParameters::parse(&format!("ENVID={xtext}")).is_ok(), is_printable);
        }
    }
}
