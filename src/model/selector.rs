//! Which conversations a person means: by id, by the value of a column, or by a value inside `metadata` or `extra`.
//!
//! Guarantees: values are compared as text and exactly, so that nothing is chosen by accident. Must not depend on: where
//! the rows come from.

use std::fmt;
use std::str::FromStr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use serde_json::Value;

use super::column_kind::ColumnKind;
use super::columns::{ColumnSource, LakeColumns, column};
use super::table::{Table, texts};

/// A choice of conversations, as in `conversation_id=c-17`, `user_id=u-5` or `metadata.email=jane@example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The column of `conversations`.
    column: String,
    /// The path inside the column's JSON, its keys joined by dots; `None` means the column's own value.
    path: Option<String>,
    /// The value, as text.
    value: String,
}

impl Selector {
    /// The conversation with this id.
    pub fn conversation(id: &str) -> Self {
        Selector { column: column::CONVERSATION_ID.to_owned(), path: None, value: id.to_owned() }
    }

    /// The conversations of this user.
    pub fn user(id: &str) -> Self {
        Selector { column: column::USER_ID.to_owned(), path: None, value: id.to_owned() }
    }

    /// The id, if it chooses one conversation.
    pub fn conversation_id(&self) -> Option<&str> {
        (self.column == column::CONVERSATION_ID).then_some(self.value.as_str())
    }

    /// The column that it looks at.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The text that it looks for.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The same with another value, such as the hash that a policy has put in its place.
    #[must_use]
    pub fn with_value(&self, value: String) -> Self {
        Selector { value, ..self.clone() }
    }

    /// Why no row of a lake with these `columns` can match; `None` if one can.
    pub fn fault(&self, columns: &LakeColumns) -> Option<String> {
        let found = columns.of(Table::Conversations).columns().iter().find(|column| column.name == self.column);
        let Some(found) = found else { return Some(format!("conversations has no column {}", self.column)) };
        let own = matches!(found.source, ColumnSource::ExportedAt | ColumnSource::RunId | ColumnSource::Seq);
        match (found.kind, &self.path) {
            _ if own => Some(format!("{} is the lake's own, the same for many people", self.column)),
            (ColumnKind::Time, _) => Some(format!("{} is a time, which many people share", self.column)),
            (ColumnKind::Json, None) => Some(format!("{0} is JSON: name a key of it, as in {0}.email", self.column)),
            (ColumnKind::Json, Some(_)) | (_, None) => None,
            (_, Some(_)) => Some(format!("{} is not JSON, so it has no keys", self.column)),
        }
    }

    /// Whether it chooses the conversation in `row` of a batch of `conversations`, which may lack columns.
    pub fn chooses(&self, batch: &RecordBatch, row: usize) -> bool {
        let Some(array) = batch.column_by_name(&self.column).filter(|array| array.is_valid(row)) else { return false };
        match &self.path {
            Some(path) => {
                let json = texts(batch, &self.column).map(|texts| texts.value(row));
                json.and_then(|json| serde_json::from_str(json).ok()).is_some_and(|json| self.is_at(path, &json))
            }
            None => text(array, row).is_some_and(|text| text == self.value),
        }
    }

    /// Whether it chooses this conversation of the API.
    pub fn chooses_object(&self, conversation: &Value) -> bool {
        match &self.path {
            None => self.is_at(&self.column, conversation),
            // Fields without a column are in `extra` in the tables, and beside the others in the API's objects.
            Some(path) if self.column == column::EXTRA => self.is_at(path, conversation),
            Some(path) => conversation.get(&self.column).is_some_and(|json| self.is_at(path, json)),
        }
    }

    /// Whether the value is at `path` below `json`. A key may contain dots itself.
    fn is_at(&self, path: &str, json: &Value) -> bool {
        match json {
            Value::Object(fields) => fields.iter().any(|(key, inner)| match path.strip_prefix(key.as_str()) {
                Some("") => self.is_value(inner),
                Some(rest) => rest.strip_prefix('.').is_some_and(|rest| self.is_at(rest, inner)),
                None => false,
            }),
            Value::Array(elements) => elements.iter().any(|element| self.is_at(path, element)),
            _ => false,
        }
    }

    fn is_value(&self, json: &Value) -> bool {
        match json {
            Value::String(text) => *text == self.value,
            Value::Array(elements) => elements.iter().any(|element| self.is_value(element)),
            Value::Number(number) => number.to_string() == self.value,
            Value::Bool(is_set) => self.value == if *is_set { "true" } else { "false" },
            Value::Null | Value::Object(_) => false,
        }
    }
}

