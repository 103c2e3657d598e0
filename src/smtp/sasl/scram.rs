//! The mechanisms SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).
//!
//! The client proves that it knows the password without sending it, and the server proves that it has the
//! keys. With -PLUS the proof also covers the TLS connection (tls-exporter, RFC 9266), so that a third
//! party cannot relay it. Names are not changed here; the policy compares them by its rules.
//!
//! Messages must follow RFC 5802 §7 strictly. Checking a proof takes the same work for every user; for an
//! unknown user the policy gives random keys.

use aws_lc_rs::{constant_time, digest, hmac};

use super::base64_line::{decode, encode};
use super::credentials::{Evidence, SaslCredentials, SaslError};
use crate::mail::ScramKeys;

/// Longest nonce of a client, in octets: the challenge repeats it, on a reply line of 512 octets (RFC 5321
/// §4.5.3.1.5). Clients send about 24.
const NONCE_OCTETS_MAX: usize = 128;

/// What was offered about channel binding when an exchange begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::smtp) enum ChannelBindingOffer {
    /// -PLUS was not offered.
    NotOffered,
    /// -PLUS was offered, but the client chose SCRAM-SHA-256.
    Declined,
    /// The client chose -PLUS.
    Taken,
}

/// What a SCRAM exchange with one user starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramStart {
    /// The keys of the user; for a user that cannot log in, keys that cannot be told from real ones.
    pub keys: ScramKeys,
    /// The server's part of the nonce: printable ASCII without a comma, new each time.
    pub nonce: String,
    /// The 32 octets of RFC 9266 for this connection; `None` before TLS 1.3.
    pub channel_binding: Option<Vec<u8>>,
}

/// The first message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::smtp) struct ScramFirst {
    authorization: Option<String>,
    user: String,
    /// The start of the channel-binding data, which the client repeats.
    gs2_header: String,
    is_bound: bool,
    /// The rest of the message, which both proofs cover.
    client_first_bare: String,
    nonce: String,
}

impl ScramFirst {
    /// Parses `gs2-header client-first-message-bare`.
    ///
    /// # Errors
    /// [`SaslError::Scram`] for a malformed message; [`SaslError::ChannelBinding`] and
    /// [`SaslError::Downgrade`] for channel binding that does not fit the offer.
    pub(super) fn parse(message: &[u8], offer: ChannelBindingOffer) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Scram)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authorization), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslError::Scram);
        };
        let is_bound = parse_channel_binding_flag(flag, offer)?;
        let authorization = match authorization.strip_prefix("a=") {
            Some(name) => Some(parse_saslname(name)?),
            None if authorization.is_empty() => None,
            None => return Err(SaslError::Scram),
        };
        let header = text.strip_suffix(bare).unwrap_or_default().to_owned();
        // RFC 5802 §5.1: a mandatory extension `m=` in front of the name must not be ignored.
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|field| field.strip_prefix("n=")).ok_or(SaslError::Scram)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(SaslError::Scram)?;
        if !is_nonce(nonce) || nonce.len() > NONCE_OCTETS_MAX || !fields.all(is_extension) {
            return Err(SaslError::Scram);
        }
        Ok(Self {
            authorization,
            user: parse_saslname(user)?,
            gs2_header: header,
            is_bound,
            client_first_bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }

    /// The user name, as the client sent it.
    pub(in crate::smtp) fn user(&self) -> &str {
        &self.user
    }

    /// The challenge, and the check of the response to it. `None` if `start` does not fit the exchange,
    /// which is a fault of the caller.
    pub(in crate::smtp) fn challenge(self, start: ScramStart) -> Option<(Vec<u8>, ScramFinalCheck)> {
        let ScramStart { keys, nonce, channel_binding } = start;
        let binding = match (self.is_bound, channel_binding) {
            (false, _) => Vec::new(),
            (true, Some(data)) => data,
            (true, None) => return None,
        };
        if !is_nonce(&nonce) {
            return None;
        }
        let nonce = format!("{}{nonce}", self.nonce);
        let challenge = format!("r={nonce},s={},i={}", encode(&keys.salt), keys.iterations);
        // RFC 5802 §7: cbind-input is the header and the data of the channel.
        let bound = encode(&[self.gs2_header.as_bytes(), &binding].concat());
        let signed = format!("{},{challenge}", self.client_first_bare);
        let Self { authorization, user, .. } = self;
        Some((
            challenge.into_bytes(),
            ScramFinalCheck {
                authorization,
                user,
                keys,
                nonce,
                expected_channel_binding: bound,
                auth_message_start: signed,
            },
        ))
    }
}

