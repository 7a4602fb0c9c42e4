//! Whether a text or a malformed entry is about the people to forget. Must not depend on: I/O.

use std::sync::Arc;

use serde_json::Value;

use crate::lake::{Suppression, is_sign, words};
use crate::model::Selector;

/// What stands in the place of an erased text.
const ERASED: &str = "(erased by forget)";

/// The people to forget: by what was asked, and by the conversations that were found.
#[derive(Debug, Clone)]
pub struct Mentions {
    /// What was asked.
    pub selectors: Vec<Selector>,
    /// The conversations that must not come back.
    pub suppression: Arc<Suppression>,
}

impl Mentions {
    /// Whether a text names one of them.
    pub fn are_in(&self, text: &str) -> bool {
        let is_named = |selector: &Selector| {
            let value = selector.value();
            // A value of several words is no word itself.
            words(text).any(|word| word == value) || value.contains(is_sign) && text.contains(value)
        };
        self.suppression.is_mentioned_in(text) || self.selectors.iter().any(is_named)
    }

    /// Whether a malformed entry of the API is about one of them. What cannot be read as an object is searched as text.
    pub fn are_in_entry(&self, raw: &str) -> bool {
        match serde_json::from_str::<Value>(raw) {
            Ok(entry @ Value::Object(_)) => {
                self.suppression.is_mentioned_in(raw) || self.selectors.iter().any(|it| it.chooses_object(&entry))
            }
            _ => self.are_in(raw),
        }
    }

    /// Whether a line of a quarantine file is about one of them.
    pub(super) fn are_in_line(&self, line: &str) -> bool {
        let parsed = serde_json::from_str::<Value>(line);
        match parsed.as_ref().ok().and_then(|line| line.get("raw")).and_then(Value::as_str) {
            Some(raw) => self.are_in_entry(raw),
            None => self.are_in(line),
        }
    }

    /// Erases them from a run's report: errors that name them or quote what the API sent, and names of fields. Returns
    /// whether there was anything to erase.
    pub(super) fn erase_from_report(&self, report: &mut Value) -> bool {
        let mut erased = false;
        for line in report.get_mut("error").and_then(Value::as_array_mut).into_iter().flatten() {
            let quotes = line.as_str().is_some_and(|text| text.contains('{') || self.are_in(text));
            if quotes {
                (*line, erased) = (Value::from(ERASED), true);
            }
        }
        for counts in ["fields_without_column", "metadata_misfits"] {
            let Some(counts) = report.get_mut(counts).and_then(Value::as_object_mut) else { continue };
            let before = counts.len();
            counts.retain(|name, _| !self.are_in_name(name));
            erased |= counts.len() < before;
        }
        erased
    }

    /// Whether the name of a field without a column, such as `metadata.jane@example.com`, names one of them.
    pub(super) fn are_in_name(&self, name: &str) -> bool {
        let inner = name.split_once('.').map_or("", |(_, inner)| inner);
        self.are_in(name) || self.are_in(inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mentions(selectors: &[&str]) -> Mentions {
        let mut suppression = Suppression::default();
        suppression.begin(["c-17"]).unwrap();
        let selectors = selectors.iter().map(|typed| typed.parse().unwrap()).collect();
        Mentions { selectors, suppression: Arc::new(suppression) }
    }

    #[test]
    fn entries_are_read_as_objects_if_they_are_some() {
        let mentions = mentions(&["user_id=5", "metadata.email=jane@x.com"]);
        for about in [
            r#"{"user_id": 5}"#,
            r#"{"user_id": "5", "conversation_id": {}}"#,
            r#"{"metadata": {"email": "jane@x.com"}}"#,
            r#"{"conversation_id": "c-17"}"#,
            r#"{"user_id": "5", "text": "#,
            r#"[{"email": "jane@x.com"}]"#,
        ] {
            assert!(mentions.are_in_entry(about), "{about}");
        }
        for other in [r#"{"user_id": 55, "level": 5}"#, r#"{"user_id": "15", "text": "#, "null"] {
            assert!(!mentions.are_in_entry(other), "{other}");
        }
        let line = json!({"run_id": "5", "raw": "{\"user_id\": \"6\"}"}).to_string();
        assert!(!mentions.are_in_line(&line), "only the entry counts");
    }

    #[test]
    fn values_of_several_words_are_found_too() {
        let mentions = mentions(&["metadata.name=Jane Doe"]);
        assert!(mentions.are_in("the user is Jane Doe, of old"));
        assert!(!mentions.are_in("Jane is not Doe"));
    }

    #[test]
    fn reports_keep_what_is_about_nobody() {
        let mentions = mentions(&["metadata.email=jane@x.com"]);
        let mut report = json!({
            "command": "sync",
            "error": ["cannot write x", "page 3 has a malformed entry (no id): {\"name\": \"Jane\"}", "c-17 is odd"],
            "fields_without_column": {"metadata.jane@x.com": 1, "metadata.plan": 2, "conversations.c-17": 3},
        });
        assert!(mentions.erase_from_report(&mut report));
        assert_eq!(
            report,
            json!({
                "command": "sync",
                "error": ["cannot write x", ERASED, ERASED],
                "fields_without_column": {"metadata.plan": 2},
            })
        );
        assert!(!mentions.erase_from_report(&mut report));
    }
}
