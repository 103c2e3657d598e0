//! Threads with a name and a small stack, and a lock that survives a panic.

use std::io;
use std::panic::resume_unwind;
use std::sync::PoisonError;
use std::thread::{Builder, JoinHandle};

pub use std::sync::MutexGuard;

/// Virtual; only what is touched counts.
const STACK_OCTETS: usize = 256 * 1024;

/// A TLS handshake needs 32 KiB in a release build and over 64 KiB in a debug build. Smaller than
/// [`STACK_OCTETS`], because the C library keeps stacks and gives them to the next thread for which they
/// are large enough, with every page that was touched.
const ASIDE_STACK_OCTETS: usize = 128 * 1024;

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

/// Does something on a short-lived thread and waits for it: what needs much stack, and other memory that
/// the libraries keep for each thread, and is done by a thread that then waits for a long time. It is all
/// given back.
///
/// # Errors
/// When the host has no thread to give.
pub fn aside<F, T>(name: &str, body: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    std::thread::scope(|scope| {
        let thread = Builder::new().name(name.to_owned()).stack_size(ASIDE_STACK_OCTETS);
        Ok(thread.spawn_scoped(scope, body)?.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
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

    #[test]
    fn what_is_done_aside_comes_back_be_it_a_value_or_a_panic() {
        let borrowed = String::from("here");
        assert_eq!(aside("aside", || borrowed.len()).unwrap(), 4);
        let caught = std::panic::catch_unwind(|| aside("aside", || panic!("on purpose")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}
