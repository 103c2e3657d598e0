//! Threads with a name and a small stack, and a lock that survives a panic.

use std::io;
use std::sync::PoisonError;
use std::thread::{Builder, JoinHandle};

pub use std::sync::MutexGuard;

/// Virtual; only what is touched counts. A TLS handshake needs 32 KiB in a release build and
/// over 64 KiB in a debug build.
const STACK_OCTETS: usize = 256 * 1024;

/// Starts a named thread. Linux keeps fifteen characters of the name.
///
/// # Errors
/// When the host has no thread to give.
pub fn spawn<F>(name: impl Into<String>, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    Builder::new().name(name.into()).stack_size(STACK_OCTETS).spawn(body)
}

/// A mutex whose holder may panic.
///
/// A session that panics ends alone. What it guarded is left at a statement's end by every
/// section we have (they are short and do no input or output), so the next thread goes on.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, when nobody else can hold it any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where threads that hold a [`Mutex`] wait for a change of what it guards.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Nobody waits yet.
    pub const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Lets the lock go, waits to be woken (or not: look again), takes it back.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_panic_under_the_lock_does_not_stop_the_others() {
        let shared = Arc::new(Mutex::new(1));
        let theirs = Arc::clone(&shared);
        let thread = spawn("panics", move || {
            let _guard = theirs.lock();
            panic!("on purpose");
        });
        assert!(thread.unwrap().join().is_err());
        assert_eq!(*shared.lock(), 1);
    }
}
