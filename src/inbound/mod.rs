//! Receives mail by SMTP.
//!
//! - `listener`: accepts connections and starts a session thread for each
//! - `listener_role`: the protocol on a listening socket
//! - `accepted_client`: a connection that is accepted and counted
//! - `admission`: accepts or refuses a connection before its greeting
//! - `proxy`: parses the PROXY header, which names the client
//! - `session_limits`: counts the sessions, and ends them when the server stops
//! - `rate_limits`: limits on what one client may do in an hour
//! - `token_buckets`: the token buckets of the rate limits
//! - `address_prefix`: the parts of an address by which clients are counted
//! - `session`: one session with a client
//! - `services`: the objects that all sessions share
//! - `settings`: the settings of a session
//! - `counters`: the counters of sessions and messages
//! - `server_settings`: the settings of the protocol state machine
//! - `circumstances`: client, TLS, login and sender of a question to the policy
//! - `reply_buffer`: collects replies and sends them together
//! - `refusal`: a 4yz or 5yz reply with its reference and its reasons
//! - `policy`: the questions that a session asks
//! - `configured_policy`: the policy of the running server
//! - `decision`: allowed or refused, with the reasons
//! - `sender`: decides about the reverse-path of another server
//! - `reverse_names`: the confirmed name of a client's address
//! - `sender_login`: decides which sender addresses a user may use
//! - `originator_field`: a From or Sender field
//! - `recipient`: decides whether mail for a forward-path is accepted
//! - `local_recipients`: the interface to accounts and aliases
//! - `login`: checks logins
//! - `content`: the content of a message, from its first octet to the queue
//! - `content_observer`: the interface for code that reads a message while it arrives
//! - `header_scanner`: reads the header section
//! - `session_hooks`: the operator's programs that accept or refuse a recipient or a message

mod accepted_client;
mod address_prefix;
mod admission;
mod circumstances;
mod configured_policy;
mod content;
mod content_observer;
mod counters;
mod decision;
mod header_scanner;
mod listener;
mod listener_role;
mod local_recipients;
mod login;
mod originator_field;
mod policy;
pub mod proxy;
mod rate_limits;
mod recipient;
mod refusal;
mod reply_buffer;
mod reverse_names;
mod sender;
mod sender_login;
mod server_settings;
mod services;
mod session;
mod session_hooks;
mod session_limits;
mod settings;
mod token_buckets;

pub use circumstances::Circumstances;
pub use configured_policy::ConfiguredPolicy;
pub use content_observer::ContentObserver;
pub use counters::Counters;
pub use decision::Decision;
pub use header_scanner::{HeaderScanner, RawOriginatorField};
pub use listener::Listener;
pub use listener_role::ListenerRole;
pub use local_recipients::LocalRecipients;
pub use login::LoginPolicy;
pub use originator_field::OriginatorField;
pub use policy::Policy;
pub use rate_limits::{HourlyLimits, RateLimits};
pub use recipient::RecipientPolicy;
pub use refusal::{Refusal, RefusalStage};
pub use reverse_names::ReverseNames;
pub use sender::{ReversePathPolicy, SenderCheck, Unchecked};
pub use sender_login::{SenderLoginPolicy, SenderPermissions, SenderRestriction};
pub use services::SessionServices;
pub use session_hooks::{HookFallback, SessionHookSettings, SessionHooks};
pub use session_limits::{SessionLimitSettings, SessionLimits};
pub use settings::Settings;
