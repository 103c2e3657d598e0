//! The mechanisms, and an exchange with a client: each message of the client leads to a step.

use super::credentials::{SaslCredentials, SaslError};
use super::{login, plain, scram};
use crate::mail::Mailbox;

/// A mechanism that this server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::smtp) enum Mechanism {
    ScramSha256Plus,
    ScramSha256,
    Plain,
    Login,
}

impl Mechanism {
    /// All mechanisms, strongest first: some clients take the first one that they have.
    pub(in crate::smtp) const ALL: [Self; 4] =
        [Self::ScramSha256Plus, Self::ScramSha256, Self::Plain, Self::Login];

    /// Its registered name.
    pub(in crate::smtp) fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// What the next message of the client must be.
#[derive(Debug)]
pub(in crate::smtp) enum Exchange {
    /// Name and password.
    Plain,
    /// The name, for LOGIN.
    LoginName,
    /// The password of this name.
    LoginPassword(String),
    /// The first SCRAM message.
    Scram(scram::ChannelBindingOffer),
    /// The final SCRAM message.
    ScramProof(Box<scram::ScramFinalCheck>),
    /// An empty response, after which this user is logged in. The client got the proof of the server as a
    /// challenge (RFC 4954 §4: data that goes with success is sent as a challenge).
    ServerProofSent(Mailbox),
}

/// What follows from a message.
#[derive(Debug)]
pub(in crate::smtp) enum SaslStep {
    /// Send this challenge, and wait for the next message.
    Challenge(Vec<u8>, Exchange),
    /// Ask for the keys of the user that is named in the message.
    ScramStart(Box<scram::ScramFirst>),
    /// Ask whether the credentials are right. If they are, the client gets these octets before success is
    /// reported.
    Login(SaslCredentials, Option<Vec<u8>>),
    /// This user has logged in.
    LoggedIn(Mailbox),
}

impl Exchange {
    /// Begins an exchange. For SCRAM it matters whether channel binding was offered.
    pub(in crate::smtp) fn begin(mechanism: Mechanism, is_binding_offered: bool) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
            Mechanism::ScramSha256 if is_binding_offered => Self::Scram(scram::ChannelBindingOffer::Declined),
            Mechanism::ScramSha256 => Self::Scram(scram::ChannelBindingOffer::NotOffered),
            Mechanism::ScramSha256Plus => Self::Scram(scram::ChannelBindingOffer::Taken),
        }
    }

    /// The challenge for a client that sent no initial response (RFC 4954 §4).
    pub(in crate::smtp) fn prompt(&self) -> &'static [u8] {
        match self {
            Self::LoginName => login::USER_NAME_PROMPT,
            Self::LoginPassword(_) => login::PASSWORD_PROMPT,
            Self::Plain | Self::Scram(_) | Self::ScramProof(_) | Self::ServerProofSent(_) => b"",
        }
    }

    /// Takes the next message of the client.
    pub(in crate::smtp) fn message(self, message: &[u8]) -> Result<SaslStep, SaslError> {
        match self {
            Self::Plain => Ok(SaslStep::Login(plain::parse(message)?, None)),
            Self::LoginName => {
                let next = Self::LoginPassword(login::parse_text(message)?);
                Ok(SaslStep::Challenge(next.prompt().to_vec(), next))
            }
            Self::LoginPassword(name) => Ok(SaslStep::Login(login::parse_password(name, message)?, None)),
            Self::Scram(offer) => {
                Ok(SaslStep::ScramStart(Box::new(scram::ScramFirst::parse(message, offer)?)))
            }
            Self::ScramProof(second) => {
                let (login, server_proof) = second.check(message)?;
                Ok(SaslStep::Login(login, Some(server_proof)))
            }
            Self::ServerProofSent(user) if message.is_empty() => Ok(SaslStep::LoggedIn(user)),
            Self::ServerProofSent(_) => Err(SaslError::NotEmpty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let login = plain::parse(b"\0ana\0secret").unwrap();
        assert!(!format!("{login:?}").contains("secret"));
        let Ok(SaslStep::Login(login, None)) = Exchange::LoginPassword("ana".to_owned()).message(b"secret")
        else {
            panic!()
        };
        assert!(!format!("{login:?}").contains("secret"));
    }

    #[test]
    fn the_response_to_the_proof_of_the_server_must_be_empty() {
        let ana = Mailbox::parse("ana@here.example").unwrap();
        assert!(
            matches!(Exchange::ServerProofSent(ana.clone()).message(b""), Ok(SaslStep::LoggedIn(user)) if user == ana)
        );
        assert_eq!(Exchange::ServerProofSent(ana).message(b"x").unwrap_err(), SaslError::NotEmpty);
    }
}
