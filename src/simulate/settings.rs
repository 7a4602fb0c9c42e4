//! How a simulated API behaves.
//!
//! Must not depend on: HTTP.

use std::time::Duration;

use super::export::{Disputed, PageSizeRule};

/// The settings of a simulator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port on loopback.
    pub port: u16,
    /// The key that it accepts.
    pub key: String,
    /// The requests that it allows per second; 0 means any number.
    pub requests_per_second: f64,
    /// The seconds that pass in the simulation per real second; 0 stops time.
    pub speed: f64,
    /// Every request of this number fails, as the API is known to fail; 0 means none.
    pub fault_every: u32,
    /// Whether the account lacks the entitlement to export.
    pub not_entitled: bool,
    /// What it does with `page_size`.
    pub page_size: PageSizeRule,
    /// How long it takes for each conversation of a page.
    pub time_per_conversation: Duration,
    /// The points on which sources disagree.
    pub disputed: Disputed,
}

impl Settings {
    /// A simulator on a free port that accepts `key`, answers without limits or faults, and whose time stands still.
    pub fn without_limits(key: &str) -> Self {
        Settings {
            port: 0,
            key: key.to_owned(),
            requests_per_second: 0.0,
            speed: 0.0,
            fault_every: 0,
            not_entitled: false,
            page_size: PageSizeRule::default(),
            time_per_conversation: Duration::ZERO,
            disputed: Disputed::default(),
        }
    }
}
