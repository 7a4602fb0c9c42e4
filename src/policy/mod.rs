//! A policy: what of the conversations may land in a lake, and in which form.
//!
//! Guarantees: nothing that a rule covers passes in the clear, because a policy is applied to the JSON of each
//! conversation before anything else reads it, and a value of an unexpected shape is masked rather than kept. What no
//! rule covers stays the same to the byte. Everything here is pure.
//! Must not depend on: where conversations come from, and where rows go.

mod apply;
mod chain;
mod digits;
mod field;
mod mask;
mod redact;
mod rows;
mod rules;
#[cfg(test)]
mod tests;
mod tree;

pub use apply::{Masker, Quarantined};
pub use chain::{KeptPolicy, PolicyChain};
pub use field::{Field, Star};
pub use mask::{KeyedHash, Mask, Pattern, PolicyKey, hex};
pub use rules::{Policy, Rule};
pub use tree::RuleHits;
