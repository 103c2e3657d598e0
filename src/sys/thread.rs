//! Threads with a name and a small stack.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_aside_comes_back_be_it_a_value_or_a_panic() {
        let borrowed = String::from("here");
        assert_eq!(run_on_temporary_thread("aside", || borrowed.len()).unwrap(), 4);
        let caught = std::panic::catch_unwind(|| run_on_temporary_thread("aside", || panic!("on purpose")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}
