//! The lock and the condition variable of test builds: choice points of a `scheduler` on its actors, and the
//! plain ones of `thread` on all other threads.

use std::ops::{Deref, DerefMut};
use std::sync;

use super::scheduler::{Doing, Here, Key, current};
use super::thread::{PlainCondvar, PlainMutex};

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
        let Some(here) = current() else { return self.guard(self.0.lock()) };
        let doing = Doing::with::<T>("lock");
        here.point(doing.clone());
        self.taken_by(&here, &doing)
    }

    /// The value, when nobody else can hold it any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }

    fn taken_by(&self, here: &Here, doing: &Doing) -> MutexGuard<'_, T> {
        loop {
            match self.0.try_lock() {
                Some(guard) => return self.guard(guard),
                None => here.wait(Key::of(self), doing, None),
            };
        }
    }

    fn guard<'a>(&'a self, plain: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { plain, unlocked: Unlocked { mutex: self, is_silent: false } }
    }
}

/// Holds the lock until it is dropped.
pub struct MutexGuard<'a, T> {
    plain: sync::MutexGuard<'a, T>,
    /// Dropped after the lock is free: the order of the fields counts.
    unlocked: Unlocked<'a, T>,
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
struct Unlocked<'a, T> {
    mutex: &'a Mutex<T>,
    /// The lock is let go as a part of something else, not as a step of its own.
    is_silent: bool,
}

impl<T> Drop for Unlocked<'_, T> {
    fn drop(&mut self) {
        match current() {
            Some(here) if self.is_silent => here.wake(Key::of(self.mutex)),
            Some(here) => here.let_go(Key::of(self.mutex), Doing::at_drop::<T>("unlocked")),
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
        let Some(here) = current() else {
            let MutexGuard { plain, unlocked } = guard;
            return MutexGuard { plain: self.0.wait(plain), unlocked };
        };
        let doing = Doing::with::<T>("wait for");
        here.point(doing.clone());
        let mutex = guard.unlocked.mutex;
        // Nobody runs between the unlock and the wait: no notice is lost.
        guard.unlocked.is_silent = true;
        drop(guard);
        here.wait_for_notice(Key::of(self), &doing);
        mutex.taken_by(&here, &doing)
    }

    /// Wakes all who wait.
    #[track_caller]
    pub fn notify_all(&self) {
        if let Some(here) = current() {
            here.point(Doing::with::<Self>("notify"));
            here.wake(Key::of(self));
        }
        self.0.notify_all();
    }
}
