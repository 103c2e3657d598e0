//! TLS: certificates, security levels, and streams that encrypt.
//!
//! - `level`: what TLS was worth on a connection, as an ordered value
//! - `certs`: our own certificates, chosen by the name a client asks for
//! - `validity`: when a certificate begins and ends
//! - `server`: for those who connect to us
//! - `client`: on connections that we open
//! - `legacy`: the same with OpenSSL, for peers that rustls cannot reach (feature `legacy-tls`)
//! - `stream`: a rustls connection over a stream of ours
//! - `facts`: version and cipher of a finished handshake

mod certs;
mod client;
mod facts;
#[cfg(feature = "legacy-tls")]
pub mod legacy;
mod level;
mod server;
mod stream;
mod validity;

pub use certs::{CertError, CertPair, CertSet, Certs, Held};
pub use client::{HandshakeError, Secured, TlsClient};
pub use level::{IncomingLevel, Level};
pub use server::{Accepted, ServerTls, is_plain_text};
pub use validity::Validity;
