//! Compares the logins that `via` settings name with `credentials.toml`.
//!
//! For a start, a reload and `postrider check`.

use super::local_domains::{LocalDomains, referenced_logins};
use crate::config::Config;
use crate::courier::smtp;

/// One sentence for each login that the configuration or an alias names and `credentials.toml` lacks.
#[must_use]
pub fn undefined_logins(
    config: &Config,
    domains: &LocalDomains,
    logins: &smtp::CredentialsByName,
) -> Vec<String> {
    let by_default = config.delivery.smtp.via.iter().filter_map(|via| via.credentials_name.clone());
    let by_default = by_default.map(|login| (login, "postrider.toml: delivery.smtp.via".to_owned()));
    let by_alias = referenced_logins(domains).into_iter().map(|(login, place)| (login, place.to_string()));
    by_default
        .chain(by_alias)
        .filter(|(login, _)| !logins.contains_key(login))
        .map(|(login, place)| {
            format!(
                "{place}: there is no login {login} in credentials.toml; add [{login}] with user and password"
            )
        })
        .collect()
}