/// The value of a column as text; `None` for times.
fn text(array: &dyn Array, row: usize) -> Option<String> {
    let string = array.as_string_opt::<i32>().map(|array| array.value(row).to_owned());
    let int = || array.as_primitive_opt::<Int32Type>().map(|array| array.value(row).to_string());
    let big = || array.as_primitive_opt::<Int64Type>().map(|array| array.value(row).to_string());
    let double = || array.as_primitive_opt::<Float64Type>().map(|array| array.value(row).to_string());
    let boolean = || array.as_boolean_opt().map(|array| array.value(row).to_string());
    string.or_else(int).or_else(big).or_else(double).or_else(boolean)
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let (field, value) =
            typed.split_once('=').ok_or("it must be FIELD=VALUE, as in metadata.email=jane@doe.com")?;
        if value.is_empty() {
            return Err("the value is empty, which would choose too much".to_owned());
        }
        let (column, path) = match field.split_once('.') {
            Some((column, path)) => (column, Some(path.to_owned())),
            None => (field, None),
        };
        if column.is_empty() || path.as_deref() == Some("") {
            return Err(format!("{field:?} names no field"));
        }
        Ok(Selector { column: column.to_owned(), path, value: value.to_owned() })
    }
}

/// Without the value, which is a person's.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}.{path}", self.column),
            None => write!(f, "{}", self.column),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, StringArray};
    use serde_json::json;

    use super::*;

    fn selector(typed: &str) -> Selector {
        typed.parse().unwrap()
    }

    #[test]
    fn what_is_typed_is_a_field_and_a_value() {
        assert_eq!(selector("user_id=u=5"), Selector::user("u=5"));
        assert_eq!(selector("conversation_id=c").conversation_id(), Some("c"));
        assert_eq!(selector("metadata.email=jane@x.com").to_string(), "metadata.email", "the value is not shown");
        for wrong in ["jane", "=x", "user_id=", "metadata.=x", ".email=x"] {
            wrong.parse::<Selector>().unwrap_err();
        }
    }

    #[test]
    fn fields_that_name_no_person_are_refused() {
        let fault = |typed| selector(typed).fault(&LakeColumns::default());
        for good in ["user_id=5", "metadata.email=x", "extra.phone=x", "csat_rating=5", "conversation_id=c"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["metadata=x", "created_at=2024", "name=x", "user_id.x=5", "_run_id=x", "_seq=1"] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn values_are_compared_exactly_and_as_text() {
        let batch = RecordBatch::try_from_iter([
            ("user_id", Arc::new(StringArray::from(vec![Some("5"), Some("55"), None])) as Arc<dyn Array>),
            ("csat_rating", Arc::new(Int32Array::from(vec![Some(5), None, Some(1)]))),
            (
                "metadata",
                Arc::new(StringArray::from(vec![
                    Some(r#"{"email": "jane@x.com", "a": {"b.c": 7}, "all": ["x", {"y": true}]}"#),
                    Some(r#"{"email": ["other@x.com", "jane@x.com"], "em": {"ail": "jane@x.com"}}"#),
                    Some("no JSON"),
                ])),
            ),
        ])
        .unwrap();
        let chosen = |typed| (0..3).filter(|row| selector(typed).chooses(&batch, *row)).collect::<Vec<_>>();
        assert_eq!(chosen("user_id=5"), [0]);
        assert_eq!(chosen("csat_rating=5"), [0]);
        assert_eq!(chosen("metadata.email=jane@x.com"), [0, 1]);
        assert_eq!(chosen("metadata.a.b.c=7"), [0]);
        assert_eq!(chosen("metadata.all.y=true"), [0]);
        assert_eq!(chosen("metadata.email=jane"), [0; 0]);
        assert_eq!(chosen("summary=x"), [0; 0], "the file lacks the column");
    }

    #[test]
    fn objects_of_the_api_have_the_fields_of_extra_beside_the_others() {
        let object = json!({"user_id": 5, "phone": {"home": "1"}, "metadata": {"email": "e"}});
        for chosen in ["user_id=5", "extra.phone.home=1", "metadata.email=e"] {
            assert!(selector(chosen).chooses_object(&object), "{chosen}");
        }
        for other in ["user_id=6", "extra.email=e", "metadata.phone=1"] {
            assert!(!selector(other).chooses_object(&object), "{other}");
        }
    }
}
