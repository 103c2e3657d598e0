//! TLS on connections that we open: opportunistic, and honest about what it was worth.
//!
//! A certificate that nobody vouches for is still better than none against whoever only listens, so
//! the handshake goes through with any; what the certificate was worth is recorded and handed back
//! as a [`Level`]: verified is a chain to the system's roots that is valid today and bears the
//! host's name. That the peer holds the certificate's key is always checked.
//!
//! Does not decide whether a level is good enough (`courier/smtp` asks `domaininfo`), does not retry,
//! does not resume sessions: the verifier is not asked for a resumed one, and an old verdict would
//! be taken for a new one.
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

/// A connection that is encrypted now, and what that is worth.
#[derive(Debug)]
pub struct SecuredConnection {
    /// Carries plain octets to and fro; closes the connection when dropped.
    pub stream: Box<dyn Stream>,
    /// [`Level::TlsVerified`] or [`Level::TlsUnverified`], never [`Level::Plain`].
    pub level: SecurityLevel,
    /// Version and cipher suite.
    pub tls_info: TlsInfo,
    /// Why it is not verified, or who vouches for it; a clause for people.
    pub level_reason: String,
}

/// The handshake failed; the connection is closed. The text is the library's, printable.
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
    /// Read when they are first asked for: the system keeps them in a hundred files and more.
    roots: OnceLock<TrustedRoots>,
}

/// Who vouches for others.
struct TrustedRoots {
    /// `None` if nobody does.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    warnings: Vec<String>,
}

impl TlsClient {
    /// Trusts the system's roots, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; reads none
    /// yet.
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

    /// What could not be read of the roots, as sentences for the log: with no roots at all everything
    /// still goes out, but nothing is ever verified. Reads them, unless somebody has.
    #[must_use]
    pub fn root_warnings(&self) -> &[String] {
        &self.roots().warnings
    }

    /// Whoever is first reads them; others wait.
    fn roots(&self) -> &TrustedRoots {
        self.roots.get_or_init(|| system_roots(&self.provider))
    }

    /// Encrypts `stream`; `host` is the name that the certificate should bear, sent as SNI unless it is
    /// an address literal. Takes as long as the stream's deadline allows.
    ///
    /// # Errors
    /// [`HandshakeError`] whatever happened: no common version or suite, a signature that is wrong,
    /// a peer that hung up or said nothing. The connection is then closed.
    pub fn handshake(
        &self,
        mut stream: Box<dyn Stream>,
        host: &Domain,
    ) -> Result<SecuredConnection, HandshakeError> {
        let witness = Arc::new(RecordingVerifier {
            verifier: self.roots().verifier.clone(),
            provider: Arc::clone(&self.provider),
            verification: Mutex::default(),
        });
        let connection = self.client_connection(&witness, host).map_err(|error| HandshakeError::new(&error));
        let mut connection = connection?;
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                stream.abort();
                return Err(HandshakeError::new(&error));
            }
        }
        let (level, because) = match witness.verification.lock().take() {
            Some(Ok(())) => (SecurityLevel::TlsVerified, "its certificate is valid".to_owned()),
            Some(Err(why)) => (SecurityLevel::TlsUnverified, why),
            None => (SecurityLevel::TlsUnverified, "it showed no certificate".to_owned()),
        };
        let facts = tls_info(connection.protocol_version(), connection.negotiated_cipher_suite());
        let stream = Box::new(TlsStream::new(connection, stream));
        Ok(SecuredConnection { stream, level, tls_info: facts, level_reason: because })
    }

    fn client_connection(
        &self,
        witness: &Arc<RecordingVerifier>,
        host: &Domain,
    ) -> Result<ClientConnection, rustls::Error> {
        let name = match host.as_address() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(host.as_ascii().to_owned())
                .map_err(|error| rustls::Error::General(error.to_string()))?,
        };
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<RecordingVerifier>::clone(witness);
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
    let mut complaints: Vec<String> =
        found.errors.iter().map(|error| format!("trusted roots: {error}")).collect();
    let mut roots = RootCertStore::empty();
    // One root that does not parse must not cost us the others.
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        complaints.push(format!("trusted roots: {ignored} certificates could not be read"));
    }
    let verifier = build_verifier(roots, provider);
    if verifier.is_none() {
        complaints.push(
            "trusted roots: there are none, so no host can be verified; install ca-certificates".to_owned(),
        );
    }
    TrustedRoots { verifier, warnings: complaints }
}

fn build_verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    // Fails only when there is no root.
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()
}

/// Lets every certificate pass and remembers what it was worth. One for each handshake.
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
        let verdict = match &self.verifier {
            Some(verifier) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop)
                .map_err(|error| printable(error.to_string().as_bytes(), 300)),
            None => Err("there are no trusted roots on this host".to_owned()),
        };
        *self.verification.lock() = Some(verdict);
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
