//! A second TLS stack, the system's OpenSSL, for peers that rustls cannot reach.
//!
//! Such a peer offers TLS 1.2 with CBC suites, DHE or RSA key exchange, or has a certificate with RSA-1024:
//! better than plain text, and no more. So certificates are not verified, and the level is never higher than
//! [`SecurityLevel::TlsUnverified`]. TLS 1.1 and older are refused here too (RFC 8996).
//!
//! Called by `courier/smtp` on a new connection, after a handshake by rustls has failed on another one and
//! only if the demand on the connection allows this level. Behind the feature `legacy-tls`.

use std::io::{self, Read, Write};

use native_tls::{HandshakeError as NativeError, Protocol, TlsConnector};

use super::client::{HandshakeError, SecuredConnection};
use super::security_level::SecurityLevel;
use super::stream::CLOSE_NOTIFY_TIMEOUT;
use crate::mail::{Domain, TlsInfo};
use crate::sys::{Clock as _, Moment, Stream, SystemClock};

/// Encrypts `stream` with OpenSSL; `host` is sent as SNI unless it is an address literal. Takes as
/// long as the stream's deadline allows.
///
/// # Errors
/// [`HandshakeError`] for every cause; the connection is then closed.
pub fn handshake(stream: Box<dyn Stream>, host: &Domain) -> Result<SecuredConnection, HandshakeError> {
    let connector = TlsConnector::builder()
        .min_protocol_version(Some(Protocol::Tlsv12))
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .use_sni(host.as_address().is_none())
        .build()
        .map_err(|error| HandshakeError::new(&error))?;
    let stream = connector.connect(host.as_ascii(), stream).map_err(|error| match error {
        NativeError::Failure(error) => HandshakeError::new(&error),
        // Our streams block, so this does not happen; dropping the handshake closes the connection.
        NativeError::WouldBlock(_) => HandshakeError("the connection did not wait".to_owned()),
    })?;
    Ok(SecuredConnection {
        stream: Box::new(LegacyStream { inner: stream, is_aborted: false }),
        level: SecurityLevel::TlsUnverified,
        // The library has no function for version and cipher.
        tls_info: TlsInfo { version: "TLSv1.2 or later".to_owned(), cipher: "chosen by OpenSSL".to_owned() },
        level_reason: "it was reached by the legacy TLS library, which verifies nothing".to_owned(),
    })
}

#[derive(Debug)]
struct LegacyStream {
    inner: native_tls::TlsStream<Box<dyn Stream>>,
    is_aborted: bool,
}

impl Read for LegacyStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl Write for LegacyStream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.inner.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Stream for LegacyStream {
    fn set_deadline(&mut self, deadline: Moment) {
        self.inner.get_mut().set_deadline(deadline);
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        // The peer may be gone already.
        let _ = self.inner.shutdown();
        self.inner.get_mut().shutdown_write()
    }

    fn abort(&mut self) {
        self.is_aborted = true;
        self.inner.get_mut().abort();
    }
}

impl Drop for LegacyStream {
    fn drop(&mut self) {
        if !self.is_aborted {
            self.inner.get_mut().set_deadline(SystemClock.now() + CLOSE_NOTIFY_TIMEOUT);
            // The peer may be gone already.
            let _ = self.inner.shutdown();
        }
    }
}
