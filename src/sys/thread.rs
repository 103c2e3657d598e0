//! Threads with a name and a small stack, and a lock that survives a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(any(test, feature = "fakes"))]
use std::sync::TryLockError;
use std::sync::{MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

#[cfg(any(test, feature = "fakes"))]
use super::scheduler;

/// Virtual; only what is touched counts.
const STACK_OCTETS: usize = 256 * 1024;

/// A TLS handshake needs 32 KiB in a release build and over 64 KiB in a debug build. Smaller than
/// [`STACK_OCTETS`], because the C library keeps stacks and gives them to the next thread for which they
/// are large enough, with every page that was touched.
const TEMPORARY_THREAD_STACK_OCTETS: usize = 128 * 1024;

/// Starts a named thread. Linux keeps fifteen characters of the name. On an actor of a test's scheduler, the
/// thread becomes one too.
///
/// # Errors
/// When the host has no thread to give.
pub fn spawn<F>(name: impl Into<String>, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    #[cfg(any(test, feature = "fakes"))]
    if let Some(here) = scheduler::current_actor() {
        return here.spawn(name.into(), body);
    }
    Builder::new().name(name.into()).stack_size(STACK_OCTETS).spawn(body)
}

/// Waits until a thread has ended. `JoinHandle::join` does the same, but an actor of a test's scheduler must
/// not block in it.
///
/// # Errors
/// The panic that ended it.
pub fn join<T>(thread: JoinHandle<T>) -> std::thread::Result<T> {
    #[cfg(any(test, feature = "fakes"))]
    if let Some(here) = scheduler::current_actor() {
        here.join(thread.thread().id());
    }
    thread.join()
}

/// Does something that may panic. When a test's scheduler ends an actor, by unwinding it, that goes on.
///
/// # Errors
/// The panic.
pub fn catch_panic<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(body));
    #[cfg(any(test, feature = "fakes"))]
    if let Err(payload) = result {
        return if scheduler::is_actor_unwind(payload.as_ref()) {
            resume_unwind(payload)
        } else {
            Err(payload)
        };
    }
    result
}

/// Where a test's scheduler may let another actor run: before something that others can see and that is
/// neither a lock nor a channel. Nothing on any other thread, and in a shipped program.
#[inline]
pub fn scheduling_point(what: impl FnOnce() -> String) {
    #[cfg(any(test, feature = "fakes"))]
    if let Some(here) = scheduler::current_actor() {
        here.scheduling_point(scheduler::Operation::from_text(what()));
    }
    #[cfg(not(any(test, feature = "fakes")))]
    let _ = what;
}

/// Does something on a short-lived thread and waits for it: what needs much stack, and other memory that
/// the libraries keep for each thread, and is done by a thread that then waits for a long time. It is all
/// given back.
///
/// # Errors
/// When the host has no thread to give.
pub fn run_on_temporary_thread<F, T>(name: &str, body: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    std::thread::scope(|scope| {
        let thread = Builder::new().name(name.to_owned()).stack_size(TEMPORARY_THREAD_STACK_OCTETS);
        Ok(thread.spawn_scoped(scope, body)?.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A mutex whose holder may panic.
///
/// A session that panics ends alone. What it guarded is left at a statement's end by every
/// section we have (they are short and do no input or output), so the next thread goes on.
///
/// In a shipped program this is `sys::Mutex` itself. In test builds that one is a choice point on the actors
/// of a scheduler, and this one never is: for what belongs to a test and not to the program.
#[derive(Debug, Default)]
pub struct PlainMutex<T>(std::sync::Mutex<T>);

impl<T> PlainMutex<T> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if it is free.
    #[cfg(any(test, feature = "fakes"))]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The value, when nobody else can hold it any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where threads that hold a [`PlainMutex`] wait for a change of what it guards. `sys::Condvar` in a shipped
/// program.
#[derive(Debug, Default)]
pub struct PlainCondvar(std::sync::Condvar);

impl PlainCondvar {
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
        let shared = Arc::new(PlainMutex::new(1));
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
        assert_eq!(run_on_temporary_thread("aside", || borrowed.len()).unwrap(), 4);
        let caught = std::panic::catch_unwind(|| run_on_temporary_thread("aside", || panic!("on purpose")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}
