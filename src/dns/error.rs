//! Why a resolver has no answer.

/// Why a question has no answer. Only [`DnsError::NoSuchDomain`] is a fact about the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN: the name does not exist, whatever the type (RFC 8020).
    #[error("no such domain")]
    NoSuchDomain,
    /// SERVFAIL, a timeout, a refusal, a malformed answer, a broken network: asking again later
    /// may help. The text says which, for the log.
    #[error("{0}")]
    Temporary(String),
    /// The caller's [`Budget`](super::Budget) has no look-ups or no time left. The next attempt has
    /// a budget of its own. The text says what is used up.
    #[error("the limit for DNS was reached: {0}")]
    BudgetExhausted(&'static str),
}
