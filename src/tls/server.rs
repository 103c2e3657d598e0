//! TLS for those who connect to us: 1.2 and 1.3 (RFC 8446, RFC 5246), no client certificates.

use std::io;
use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};

use super::certs::{Certs, provider};
use super::facts::facts_of;
use super::stream::TlsStream;
use crate::mail::TlsFacts;
use crate::sys::Stream;

/// Makes encrypted streams of plain ones.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certs: Arc<Certs>,
}

impl ServerTls {
    /// Serves these certificates.
    ///
    /// # Errors
    /// When the cryptographic library supports none of our TLS versions; a fault of the build.
    pub fn new(certs: Arc<Certs>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certs) as _);
        // A big provider's client breaks when it is given a ticket on port 25; a mail session is
        // long enough to pay for a whole handshake.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), certs })
    }

    /// There is a certificate, so TLS can be offered.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.certs.is_empty()
    }

    /// Shakes hands on an open connection, by its deadline.
    ///
    /// # Errors
    /// What went wrong; the connection is then closed.
    pub fn accept(&self, mut stream: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, TlsFacts)> {
        let mut connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            let (read, written) = connection.complete_io(&mut stream)?;
            if read == 0 && written == 0 && connection.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let facts = facts_of(connection.protocol_version(), connection.negotiated_cipher_suite());
        Ok((Box::new(TlsStream::new(connection, stream)), facts))
    }
}
