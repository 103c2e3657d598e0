//! Names and contents of the files of a store.
//!
//! Pure. `NAME.json` with the domain in A-labels; inside an object with `version`, `domain`, and beside
//! them the fields of the value, indented for people.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::mail::Domain;

/// A file name has 255 octets, of which the suffixes and the random part of a temporary name need some.
const DOMAIN_OCTETS_MAX: usize = 220;
const FILE_SUFFIX: &str = ".json";

#[derive(Serialize)]
struct FileToWrite<'a, T> {
    version: u32,
    domain: &'a Domain,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Deserialize)]
struct FileRead<T> {
    domain: Domain,
    #[serde(flatten)]
    value: T,
}

/// Read before the rest: the file of a newer version may have other fields.
#[derive(Deserialize)]
struct VersionField {
    version: u32,
}

/// Why the contents of a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// A newer version of the program has written the file.
    NewerVersion(String),
    /// No version of the program writes such a file for this domain.
    Damaged(String),
}

/// The name of the domain's file; `None` for an address literal, and for a domain whose name is too long
/// or is no file name.
pub(super) fn file_name(domain: &Domain) -> Option<String> {
    let name = domain.as_ascii();
    let is_plain = name.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    let is_storable = is_plain && !name.starts_with('.') && name.len() <= DOMAIN_OCTETS_MAX;
    is_storable.then(|| format!("{name}{FILE_SUFFIX}"))
}

/// The domain whose file has this name; `None` for any other file.
pub(super) fn domain_of_file(file: &str) -> Option<Domain> {
    let domain = Domain::parse(file.strip_suffix(FILE_SUFFIX)?).ok()?;
    (file_name(&domain).as_deref() == Some(file)).then_some(domain)
}

/// The text of the domain's file.
pub(super) fn encode<T: Serialize>(
    version: u32,
    domain: &Domain,
    value: &T,
) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(&FileToWrite { version, domain, value })?;
    Ok(text + "\n")
}

/// The value in the domain's file.
pub(super) fn decode<T: DeserializeOwned>(
    newest_version: u32,
    domain: &Domain,
    octets: &[u8],
) -> Result<T, DecodeError> {
    let damaged = |error: serde_json::Error| DecodeError::Damaged(error.to_string());
    let VersionField { version } = serde_json::from_slice(octets).map_err(damaged)?;
    if version > newest_version {
        return Err(DecodeError::NewerVersion(format!(
            "the file has version {version}, we know {newest_version}"
        )));
    }
    let file: FileRead<T> = serde_json::from_slice(octets).map_err(damaged)?;
    if file.domain != *domain {
        return Err(DecodeError::Damaged(format!("the file is about {}", file.domain)));
    }
    Ok(file.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_back_to_its_domain_and_to_no_other_place() {
        for raw in ["there.example", "bücher.example", "a-1.b.example"] {
            let domain = Domain::parse(raw).unwrap();
            let name = file_name(&domain).unwrap();
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(domain_of_file(&name), Some(domain));
        }
        assert_eq!(file_name(&Domain::parse("[192.0.2.1]").unwrap()), None);
        for other in
            ["there.example", ".there.example.json.0123", "There.example.json", "bücher.example.json"]
        {
            assert_eq!(domain_of_file(other), None, "{other}");
        }
    }
}
