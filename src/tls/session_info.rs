//! Version and cipher of a finished handshake.

use rustls::{ProtocolVersion, SupportedCipherSuite};

use crate::mail::TlsInfo;

/// Version and cipher as Received fields and logs show them.
pub(super) fn tls_info(version: Option<ProtocolVersion>, cipher: Option<SupportedCipherSuite>) -> TlsInfo {
    let version = match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
        other => format!("{other:?}"),
    };
    // rustls names the suites of TLS 1.3 `TLS13_…`; the registry of IANA names them `TLS_…`.
    let cipher =
        cipher.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown").replacen("TLS13_", "TLS_", 1);
    TlsInfo { version, cipher }
}
