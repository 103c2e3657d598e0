//! The values, one struct for each section of the file.
//!
//! `keys` documents the keys for the operator; the fields here repeat units, defaults and ranges for the
//! programmer. Paths are absolute or relative to the program's working directory: a relative path in the file
//! was joined to the file's directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mail::{Domain, Endpoint, Mailbox, Network, Via};

/// The checked contents of `postrider.toml`. Keys that the file omits have their defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// This host's name: in the greeting, Received, bounces and EHLO. Always qualified.
    pub hostname: Domain,
    /// The directory of the program's own files. Default: `/var/lib/postrider`.
    pub data_dir: PathBuf,
    /// Longest time that running work may take after SIGTERM. Default: 30 s. From 0 s to 1 h.
    pub grace: Duration,
    /// The mailbox that gets mail for `postmaster` in a domain that has no postmaster. Default: none.
    pub postmaster: Option<Mailbox>,
    /// `[listen]`.
    pub listen: ListenConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[queue]`.
    pub queue: QueueConfig,
    /// `[aliases]`.
    pub aliases: AliasesConfig,
    /// `[delivery]`.
    pub delivery: DeliveryConfig,
    /// `[dns]`.
    pub dns: DnsConfig,
    /// `[dovecot]`.
    pub dovecot: DovecotConfig,
    /// `[relay]`.
    pub relay: RelayConfig,
    /// `[submission]`.
    pub submission: SubmissionConfig,
    /// `[hooks]`.
    pub hooks: HooksConfig,
    /// `[leniency]`.
    pub leniency: LeniencyConfig,
    /// Warnings about values that are allowed but questionable: for the log at start and for `check`.
    pub warnings: Vec<String>,
}

/// `[listen]`: the addresses on which the server listens. A list may be empty, but at least one list is not.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Mail from other servers, port 25. Default: `systemd`.
    pub smtp: Vec<ListenEntry>,
    /// Mail from our users, STARTTLS, port 587. Default: `systemd`.
    pub submission: Vec<ListenEntry>,
    /// Mail from our users, TLS from the first octet (RFC 8314 §3.3), port 465. Default: `systemd`.
    pub submissions: Vec<ListenEntry>,
    /// Proxies that send a PROXY header to a listener with the word `proxy`. Default: none.
    pub proxy_from: Vec<Network>,
    /// The address of the monitoring pages. Default: none.
    pub monitoring: Option<SocketAddr>,
}

/// One entry of a list: `":25"`, `"systemd"`, `"127.0.0.1:2525 proxy"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenEntry {
    /// The source of the sockets.
    pub source: SocketSource,
    /// Connections from `proxy_from` begin with a PROXY header.
    pub has_proxy_header: bool,
}

/// The source of one or more sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketSource {
    /// The server binds this address. `[::]` accepts IPv4 too.
    Address(SocketAddr),
    /// The service manager passes sockets under the name of the key. It may pass none, but a start without
    /// any socket is an error.
    Systemd,
}

