//! The subcommands, their arguments and their help: the map of the product.
//!
//! `postrider help` and the manual page postrider(8) are made from the comments here.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// A mail server for small hosts.
///
/// postrider takes mail by SMTP, keeps it safe, and carries it to mailboxes on this host or to
/// other servers. `postrider serve` is the server; the other commands look after it.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    bin_name = "postrider",
    version,
    max_term_width = 100,
    after_help = "Begin with: postrider check. The configuration is described in postrider.toml(5)."
)]
pub(super) struct Arguments {
    /// The configuration directory: postrider.toml, certs/ and domains/ are in it.
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/postrider")]
    pub(super) config: PathBuf,

    #[command(subcommand)]
    pub(super) subcommand: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Run the server in the foreground.
    ///
    /// SIGTERM and SIGINT stop it in order: sessions and deliveries under way may finish, for as
    /// long as `grace` says; a second signal ends it at once. SIGHUP reads users, aliases, senders,
    /// credentials and certificates again, all or nothing, once nobody is writing them; their changes
    /// are also noticed by themselves within seconds. A change of postrider.toml takes a restart.
    Serve,

    /// Say everything that is wrong with the configuration, or print the one in force.
    ///
    /// Reads postrider.toml, certificates, users and aliases as the server would, changes nothing,
    /// and needs no running server. What it prints is a postrider.toml that says the same, with
    /// every default. Run by root, it judges with the rights of the user that the server runs as:
    /// the owner of the data directory, or else the user postrider.
    Check {
        /// The user that the server runs as, if it is another one.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },

    /// Look after users, who have a mailbox here and may log in.
    #[command(subcommand)]
    User(UserCommand),

    /// Ask the server who is behind an address.
    ///
    /// Aliases stand in domains/DOMAIN/aliases: one line for each name, with its targets behind a
    /// colon. A running server notices a change within seconds.
    #[command(subcommand)]
    Alias(AliasCommand),

    /// Ask the server for what it knows about other domains, or make it forget.
    ///
    /// The server remembers how well connections with each domain were protected, and refuses
    /// less. When a domain has really given up TLS, mail to it waits until it is forgotten.
    #[command(subcommand)]
    Peer(PeerCommand),

    /// Look at the mail that waits, and change what becomes of it.
    #[command(subcommand)]
    Queue(QueueCommand),

    /// Try hard to lose a message, and say what this host's disk is worth.
    ///
    /// First the queue runs on a simulated disk and stops after every single operation, with and
    /// without losing what was not synced. Then this program runs in DIR, is killed again and again
    /// under load, and must have delivered every message it promised. It is killed once more while
    /// many messages wait for hosts that do not answer: started again it must greet, try them and
    /// deliver new mail within 10 seconds each, in 40 MiB of memory and 1 KiB for each message that
    /// waits, and once the hosts answer each message must arrive, once. Last, the disk of DIR is
    /// measured. Needs no configuration and no running server, and takes about a minute.
    ///
    /// Everything is in a new folder in DIR that only the user who runs this may enter. The folder is
    /// removed at the end, unless a message was lost or the server failed: then it is named, and shows
    /// how it came about. As root, this is refused in a directory that other users own or may write, such as the
    /// data directory of the server: give a directory of root's on the same file system, or run it as
    /// the user of the server.
    Torture {
        /// A directory on the disk to be tried.
        dir: PathBuf,
        /// How often it is killed.
        #[arg(long, value_name = "N", default_value_t = 20)]
        rounds: usize,
        /// How many messages wait when it is killed once more.
        #[arg(long, value_name = "N", default_value_t = 5000,
              value_parser = clap::value_parser!(u32).range(1..1_000_000))]
        waiting: u32,
    },

    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user, and ask for a password.
    ///
    /// The password is asked for twice on the terminal, unless an option says where it comes from.
    /// An argon2id hash and the keys of SCRAM-SHA-256 are kept of it in domains/DOMAIN/users. If
    /// the domain has no directory yet, it gets one, which makes it local. A running server notices
    /// within seconds.
    Add {
        /// The user's address, such as ana@example.org.
        address: String,
        #[command(flatten)]
        password: PasswordSource,
        /// No password: the user gets mail but cannot log in.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        receive_only: bool,
    },
    /// Set another password.
    ///
    /// The old one counts no longer, once the server has noticed.
    Passwd {
        /// The user's address.
        address: String,
        #[command(flatten)]
        password: PasswordSource,
        /// No password: the user gets mail but can no longer log in.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        receive_only: bool,
    },
    /// Remove a user; the mail that is there stays where it is.
    Remove {
        /// The user's address.
        address: String,
    },
    /// List the users, with what is kept of their passwords.
    List {
        /// Only those of this domain, in any spelling.
        domain: Option<String>,
    },
    /// Ask for a user's password, and say whether it is right.
    ///
    /// Reads the file, as the server will; asks no server. The exit status is 0 if the password is
    /// right, and 1 otherwise.
    Check {
        /// The user's address.
        address: String,
        #[command(flatten)]
        password: PasswordSource,
    },
}

