//! TLS: certificates, security levels, and streams that encrypt.
//!
//! - `security_level`: how well TLS protected a connection, as an ordered value
//! - `certificates`: our own certificates, chosen by the name a client asks for
//! - `validity`: when a certificate begins and ends
//! - `server`: TLS on connections that clients open
//! - `client`: TLS on connections that we open
//! - `legacy`: the same with OpenSSL, for peers that rustls cannot reach (feature `legacy-tls`)
//! - `stream`: a rustls connection over one of our streams
//! - `session_info`: version and cipher of a finished handshake

mod certificates;
mod client;
#[cfg(feature = "legacy-tls")]
pub mod legacy;
mod security_level;
mod server;
mod session_info;
mod stream;
mod validity;

pub use certificates::{
    CertificateAndKey, CertificateError, CertificateInfo, CertificateResolver, CertificateSet,
};
pub use client::{HandshakeError, SecuredConnection, TlsClient};
pub use security_level::{IncomingSecurityLevel, SecurityLevel};
pub use server::{AcceptedTls, TlsServer, is_not_tls};
pub use validity::Validity;
