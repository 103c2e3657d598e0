//! The subcommands, their arguments and their help texts.
//!
//! `postrider help` and the manual page postrider(8) are made from the comments in this file.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// A mail server for small hosts.
///
/// postrider receives mail by SMTP, stores it durably, and delivers it to mailboxes on this host or to
/// other servers. `postrider serve` runs the server; the other commands administer it.
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
    /// SIGTERM and SIGINT stop the server: sessions and deliveries under way may finish within the time
    /// that `grace` sets. A second signal ends the server at once. SIGHUP reads users, aliases, senders,
    /// credentials and certificates again, all or nothing, once the files no longer change. The server also
    /// notices their changes without a signal, within seconds. A change of postrider.toml requires a restart.
    Serve,

    /// Print all mistakes in the configuration, or the configuration in force.
    ///
    /// Reads postrider.toml, certificates, users and aliases as the server does, changes nothing, and needs
    /// no running server. The output is a postrider.toml with the same meaning and with every default. If
    /// root runs this command, it checks with the rights of the user that the server runs as: the owner of
    /// the data directory, or else the user postrider.
    Check {
        /// The user that the server runs as, if it is another one.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },

    /// Add, change, remove and list users, who have a mailbox on this host and may log in.
    #[command(subcommand)]
    User(UserCommand),

    /// Ask the server which addresses an alias leads to.
    ///
    /// Aliases are in domains/DOMAIN/aliases: one line for each name, with its targets after a colon. A running server notices a change within seconds.
    #[command(subcommand)]
    Alias(AliasCommand),

    /// Show the security levels of other domains, or remove them.
    ///
    /// The server stores the security level of connections with each domain, and refuses connections with a
    /// lower level. If a domain has given up TLS on purpose, mail for it waits until `postrider peer forget`
    /// removes its level.
    #[command(subcommand)]
    Peer(PeerCommand),

    /// List the messages in the queue, and retry, hold, reroute or remove them.
    #[command(subcommand)]
    Queue(QueueCommand),

    /// Test that no message is lost in a crash, and measure the disk.
    ///
    /// First the queue runs on a simulated disk and stops after every single operation, with and
    /// without the loss of data that was not synced. Then this program runs in DIR, is killed repeatedly
    /// under load, and must have delivered every message that it accepted. It is killed once more while
    /// many messages wait for hosts that do not answer. After the restart it must greet clients, try those
    /// hosts and deliver new mail within 10 seconds each, in 40 MiB of memory and 1 KiB for each message
    /// that waits. When the hosts answer, each message must arrive exactly once. Last, the disk of DIR is
    /// measured. This needs no configuration and no running server, and takes about a minute.
    ///
    /// All files are in a new folder in DIR that only the user who runs this command may enter. The folder is
    /// removed at the end, unless a message was lost or the server failed: then its path is printed, and its
    /// files show the cause. As root, this is refused in a directory that other users own or may write, such
    /// as the data directory of the server: name a directory of root on the same file system, or run the
    /// command as the user of the server.
    Torture {
        /// A directory on the disk to be tested.
        dir: PathBuf,
        /// How many times the program is killed under load.
        #[arg(long, value_name = "N", default_value_t = 20)]
        rounds: usize,
        /// How many messages wait when the program is killed once more.
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
    /// Its argon2id hash and its SCRAM-SHA-256 keys are stored in domains/DOMAIN/users. If
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
    /// The old password is no longer valid when the server has noticed the change, within seconds.
    Passwd {
        /// The user's address.
        address: String,
        #[command(flatten)]
        password: PasswordSource,
        /// No password: the user gets mail but can no longer log in.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        receive_only: bool,
    },
    /// Remove a user. The user's stored mail is not removed.
    Remove {
        /// The user's address.
        address: String,
    },
    /// List the users, with the kinds of stored password hashes and keys.
    List {
        /// Only those of this domain, in any spelling.
        domain: Option<String>,
    },
    /// Ask for a user's password, and check it.
    ///
    /// Reads the users file and needs no running server. The exit status is 0 if the password is
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
    /// Show the recipients of mail for an address, and the lines of the alias files that lead to them.
    ///
    /// The exit status is 1 if a target leads to no recipient.
    Resolve {
        /// The address, such as sales@example.org.
        address: String,
        /// Print the server's answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the aliases in force, with their files and lines.
    List {
        /// Only those of this local domain.
        domain: Option<String>,
        /// Print the server's answer as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// List the domains whose security level is known.
    List {
        /// Print the server's answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the stored security levels of a domain as JSON.
    Show {
        /// The domain, in any spelling.
        domain: String,
    },
    /// Remove the stored security levels of a domain.
    Forget {
        /// The domain, in any spelling.
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the messages in the queue, with their recipients and the last reply or error of each.
    List {
        #[command(flatten)]
        selection: MessageSelection,
        /// At most so many messages, the oldest first.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
        /// Print the server's answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all facts about a message: sender, recipients, and the history of its attempts.
    Show {
        /// The message's id as `queue list` prints it.
        id: String,
        /// Print only the message's header section, as it is sent.
        #[arg(long, conflicts_with_all = ["message", "json"])]
        header: bool,
        /// Print only the message, as it is sent, up to 4 MiB. On a terminal, control characters are printed
        /// in a visible form; in a file or pipe every octet is kept.
        #[arg(long, conflicts_with = "json")]
        message: bool,
        /// Print the server's answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try messages now. Messages that are held are not tried.
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
    /// Send messages by another route now; with --to or --destination, only for those recipients.
    ///
    /// The route stays in force, also after restarts, until the message has left or --direct removes it.
    Reroute {
        #[command(flatten)]
        selection: RequiredMessageSelection,
        /// Send to this host instead of the destination's own hosts, as HOST, HOST:PORT or ADDRESS:PORT. The
        /// option may be repeated; the hosts are tried in order.
        #[arg(long, value_name = "HOST", required_unless_present = "direct")]
        via: Vec<String>,
        /// Use the usual route again.
        #[arg(long, conflicts_with = "via")]
        direct: bool,
    },
    /// Remove messages; with --to or --destination, only those recipients. Senders get a bounce only with
    /// --bounce.
    Remove {
        #[command(flatten)]
        selection: RequiredMessageSelection,
        /// Send a bounce to the sender, with TEXT as the reason if it is given.
        #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        bounce: Option<String>,
    },
}

/// Messages that match all criteria; without criteria, every message.
#[derive(Debug, Args)]
pub(super) struct MessageSelection {
    /// Only these messages, by the ids that `queue list` prints.
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) criteria: SelectionCriteria,
}

/// Messages that match all criteria, of which at least one is required, for commands that change messages.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("some").required(true).multiple(true))]
pub(super) struct RequiredMessageSelection {
    /// Only these messages, by the ids that `queue list` prints; or `all`.
    #[arg(value_name = "ID", group = "some")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) criteria: SelectionCriteria,
}

/// Criteria by which messages are selected.
#[derive(Debug, Args)]
pub(super) struct SelectionCriteria {
    /// Only from this address, or this domain; <> for bounces.
    #[arg(long, value_name = "ADDRESS", group = "some")]
    pub(super) from: Option<String>,
    /// Only for this address, or this domain, before or after aliases.
    #[arg(long, value_name = "ADDRESS", group = "some")]
    pub(super) to: Option<String>,
    /// Only for this destination: a domain, a host that was named for it, or `local`.
    #[arg(long, value_name = "DESTINATION", group = "some")]
    pub(super) destination: Option<String>,
    /// Only messages that are held.
    #[arg(long, group = "some")]
    pub(super) held: bool,
}

/// The table as clap knows it: for the manual page.
#[must_use]
pub fn clap_command() -> clap::Command {
    Arguments::command()
}