/// Where a password comes from; from the terminal, unless one of these is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct PasswordSource {
    /// Take the first line of FILE as the password.
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Take the first line of standard input as the password.
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum AliasCommand {
    /// Show who gets mail for an address, and by which lines of which files.
    ///
    /// The exit status is 1 if a way ends nowhere.
    Resolve {
        /// The address, such as sales@example.org.
        address: String,
        /// Print what the server answered, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the aliases in force, with their files and lines.
    List {
        /// Of this local domain only.
        domain: Option<String>,
        /// Print what the server answered, as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// List the domains whose security level is known.
    List {
        /// Print what the server answered, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what is known about a domain, as JSON.
    Show {
        /// The domain, in any spelling.
        domain: String,
    },
    /// Forget a domain: the next connection is taken as the first one.
    Forget {
        /// The domain, in any spelling.
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the messages that wait, with their recipients and what was heard last.
    List {
        #[command(flatten)]
        selection: MessageSelection,
        /// At most so many messages, the oldest first.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
        /// Print what the server answered, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of a message: sender, recipients, and the history of its attempts.
    Show {
        /// The message's id as `queue list` prints it.
        id: String,
        /// Print its header section, as it goes out, and nothing else.
        #[arg(long, conflicts_with_all = ["message", "json"])]
        header: bool,
        /// Print the message, as it goes out, up to 4 MiB, and nothing else. On a terminal, control
        /// characters are shown as such; in a file or pipe every octet is kept.
        #[arg(long, conflicts_with = "json")]
        message: bool,
        /// Print what the server answered, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try messages now. One that is held stays where it is.
    Retry {
        #[command(flatten)]
        selection: RequiredMessageSelection,
    },
    /// Hold messages: they are not tried before they are released, and a restart does not change that.
    Hold {
        #[command(flatten)]
        selection: RequiredMessageSelection,
    },
    /// Release messages that are held, and try them now.
    Release {
        #[command(flatten)]
        selection: RequiredMessageSelection,
    },
    /// Send messages, or with --to or --destination those recipients of them, another way, now.
    ///
    /// Stays so through restarts, until the message has left or is sent its usual way again.
    Reroute {
        #[command(flatten)]
        selection: RequiredMessageSelection,
        /// To this host instead of the destination's own, as HOST, HOST:PORT or ADDRESS:PORT; can be
        /// given again, for hosts to be tried after it.
        #[arg(long, value_name = "HOST", required_unless_present = "direct")]
        via: Vec<String>,
        /// The usual way again.
        #[arg(long, conflicts_with = "via")]
        direct: bool,
    },
    /// Remove messages, or with --to or --destination those recipients of them. Nobody is told,
    /// unless you say so.
    Remove {
        #[command(flatten)]
        selection: RequiredMessageSelection,
        /// Tell the sender that it failed, in these words if you give some.
        #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        bounce: Option<String>,
    },
}

/// Messages that match all that is said; with nothing said, every message.
#[derive(Debug, Args)]
pub(super) struct MessageSelection {
    /// Only these messages, by the ids that `queue list` prints.
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) criteria: SelectionCriteria,
}

/// The same, for commands that change something: every message must be asked for.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("some").required(true).multiple(true))]
pub(super) struct RequiredMessageSelection {
    /// Only these messages, by the ids that `queue list` prints; or `all`.
    #[arg(value_name = "ID", group = "some")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) criteria: SelectionCriteria,
}

/// Whose messages.
#[derive(Debug, Args)]
pub(super) struct SelectionCriteria {
    /// Only from this address, or this domain; <> for reports.
    #[arg(long, value_name = "ADDRESS", group = "some")]
    pub(super) from: Option<String>,
    /// Only for this address, or this domain, before or after aliases.
    #[arg(long, value_name = "ADDRESS", group = "some")]
    pub(super) to: Option<String>,
    /// Only for this destination: a domain, a host that was named for it, or `local`.
    #[arg(long, value_name = "DESTINATION", group = "some")]
    pub(super) destination: Option<String>,
    /// Only those that are held.
    #[arg(long, group = "some")]
    pub(super) held: bool,
}

/// The table as clap knows it: for the manual page.
#[must_use]
pub fn clap_command() -> clap::Command {
    Arguments::command()
}
