//! Parsing and flattening of any input: nothing panics, nothing is lost.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test flatten` tries more cases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod fuzz;
mod rebuild;

use proptest::prelude::ProptestConfig;

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(512), failure_persistence: None, ..config }
}
