//! `postrider check`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::terminal::{Failed, say};
use crate::config::Config;
use crate::daemon::{
    Looks, Sources, absent_neighbours, check_hooks, endings, read_config, spelling, unknown_logins,
    unread_postmasters,
};
use crate::sys::{Clock as _, Stop, SystemClock};

/// Reads everything that the server would, and says all that is wrong with it.
pub(super) fn run(config_dir: &Path) -> Result<String, Failed> {
    let mut wrong = Vec::new();
    let mut keep = |complaints: Failed| wrong.extend(complaints);
    let config = read_config(config_dir, Looks::AT_ONCE).map_err(&mut keep).ok();
    let spelling = config.as_ref().map(spelling).unwrap_or_default();
    // Only the choice of the default certificate hangs on the name, and nothing is served here.
    let hostname =
        config.as_ref().map_or_else(|| IpAddr::from([127, 0, 0, 1]).into(), |c| c.hostname.clone());
    let sources = Sources::read(config_dir, &hostname, &spelling, Looks::AT_ONCE)
        .map_err(|changing| keep(vec![changing]))
        .ok();
    if let Some(sources) = &sources {
        let mistakes = sources.mistakes();
        if let (Some(config), []) = (&config, mistakes.as_slice()) {
            keep(unknown_logins(config, &sources.domains, &sources.credentials.logins()));
        }
        keep(mistakes);
        keep(sources.unusable_certificates());
    }
    check_hooks(config_dir).unwrap_or_else(&mut keep);
    let (Some(config), Some(sources), []) = (config, sources, wrong.as_slice()) else {
        let count = wrong.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        wrong.push(format!("{count} {mistakes} in {}", config_dir.display()));
        return Err(wrong);
    };
    say_warnings(config_dir, &config, &sources)?;

    let (users, aliases) = (sources.domains.users(), sources.domains.aliases());
    let mut text = format!("# {} with every default\n", config_dir.join("postrider.toml").display());
    for name in sources.certificates.set().names() {
        let _ = writeln!(text, "# certificate for {name}");
    }
    for domain in sources.domains.names() {
        let users = users.get(&domain).map_or(0, |users| users.count());
        let aliases = aliases.get(&domain).map_or(0, |aliases| aliases.count());
        let _ = writeln!(text, "# local domain {domain} (users: {users}, aliases: {aliases})");
    }
    text.push_str(&config.effective());
    Ok(text)
}

fn say_warnings(config_dir: &Path, config: &Config, sources: &Sources) -> Result<(), Failed> {
    // Nobody asks it: whoever has enough ends this process.
    let stop = Arc::new(Stop::new().map_err(|e| vec![format!("cannot make a pipe: {e}")])?);
    say(config
        .warnings
        .iter()
        .chain(&absent_neighbours(config, &stop))
        .map(|warning| format!("warning: {warning}")));
    let certs = sources.certificates.set();
    if certs.is_empty() {
        say([format!(
            "warning: {}: there is no certificate; without one there is no TLS, and nobody can log in",
            config_dir.join("certs").display()
        )]);
    }
    say(endings(&certs, SystemClock.wall()).map(|ending| format!("warning: {ending}")));
    if sources.domains.names().is_empty() {
        let dir = config_dir.join("domains");
        say([format!(
            "warning: {}: there is no local domain; `postrider user add` makes one",
            dir.display()
        )]);
    }
    let unread = unread_postmasters(config_dir, config, &sources.domains, &stop);
    say(unread.iter().map(|warning| format!("warning: {warning}")));
    Ok(())
}