/// Checks the final message of a client.
#[derive(Debug)]
pub(in crate::smtp) struct ScramFinalCheck {
    authorization: Option<String>,
    user: String,
    keys: ScramKeys,
    nonce: String,
    /// The expected value of `c=`.
    expected_channel_binding: String,
    /// The start of the text that both proofs cover: the first message and the challenge.
    auth_message_start: String,
}

impl ScramFinalCheck {
    /// Parses `c=…,r=…[,extensions],p=…`. Returns the credentials, with the proof checked, and the proof of
    /// the server, which only a client whose login succeeds may get.
    ///
    /// # Errors
    /// [`SaslError::Scram`]: the message is malformed, or has another nonce.
    pub(super) fn check(self, message: &[u8]) -> Result<(SaslCredentials, Vec<u8>), SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Scram)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::Scram)?;
        let proof: [u8; 32] =
            decode(proof.as_bytes()).ok().and_then(|proof| proof.try_into().ok()).ok_or(SaslError::Scram)?;
        let mut fields = without_proof.split(',');
        let bound = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(SaslError::Scram)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(SaslError::Scram)?;
        if nonce != self.nonce || !fields.all(is_extension) {
            return Err(SaslError::Scram);
        }
        let signed = format!("{},{without_proof}", self.auth_message_start);
        let is_right =
            is_valid_proof(&self.keys, signed.as_bytes(), proof) & (bound == self.expected_channel_binding);
        let signature = sign(&self.keys.server_key, signed.as_bytes());
        let login = SaslCredentials {
            authorization_identity: self.authorization,
            authentication_identity: self.user,
            evidence: Evidence::Proof { is_valid: is_right },
        };
        Ok((login, format!("v={}", encode(signature.as_ref())).into_bytes()))
    }
}

/// RFC 5802 §3: ClientProof is ClientKey XOR HMAC(StoredKey, AuthMessage), and StoredKey is the hash of
/// ClientKey.
fn is_valid_proof(keys: &ScramKeys, signed: &[u8], proof: [u8; 32]) -> bool {
    let signature = sign(&keys.stored_key, signed);
    let mut client_key = proof;
    client_key.iter_mut().zip(signature.as_ref()).for_each(|(octet, with)| *octet ^= with);
    let hash = digest::digest(&digest::SHA256, &client_key);
    constant_time::verify_slices_are_equal(hash.as_ref(), &keys.stored_key).is_ok()
}

fn sign(key: &[u8; 32], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// RFC 5802 §6, §7: `gs2-cbind-flag`.
fn parse_channel_binding_flag(flag: &str, offer: ChannelBindingOffer) -> Result<bool, SaslError> {
    match (flag, offer) {
        ("n", ChannelBindingOffer::NotOffered | ChannelBindingOffer::Declined)
        | ("y", ChannelBindingOffer::NotOffered) => Ok(false),
        // The client supports channel binding and was made to believe that the server does not.
        ("y", ChannelBindingOffer::Declined) => Err(SaslError::Downgrade),
        ("p=tls-exporter", ChannelBindingOffer::Taken) => Ok(true),
        ("n" | "y", ChannelBindingOffer::Taken) => Err(SaslError::ChannelBinding),
        (flag, _) if flag.starts_with("p=") => Err(SaslError::ChannelBinding),
        _ => Err(SaslError::Scram),
    }
}

/// `saslname`: a comma is =2C and an equals sign =3D.
fn parse_saslname(raw: &str) -> Result<String, SaslError> {
    let mut name = String::with_capacity(raw.len());
    let mut parts = raw.split('=');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(SaslError::Scram),
        };
        name.push(c);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') { Err(SaslError::Scram) } else { Ok(name) }
}

