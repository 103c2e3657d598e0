//! Users and passwords of a Dovecot on this host, asked at its authentication sockets.
//!
//! Whether a password is right is asked at the client socket, whether there is a mailbox at the
//! userdb socket. Each question has a connection of its own and five seconds: both are local and
//! cheap, nothing is kept that could go stale while Dovecot restarts, and Dovecot takes no two
//! connections of one client for the same. Names go there as `user@domain`, in the form in which our own
//! users are compared, the domain in A-labels; a name that could be more than one word of the
//! protocol is never asked about.
//!
//! Does not: log in to Dovecot's own services, cache, or decide for which domains it is asked.
//!
//! - `protocol`: the lines of both sockets, read and written
//! - `asking`: connections, deadlines, and where the sockets are

mod lookup;
mod protocol;

pub use lookup::{DovecotAuth, DovecotSettings};
pub use protocol::{DovecotAuthReply, DovecotHandshake, DovecotProtocolError, DovecotUserReply};
