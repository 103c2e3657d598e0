//! Users and passwords of a Dovecot on this host, by its authentication sockets.
//!
//! The client socket checks passwords, the userdb socket looks mailboxes up. Each request has a connection of its
//! own and five seconds: local connections are cheap, and an open one could become stale when Dovecot restarts.
//! Names are sent as `user@domain`, with the local part in its comparison form and the domain in A-labels. A name
//! that could be more than one word of the protocol is never sent.
//!
//! This module does not log in to services of Dovecot, does not cache, and does not decide for which domains
//! Dovecot is asked.
//!
//! - `protocol`: the lines of both sockets
//! - `lookup`: connections, deadlines, and the paths of the sockets

mod lookup;
mod protocol;

pub use lookup::{DovecotAuth, DovecotSettings};
pub use protocol::{DovecotAuthReply, DovecotHandshake, DovecotProtocolError, DovecotUserReply};
