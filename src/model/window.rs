//! The request of a walk: its window and other parameters. The size of its pages is no part of it.
//!
//! Guarantees: a resumed walk asks for the same, because the request is stored with its cursor.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::time::EpochSecs;

/// The time of a conversation that the API's bounds apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampFilter {
    /// When the conversation began, which never changes.
    CreatedAt,
    /// When it last changed, which increments need.
    UpdatedAt,
    /// When its last message arrived.
    LastMessageTime,
}

impl TimestampFilter {
    /// The value of the `timestamp_filter` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            TimestampFilter::CreatedAt => "created_at",
            TimestampFilter::UpdatedAt => "updated_at",
            TimestampFilter::LastMessageTime => "last_message_time",
        }
    }
}

/// A half-open range of time, `[from, to)`; an open end is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The time that the bounds apply to.
    pub filter: TimestampFilter,
    /// The first instant inside the window.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after the window.
    pub to: Option<DateTime<Utc>>,
}

impl Window {
    /// The whole history.
    pub const EVERYTHING: Window = Window { filter: TimestampFilter::UpdatedAt, from: None, to: None };

    /// The `min_timestamp` to send: one second early, because whether the API's bounds are inclusive is not documented;
    /// never before the epoch.
    pub fn min_timestamp(&self) -> Option<EpochSecs> {
        self.from.map(|from| EpochSecs(EpochSecs::floor(from).0.saturating_sub(1).max(0)))
    }

    /// The `max_timestamp` to send: the first whole second outside the window.
    pub fn max_timestamp(&self) -> Option<EpochSecs> {
        self.to.map(|to| EpochSecs::ceil(to).max(EpochSecs(0)))
    }

    /// Whether `time` lies inside the window.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }

    /// Whether a server that obeys the bounds may send a conversation of this `time`: bounds are sent in whole seconds.
    pub fn asks_for(&self, time: DateTime<Utc>) -> bool {
        let second = EpochSecs::floor(time);
        self.min_timestamp().is_none_or(|min| min <= second) && self.max_timestamp().is_none_or(|max| second <= max)
    }

    /// Describes the range and the time that it applies to; `None` for the whole history.
    pub fn describe(&self) -> Option<String> {
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let range = match (self.from, self.to) {
            (None, None) => return None,
            (Some(from), None) => format!("from {}", text(from)),
            (None, Some(to)) => format!("up to {}", text(to)),
            (Some(from), Some(to)) => format!("from {} to {}", text(from), text(to)),
        };
        Some(format!("{} {range}", self.filter.as_str()))
    }

    /// Whether only a server that honors `timestamp_filter` can answer it: the API's default is `created_at`.
    pub fn depends_on_filter(&self) -> bool {
        self.filter != TimestampFilter::CreatedAt && (self.from.is_some() || self.to.is_some())
    }
}

/// Every parameter of a walk except its cursor and the size of its pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The range of time.
    pub window: Window,
    /// `user_filters`, a JSON object, if the user set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_filters: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_round_outwards_and_the_range_is_half_open() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let window = Window { filter: TimestampFilter::UpdatedAt, from: Some(at(10_500)), to: Some(at(20_500)) };
        assert_eq!(window.min_timestamp(), Some(EpochSecs(9)));
        assert_eq!(window.max_timestamp(), Some(EpochSecs(21)));
        assert!(window.contains(at(10_500)) && window.contains(at(20_499)));
        assert!(!window.contains(at(10_499)) && !window.contains(at(20_500)));
        assert_eq!(Window { from: Some(at(0)), ..window }.min_timestamp(), Some(EpochSecs(0)));
        assert!(Window::EVERYTHING.contains(at(i64::from(i32::MIN))));
    }
}
