//! TLS on connections that we open: opportunistic, with the level that was reached.
//!
//! Encryption without a trusted certificate still protects against an attacker who only listens, so the
//! handshake succeeds with any certificate. The result is a [`SecurityLevel`]: `TlsVerified` means a chain to
//! the system's roots that is valid now and has the host's name. That the peer holds the key of its
//! certificate is always checked.
//!
//! Does not decide whether a level is good enough (`courier/smtp/demand` does) and does not retry. Does not
//! resume sessions: rustls does not call the verifier for a resumed session, so an old result would be
//! taken for a new one.
//!
//! Called by `courier/smtp`. Standards: RFC 3207, RFC 6125 through webpki, RFC 8446, RFC 5246.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::security_level::SecurityLevel;
use super::session_info::tls_info;
use super::stream::TlsStream;
use crate::mail::{Domain, TlsInfo, printable};
use crate::sys::{Mutex, Stream};

/// A connection after the handshake, and its level.
#[derive(Debug)]
pub struct SecuredConnection {
    /// The stream of plain octets; closes the connection when dropped.
    pub stream: Box<dyn Stream>,
    /// [`SecurityLevel::TlsVerified`] or [`SecurityLevel::TlsUnverified`], never [`SecurityLevel::Plain`].
    pub level: SecurityLevel,
    /// Version and cipher suite.
    pub tls_info: TlsInfo,
    /// Why the certificate is or is not verified; a clause for people.
    pub level_reason: String,
}

/// The handshake failed; the connection is closed. The text is that of the library, printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub(super) String);

impl HandshakeError {
    pub(super) fn new(error: &dyn std::error::Error) -> Self {
        Self(printable(error.to_string().as_bytes(), 300))
    }
}

/// Does handshakes. Shared by all couriers.
pub struct TlsClient {
    provider: Arc<CryptoProvider>,
    /// Read at the first handshake, because the system keeps them in more than a hundred files.
    roots: OnceLock<TrustedRoots>,
}

/// The roots that certificates are verified with.
struct TrustedRoots {
    /// `None` if there is no root.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    warnings: Vec<String>,
}

impl TlsClient {
    /// Trusts the system's roots, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. They are read at
    /// first use.
    #[must_use]
    pub fn with_system_roots() -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), roots: OnceLock::new() }
    }

    /// Trusts these roots only.
    #[must_use]
    pub fn with_roots(roots: RootCertStore) -> Self {
        let client = Self::with_system_roots();
        client.roots.get_or_init(|| TrustedRoots {
            verifier: build_verifier(roots, &client.provider),
            warnings: Vec::new(),
        });
        client
    }

    /// Roots that could not be read, as sentences for the log. Without any root mail still goes out, but no
    /// certificate is verified. Reads the roots, unless that was done before.
    #[must_use]
    pub fn root_warnings(&self) -> &[String] {
        &self.roots().warnings
    }

    /// The roots; the first call reads them, and concurrent calls wait.
    fn roots(&self) -> &TrustedRoots {
        self.roots.get_or_init(|| system_roots(&self.provider))
    }

    /// Encrypts `stream`; `host` is the name that the certificate should have, sent as SNI unless it is
    /// an address literal. Takes as long as the stream's deadline allows.
    ///
    /// # Errors
    /// [`HandshakeError`] for every cause: no common version or suite, a wrong signature, a peer that closed
    /// the connection or did not answer. The connection is then closed.
    pub fn handshake(
        &self,
        mut stream: Box<dyn Stream>,
        host: &Domain,
    ) -> Result<SecuredConnection, HandshakeError> {
        let verifier = Arc::new(RecordingVerifier {
            verifier: self.roots().verifier.clone(),
            provider: Arc::clone(&self.provider),
            verification: Mutex::default(),
        });
        let connection = self.client_connection(&verifier, host).map_err(|error| HandshakeError::new(&error));
        let mut connection = connection?;
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                stream.abort();
                return Err(HandshakeError::new(&error));
            }
        }
        let (level, level_reason) = match verifier.verification.lock().take() {
            Some(Ok(())) => (SecurityLevel::TlsVerified, "its certificate is valid".to_owned()),
            Some(Err(why)) => (SecurityLevel::TlsUnverified, why),
            None => (SecurityLevel::TlsUnverified, "it showed no certificate".to_owned()),
        };
        let tls_info = tls_info(connection.protocol_version(), connection.negotiated_cipher_suite());
        let stream = Box::new(TlsStream::new(connection, stream));
        Ok(SecuredConnection { stream, level, tls_info, level_reason })
    }

    fn client_connection(
        &self,
        verifier: &Arc<RecordingVerifier>,
        host: &Domain,
    ) -> Result<ClientConnection, rustls::Error> {
        let name = match host.as_address() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(host.as_ascii().to_owned())
                .map_err(|error| rustls::Error::General(error.to_string()))?,
        };
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<RecordingVerifier>::clone(verifier);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        ClientConnection::new(Arc::new(config), name)
    }
}

fn system_roots(provider: &Arc<CryptoProvider>) -> TrustedRoots {
    let found = rustls_native_certs::load_native_certs();
    let mut warnings: Vec<String> =
        found.errors.iter().map(|error| format!("trusted roots: {error}")).collect();
    let mut roots = RootCertStore::empty();
    // A root that does not parse must not prevent the use of the others.
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        warnings.push(format!("trusted roots: {ignored} certificates could not be read"));
    }
    let verifier = build_verifier(roots, provider);
    if verifier.is_none() {
        warnings.push(
            "trusted roots: there are none, so no host can be verified; install ca-certificates".to_owned(),
        );
    }
    TrustedRoots { verifier, warnings }
}

fn build_verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    // Fails only if there is no root.
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()
}

/// Accepts every certificate and records whether it is verified. One for each handshake.
#[derive(Debug)]
struct RecordingVerifier {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    verification: Mutex<Option<Result<(), String>>>,
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verification = match &self.verifier {
            Some(verifier) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop)
                .map_err(|error| printable(error.to_string().as_bytes(), 300)),
            None => Err("there are no trusted roots on this host".to_owned()),
        };
        *self.verification.lock() = Some(verification);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
