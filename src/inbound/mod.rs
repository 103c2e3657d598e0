//! How mail comes in.
//!
//! - `listener`: accepts, refuses when full, starts a session thread
//! - `seldom`: what is not logged each time that it happens
//! - `doors`: everyone who is inside: counted, and reachable when it is time to stop
//! - `origin`: whose doings are counted together
//! - `rates`: how much one client may do in an hour
//! - `buckets`: so many in an hour, for each of many
//! - `newcomer`: from an accepted connection to a session
//! - `proxy`: the preface by which a proxy names the client
//! - `session`: one client, from greeting to goodbye
//! - `outbox`: replies on their way out
//! - `policy`: the questions a session may ask
//! - `house_policy`: each question goes to the file that answers it
//! - `sender`: may this reverse-path send here?
//! - `recipient`: do we take mail for this forward-path?
//! - `author`: in whose name may a user of ours write?
//! - `login`: is this the user?
//! - `content`: what happens to a message between DATA and the promise
//! - `head`: watches the header section of a message go by
//! - `reverse`: the confirmed name of a client's address
//! - `hook`: the operator's programs that judge a recipient or a message

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
mod log_throttle;
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
