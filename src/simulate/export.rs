//! Answers `GET /conversation/export` as the vendor's page describes it. Must not depend on: I/O.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::edits::Edits;
use super::world::World;
use crate::model::TimestampFilter;

/// The size of a page by default (*doc*: "up to 100 at a time").
const PAGE: usize = 100;
/// The largest `page_size` of live clients.
pub const LARGEST_PAGE: usize = 1_000;

/// The name of the next page's cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorName {
    /// As in the vendor's example program and on live accounts.
    NextCursor,
    /// As in the vendor's text.
    NextPageCursor,
    /// As in the vendor's example response: an integer, the second in which the next page begins.
    NextPageUpdatedAfter,
}

/// What the API does with `page_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPageSize {
    /// Returns pages of this size, and refuses more than its largest page.
    Honor,
    /// Returns at most its largest page.
    Cap,
    /// Refuses the parameter with 400.
    Refuse400,
    /// Refuses the parameter with 422.
    Refuse422,
    /// Returns its usual pages.
    Ignore,
}

/// What the API does with `page_size`, and when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSizeRule {
    /// At first.
    pub first: OnPageSize,
    /// After so many requests.
    pub then: Option<(u32, OnPageSize)>,
    /// The largest page.
    pub largest: usize,
}

impl Default for PageSizeRule {
    /// As live accounts are known to answer.
    fn default() -> Self {
        PageSizeRule { first: OnPageSize::Honor, then: None, largest: LARGEST_PAGE }
    }
}

impl PageSizeRule {
    /// The size of the page that answers request `number`.
    fn size(&self, asked: Option<&str>, number: u32) -> Result<usize, Refused> {
        let usual = PAGE.min(self.largest);
        let Some(asked) = asked else { return Ok(usual) };
        let refuse = |status, message| Err(Refused { status, parameter: "page_size", message });
        match (self.then.filter(|(after, _)| number > *after).map_or(self.first, |(_, it)| it), asked.parse()) {
            (OnPageSize::Refuse400, _) => refuse(400, "Unknown parameter"),
            (OnPageSize::Refuse422, _) => refuse(422, "Extra inputs are not permitted"),
            (OnPageSize::Ignore, _) => Ok(usual),
            (OnPageSize::Cap, Ok(size @ 1..)) => Ok(self.largest.min(size)),
            (OnPageSize::Honor, Ok(size @ 1..)) if size <= self.largest => Ok(size),
            (OnPageSize::Honor | OnPageSize::Cap, _) => refuse(422, "Input should be between 1 and the largest page"),
        }
    }
}

/// The points on which sources disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disputed {
    /// The name of the next page's cursor.
    pub cursor_name: CursorName,
    /// The time that the bounds apply to if no `timestamp_filter` is sent.
    pub default_filter: TimestampFilter,
    /// Whether conversations have `updated_at`.
    pub updated_at: bool,
    /// Whether the API ignores `timestamp_filter`.
    pub ignores_filter: bool,
}

impl Default for Disputed {
    /// As live accounts are known to answer.
    fn default() -> Self {
        Disputed {
            cursor_name: CursorName::NextCursor,
            default_filter: TimestampFilter::CreatedAt,
            updated_at: true,
            ignores_filter: false,
        }
    }
}

/// The parsed query parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    cursor: Option<PagePosition>,
    min_micros: i64,
    max_micros: i64,
    filter: TimestampFilter,
    page_size: usize,
    descending: bool,
    user_filters: Option<Value>,
}

/// A conversation's position in the order of the export: its time, then its number.
pub(super) type PagePosition = (i64, u64);

/// A parameter that the API refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) parameter: &'static str,
    pub(super) message: &'static str,
}

fn refused(parameter: &'static str, message: &'static str) -> Refused {
    Refused { status: 422, parameter, message }
}

