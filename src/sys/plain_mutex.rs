//! The lock and the condition variable of the standard library, which go on after a panic.

#[cfg(any(test, feature = "fakes"))]
use std::sync::TryLockError;
use std::sync::{MutexGuard, PoisonError};

/// A mutex that stays usable after a thread has panicked while it held the lock.
///
/// A session that panics must end alone, so the next thread takes the lock as usual. Code that holds a lock
/// must therefore leave the value valid at the end of each statement.
///
/// In a shipped program this is `sys::Mutex`. In a test build `sys::Mutex` is a point at which the scheduler
/// may switch actors, and this type never is: it is for values that belong to the test itself.
#[derive(Debug, Default)]
pub struct PlainMutex<T>(std::sync::Mutex<T>);

impl<T> PlainMutex<T> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if it is free.
    #[cfg(any(test, feature = "fakes"))]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The value, which no other thread can reach any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition variable for threads that wait until a value in a [`PlainMutex`] changes. `sys::Condvar` in a
/// shipped program.
#[derive(Debug, Default)]
pub struct PlainCondvar(std::sync::Condvar);

impl PlainCondvar {
    /// A condition variable for which no thread waits.
    pub const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Releases the lock, waits until the thread is woken, and takes the lock again. The thread may wake up
    /// without a reason: check the condition again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all waiting threads.
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
    fn a_lock_can_be_taken_after_its_holder_has_panicked() {
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
