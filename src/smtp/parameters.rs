//! Parses the parameters of MAIL and RCPT (RFC 5321 §4.1.1.11).
//!
//! It has the parameters of the extensions that EHLO announces, and no others. An unknown parameter is
//! refused with 555, a malformed or repeated one with 501. A value that the next hop gets unchanged is kept
//! in the client's encoding.

use crate::mail::{BodyType, Mailbox, Notify, Ret, decode_xtext};

use super::reply::Reply;
use super::reply_table as table;

/// The parameters of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE: the announced length of the message in octets (RFC 1870 §5).
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

/// The parameters of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientParameters {
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
    /// ORCPT, as `addr-type;xtext` (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

/// Longest ENVID in octets, encoded (RFC 3461 §4.4).
const ENVID_OCTETS_MAX: usize = 100;

/// Longest ORCPT in octets, encoded (RFC 3461 §4.2).
const ORCPT_OCTETS_MAX: usize = 500;

impl MailParameters {
    /// Parses the text after the path.
    ///
    /// # Errors
    /// The reply that names the mistake: 501 or 555.
    pub(super) fn parse(words: &str) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        parse_each_once(words, |keyword, value| {
            let is_sound = match (keyword, value) {
                ("SIZE", Some(value)) => size(value).map(|size| parameters.size = Some(size)),
                // RFC 3030 §3: not offered, because most next hops would not take such a message.
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
                // RFC 4954 §5: the original submitter. From a client that is not trusted to say so it is
                // treated as `<>`, and no client is.
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
    /// Parses the text after the path.
    ///
    /// # Errors
    /// The reply that names the mistake: 501 or 555.
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

/// Calls `take` with each keyword, in upper case, and its value. A repeated keyword is an error.
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

/// RFC 1870 §5: one to twenty digits. A number that does not fit into 64 bits becomes the largest one.
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

/// RFC 3461 §4.1: NEVER by itself, or a list of the other keywords, each once.
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

/// RFC 3461 §4.2: a type, and an address in xtext. RFC 6533 §3: an address of the type `utf-8` may hold
/// characters beyond ASCII unencoded.
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

/// RFC 4954 §5: `<>` or a mailbox, in xtext.
fn is_submitter(value: &str) -> bool {
    let text = decode_xtext(value).and_then(|octets| String::from_utf8(octets).ok());
    value.is_ascii() && text.is_some_and(|text| text == "<>" || Mailbox::parse(&text).is_ok())
}

/// RFC 3461 §4.2 and §4.4 allow printable ASCII in their xtext. Another character could end a line of a
/// bounce.
fn is_printable_xtext(value: &str) -> bool {
    let is_printable = |octet: &u8| matches!(octet, b' '..=b'~');
    decode_xtext(value).is_some_and(|octets| !octets.is_empty() && octets.iter().all(is_printable))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Reply>) -> u16 {
        result.expect_err("it is not taken").code
    }

    #[test]
    fn unknown_and_malformed_parameters_of_mail_are_refused() {
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
            "AUTH=ñ@there.example",
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
    fn unknown_and_malformed_parameters_of_rcpt_are_refused() {
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
        fn no_text_makes_the_parsers_panic(words in "([A-Z]{0,7}=?[ -~é;+,]{0,12} ?){0,4}") {
            let _ = MailParameters::parse(&words);
            let _ = RecipientParameters::parse(&words);
        }

        #[test]
        fn an_envid_cannot_end_a_line_of_a_bounce(octets in prop::collection::vec(any::<u8>(), 1..20)) {
            let xtext: String = octets.iter().map(|octet| format!("+{octet:02X}")).collect();
            let is_printable = octets.iter().all(|octet| (b' '..=b'~').contains(octet));
            prop_assert_eq!(MailParameters::parse(&format!("ENVID={xtext}")).is_ok(), is_printable);
        }
    }
}
