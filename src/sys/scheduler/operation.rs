//! What actors do and wait for.

use std::fmt;
use std::panic::Location;

/// What an actor waits for. Compared only with what others wait for at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum WaitKey {
    /// The address of a lock, a condition variable, or what the ends of a channel share.
    Object(usize),
    /// The end of an actor.
    ActorEnd(usize),
}

impl WaitKey {
    pub(in crate::sys) fn of<T>(object: &T) -> Self {
        Self::Object(std::ptr::from_ref(object).addr())
    }
}

/// What an actor is about to do, for the trace.
#[derive(Clone)]
pub(in crate::sys) struct Operation {
    verb: &'static str,
    subject: OperationSubject,
    location: Option<&'static Location<'static>>,
}

#[derive(Clone)]
enum OperationSubject {
    Type(&'static str),
    Text(String),
}

impl Operation {
    /// Something with a lock or a channel of this type, called by the caller's caller.
    #[track_caller]
    pub(in crate::sys) fn on<T>(verb: &'static str) -> Self {
        Self { location: Some(Location::caller()), ..Self::without_location::<T>(verb) }
    }

    /// The same where the caller is not known.
    pub(in crate::sys) fn without_location<T>(verb: &'static str) -> Self {
        Self { verb, subject: OperationSubject::Type(std::any::type_name::<T>()), location: None }
    }

    pub(in crate::sys) fn from_text(text: String) -> Self {
        Self { verb: "", subject: OperationSubject::Text(text), location: None }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            OperationSubject::Type(name) => write!(f, "{} {}", self.verb, name.replace("postrider::", ""))?,
            OperationSubject::Text(text) => write!(f, "{text}")?,
        }
        match self.location {
            Some(place) => write!(f, " at {}:{}", place.file(), place.line()),
            None => Ok(()),
        }
    }
}
