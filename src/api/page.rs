//! Splits a response of `GET /conversation/export` into raw conversations and the next cursor. Must not depend on: what
//! a conversation contains.

use std::ops::Range;

use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;

use super::salvage::{Broken, Salvaged, salvage};
use crate::json::{Array, Elements, Objects, elements};
use crate::model::Cursor;

/// The known names of the next page's cursor: from the doc's text, from its example program and live accounts, and from
/// its example response (an integer). The first that is not null, empty or 0 counts.
const CURSOR_NAMES: [&str; 3] = ["next_page_cursor", "next_cursor", "next_page_updated_after"];

/// Names of fields that may report a failure, besides names that contain `error`.
const FAILURE_NAMES: [&str; 6] = ["status", "message", "msg", "detail", "details", "reason"];
/// Values of such fields that report success, in lower case.
const SUCCESS: [&str; 7] = ["ok", "okay", "success", "succeeded", "done", "complete", "none"];

/// Whether messages may quote what the API sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quotes {
    /// They quote its first words.
    #[default]
    Shown,
    /// They quote nothing, because a policy covers what the API sends.
    Hidden,
}

impl Quotes {
    /// What stands in the place of a quote.
    pub const HIDDEN: &str = "(hidden by the policy)";

    /// The first words of a text, if they may be shown.
    pub fn of(self, text: &str) -> String {
        match self {
            Quotes::Shown => excerpt(text),
            Quotes::Hidden => Self::HIDDEN.to_owned(),
        }
    }
}

/// Why a response's body is not a page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The body is cut, or is a gateway's own page; a retry may succeed.
    #[error("the response is not a JSON object ({reason})")]
    NotJson {
        /// How the body begins.
        beginning: String,
        /// The first JSON error.
        reason: serde_json::Error,
        /// The body, if it begins as an object, because it may be a page with a malformed entry.
        body: Option<String>,
    },
    /// The body has no usable cursor for the next page.
    #[error("the response's cursor cannot be sent back")]
    StrangeCursor {
        /// The cursor.
        beginning: String,
    },
    /// The body is not a response of the export.
    #[error("the response has no array `conversations`")]
    NoConversations {
        /// How the body begins.
        beginning: String,
    },
}

impl PageError {
    /// Describes the fault without quoting the body, as a JSON error may.
    pub fn plainly(&self) -> String {
        match self {
            PageError::NotJson { reason, .. } => {
                format!("the response is not a JSON object (line {}, column {})", reason.line(), reason.column())
            }
            other => other.to_string(),
        }
    }

    /// How the body begins, on one line. It may contain the key.
    pub fn beginning(&self) -> &str {
        match self {
            PageError::NotJson { beginning, .. }
            | PageError::StrangeCursor { beginning }
            | PageError::NoConversations { beginning } => beginning,
        }
    }
}

/// A field of a page that seems to report a failure, although the response's status reports success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The field's name, unchanged.
    pub name: String,
    /// The field's raw value.
    pub value: String,
    /// Whether messages may quote the value.
    pub quotes: Quotes,
}

impl Sign {
    /// Whether the name contains `error`, which leaves no doubt.
    pub fn is_error(&self) -> bool {
        self.name.to_ascii_lowercase().contains("error")
    }
}

/// One page of the export.
#[derive(Debug)]
pub struct Page {
    text: String,
    /// The range of each conversation in `text`.
    conversations: Vec<Range<usize>>,
    next: Option<Cursor>,
    has_cursor_field: bool,
    sign: Option<Sign>,
    others: Vec<String>,
    /// The result of the repair, if the page was malformed.
    salvaged: Option<Salvaged>,
}

impl Page {
    /// Splits a response's body. Bytes that are not UTF-8 become U+FFFD, so that the rest can be read; a byte-order
    /// mark is skipped.
    ///
    /// # Errors
    /// If the body is not a JSON object, has no array `conversations`, or has a cursor that cannot be sent back.
    pub fn parse(body: Vec<u8>) -> Result<Self, PageError> {
        let text =
            String::from_utf8(body).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self::of(text)
    }

    /// Splits a body of malformed JSON as far as it has one clear meaning. `None` if the page is malformed outside of
    /// its conversations.
    ///
    /// # Errors
    /// As [`Page::parse`], except for a body that is not a JSON object.
    pub fn salvage(body: &str, may_be_cut: bool) -> Result<Option<Self>, PageError> {
        let marked = body.len().saturating_sub(without_mark(body).len());
        let Ok(mut salvaged) = salvage(without_mark(body).as_bytes(), &CURSOR_NAMES, may_be_cut) else {
            return Ok(None);
        };
        let page = Self::of(std::mem::take(&mut salvaged.json))?;
        salvaged.offsets.iter_mut().for_each(|offset| *offset = offset.saturating_add(marked));
        salvaged.broken.iter_mut().for_each(|broken| broken.offset = broken.offset.saturating_add(marked));
        Ok(Some(Page { salvaged: Some(salvaged), ..page }))
    }

