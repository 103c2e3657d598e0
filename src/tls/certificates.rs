//! Our own certificates: one or more, chosen by the name that a client asks for (SNI, RFC 6066 §3).
//!
//! Read from `certs/NAME/fullchain.pem` and `privkey.pem`; NAME may be any name, because the names inside
//! the certificate are used. A new set replaces the whole set at once, and the next handshake uses it.
//! `daemon` decides when files are read and which version of a pair is in force.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::validity::Validity;
use crate::mail::Domain;

/// Why a certificate cannot be used: the file, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}", file = file.display())]
pub struct CertificateError {
    /// The file or directory.
    pub file: PathBuf,
    /// What is wrong with it, and the remedy.
    pub problem: String,
}

impl CertificateError {
    fn new(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: what.into() }
    }
}

/// The certificates in force at one time.
pub struct CertificateSet {
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
    certificates: Vec<CertificateInfo>,
}

/// One certificate of a set, for the warning before it expires.
#[derive(Debug, Clone)]
pub struct CertificateInfo {
    /// The name of its directory below `certs`.
    pub folder: String,
    /// When it is valid.
    pub validity: Validity,
}

impl CertificateSet {
    /// A set of these pairs, each with the name of its directory. Without SNI the certificate for `hostname`
    /// is served, or else the first one. Without a pair the set is empty, and TLS is not offered.
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a CertificateAndKey)>,
        hostname: &Domain,
    ) -> Self {
        let mut set = Self { by_name: BTreeMap::new(), default: None, certificates: Vec::new() };
        pairs.into_iter().for_each(|(folder, pair)| set.add(folder, &pair.0));
        if let Some(key) = set.find_by_name(hostname.as_ascii()) {
            set.default = Some(key);
        }
        set
    }

    fn add(&mut self, folder: &str, key: &Arc<CertifiedKey>) {
        if let Some(validity) = key.cert.first().and_then(Validity::of_certificate) {
            self.certificates.push(CertificateInfo { folder: folder.to_owned(), validity });
        }
        for name in dns_names_of(key) {
            self.by_name.entry(name).or_insert_with(|| Arc::clone(key));
        }
        self.default.get_or_insert_with(|| Arc::clone(key));
    }

    /// The certificate with exactly this name, or with a wildcard for its first label (RFC 6125 §6.4.3).
    fn find_by_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard =
            || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(&name).or_else(wildcard).cloned()
    }

    /// The set has no certificate, so TLS cannot be offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default.is_none()
    }

    /// Every certificate with its dates, in the order of the directories.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateInfo] {
        &self.certificates
    }

    /// The names inside the certificates, for `postrider check`.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

impl fmt::Debug for CertificateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.dns_names()).finish()
    }
}

/// A certificate with its chain, and the key that belongs to it.
#[derive(Clone)]
pub struct CertificateAndKey(Arc<CertifiedKey>);

impl CertificateAndKey {
    /// Reads `fullchain.pem` and `privkey.pem` in a directory. `read` returns the octets of a file, or `None`
    /// if the file does not exist.
    ///
    /// # Errors
    /// What is wrong with one of the files, or that they do not belong together; the operator is at fault, or
    /// a program is replacing the files at this moment.
    pub fn read(
        folder: &Path,
        read: &mut dyn FnMut(&Path) -> io::Result<Option<Vec<u8>>>,
    ) -> Result<Self, CertificateError> {
        let (chain_file, key_file) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        let mut octets = |file: &Path, holds: &str| match read(file) {
            Ok(Some(octets)) => Ok(octets),
            Ok(None) => Err(CertificateError::new(
                file,
                format!("is missing; put {holds} there, or remove the folder"),
            )),
            Err(e) => Err(CertificateError::new(file, format!("{e}; the server must be able to read it"))),
        };
        let chain_text = octets(&chain_file, "the certificate and its chain")?;
        let chain = CertificateDer::pem_slice_iter(&chain_text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| CertificateError::new(&chain_file, format!("is not PEM: {e}")))?;
        if chain.is_empty() {
            return Err(CertificateError::new(
                &chain_file,
                "holds no certificate; put the certificate and its chain there",
            ));
        }
        let key_text = octets(&key_file, "the private key")?;
        let key = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|e| CertificateError::new(&key_file, format!("holds no private key in PEM: {e}")))?;
        let key = CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(|e| {
            CertificateError::new(&key_file, format!("does not belong to the certificate beside it: {e}"))
        })?;
        Ok(Self(Arc::new(key)))
    }
}

