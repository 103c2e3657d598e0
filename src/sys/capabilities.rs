//! What the process may do beyond what its user may: nothing, once the sockets are open.
//!
//! A service that binds ports below 1024 by itself is given a capability for it, and is given it so
//! that it would pass to every program that we run: delivery agents, pipes, hooks. Capabilities belong
//! to threads and are inherited, so they are put down on the first thread before there is another.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
};

/// Puts down what the service manager gave us. A process of root's keeps what makes it root, because
/// the operator chose that; it only passes nothing on by itself.
///
/// # Errors
/// When the system refuses; giving up is always allowed, so that something is odd about the system.
pub fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let kept = if geteuid().is_root() {
        CapabilitySets { inheritable: none, ..capabilities(None)? }
    } else {
        CapabilitySets { effective: none, permitted: none, inheritable: none }
    };
    Ok(set_capabilities(None, kept)?)
}
