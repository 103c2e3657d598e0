//! Parses `postrider.toml`, the operator's configuration.
//!
//! The input is a text, the result is a checked [`Config`]. This module opens no file, asks the host nothing and
//! does not log: the caller passes the text and the facts about the host. Every mistake is a [`ConfigError`] with
//! file, line, key and remedy, and one reading finds as many of them as it can. Only
//! `daemon` and `cli` import this module: other modules declare settings of their own.
//!
//! - `sections`: the values, one struct for each section of the file
//! - `parse`: parses the text into the values
//! - `aliases`: parses the section `[aliases]` and the key `postmaster`
//! - `credentials`: parses the file `credentials.toml`, with logins at other servers
//! - `toml_table`: takes keys out of one table of the text, and collects errors
//! - `checks`: checks that many keys share: a number in a range, one of a few words
//! - `units`: parses and formats durations, sizes and addresses
//! - `keys`: the table of keys for the sample file, the manual page and `postrider check`

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
