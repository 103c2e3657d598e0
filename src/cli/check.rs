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
use crate::sys::{Clock as _, ServiceUser, Stop, SystemClock, is_root};

/// The account that the server's unit names.
const USUAL_USER: &str = "postrider";

/// Reads everything that the server would, with the rights of the user that it runs as, and says all that
/// is wrong with it.
pub(super) fn run(config_dir: &Path, user: Option<&str>) -> Result<String, Failed> {
    let judge = run_as_the_server_does(config_dir, user)?;
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
        let judge = judge.map_or_else(String::new, |user| format!(", for the user {user}"));
        wrong.push(format!("{count} {mistakes} in {}{judge}", config_dir.display()));
        return Err(wrong);
    };
    say_warnings(config_dir, &config, &sources)?;

    let (users, aliases) = (sources.domains.users(), sources.domains.aliases());
    let mut text = format!("# {} with every default\n", config_dir.join("postrider.toml").display());
    let _ = match judge {
        Some(user) => writeln!(text, "# checked with the rights of the user {user}"),
        None if is_root() => {
            writeln!(text, "# checked with root's rights; name the user that the server runs as with --user")
        }
        None => Ok(()),
    };
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

/// Takes on the user that the server runs as, because root may read everything: the user that was named,
/// or the owner of the data directory, or else the account `postrider`. Returns that user if it is not the
/// one who runs the command; without any of these there is no server yet that could be judged for.
fn run_as_the_server_does(config_dir: &Path, named: Option<&str>) -> Result<Option<ServiceUser>, Failed> {
    let cannot = |what: &str, e: &dyn std::fmt::Display| vec![format!("{what}: {e}")];
    if !is_root() {
        return match named {
            Some(name) if ServiceUser::own().to_string() != name => Err(vec![format!(
                "--user {name}: only root may check with the rights of another user; run it with sudo"
            )]),
            Some(_) | None => Ok(None),
        };
    }
    let user = match named {
        Some(name) => Some(
            ServiceUser::named(name)
                .map_err(|e| cannot(&format!("--user {name}"), &e))?
                .ok_or_else(|| vec![format!("--user {name}: there is no such user on this host")])?,
        ),
        None => {
            // What is wrong with the file is said later, by the check itself.
            let data_dir = read_config(config_dir, Looks::AT_ONCE).ok().map(|config| config.data_dir);
            let owner = match &data_dir {
                Some(dir) => {
                    ServiceUser::owner_of(dir).map_err(|e| cannot(&dir.display().to_string(), &e))?
                }
                None => None,
            };
            match owner {
                Some(owner) => Some(owner),
                None => ServiceUser::named(USUAL_USER).map_err(|e| cannot(USUAL_USER, &e))?,
            }
        }
    };
    match user {
        Some(user) if user.is_root() => Ok(None),
        Some(user) => {
            user.become_it().map_err(|e| cannot(&format!("cannot become the user {user}"), &e))?;
            Ok(Some(user))
        }
        None => Ok(None),
    }
}
