//! The crate's error, and the exit code of each kind.
//!
//! A message is one lower-case line without a full stop that names the flag, field, URL or key at fault. Its causes
//! follow as a chain, and a hint says what to do. Guarantees: the API key is in no error, because `api` redacts it
//! first. Must not depend on: how errors are printed (`cli`).

use std::error::Error as StdError;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure. Schedulers branch on [`Kind::exit_code`], so the numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong flags, environment or configuration.
    Usage,
    /// The API refused the request, or broke its contract.
    Api,
    /// The API could not be reached, or kept failing.
    Unreachable,
    /// The store that holds the lake failed.
    Store,
    /// Data was quarantined, or an invariant of the lake does not hold.
    Integrity,
    /// Another run holds the lake.
    Held,
    /// A bug in this program.
    Bug,
    /// The user or the scheduler asked to stop.
    Interrupted,
}

impl Kind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Api => 3,
            Kind::Unreachable => 4,
            Kind::Store => 5,
            Kind::Integrity => 6,
            Kind::Held => 7,
            Kind::Bug => 70,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure: what failed, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    status: Option<u16>,
    of_one_object: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind`; the message is one lower-case line without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, status: None, of_one_object: false, source: None }
    }

    /// Wrong flags, environment or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The API refused, or broke its contract.
    pub fn api(message: impl Into<String>) -> Self {
        Self::new(Kind::Api, message)
    }

    /// The API could not be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    /// The lake's store failed.
    pub fn store(message: impl Into<String>) -> Self {
        Self::new(Kind::Store, message)
    }

    /// Data was quarantined, or an invariant does not hold.
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, message)
    }

    /// Another run holds the lake.
    pub fn held(message: impl Into<String>) -> Self {
        Self::new(Kind::Held, message)
    }

    /// Something that cannot happen did.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
            .with_hint("this is a bug in decagon-lake; the lake is as the last checkpoint left it")
    }

    /// The run was asked to stop.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
            .with_hint("staged data is kept; run the same command again to continue")
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint for the user.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the HTTP status that the API refused with.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The HTTP status that the API refused with, if it did.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Marks the failure as one of a single object, so that work on others can continue.
    #[must_use]
    pub fn of_one_object(mut self) -> Self {
        self.of_one_object = true;
        self
    }

    /// Whether work on other objects can continue: only one is damaged, or cannot be read for now.
    pub fn is_of_one_object(&self) -> bool {
        self.of_one_object || self.kind == Kind::Integrity
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message and its causes, outermost first, each once.
    ///
    /// Libraries often repeat their cause in their own message, so a cause that the message before it quotes is left
    /// out.
    pub fn chain(&self) -> Vec<String> {
        let mut links = vec![self.message.clone()];
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !links.last().is_some_and(|previous| previous.contains(&text)) {
                links.push(text);
            }
            next = cause.source();
        }
        links
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Error::bug("record batches do not match").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_omits_causes_already_quoted() {
        let inner = Error::store("disk full");
        let middle = Error::store("cannot write: disk full").caused_by(inner);
        let outer = Error::store("cannot stage page 3").caused_by(middle);
        assert_eq!(outer.chain(), ["cannot stage page 3", "cannot write: disk full"]);
    }
}