impl Query {
    /// Parses the parameters of request `number`, as strictly as the API does.
    pub(super) fn parse(
        parameters: &HashMap<String, String>,
        disputed: &Disputed,
        page_size: &PageSizeRule,
        number: u32,
    ) -> Result<Self, Refused> {
        let get = |name: &str| parameters.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let seconds = |name: &'static str| {
            get(name)
                .map(|text| text.parse::<i64>().map_err(|_| refused(name, "Input should be a valid integer")))
                .transpose()
        };
        let filter = match get("timestamp_filter").filter(|_| !disputed.ignores_filter) {
            None => disputed.default_filter,
            Some("created_at") => TimestampFilter::CreatedAt,
            Some("updated_at") => TimestampFilter::UpdatedAt,
            Some("last_message_time") => TimestampFilter::LastMessageTime,
            Some(_) => {
                return Err(refused(
                    "timestamp_filter",
                    "Input should be 'created_at', 'updated_at' or 'last_message_time'",
                ));
            }
        };
        let page_size = page_size.size(get("page_size").or(get("limit")), number)?;
        let user_filters = match get("user_filters").map(serde_json::from_str) {
            None => None,
            Some(Ok(filters @ Value::Object(_))) => Some(filters),
            Some(_) => return Err(refused("user_filters", "Input should be a JSON object")),
        };
        Ok(Query {
            cursor: get("cursor").filter(|text| *text != "0").map(read_cursor).transpose()?.flatten(),
            min_micros: seconds("min_timestamp")?.map_or(i64::MIN, |secs| secs.saturating_mul(1_000_000)),
            max_micros: seconds("max_timestamp")?.map_or(i64::MAX, |secs| secs.saturating_mul(1_000_000)),
            filter,
            page_size,
            descending: get("order") == Some("desc"),
            user_filters,
        })
    }

    /// The time that orders the export.
    pub(super) fn filter(&self) -> TimestampFilter {
        self.filter
    }

    /// Renders the page at the cursor: the body of the response, and how many conversations it has.
    pub(super) fn page(
        &self,
        (world, edits): (&World, &Edits),
        index: &[PagePosition],
        now: i64,
        disputed: &Disputed,
    ) -> (String, u32) {
        let first = index.partition_point(|(time, _)| *time < self.min_micros);
        let last = index.partition_point(|(time, _)| *time <= self.max_micros);
        let window = index.get(first..last).unwrap_or_default();
        let integer = disputed.cursor_name == CursorName::NextPageUpdatedAfter;
        let rest = match self.cursor {
            None => window,
            Some((time, _)) if integer => {
                window.get(window.partition_point(|position| position.0 < time)..).unwrap_or_default()
            }
            Some(cursor) if self.descending => {
                window.get(..window.partition_point(|position| *position < cursor)).unwrap_or_default()
            }
            Some(cursor) => window.get(window.partition_point(|position| *position <= cursor)..).unwrap_or_default(),
        };
        let mut conversations = Vec::with_capacity(self.page_size);
        let mut last_position = None;
        let mut positions: Box<dyn Iterator<Item = &PagePosition>> =
            if self.descending { Box::new(rest.iter().rev()) } else { Box::new(rest.iter()) };
        for position in positions.by_ref() {
            let Some(json) = edits.render(world, position.1, now, disputed.updated_at) else { continue };
            if self.user_filters.as_ref().is_none_or(|filters| passes(&json, filters)) {
                conversations.push(json);
                last_position = Some(*position);
            }
            if conversations.len() == self.page_size {
                break;
            }
        }
        let next = last_position.filter(|_| positions.next().is_some());
        let count = u32::try_from(conversations.len()).unwrap_or(u32::MAX);
        (body(&conversations, next, disputed.cursor_name), count)
    }
}

/// Returns the order of the export at `now`.
pub(super) fn index(world: &World, edits: &Edits, filter: TimestampFilter, now: i64) -> Vec<PagePosition> {
    let mut index: Vec<PagePosition> = edits
        .numbers(world, now)
        .filter_map(|number| {
            let times = edits.times(world, number, now)?;
            let time = match filter {
                TimestampFilter::CreatedAt => times.created_at,
                TimestampFilter::UpdatedAt => times.updated_at,
                TimestampFilter::LastMessageTime => times.last_message_at,
            };
            Some((time, number))
        })
        .collect();
    index.sort_unstable();
    index
}

fn body(conversations: &[String], next: Option<PagePosition>, name: CursorName) -> String {
    let cursor = next.map(|(time, number)| match name {
        CursorName::NextPageUpdatedAfter => json!(time.div_euclid(1_000_000)),
        _ => json!(format!("{time}_{number}")),
    });
    let cursor = cursor.unwrap_or(Value::Null);
    // Live responses have several of the names; those not used are null.
    let names = match name {
        CursorName::NextCursor => json!({"next_cursor": cursor, "next_page_cursor": null}),
        CursorName::NextPageCursor => json!({"next_page_cursor": cursor}),
        CursorName::NextPageUpdatedAfter => json!({"next_page_updated_after": cursor}),
    };
    let names = names.to_string();
    format!("{{\"conversations\": [{}], {}", conversations.join(","), names.trim_start_matches('{'))
}

/// Reads a cursor of the simulator. One that ends in `_again` came with an empty page.
fn read_cursor(text: &str) -> Result<Option<PagePosition>, Refused> {
    let text = text.trim_end_matches("_again");
    if text.is_empty() {
        return Ok(None);
    }
    let refused = refused("cursor", "Invalid cursor");
    match text.split_once('_') {
        Some((time, number)) => match (time.parse(), number.parse()) {
            (Ok(time), Ok(number)) => Ok(Some((time, number))),
            _ => Err(refused),
        },
        None => text.parse::<i64>().map(|secs| Some((secs.saturating_mul(1_000_000), 0))).map_err(|_| refused),
    }
}

/// Whether a conversation passes `user_filters`, as far as the vendor's page describes them.
fn passes(conversation: &str, filters: &Value) -> bool {
    let Ok(conversation) = serde_json::from_str::<Value>(conversation) else { return false };
    let field = |name: &str| conversation.get(name).unwrap_or(&Value::Null);
    let metadata = filters.get("metadata_filter").and_then(Value::as_object);
    let metadata_passes =
        metadata.is_none_or(|wanted| wanted.iter().all(|(name, value)| field("metadata").get(name) == Some(value)));
    let deflected = filters.get("deflected_filter").and_then(Value::as_bool);
    let deflected_passes = deflected.is_none_or(|wanted| field("undeflected").as_bool() == Some(!wanted));
    let flows = filters.get("flow_filter").and_then(Value::as_array);
    let flow_passes = flows.is_none_or(|wanted| wanted.contains(field("flow_type")));
    metadata_passes && deflected_passes && flow_passes
}