/// `printable`: not empty, without a comma.
fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|octet| octet.is_ascii_graphic() && octet != b',')
}

/// `attr-val`: an optional extension, which is ignored.
fn is_extension(field: &str) -> bool {
    match field.split_once('=') {
        Some((name, value)) => {
            name.len() == 1
                && name.bytes().all(|octet| octet.is_ascii_alphabetic())
                && !value.is_empty()
                && !value.contains('\0')
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of RFC 7677 §3, whose password is "pencil".
    fn keys() -> ScramKeys {
        let key = |base64: &str| decode(base64.as_bytes()).unwrap().try_into().unwrap();
        ScramKeys {
            salt: decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            iterations: 4096,
            stored_key: key("WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="),
            server_key: key("wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
        }
    }

    fn start() -> ScramStart {
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        ScramStart { keys: keys(), nonce, channel_binding: None }
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn second() -> ScramFinalCheck {
        ScramFirst::parse(FIRST.as_bytes(), ChannelBindingOffer::NotOffered)
            .unwrap()
            .challenge(start())
            .unwrap()
            .1
    }

    fn is_right(login: &SaslCredentials) -> bool {
        login.evidence == Evidence::Proof { is_valid: true }
    }

    #[test]
    fn the_exchange_of_rfc_7677_succeeds() {
        let first = ScramFirst::parse(FIRST.as_bytes(), ChannelBindingOffer::NotOffered).unwrap();
        assert_eq!(first.user(), "user");
        let (challenge, second) = first.challenge(start()).unwrap();
        let expected = format!("r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert_eq!(String::from_utf8(challenge).unwrap(), expected);
        let (login, server_proof) = second.check(format!("c=biws,r={NONCE},p={PROOF}").as_bytes()).unwrap();
        assert!(
            is_right(&login)
                && login.authentication_identity == "user"
                && login.authorization_identity.is_none()
        );
        assert_eq!(server_proof, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_proof_is_invalid_and_a_malformed_message_is_an_error() {
        let other = PROOF.replace("dHz", "dHy");
        for (message, is_taken) in [
            (format!("c=biws,r={NONCE},p={other}"), true),
            // Says `y` now, but said `n` before.
            (format!("c=eSws,r={NONCE},p={PROOF}"), true),
            (format!("c=biws,r={NONCE},x=1,p={PROOF}"), true),
            (format!("c=biws,r={NONCE}x,p={PROOF}"), false),
            (format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={PROOF}"), false),
            (format!("r={NONCE},c=biws,p={PROOF}"), false),
            (format!("c=biws,r={NONCE},x,p={PROOF}"), false),
            (format!("c=biws,r={NONCE}"), false),
            (format!("c=biws,r={NONCE},p=dHzb"), false),
            (format!("c=biws,r={NONCE},p=!"), false),
            (String::new(), false),
        ] {
            match second().check(message.as_bytes()) {
                Ok((login, _)) => assert!(is_taken && !is_right(&login), "{message}"),
                Err(error) => assert!(!is_taken && error == SaslError::Scram, "{message}: {error}"),
            }
        }
    }

    #[test]
    fn a_malformed_first_message_is_refused() {
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,r=abc,n=user",
            "n,,m=ext,n=user,r=abc",
            "n,,n=,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=us=2cer,r=abc",
            "n,,n=us\0er,r=abc",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=user,r=ä",
            "n,,n=user,r=abc,",
            "n,,n=user,r=abc,xy=1",
            "n,b=ana,n=user,r=abc",
            "n,a=,n=user,r=abc",
            "x,,n=user,r=abc",
            ",,n=user,r=abc",
        ] {
            let parsed = ScramFirst::parse(message.as_bytes(), ChannelBindingOffer::NotOffered);
            assert_eq!(parsed, Err(SaslError::Scram), "{message:?}");
        }
        let long = format!("n,,n=user,r={}", "a".repeat(NONCE_OCTETS_MAX + 1));
        assert_eq!(
            ScramFirst::parse(long.as_bytes(), ChannelBindingOffer::NotOffered),
            Err(SaslError::Scram)
        );
        assert_eq!(
            ScramFirst::parse(b"n,,n=\xff,r=abc", ChannelBindingOffer::NotOffered),
            Err(SaslError::Scram)
        );
    }

    #[test]
    fn names_may_have_commas_and_equals_signs_and_extensions_are_ignored() {
        let first =
            ScramFirst::parse(b"n,a=x=3Dy,n=a=2Cb=3D,r=abc,t=1,u=2=3", ChannelBindingOffer::NotOffered)
                .unwrap();
        assert_eq!((first.authorization.as_deref(), first.user()), (Some("x=y"), "a,b="));
        assert_eq!(
            (first.gs2_header.as_str(), first.client_first_bare.as_str()),
            ("n,a=x=3Dy,", "n=a=2Cb=3D,r=abc,t=1,u=2=3")
        );
    }

    #[test]
    fn channel_binding_fits_the_offer_or_ends_the_exchange() {
        use ChannelBindingOffer::{Declined, NotOffered, Taken};
        let binding = Err(SaslError::ChannelBinding);
        for (flag, offer, expected) in [
            ("n", NotOffered, Ok(false)),
            ("y", NotOffered, Ok(false)),
            ("p=tls-exporter", NotOffered, binding),
            ("n", Declined, Ok(false)),
            ("y", Declined, Err(SaslError::Downgrade)),
            ("p=tls-exporter", Declined, binding),
            ("p=tls-exporter", Taken, Ok(true)),
            ("p=tls-unique", Taken, binding),
            ("n", Taken, binding),
            ("y", Taken, binding),
            ("", Taken, Err(SaslError::Scram)),
        ] {
            assert_eq!(parse_channel_binding_flag(flag, offer), expected, "{flag} {offer:?}");
        }
    }

    /// The final message of a client with these keys, bound to a channel.
    fn bound_proof(channel: &[u8], second: &ScramFinalCheck) -> String {
        // The password of RFC 7677 §3: ClientKey, for the stored key above.
        let client_key: [u8; 32] =
            decode(b"pg/JI9Z+hkSpLRa5btpe9GVrDHJcSEN0viVTVXaZbos=").unwrap().try_into().unwrap();
        let bound = encode(&[b"p=tls-exporter,,", channel].concat());
        let without_proof = format!("c={bound},r={}", second.nonce);
        let signature = sign(
            &second.keys.stored_key,
            format!("{},{without_proof}", second.auth_message_start).as_bytes(),
        );
        let proof: Vec<u8> = client_key.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        format!("{without_proof},p={}", encode(&proof))
    }

    #[test]
    fn a_proof_for_another_connection_is_wrong() {
        let bound = |channel: &[u8]| {
            let first =
                ScramFirst::parse(b"p=tls-exporter,,n=user,r=abc", ChannelBindingOffer::Taken).unwrap();
            first.challenge(ScramStart { channel_binding: Some(channel.to_vec()), ..start() }).unwrap().1
        };
        let message = bound_proof(&[7; 32], &bound(&[7; 32]));
        assert!(is_right(&bound(&[7; 32]).check(message.as_bytes()).unwrap().0));
        assert!(!is_right(&bound(&[8; 32]).check(message.as_bytes()).unwrap().0));
    }

    #[test]
    fn a_start_that_does_not_fit_the_exchange_is_refused() {
        let first = ScramFirst::parse(b"p=tls-exporter,,n=user,r=abc", ChannelBindingOffer::Taken).unwrap();
        assert!(first.challenge(start()).is_none(), "there is no channel binding");
        for nonce in ["", "a,b", "a b"] {
            let first = ScramFirst::parse(FIRST.as_bytes(), ChannelBindingOffer::NotOffered).unwrap();
            assert!(
                first.challenge(ScramStart { nonce: nonce.to_owned(), ..start() }).is_none(),
                "{nonce:?}"
            );
        }
    }
}