    fn of(text: String) -> Result<Self, PageError> {
        let [a, b, c] = CURSOR_NAMES;
        let names = [a, b, c, "conversations"];
        let (mut responses, mut arrays) = (Objects::new(&names), [Array::of_values()]);
        let json = without_mark(&text);
        if let Err(reason) = responses.split_with_arrays(json, &mut arrays) {
            let beginning = beginning(json);
            let body = json.trim_start().starts_with('{').then(|| text.clone());
            return Err(PageError::NotJson { beginning, reason, body });
        }
        let fields = responses.get(0).ok_or_else(|| PageError::NoConversations { beginning: beginning(&text) })?;
        let [array] = arrays;
        let list = match array.elements {
            Elements::Raw(values) if array.found => Some(values),
            _ => fields.known(CURSOR_NAMES.len()).and_then(elements),
        };
        let list = list.ok_or_else(|| PageError::NoConversations { beginning: beginning(&text) })?;
        let begin = text.as_ptr().addr();
        let range = |part: &str| {
            let start = part.as_ptr().addr().saturating_sub(begin);
            start..start.saturating_add(part.len())
        };
        let conversations = list.iter().map(|raw| range(raw.get())).collect();
        let cursors = || (0..CURSOR_NAMES.len()).filter_map(|position| fields.known(position));
        let next = cursors().find_map(|raw| Cursor::from_json(raw).ok().flatten());
        if let Some(strange) = cursors().find(|raw| next.is_none() && Cursor::from_json(raw).is_err()) {
            return Err(PageError::StrangeCursor { beginning: beginning(strange.get()) });
        }
        let has_cursor_field = (0..CURSOR_NAMES.len()).any(|position| fields.has(position));
        let sign = fields.others.iter().find(|(name, value)| is_failure(name, value));
        let sign = sign.map(|(name, value)| Sign {
            name: (*name).to_owned(),
            value: value.get().to_owned(),
            quotes: Quotes::Shown,
        });
        let others = fields.others.iter().map(|(name, _)| excerpt(&format!("\"{name}\""))).collect();
        Ok(Page { conversations, next, has_cursor_field, sign, others, text, salvaged: None })
    }

    /// The raw conversations, in the API's order.
    pub fn conversations(&self) -> impl Iterator<Item = &str> {
        self.conversations.iter().filter_map(|range| self.text.get(range.clone()))
    }

    /// The number of conversations.
    pub fn len(&self) -> usize {
        self.conversations.len()
    }

    /// Whether there are no conversations, which does not mean that the export has ended.
    pub fn is_empty(&self) -> bool {
        self.conversations.is_empty()
    }

    /// The cursor of the next page; `None` at the end.
    pub fn next(&self) -> Option<&Cursor> {
        self.next.as_ref()
    }

    /// Whether it has a cursor field, even if that is null.
    pub fn has_cursor_field(&self) -> bool {
        self.has_cursor_field
    }

    /// The first field that seems to report a failure.
    pub fn sign(&self) -> Option<&Sign> {
        self.sign.as_ref()
    }

    /// Says whether messages may quote it.
    pub(super) fn allow(&mut self, quotes: Quotes) {
        if let Some(sign) = &mut self.sign {
            sign.quotes = quotes;
        }
    }

    /// Where the conversation at `index` begins in the body, in bytes.
    pub fn offset(&self, index: usize) -> Option<usize> {
        match &self.salvaged {
            None => self.conversations.get(index).map(|range| range.start),
            Some(salvaged) => salvaged.offsets.get(index).copied(),
        }
    }

    /// The entries that could not be repaired, which are not among the conversations.
    pub fn broken(&self) -> &[Broken] {
        self.salvaged.as_ref().map_or(&[], |salvaged| &salvaged.broken)
    }

    /// How many of the conversations were repaired.
    pub fn repaired(&self) -> usize {
        self.salvaged.as_ref().map_or(0, |salvaged| salvaged.repaired)
    }

    /// The names of the response's other fields; a renamed cursor is among them.
    pub fn other_fields(&self) -> &[String] {
        &self.others
    }

