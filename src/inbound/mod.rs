//! How mail comes in.
//!
//! - `listener`: accepts, refuses when full, starts a session thread
//! - `doors`: everyone who is inside: counted, and reachable when it is time to stop
//! - `session`: one client, from greeting to goodbye
//! - `outbox`: replies on their way out
//! - `policy`: the questions a session may ask
//! - `house_policy`: each question goes to the file that answers it
//! - `sender`: may this reverse-path send here?
//! - `recipient`: do we take mail for this forward-path?
//! - `login`: is this the user?
//! - `content`: what happens to a message between DATA and the promise
//! - `head`: watches the header section of a message go by
//! - `stamp`: the fields that we put on top of a message

mod content;
mod doors;
mod head;
mod house_policy;
mod listener;
mod login;
mod outbox;
mod policy;
mod recipient;
mod sender;
mod session;
mod stamp;

pub use doors::{Ceilings, Doors};
pub use house_policy::HousePolicy;
pub use listener::Listener;
pub use login::Logins;
pub use policy::{Client, Policy};
pub use recipient::{Directory, Recipients};
pub use sender::{SenderCheck, Senders, Unchecked};
pub use session::{Counters, Role, Services, Settings};
