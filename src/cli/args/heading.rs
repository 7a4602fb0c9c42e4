//! The headings that group flags in help texts. Flags without one come first, under "Options".

/// How to ask the API.
pub(super) const API: &str = "API options";
/// How to reach the lake's store.
pub(super) const STORE: &str = "Store options";
/// Trades memory and the number of files for speed.
pub(super) const TUNING: &str = "Tuning";
/// How long a lake keeps its past.
pub(super) const RETENTION: &str = "Retention options";
/// What a run prints, logs and writes besides the lake.
pub(super) const OUTPUT: &str = "Output options";