/// `[limits]`: limits that protect the host against overload by clients.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Largest message accepted, in octets as SIZE counts them (RFC 1870 §5).
    /// Default: 52428800 (50 MiB). From 65536 to 1073741824.
    pub message_octets_max: u64,
    /// Recipients in one transaction. Default: 100, the least that RFC 5321 §4.5.3.1.8 allows. To 10000.
    pub recipients_max: usize,
    /// Received fields in a message before it counts as a loop (RFC 5321 §6.3).
    /// Default: 100. From 10 to 1000.
    pub received_max: usize,
    /// Sessions at once. Default: 400. From 1 to 20000.
    pub sessions_max: usize,
    /// Sessions at once from one IPv4 address, or one IPv6 network of 64 bits. Default: 50. From 1 to 20000.
    pub sessions_per_address_max: usize,
    /// Sessions at once from one IPv4 network of 24 bits, or one IPv6 network of 48 bits; not less than
    /// from one address. Default: 100. From 1 to 20000.
    pub sessions_per_network_max: usize,
    /// The wait before the greeting on the smtp port. Default: none. To 1 min.
    pub greeting_delay: Duration,
    /// `[limits.address-per-hour]`.
    pub address_per_hour: AddressRateLimits,
    /// `[limits.login-per-hour]`.
    pub login_per_hour: LoginRateLimits,
    /// Number of 5yz replies between two accepted messages after which the server closes the connection.
    /// Default: 10. From 1 to 1000.
    pub errors_max: usize,
    /// Longest wait for a command or for some octets of a message. Default: 5 min
    /// (RFC 5321 §4.5.3.2.7). From 1 s to 1 h.
    pub command_timeout: Duration,
    /// Longest time for the arrival of one message. Default: 20 min. From 10 s to 24 h.
    pub message_timeout: Duration,
    /// Longest time of one session. Default: 1 h. From 10 s to 24 h.
    pub session_timeout: Duration,
}

/// `[limits.address-per-hour]`: rate limits for clients without a login, by IPv4 address or
/// IPv6 network of 64 bits. 0 is no limit. Each from 0 to 1000000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRateLimits {
    /// Connections. Default: 1000.
    pub connections: usize,
    /// MAIL commands. Default: 1000.
    pub messages: usize,
    /// RCPT commands. Default: 5000.
    pub recipients: usize,
    /// RCPT commands for recipients that do not exist. Default: 200.
    pub unknown_recipients: usize,
}

/// `[limits.login-per-hour]`: rate limits for users. 0 is no limit. Each from 0 to 1000000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRateLimits {
    /// MAIL commands. Default: 500.
    pub messages: usize,
    /// RCPT commands. Default: 3000.
    pub recipients: usize,
}

/// `[queue]`: accepted messages that wait for delivery.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Age at which a message is returned in a bounce. Default: 5 d (RFC 5321 §4.5.4.1). From 1 s to 30 d.
    pub lifetime: Duration,
    /// Waits after the first, second … attempt; the last one repeats. Not empty, each from 1 s to
    /// 7 d. Default: 1 m, 5 m, 15 m, 30 m, 1 h, 2 h, 4 h.
    pub retry: Vec<Duration>,
    /// Age at which a delay warning is sent. Default: 4 h. From 1 s to 30 d.
    pub delay_warning: Duration,
    /// Messages in the queue at most; further messages are deferred with 452. Default: 20000.
    /// From 1 to 1000000.
    pub messages_max: usize,
    /// Threads that deliver on this host. Default: 16. From 1 to 100.
    pub local_threads: usize,
    /// Threads that deliver to other hosts. Default: 16. From 1 to 500.
    pub remote_threads: usize,
    /// Attempts at once to one destination. Default: 4. From 1 to 500.
    pub attempts_per_destination_max: usize,
    /// Longest wait between two tries of a destination that does not answer. Default: 15 minutes. From
    /// 1 minute to 1 day.
    pub probe_interval_max: Duration,
}

/// `[aliases]`: how local parts of local domains are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasesConfig {
    /// Each of these characters begins a suffix. Default: `+`.
    pub suffix_separators: String,
    /// Each of these characters is ignored in the part before a suffix. Default: none.
    pub drop_characters: String,
}

/// `[delivery]`: how messages are delivered.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Delivery to mailboxes on this host.
    pub local: LocalDelivery,
    /// `[delivery.pipe]`.
    pub pipe: PipeDelivery,
    /// `[delivery.smtp]`.
    pub smtp: SmtpDelivery,
}

/// `local = …` together with its section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDelivery {
    /// `"maildir"`, the default.
    Maildir(MaildirDelivery),
    /// `"command"`.
    Command(CommandDelivery),
    /// `"lmtp"`.
    Lmtp(LmtpDelivery),
}