    /// The size of the body in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// The text after a byte-order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Whether a field of a page seems to report a failure.
fn is_failure(name: &str, value: &RawValue) -> bool {
    let name = name.to_ascii_lowercase();
    if !name.contains("error") && !FAILURE_NAMES.contains(&name.as_str()) {
        return false;
    }
    match serde_json::from_str(value.get()) {
        Ok(Value::Null) => false,
        // `"status": true` reports success, `"error": true` a failure.
        Ok(Value::Bool(it)) => it == name.contains("error"),
        Ok(Value::Number(number)) => !matches!(number.as_i64(), Some(0 | 200..=299)),
        Ok(Value::String(text)) => {
            let text = text.trim().to_ascii_lowercase();
            let code = text.parse().is_ok_and(|code: i64| matches!(code, 0 | 200..=299));
            !(text.is_empty() || code || SUCCESS.contains(&text.as_str()))
        }
        Ok(Value::Array(list)) => !list.is_empty(),
        Ok(Value::Object(fields)) => !fields.is_empty(),
        // Nested too deeply, or not Unicode, but not empty.
        Err(_) => true,
    }
}

/// The beginning of a text on one line. It is longer than an [`excerpt`], so that a key at the end of that is redacted
/// as a whole.
pub(super) fn beginning(text: &str) -> String {
    const MOST: usize = 8 << 10;
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() > MOST {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(MOST));
    }
    line
}

/// The first words of a text on one line, for messages. Characters that could control a terminal become U+FFFD.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 160;
    let mut line = beginning(text);
    if let Some((end, _)) = line.char_indices().nth(MOST) {
        line.truncate(end);
        line.push('…');
    }
    let harmless = |c: char| if c.is_control() || is_bidi(c) { char::REPLACEMENT_CHARACTER } else { c };
    if line.is_empty() { "(empty)".to_owned() } else { line.chars().map(harmless).collect() }
}

/// Whether a character changes the direction of the text around it.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A page with its times by the server's clock (the `Date` header), or by this machine's clock if there is no header.
#[derive(Debug)]
pub struct Fetched {
    /// The page.
    pub page: Page,
    /// The `page_size` that the request asked for.
    pub page_size: Option<u32>,
    /// When the server answered, to the second; the page has no later changes.
    pub answered_at: DateTime<Utc>,
    /// When the request was sent, to the second; the page has all changes before it.
    pub asked_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(json: &str) -> Option<String> {
        Page::parse(json.as_bytes().to_vec()).unwrap().next().map(ToString::to_string)
    }

    #[test]
    fn the_first_cursor_with_a_value_counts() {
        assert_eq!(next(r#"{"conversations": [], "next_cursor": "n", "next_page_cursor": "p"}"#).unwrap(), "p");
        assert_eq!(next(r#"{"next_cursor": "n", "next_page_cursor": null, "conversations": []}"#).unwrap(), "n");
        assert_eq!(
            next(r#"{"next_cursor": "", "next_page_cursor": 0, "next_page_updated_after": 151050148, "conversations": []}"#)
                .unwrap(),
            "151050148"
        );
        assert_eq!(next(r#"{"conversations": [], "next_cursor": null}"#), None);
    }

    #[test]
    fn conversations_are_unchanged() {
        let body = br#" {"conversations": [ {"a": 1.0} , "x", null,{}]} "#.to_vec();
        let bytes = body.len();
        let page = Page::parse(body).unwrap();
        assert_eq!(page.conversations().collect::<Vec<_>>(), [r#"{"a": 1.0}"#, "\"x\"", "null", "{}"]);
        assert_eq!((page.len(), page.bytes()), (4, bytes));
    }

    #[test]
    fn each_fault_has_its_message() {
        let fault = |body: &str| Page::parse(body.as_bytes().to_vec()).unwrap_err();
        assert_eq!(fault("<html>\n <b>Bad gateway</b>").beginning(), "<html> <b>Bad gateway</b>");
        assert!(fault(r#"{"conversations": [{"a": "#).to_string().contains("not a JSON object"));
        assert!(fault(r#"{"data": []}"#).to_string().contains("no array `conversations`"));
        assert!(fault(r#"{"conversations": {}}"#).to_string().contains("no array `conversations`"));
        assert!(fault(&"x".repeat(1 << 20)).beginning().len() < 10_000);
        for cursor in [r#"{"after":5}"#, "[1]", "true"] {
            let page = |names: &str| format!(r#"{{"conversations": [], {names}}}"#);
            assert_eq!(fault(&page(&format!(r#""next_cursor": {cursor}"#))).beginning(), cursor);
            assert_eq!(next(&page(&format!(r#""next_page_cursor": {cursor}, "next_cursor": 7"#))).unwrap(), "7");
        }
    }

    #[test]
    fn excerpts_are_short_and_harmless() {
        assert_eq!(excerpt(" \n "), "(empty)");
        assert_eq!(excerpt("a\u{1b}[2J\0 \u{202e}b\tc"), "a\u{fffd}[2J\u{fffd} \u{fffd}b c");
        assert_eq!(excerpt(&"é".repeat(1_000)).chars().count(), 161);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let page = Page::parse(b"{\"conversations\": [{\"a\": \"\xff\"}, {}]}".to_vec()).unwrap();
        assert_eq!(page.conversations().collect::<Vec<_>>(), ["{\"a\": \"\u{fffd}\"}", "{}"]);
    }
}
