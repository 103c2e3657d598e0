//! TLS on connections that clients open: 1.2 and 1.3 (RFC 5246, RFC 8446), without client certificates.

use std::io;
use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::{Error, InvalidMessage, ServerConfig, ServerConnection};

use super::certificates::{CertificateResolver, crypto_provider};
use super::session_info::tls_info;
use super::stream::TlsStream;
use crate::mail::TlsInfo;
use crate::sys::{self, Stream};

/// A connection after the handshake.
#[derive(Debug)]
pub struct AcceptedTls {
    /// The stream of plain octets.
    pub stream: Box<dyn Stream>,
    /// Version and cipher.
    pub tls_info: TlsInfo,
    /// A value that both sides derive from this connection, different for every connection; `None` before
    /// TLS 1.3 (RFC 9266 §4.2).
    pub channel_binding: Option<[u8; 32]>,
}

/// Whether a handshake failed because the client does not speak TLS.
#[must_use]
pub fn is_not_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Does handshakes with clients.
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
        // The client of a large provider fails when it gets a session ticket on port 25; a mail session is
        // long enough for a whole handshake.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), certificates: certs })
    }

    /// A certificate exists, so TLS can be offered.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Does the handshake on an open connection, by the deadline of the stream. On a thread of its own, because
    /// a handshake needs more stack than the rest of a session, and the stack of a session stays in memory.
    ///
    /// # Errors
    /// The error of the stream or of TLS; the connection is then closed.
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
        let tls_info = tls_info(connection.protocol_version(), connection.negotiated_cipher_suite());
        let channel_binding =
            tls_info.has_channel_binding().then(|| export_channel_binding(&connection)).transpose()?;
        Ok(AcceptedTls { stream: Box::new(TlsStream::new(connection, stream)), tls_info, channel_binding })
    }
}

/// RFC 9266 §2: label, context and length are fixed.
fn export_channel_binding(connection: &ServerConnection) -> io::Result<[u8; 32]> {
    connection
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .map_err(io::Error::other)
}