/// `[delivery.maildir]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaildirDelivery {
    /// Absolute unless the configuration directory was given as a relative one; holds `%user%`
    /// and, if there are several local domains, `%domain%`.
    /// Default: `mail/%domain%/%user%` in the data directory.
    pub path: String,
}

/// `[delivery.command]`: the operator's delivery agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandDelivery {
    /// A path, or a name that is searched for in PATH. Not empty.
    pub program: String,
    /// Its arguments; `%from% %from_user% %from_domain% %to% %to_user% %to_domain%` are filled in.
    pub arguments: Vec<String>,
    /// The line end in the message on its standard input. Default: LF.
    pub line_ends: LineEndsSetting,
    /// The program is killed after this time. Default: 30 s. From 1 s to 1 h.
    pub timeout: Duration,
}

/// `[delivery.lmtp]`: an LMTP server that stores mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LmtpDelivery {
    /// The address of the server. Never port 25.
    pub address: Endpoint,
}

/// The line end of a message on a program's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEndsSetting {
    /// `"lf"`.
    Lf,
    /// `"crlf"`.
    Crlf,
}

/// `[delivery.pipe]`: programs that an alias file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeDelivery {
    /// The program is killed after this time. Default: 30 s. From 1 s to 1 h.
    pub timeout: Duration,
    /// The meaning of exit status 75 (EX_TEMPFAIL).
    pub exit_75: Exit75Setting,
}

/// The meaning of exit status 75 of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit75Setting {
    /// `"permanent"`, the default: the delivery fails, as with any other failure of a pipe.
    Permanent,
    /// `"transient"`: the delivery is attempted again.
    Transient,
}

/// `[delivery.smtp]`: delivery to other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpDelivery {
    /// TCP port of MX hosts. Default: 25. Another one is for tests and tunnels.
    pub port: u16,
    /// The name in our EHLO.
    pub hello: HelloSetting,
    /// Hosts that accept all mail for other domains. Default: none, which means MX hosts.
    pub via: Option<Via>,
    /// Messages on one connection at most; with 1, no connection is kept for the next message. Default: 100.
    pub messages_per_connection_max: usize,
}

/// The name in the EHLO of an outgoing session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloSetting {
    /// `"sender-domain"`, the default: the reverse-path's domain if it is local, else our hostname.
    SenderDomain,
    /// `"hostname"`: always our hostname.
    Hostname,
}

/// `[dns]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Recursive resolvers, in order. Default: none, which means those of the host's resolv.conf.
    pub servers: Vec<SocketAddr>,
}

/// `[dovecot]`: users and passwords of a Dovecot server on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DovecotConfig {
    /// Whether the server asks Dovecot about users who are not in a users file. Default: no.
    pub is_enabled: bool,
    /// Dovecot's socket for passwords. Default: none, which means a search in Dovecot's usual directories.
    pub client_socket: Option<PathBuf>,
    /// Dovecot's socket for mailboxes. Default: none, which means a search in Dovecot's usual directories.
    pub userdb_socket: Option<PathBuf>,
}

/// `[relay]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayConfig {
    /// Clients that may relay without AUTH. Default: none.
    pub networks: Vec<Network>,
}

/// `[submission]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubmissionConfig {
    /// The sender addresses that users may use.
    pub sender: SenderSetting,
}

/// The sender addresses that users may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SenderSetting {
    /// `"bound"`, the default: their own, their aliases', and what `domains/DOMAIN/senders` lists.
    #[default]
    Bound,
    /// `"any"`.
    Any,
}

/// `[hooks]`: programs that accept or refuse mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HooksConfig {
    /// The answer if a hook gives no verdict.
    pub on_failure: HookFailureSetting,
    /// The hook `rcpt` is killed after this time. Default: 5 s. From 1 s to 5 min.
    pub rcpt_timeout: Duration,
    /// The hook `post-data` is killed after this time. Default: 1 min. From 1 s to 5 min, which is half of the
    /// time that a client waits for the reply to its last dot (RFC 5321 §4.5.3.2.6).
    pub post_data_timeout: Duration,
}

