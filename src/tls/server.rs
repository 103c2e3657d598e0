//! TLS for those who connect to us: 1.2 and 1.3 (RFC 8446, RFC 5246), no client certificates.

use std::io;
use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::{Error, InvalidMessage, ServerConfig, ServerConnection};

use super::certificates::{CertificateResolver, crypto_provider};
use super::session_info::tls_info;
use super::stream::TlsStream;
use crate::mail::TlsInfo;
use crate::sys::{self, Stream};

/// An encrypted stream, and what is known of it.
#[derive(Debug)]
pub struct AcceptedTls {
    /// Encrypts.
    pub stream: Box<dyn Stream>,
    /// Version and cipher.
    pub tls_info: TlsInfo,
    /// What both sides can derive from this connection and from no other; `None` before TLS 1.3
    /// (RFC 9266 §4.2).
    pub channel_binding: Option<[u8; 32]>,
}

/// A handshake failed because the client does not speak TLS at all.
#[must_use]
pub fn is_not_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Makes encrypted streams of plain ones.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    certificates: Arc<CertificateResolver>,
}

impl TlsServer {
    /// Serves these certificates.
    ///
    /// # Errors
    /// When the cryptographic library supports none of our TLS versions; a fault of the build.
    pub fn new(certs: Arc<CertificateResolver>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certs) as _);
        // A big provider's client breaks when it is given a ticket on port 25; a mail session is
        // long enough to pay for a whole handshake.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), certificates: certs })
    }

    /// There is a certificate, so TLS can be offered.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Shakes hands on an open connection, by its deadline. Aside: a handshake touches more of a stack
    /// than all that comes after it, which is mostly waiting.
    ///
    /// # Errors
    /// What went wrong; the connection is then closed.
    pub fn accept(&self, stream: Box<dyn Stream>) -> io::Result<AcceptedTls> {
        sys::run_on_temporary_thread("handshake", || self.handshake(stream))?
    }

    fn handshake(&self, mut stream: Box<dyn Stream>) -> io::Result<AcceptedTls> {
        let mut connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            let (read, written) = connection.complete_io(&mut stream)?;
            if read == 0 && written == 0 && connection.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let facts = tls_info(connection.protocol_version(), connection.negotiated_cipher_suite());
        let channel_binding =
            facts.has_channel_binding().then(|| export_channel_binding(&connection)).transpose()?;
        Ok(AcceptedTls {
            stream: Box::new(TlsStream::new(connection, stream)),
            tls_info: facts,
            channel_binding,
        })
    }
}

/// RFC 9266 §2: label, context and length are fixed.
fn export_channel_binding(connection: &ServerConnection) -> io::Result<[u8; 32]> {
    connection
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .map_err(io::Error::other)
}
