//! The lock and the condition variable of the standard library, which go on after a panic.

#[cfg(any(test, feature = "fakes"))]
use std::sync::TryLockError;
use std::sync::{MutexGuard, PoisonError};

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
    use crate::sys::spawn;

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
}
