//! Threads with a name and a small stack.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::{Builder, JoinHandle};

#[cfg(any(test, feature = "fakes"))]
use super::scheduler;

/// Octets of virtual memory: only pages that were touched take memory.
const STACK_OCTETS: usize = 256 * 1024;

/// A TLS handshake needs 32 KiB in a release build and over 64 KiB in a debug build. Smaller than
/// [`STACK_OCTETS`], because the C library keeps stacks and gives them to the next thread for which they
/// are large enough, with every page that was touched.
const TEMPORARY_THREAD_STACK_OCTETS: usize = 128 * 1024;

/// Starts a named thread. Linux keeps fifteen characters of the name. If an actor of a test's scheduler calls
/// this, the new thread is an actor as well.
///
/// # Errors
/// When the host cannot start a thread.
pub fn spawn<F>(name: impl Into<String>, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    #[cfg(any(test, feature = "fakes"))]
    if let Some(actor) = scheduler::current_actor() {
        return actor.spawn(name.into(), body);
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
    if let Some(actor) = scheduler::current_actor() {
        actor.join(thread.thread().id());
    }
    thread.join()
}

/// Calls `body`, which may panic. The unwinding by which a test's scheduler ends an actor is not caught.
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

/// A point at which a test's scheduler may let another actor run: before an operation that other threads can
/// observe and that is neither a lock nor a channel. Does nothing on other threads and in a shipped program.
#[inline]
pub fn scheduling_point(describe: impl FnOnce() -> String) {
    #[cfg(any(test, feature = "fakes"))]
    if let Some(actor) = scheduler::current_actor() {
        actor.scheduling_point(scheduler::Operation::from_text(describe()));
    }
    #[cfg(not(any(test, feature = "fakes")))]
    let _ = describe;
}

/// Calls `body` on a short-lived thread and waits for its end. For work that needs much stack, or memory that
/// libraries keep for each thread, when the calling thread waits for a long time afterwards: all of that
/// memory is freed.
///
/// # Errors
/// When the host cannot start a thread.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_thread_returns_its_value_or_its_panic() {
        let borrowed = String::from("here");
        assert_eq!(run_on_temporary_thread("temporary", || borrowed.len()).unwrap(), 4);
        let caught =
            std::panic::catch_unwind(|| run_on_temporary_thread("temporary", || panic!("on purpose")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}
