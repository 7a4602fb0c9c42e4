//! Takes the keys that have a column out of a conversation's `metadata`, and counts the others.
//!
//! Must not depend on: the values of the keys.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::scalar::string;
use crate::json::Objects;
use crate::model::FieldCounts;

/// Returns the value of each of `keys` in the JSON object `metadata`; none if it is no object. Counts the other keys.
pub(super) fn values<'a>(
    metadata: Option<&'a RawValue>,
    keys: &[String],
    others: &mut FieldCounts,
) -> Vec<Option<&'a RawValue>> {
    let mut found = vec![None; keys.len()];
    let mut object = Objects::new(&[]);
    let Some(fields) = metadata.and_then(|raw| object.split(raw.get()).ok()).and_then(|()| object.get(0)) else {
        return found;
    };
    for (name, value) in fields.others {
        let name = unescaped(name);
        match keys.iter().position(|key| *key == name).and_then(|position| found.get_mut(position)) {
            // If a key occurs twice, the last one counts.
            Some(place) => *place = Some(*value),
            None => others.note(&name),
        }
    }
    found
}

/// Returns the name that a JSON text without its quotes stands for.
fn unescaped(name: &str) -> Cow<'_, str> {
    match name.contains('\\') {
        false => Cow::Borrowed(name),
        true => string(&format!("\"{name}\"")).map_or(Cow::Borrowed(name), |name| Cow::Owned(name.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_written() {
        let keys = ["plan", "größe", "gone"].map(str::to_owned);
        let found = |json: &str| {
            let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
            let mut others = FieldCounts::default();
            let found = values(Some(&raw), &keys, &mut others);
            let found: Vec<_> = found.into_iter().map(|value| value.map(|raw| raw.get().to_owned())).collect();
            (found, others.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found(r#"{"plan": "pro", "gr\u00f6\u00dfe": 1.50, "vip": true, "v\u0069p": 2, "plan": null, "PLAN": 3}"#),
            (vec![some("null"), some("1.50"), None], vec!["PLAN 1".to_owned(), "vip 2".to_owned()])
        );
        for odd in ["[1]", r#""plan""#, "17", "{}"] {
            assert_eq!(found(odd), (vec![None; 3], vec![]), "{odd}");
        }
    }
}