impl fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(dns_names_of(&self.0)).finish()
    }
}

/// The DNS names of a certificate, lower case.
fn dns_names_of(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        // The certificate is still served to clients that ask for no name.
        Err(_) => Vec::new(),
    }
}

/// The cryptographic library of every TLS configuration.
pub(super) fn crypto_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The certificates in force: every handshake reads them, a reload replaces them.
#[derive(Debug)]
pub struct CertificateResolver(ArcSwap<CertificateSet>);

impl CertificateResolver {
    /// Serves this set until it is replaced.
    #[must_use]
    pub fn new(set: CertificateSet) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(set)))
    }

    /// Serves another set from the next handshake on.
    pub fn replace(&self, set: CertificateSet) {
        self.0.store(Arc::new(set));
    }

    /// The set has no certificate, so TLS cannot be offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// The certificates in force.
    #[must_use]
    pub fn current(&self) -> Arc<CertificateSet> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.0.load();
        hello.server_name().and_then(|name| set.find_by_name(name)).or_else(|| set.default.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_pair(dir: &Path, names: &[&str]) {
        let made = rcgen::generate_simple_self_signed(
            names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        );
        let made = made.unwrap();
        fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("fullchain.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    fn read_pair(dir: &Path) -> Result<CertificateAndKey, CertificateError> {
        CertificateAndKey::read(dir, &mut |file| match fs::read(file) {
            Ok(octets) => Ok(Some(octets)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
    }

    #[test]
    fn a_certificate_is_found_by_its_names_and_by_wildcard() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(&dir.path().join("a"), &["mail.here.example"]);
        write_pair(&dir.path().join("b"), &["*.there.example", "mx.here.example"]);
        let pairs = ["a", "b"].map(|name| (name, read_pair(&dir.path().join(name)).unwrap()));
        let pairs = pairs.iter().map(|(name, pair)| (*name, pair));
        let set = CertificateSet::new(pairs, &Domain::parse("mx.here.example").unwrap());
        for (asked, served) in [
            ("MAIL.here.example", "mail.here.example"),
            ("mx.there.example", "*.there.example"),
            ("mx.here.example", "mx.here.example"),
        ] {
            assert!(
                dns_names_of(&set.find_by_name(asked).unwrap()).iter().any(|name| name == served),
                "{asked}"
            );
        }
        assert!(set.find_by_name("deep.mx.there.example").is_none());
        assert!(
            dns_names_of(set.default.as_ref().unwrap()).contains(&"mx.here.example".to_owned()),
            "by hostname"
        );
        assert!(CertificateSet::new([], &Domain::parse("mx.here.example").unwrap()).is_empty());
    }

    #[test]
    fn the_error_names_the_file_of_a_pair_that_does_not_load() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_pair(&path("a"), &["a.example"]);
        write_pair(&path("b"), &["b.example"]);
        fs::copy(path("a/privkey.pem"), path("b/privkey.pem")).unwrap();
        let error = || read_pair(&path("b")).unwrap_err().to_string();
        assert!(error().contains("b/privkey.pem: does not belong"), "{}", error());
        std::fs::remove_file(path("b/privkey.pem")).unwrap();
        assert!(error().contains("b/privkey.pem: is missing; put the private key there"), "{}", error());
        std::fs::write(path("b/fullchain.pem"), "nothing").unwrap();
        assert!(error().contains("holds no certificate"), "{}", error());
    }
}
