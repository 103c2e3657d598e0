//! `postrider.toml`: what the operator decides.
//!
//! Text in, a checked [`Config`] out. Nothing here opens a file, asks the host or logs: whoever
//! calls passes the text and the facts about the host. Every mistake is a [`ConfigError`] with
//! file, line, key and remedy, and one reading finds as many of them as it can. Only
//! `daemon/wiring` and `cli` know this module: the others declare settings of their own.
//!
//! - `sections`: the values, one struct for each section of the file
//! - `read`: from the text to the values
//! - `aliases`: the keys about names
//! - `credentials`: the other file, with logins at other servers
//! - `reader`: one table of the text: takes keys out of it and collects what is wrong
//! - `checks`: what many keys have in common: a number in a range, one of a few words
//! - `units`: durations, sizes and addresses as people write them
//! - `keys`: the table of keys: from it come the sample file, the manual page and `check`'s output

mod aliases;
mod checks;
mod credentials;
mod keys;
mod parse;
mod sections;
mod toml_table;
mod units;

pub use credentials::{Credential, parse_credentials};
pub use keys::{manual, sample};
pub use parse::HostFacts;
pub use sections::LeniencyConfig;
pub use sections::{
    AddressRateLimits, AliasesConfig, CommandDelivery, Config, DeliveryConfig, DnsConfig, DovecotConfig,
    Exit75Setting, HelloSetting, HookFailureSetting, HooksConfig, LimitsConfig, LineEndsSetting,
    ListenConfig, ListenEntry, LmtpDelivery, LocalDelivery, LoginRateLimits, MaildirDelivery, PipeDelivery,
    QueueConfig, RelayConfig, SenderSetting, SmtpDelivery, SocketSource, SubmissionConfig,
};
pub use toml_table::ConfigError;
