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
//! - `stamp`: the fields that we put on top of a message

mod author;
mod buckets;
mod content;
mod doors;
mod head;
mod hook;
mod house_policy;
mod listener;
mod login;
mod newcomer;
mod origin;
mod outbox;
mod policy;
pub mod proxy;
mod rates;
mod recipient;
mod reverse;
mod seldom;
mod sender;
mod session;
mod stamp;

pub use author::{Authors, Authorship, Binding, Permissions};
pub use doors::{Ceilings, Doors};
pub use head::{Head, Originator};
pub use hook::{HookFailure, HookSettings, Hooks};
pub use house_policy::HousePolicy;
pub use listener::Listener;
pub use login::Logins;
pub use policy::{Client, Policy};
pub use rates::{HourlyMax, Rates};
pub use recipient::{Directory, Recipients};
pub use reverse::ReverseNames;
pub use sender::{SenderCheck, Senders, Unchecked};
pub use session::{Counters, Role, Services, Settings};
