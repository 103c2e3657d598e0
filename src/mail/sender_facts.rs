//! Facts about the sender of a message that the server looks up at MAIL.

use super::domain::Domain;
use super::verdict::SpfResult;

/// What was found out about a sender: the answer to the question about MAIL. By default nothing was looked
/// up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SenderFacts {
    /// The name of the client's address in DNS, confirmed by a look-up of that name's addresses.
    pub reverse_name: Option<Domain>,
    /// Whether the client may send for the domain of the reverse-path; `None` if SPF was not checked.
    pub spf: Option<SpfResult>,
}
