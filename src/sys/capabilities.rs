//! Gives up the Linux capabilities of the process once the sockets are open.
//!
//! A service that binds ports below 1024 gets a capability for that, and the service manager grants it so that
//! every program that the server runs (delivery agents, pipes, hooks) would inherit it. Capabilities belong to
//! threads and are inherited, so the first thread drops them before it starts another.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
};

/// Drops the capabilities that the service manager granted. A process that runs as root keeps its own, because
/// the operator chose to run it so, but passes none on to programs.
///
/// # Errors
/// When the system refuses, which it should never do: every process may drop capabilities.
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
