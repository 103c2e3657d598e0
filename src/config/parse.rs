//! Parses `postrider.toml` into a [`Config`].
//!
//! This file reads the keys above all sections. The sections, and the rules between keys of one section, are
//! read by subject:
//!
//! - `receiving`: listeners and limits
//! - `delivery`: the queue, delivery and DNS
//! - `trust`: Dovecot, relay networks, submission, hooks and leniency

mod delivery;
mod receiving;
#[cfg(test)]
mod tests;
mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::delivery::{delivery, dns, queue};
use self::receiving::{limits, listen};
use self::trust::{dovecot, hooks, leniency, relay, submission};
use super::aliases::{aliases, parse_postmaster};
use super::checks::{mistake, parse_path, take_duration};
use super::keys::known_keys;
use super::sections::Config;
use super::toml_table::{ConfigError, Diagnostics, Table};
use crate::mail::Domain;

/// Facts about the host, used for keys that are not in the file.
#[derive(Clone, Copy)]
pub struct HostFacts<'a> {
    /// Returns the host's name, fully qualified if possible, or none if it could not be found out. Called
    /// only if the file does not have the key, because the answer may take long.
    pub hostname: &'a dyn Fn() -> Option<String>,
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const SECOND: Duration = Duration::from_secs(1);

impl Config {
    /// Reads the text of `file`, which lies in the configuration directory: relative paths in it
    /// count from there.
    ///
    /// # Errors
    /// Every mistake that was found; the operator is at fault. If the text is not TOML, only
    /// that, because the rest would be guesswork.
    pub fn parse(text: &str, file: &Path, host: &HostFacts<'_>) -> Result<Self, Vec<ConfigError>> {
        let mut findings = Diagnostics::new(text, file);
        let mut top = findings.parse();
        if !findings.errors.is_empty() {
            return Err(findings.errors);
        }
        let home = file.parent().unwrap_or(Path::new(""));
        let found = &mut findings;

        let hostname = hostname(&mut top, found, host);
        let data_dir =
            top.value(found, "data-dir", PathBuf::from("/var/lib/postrider"), |v| parse_path(v, home));
        let grace = take_duration(&mut top, found, "grace", Duration::from_secs(30), Duration::ZERO..=HOUR);
        let postmaster = top.optional(found, "postmaster", parse_postmaster);
        let listen = listen(top.section("listen", found), found);
        let limits = limits(top.section("limits", found), found);
        let queue = queue(top.section("queue", found), found);
        let aliases = aliases(top.section("aliases", found), found);
        let delivery = delivery(top.section("delivery", found), found, home, &data_dir);
        let dns = dns(top.section("dns", found), found);
        let dovecot = dovecot(top.section("dovecot", found), found, home);
        let relay = relay(top.section("relay", found), found);
        let submission = submission(top.section("submission", found), found);
        let hooks = hooks(top.section("hooks", found), found);
        let leniency = leniency(top.section("leniency", found), found);
        top.add_unknown_key_errors(found, &known_keys(""));

        match hostname {
            Some(hostname) if findings.errors.is_empty() => Ok(Self {
                hostname,
                data_dir,
                grace,
                postmaster,
                listen,
                limits,
                queue,
                aliases,
                delivery,
                dns,
                dovecot,
                relay,
                submission,
                hooks,
                leniency,
                warnings: findings.warnings,
            }),
            // A missing host name is already among the errors.
            _ => {
                findings.errors.sort_by_key(|error| error.line);
                Err(findings.errors)
            }
        }
    }
}

fn hostname(top: &mut Table<'_>, found: &mut Diagnostics<'_>, host: &HostFacts<'_>) -> Option<Domain> {
    const REMEDY: &str =
        "write the whole name by which other servers find this host, such as hostname = \"mail.example.org\"";
    let Some(value) = top.take("hostname") else {
        let Some(name) = (host.hostname)() else {
            found.add_error(None, "hostname", mistake("is not set, and the system has no host name", REMEDY));
            return None;
        };
        return parse_qualified(&name)
            .map_err(|problem| {
                let problem = format!("is not set, and the host name of the system, {name:?}, {problem}");
                found.add_error(None, "hostname", mistake(problem, REMEDY));
            })
            .ok();
    };
    let name = value.text(REMEDY).and_then(|name| {
        parse_qualified(name).map_err(|problem| mistake(format!("{name:?} {problem}"), REMEDY))
    });
    name.map_err(|wrong| found.add_error(Some(value.span), "hostname", wrong)).ok()
}

/// Parses a fully qualified host name, which means the same host everywhere.
fn parse_qualified(name: &str) -> Result<Domain, &'static str> {
    let domain = Domain::parse(name).map_err(|_| "is not a host name")?;
    if domain.as_address().is_some() {
        return Err("is an address, not a name");
    }
    let ascii = domain.as_ascii();
    if ascii.starts_with("localhost.") || ascii.ends_with(".localhost") || ascii.ends_with(".localdomain") {
        return Err("is a placeholder: on other hosts it is the name of another host");
    }
    if domain.is_qualified() { Ok(domain) } else { Err("is not fully qualified (it has no dot)") }
}
