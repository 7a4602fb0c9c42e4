//! The policy that the rows of a file follow. Must not depend on: what policies say.

/// Which policy the rows of a file follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowPolicy {
    /// None: they are as the API sent them.
    #[default]
    None,
    /// That of a file that this program wrote before another program rewrote it.
    Unknown,
    /// The one with this hash.
    Named(String),
}

impl RowPolicy {
    /// The name of an unknown one in a file.
    const UNKNOWN: &str = "unknown";

    /// The text that a file's footer has for it; `None` if it needs none.
    pub fn text(&self) -> Option<&str> {
        match self {
            RowPolicy::None => None,
            RowPolicy::Unknown => Some(Self::UNKNOWN),
            RowPolicy::Named(hash) => Some(hash),
        }
    }

    /// The policy that a footer's text names.
    pub fn of_text(text: Option<&str>) -> Self {
        match text {
            None => RowPolicy::None,
            Some(Self::UNKNOWN) => RowPolicy::Unknown,
            Some(hash) => RowPolicy::Named(hash.to_owned()),
        }
    }
}
