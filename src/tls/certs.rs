//! Our own certificates: one or more, chosen by the name that a client asks for (SNI, RFC 6066 §3).
//!
//! Read from `certs/NAME/fullchain.pem` and `privkey.pem`; NAME is the operator's business, the
//! names that count are inside the certificate. A reload replaces the whole set at once, and the
//! next handshake uses it; a set that does not load leaves the old one in force.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
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
#[error("{file}: {what}", file = file.display())]
pub struct CertError {
    /// The file or directory.
    pub file: PathBuf,
    /// What is wrong with it, and the remedy.
    pub what: String,
}

impl CertError {
    fn new(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), what: what.into() }
    }
}

/// The certificates of one moment.
pub struct CertSet {
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
    held: Vec<Held>,
}

/// One certificate of a set, for those who look after its end.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its folder below `certs`.
    pub folder: String,
    /// When it holds.
    pub validity: Validity,
}

impl CertSet {
    /// Reads every pair below `dir`. Without SNI the certificate for `hostname` is served, or else
    /// the first one. A directory that is missing or empty is an empty set: there is no TLS then.
    ///
    /// # Errors
    /// One for each pair that does not load.
    pub fn load(dir: &Path, hostname: &Domain) -> Result<Self, Vec<CertError>> {
        let mut set = Self { by_name: BTreeMap::new(), default: None, held: Vec::new() };
        let mut errors = Vec::new();
        for pair in pair_dirs(dir).map_err(|e| vec![e])? {
            match load_pair(&pair) {
                Ok(key) => set.add(&pair, Arc::new(key)),
                Err(e) => errors.push(e),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if let Some(key) = set.find(hostname.as_ascii()) {
            set.default = Some(key);
        }
        Ok(set)
    }

    fn add(&mut self, pair: &Path, key: Arc<CertifiedKey>) {
        if let Some(validity) = key.cert.first().and_then(Validity::of) {
            let folder = pair.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.held.push(Held { folder, validity });
        }
        for name in names_of(&key) {
            self.by_name.entry(name).or_insert_with(|| Arc::clone(&key));
        }
        self.default.get_or_insert(key);
    }

    /// By the exact name, or by a wildcard for its first label (RFC 6125 §6.4.3).
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard =
            || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(&name).or_else(wildcard).cloned()
    }

    /// There is no certificate, so TLS cannot be offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default.is_none()
    }

    /// Every certificate with its dates, in the order of their folders.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The names that are served, for `postrider check`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

impl fmt::Debug for CertSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The subdirectories, sorted; symbolic links are followed, as certbot makes them.
fn pair_dirs(dir: &Path) -> Result<Vec<PathBuf>, CertError> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CertError::new(dir, format!("cannot be listed: {e}"))),
    };
    let mut dirs: Vec<_> = listing.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    Ok(dirs)
}

fn load_pair(dir: &Path) -> Result<CertifiedKey, CertError> {
    let (chain_file, key_file) = (dir.join("fullchain.pem"), dir.join("privkey.pem"));
    let chain_text =
        fs::read(&chain_file).map_err(|e| CertError::new(&chain_file, format!("cannot be read: {e}")))?;
    let chain = CertificateDer::pem_slice_iter(&chain_text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| CertError::new(&chain_file, format!("is not PEM: {e}")))?;
    if chain.is_empty() {
        return Err(CertError::new(
            &chain_file,
            "holds no certificate; put the certificate and its chain there",
        ));
    }
    let key_text = fs::read(&key_file).map_err(|e| {
        CertError::new(&key_file, format!("cannot be read: {e}; the daemon's user must be able to"))
    })?;
    let key = PrivateKeyDer::from_pem_slice(&key_text)
        .map_err(|e| CertError::new(&key_file, format!("holds no private key in PEM: {e}")))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|e| CertError::new(&key_file, format!("does not belong to the certificate beside it: {e}")))
}

/// The DNS names of a certificate, lower case.
fn names_of(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        // It is still served when nobody asks for a name.
        Err(_) => Vec::new(),
    }
}

/// The one cryptographic library that every TLS configuration here is built on.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The certificates in force: read by every handshake, replaced by a reload.
#[derive(Debug)]
pub struct Certs(ArcSwap<CertSet>);

impl Certs {
    /// Serves this set until it is replaced.
    #[must_use]
    pub fn new(set: CertSet) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(set)))
    }

    /// Serves another set from the next handshake on.
    pub fn replace(&self, set: CertSet) {
        self.0.store(Arc::new(set));
    }

    /// There is no certificate, so TLS cannot be offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// The certificates in force.
    #[must_use]
    pub fn set(&self) -> Arc<CertSet> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.0.load();
        hello.server_name().and_then(|name| set.find(name)).or_else(|| set.default.clone())
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_certificate_is_found_by_its_names_and_by_wildcard() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(&dir.path().join("a"), &["mail.here.example"]);
        write_pair(&dir.path().join("b"), &["*.there.example", "mx.here.example"]);
        let set = CertSet::load(dir.path(), &Domain::parse("mx.here.example").unwrap()).unwrap();
        for (asked, served) in [
            ("MAIL.here.example", "mail.here.example"),
            ("mx.there.example", "*.there.example"),
            ("mx.here.example", "mx.here.example"),
        ] {
            assert!(names_of(&set.find(asked).unwrap()).iter().any(|name| name == served), "{asked}");
        }
        assert!(set.find("deep.mx.there.example").is_none());
        assert!(
            names_of(set.default.as_ref().unwrap()).contains(&"mx.here.example".to_owned()),
            "by hostname"
        );
    }

    #[test]
    fn a_pair_that_does_not_load_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let hostname = Domain::parse("mx.here.example").unwrap();
        assert!(CertSet::load(&dir.path().join("missing"), &hostname).unwrap().is_empty());
        write_pair(&dir.path().join("a"), &["a.example"]);
        write_pair(&dir.path().join("b"), &["b.example"]);
        fs::copy(dir.path().join("a/privkey.pem"), dir.path().join("b/privkey.pem")).unwrap();
        let errors = CertSet::load(dir.path(), &hostname).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("b/privkey.pem: does not belong"), "{}", errors[0]);
        std::fs::write(dir.path().join("b/fullchain.pem"), "nothing").unwrap();
        assert!(
            CertSet::load(dir.path(), &hostname).unwrap_err()[0].to_string().contains("holds no certificate")
        );
    }
}