/// The answer if a hook gives no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailureSetting {
    /// `"defer"`, the default.
    Defer,
    /// `"accept"`.
    Accept,
}

/// `[leniency]`: deviations from SMTP that are accepted from listed clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeniencyConfig {
    /// Clients whose messages may hold a CR or LF by itself, which becomes CRLF. Default: none.
    pub bare_line_ends: Vec<Network>,
}

impl Config {
    /// A configuration in which all keys have their defaults.
    #[must_use]
    pub fn defaults(hostname: Domain) -> Self {
        let data_dir = PathBuf::from("/var/lib/postrider");
        Self {
            hostname,
            grace: Duration::from_secs(30),
            postmaster: None,
            listen: ListenConfig::default(),
            limits: LimitsConfig::default(),
            queue: QueueConfig::default(),
            aliases: AliasesConfig::default(),
            delivery: DeliveryConfig {
                local: LocalDelivery::Maildir(MaildirDelivery::in_data_dir(&data_dir)),
                pipe: PipeDelivery::default(),
                smtp: SmtpDelivery::default(),
            },
            dns: DnsConfig::default(),
            dovecot: DovecotConfig::default(),
            relay: RelayConfig::default(),
            submission: SubmissionConfig::default(),
            hooks: HooksConfig::default(),
            leniency: LeniencyConfig::default(),
            warnings: Vec::new(),
            data_dir,
        }
    }
}

impl MaildirDelivery {
    /// The default path, below the data directory.
    #[must_use]
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { path: data_dir.join("mail/%domain%/%user%").to_string_lossy().into_owned() }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        let systemd = || vec![ListenEntry { source: SocketSource::Systemd, has_proxy_header: false }];
        Self {
            smtp: systemd(),
            submission: systemd(),
            submissions: systemd(),
            proxy_from: Vec::new(),
            monitoring: None,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            message_octets_max: 50 * 1024 * 1024,
            recipients_max: 100,
            received_max: 100,
            sessions_max: 400,
            sessions_per_address_max: 50,
            sessions_per_network_max: 100,
            greeting_delay: Duration::ZERO,
            address_per_hour: AddressRateLimits::default(),
            login_per_hour: LoginRateLimits::default(),
            errors_max: 10,
            command_timeout: Duration::from_mins(5),
            message_timeout: Duration::from_mins(20),
            session_timeout: Duration::from_hours(1),
        }
    }
}

impl Default for AddressRateLimits {
    fn default() -> Self {
        Self { connections: 1000, messages: 1000, recipients: 5000, unknown_recipients: 200 }
    }
}

impl Default for LoginRateLimits {
    fn default() -> Self {
        Self { messages: 500, recipients: 3000 }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_hours(5 * 24),
            retry: [1, 5, 15, 30, 60, 120, 240].map(Duration::from_mins).to_vec(),
            delay_warning: Duration::from_hours(4),
            messages_max: 20_000,
            local_threads: 16,
            remote_threads: 16,
            attempts_per_destination_max: 4,
            probe_interval_max: Duration::from_mins(15),
        }
    }
}

impl Default for AliasesConfig {
    fn default() -> Self {
        Self { suffix_separators: "+".to_owned(), drop_characters: String::new() }
    }
}

impl Default for PipeDelivery {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), exit_75: Exit75Setting::Permanent }
    }
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            on_failure: HookFailureSetting::Defer,
            rcpt_timeout: Duration::from_secs(5),
            post_data_timeout: Duration::from_mins(1),
        }
    }
}

impl Default for SmtpDelivery {
    fn default() -> Self {
        Self { port: 25, hello: HelloSetting::SenderDomain, via: None, messages_per_connection_max: 100 }
    }
}
