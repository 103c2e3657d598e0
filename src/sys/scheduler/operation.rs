//! The operations of actors, and the keys of what actors wait for.

use std::fmt;
use std::panic::Location;

/// Identifies what an actor waits for. Compared only with the keys of other waits at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum WaitKey {
    /// The address of a lock, of a condition variable, or of the value that the ends of a channel share.
    Object(usize),
    /// The end of an actor.
    ActorEnd(usize),
}

impl WaitKey {
    pub(in crate::sys) fn of<T>(object: &T) -> Self {
        Self::Object(std::ptr::from_ref(object).addr())
    }
}

/// The operation that follows a scheduling point, for the trace.
#[derive(Clone)]
pub(in crate::sys) struct Operation {
    name: &'static str,
    subject: OperationSubject,
    location: Option<&'static Location<'static>>,
}

#[derive(Clone)]
enum OperationSubject {
    Type(&'static str),
    Text(String),
}

impl Operation {
    /// An operation on a lock or a channel of this type, at the location of the caller's caller.
    #[track_caller]
    pub(in crate::sys) fn on<T>(name: &'static str) -> Self {
        Self { location: Some(Location::caller()), ..Self::without_location::<T>(name) }
    }

    /// An operation on a lock or a channel of this type, at an unknown location.
    pub(in crate::sys) fn without_location<T>(name: &'static str) -> Self {
        Self { name, subject: OperationSubject::Type(std::any::type_name::<T>()), location: None }
    }

    pub(in crate::sys) fn from_text(text: String) -> Self {
        Self { name: "", subject: OperationSubject::Text(text), location: None }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            OperationSubject::Type(name) => write!(f, "{} {}", self.name, name.replace("postrider::", ""))?,
            OperationSubject::Text(text) => write!(f, "{text}")?,
        }
        match self.location {
            Some(location) => write!(f, " at {}:{}", location.file(), location.line()),
            None => Ok(()),
        }
    }
}
