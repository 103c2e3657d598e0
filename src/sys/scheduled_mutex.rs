//! The lock and the condition variable of a test build. On an actor of a `scheduler`, each call is a point at
//! which the scheduler may let another actor run; on all other threads they are those of `plain_mutex`.

use std::ops::{Deref, DerefMut};
use std::sync;

use super::plain_mutex::{PlainCondvar, PlainMutex};
use super::scheduler::{CurrentActor, Operation, WaitKey, current_actor};

/// See [`PlainMutex`].
#[derive(Debug, Default)]
pub struct Mutex<T>(PlainMutex<T>);

impl<T> Mutex<T> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        Self(PlainMutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let Some(actor) = current_actor() else { return self.guard(self.0.lock()) };
        let operation = Operation::on::<T>("lock");
        actor.scheduling_point(operation.clone());
        self.lock_as(&actor, &operation)
    }

    /// The value, which no other thread can reach any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }

    fn lock_as(&self, actor: &CurrentActor, operation: &Operation) -> MutexGuard<'_, T> {
        loop {
            match self.0.try_lock() {
                Some(guard) => return self.guard(guard),
                None => actor.wait(WaitKey::of(self), operation, None),
            };
        }
    }

    fn guard<'a>(&'a self, plain: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { plain, unlock_notifier: UnlockNotifier { mutex: self, is_part_of_wait: false } }
    }
}

/// Holds the lock until it is dropped.
pub struct MutexGuard<'a, T> {
    plain: sync::MutexGuard<'a, T>,
    /// Dropped after the lock is free: the order of the fields counts.
    unlock_notifier: UnlockNotifier<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.plain
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.plain
    }
}

/// When it is dropped, actors that wait for the lock try again.
struct UnlockNotifier<'a, T> {
    mutex: &'a Mutex<T>,
    /// The lock is released as a part of [`Condvar::wait`], not as a step of its own.
    is_part_of_wait: bool,
}

impl<T> Drop for UnlockNotifier<'_, T> {
    fn drop(&mut self) {
        match current_actor() {
            Some(actor) if self.is_part_of_wait => actor.wake(WaitKey::of(self.mutex)),
            Some(actor) => {
                actor.release(WaitKey::of(self.mutex), Operation::without_location::<T>("unlocked"))
            }
            None => {}
        }
    }
}

/// See [`PlainCondvar`].
#[derive(Debug, Default)]
pub struct Condvar(PlainCondvar);

impl Condvar {
    /// A condition variable for which no thread waits.
    pub const fn new() -> Self {
        Self(PlainCondvar::new())
    }

    /// See [`PlainCondvar::wait`].
    #[track_caller]
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let Some(actor) = current_actor() else {
            let MutexGuard { plain, unlock_notifier: unlocked } = guard;
            return MutexGuard { plain: self.0.wait(plain), unlock_notifier: unlocked };
        };
        let operation = Operation::on::<T>("wait for");
        actor.scheduling_point(operation.clone());
        let mutex = guard.unlock_notifier.mutex;
        // No other actor runs between the unlock and the wait, so no notification is lost.
        guard.unlock_notifier.is_part_of_wait = true;
        drop(guard);
        actor.wait_for_notify(WaitKey::of(self), &operation);
        mutex.lock_as(&actor, &operation)
    }

    /// Wakes all waiting threads.
    #[track_caller]
    pub fn notify_all(&self) {
        if let Some(actor) = current_actor() {
            actor.scheduling_point(Operation::on::<Self>("notify"));
            actor.wake(WaitKey::of(self));
        }
        self.0.notify_all();
    }
}
