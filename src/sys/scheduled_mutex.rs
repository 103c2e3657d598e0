//! The lock and the condition variable of test builds: choice points of a `scheduler` on its actors, and the
//! plain ones of `thread` on all other threads.

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

    /// Waits for the lock.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let Some(here) = current_actor() else { return self.guard(self.0.lock()) };
        let doing = Operation::on::<T>("lock");
        here.scheduling_point(doing.clone());
        self.lock_as(&here, &doing)
    }

    /// The value, when nobody else can hold it any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }

    fn lock_as(&self, here: &CurrentActor, doing: &Operation) -> MutexGuard<'_, T> {
        loop {
            match self.0.try_lock() {
                Some(guard) => return self.guard(guard),
                None => here.wait(WaitKey::of(self), doing, None),
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

/// When it is dropped, those who wait for the lock look again.
struct UnlockNotifier<'a, T> {
    mutex: &'a Mutex<T>,
    /// The lock is let go as a part of something else, not as a step of its own.
    is_part_of_wait: bool,
}

impl<T> Drop for UnlockNotifier<'_, T> {
    fn drop(&mut self) {
        match current_actor() {
            Some(here) if self.is_part_of_wait => here.wake(WaitKey::of(self.mutex)),
            Some(here) => here.release(WaitKey::of(self.mutex), Operation::without_location::<T>("unlocked")),
            None => {}
        }
    }
}

/// See [`PlainCondvar`].
#[derive(Debug, Default)]
pub struct Condvar(PlainCondvar);

impl Condvar {
    /// Nobody waits yet.
    pub const fn new() -> Self {
        Self(PlainCondvar::new())
    }

    /// Lets the lock go, waits to be woken (or not: look again), takes it back.
    #[track_caller]
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let Some(here) = current_actor() else {
            let MutexGuard { plain, unlock_notifier: unlocked } = guard;
            return MutexGuard { plain: self.0.wait(plain), unlock_notifier: unlocked };
        };
        let doing = Operation::on::<T>("wait for");
        here.scheduling_point(doing.clone());
        let mutex = guard.unlock_notifier.mutex;
        // Nobody runs between the unlock and the wait: no notice is lost.
        guard.unlock_notifier.is_part_of_wait = true;
        drop(guard);
        here.wait_for_notify(WaitKey::of(self), &doing);
        mutex.lock_as(&here, &doing)
    }

    /// Wakes all who wait.
    #[track_caller]
    pub fn notify_all(&self) {
        if let Some(here) = current_actor() {
            here.scheduling_point(Operation::on::<Self>("notify"));
            here.wake(WaitKey::of(self));
        }
        self.0.notify_all();
    }
}
