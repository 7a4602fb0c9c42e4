//! What the API's other endpoints do to conversations: they delete them, upload old ones and link them to other users.
//!
//! - `delete` `{"conversation_id"}` and `delete_user_data` `{"user_id"}` leave no trace in the export.
//! - `upload` takes a conversation as the export has it. Its times stay as they are, so it may be old.
//! - `link` `{"conversation_id", "user_id"}` changes the user, and so `updated_at`.
//!
//! Must not depend on: HTTP.

use std::collections::{HashMap, HashSet};

use chrono::SecondsFormat;
use serde::Deserialize;
use serde_json::Value;

use super::render;
use super::world::{Times, World};
use crate::model::{from_micros, parse_api_time};

/// The number of the first conversation that was uploaded; those of the world are lower.
const UPLOADED: u64 = 1 << 40;

/// All changes so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Edits {
    deleted: HashSet<u64>,
    /// The user that a conversation was linked to, and when.
    links: HashMap<u64, (String, i64)>,
    uploaded: Vec<(Times, String)>,
}

/// The fields that a change needs of a conversation or a request.
#[derive(Debug, Deserialize)]
struct Named {
    conversation_id: Option<String>,
    user_id: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    last_message_at: Option<String>,
}

/// Why a change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoEdit {
    /// There is no such endpoint, conversation or user.
    Unknown,
    /// The request lacks a field, or has another form.
    Malformed,
}

impl Edits {
    /// The numbers of the conversations that exist at `now`.
    pub(super) fn numbers(&self, world: &World, now: i64) -> impl Iterator<Item = u64> + use<> {
        let uploaded = UPLOADED..UPLOADED.saturating_add(self.uploaded.len() as u64);
        let deleted = self.deleted.clone();
        (0..world.begun(now)).chain(uploaded).filter(move |number| !deleted.contains(number))
    }

    /// The times of conversation `number` at `now`; `None` if it has not begun.
    pub(super) fn times(&self, world: &World, number: u64, now: i64) -> Option<Times> {
        let times = match self.upload(number) {
            Some((times, _)) => *times,
            None => world.timeline(number).times(now)?,
        };
        let updated_at = self.links.get(&number).map_or(times.updated_at, |(_, at)| times.updated_at.max(*at));
        Some(Times { updated_at, ..times })
    }

    /// Renders conversation `number` at `now`; `None` if it has not begun.
    pub(super) fn render(&self, world: &World, number: u64, now: i64, with_updated_at: bool) -> Option<String> {
        let json = match self.upload(number) {
            Some((_, json)) => json.clone(),
            None => render::conversation(world, number, now, with_updated_at)?,
        };
        let Some((user_id, _)) = self.links.get(&number) else { return Some(json) };
        let mut conversation: Value = serde_json::from_str(&json).ok()?;
        let fields = conversation.as_object_mut()?;
        fields.insert("user_id".to_owned(), user_id.clone().into());
        if with_updated_at {
            let updated_at = from_micros(self.times(world, number, now)?.updated_at)?;
            fields.insert("updated_at".to_owned(), updated_at.to_rfc3339_opts(SecondsFormat::Micros, true).into());
        }
        Some(conversation.to_string())
    }

    fn upload(&self, number: u64) -> Option<&(Times, String)> {
        self.uploaded.get(usize::try_from(number.checked_sub(UPLOADED)?).ok()?)
    }

    /// Makes the change that the endpoint `action` makes of the request `body` at `now`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn apply(&mut self, action: &str, body: &str, world: &World, now: i64) -> Result<(), NoEdit> {
        let named: Named = serde_json::from_str(body).map_err(|_| NoEdit::Malformed)?;
        let given = |field: &Option<String>| field.clone().ok_or(NoEdit::Malformed);
        match action {
            "delete" => {
                let id = given(&named.conversation_id)?;
                let found = self.find(world, now, |it| it.conversation_id.as_ref() == Some(&id));
                self.deleted.extend(&found);
                if found.is_empty() { Err(NoEdit::Unknown) } else { Ok(()) }
            }
            "delete_user_data" => {
                let user_id = given(&named.user_id)?;
                let found = self.find(world, now, |it| it.user_id.as_ref() == Some(&user_id));
                self.deleted.extend(&found);
                if found.is_empty() { Err(NoEdit::Unknown) } else { Ok(()) }
            }
            "link" => {
                let (id, user_id) = (given(&named.conversation_id)?, given(&named.user_id)?);
                let found = self.find(world, now, |it| it.conversation_id.as_ref() == Some(&id));
                self.links.extend(found.iter().map(|number| (*number, (user_id.clone(), now))));
                if found.is_empty() { Err(NoEdit::Unknown) } else { Ok(()) }
            }
            "upload" => {
                given(&named.conversation_id)?;
                let time = |field: &Option<String>| field.as_deref().and_then(parse_api_time).map(|time| time.micros);
                let created_at = time(&named.created_at).ok_or(NoEdit::Malformed)?;
                let last_message_at = time(&named.last_message_at).unwrap_or(created_at);
                let updated_at = time(&named.updated_at).unwrap_or(last_message_at);
                // In JSON, a line ends only between values.
                let json = body.replace(['\n', '\r'], " ");
                self.uploaded.push((Times { created_at, updated_at, last_message_at }, json));
                Ok(())
            }
            _ => Err(NoEdit::Unknown),
        }
    }

    /// The numbers of the conversations that are as wanted.
    fn find(&self, world: &World, now: i64, is_wanted: impl Fn(&Named) -> bool) -> Vec<u64> {
        let named = |number: &u64| serde_json::from_str::<Named>(&self.render(world, *number, now, true)?).ok();
        self.numbers(world, now).filter(|number| named(number).is_some_and(|named| is_wanted(&named))).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::simulate::WorldSettings;

    #[test]
    fn changes_are_visible_and_leave_the_others_alone() {
        let now = DateTime::from_timestamp(1_709_251_200, 0).unwrap();
        let world = World::new(WorldSettings { seed: 7, conversations: 20, days: 2, messages: 3, now });
        let (now, mut edits) = (now.timestamp_micros(), Edits::default());
        let field = |edits: &Edits, number, name: &str| {
            let json: Value = serde_json::from_str(&edits.render(&world, number, now, true).unwrap()).unwrap();
            json[name].as_str().unwrap().to_owned()
        };
        let (first, second) = (field(&edits, 0, "conversation_id"), field(&edits, 1, "user_id"));
        let third = field(&edits, 2, "conversation_id");
        for (action, body, expected) in [
            ("delete", format!(r#"{{"conversation_id": "{first}"}}"#), Ok(())),
            ("delete", format!(r#"{{"conversation_id": "{first}"}}"#), Err(NoEdit::Unknown)),
            ("delete", "{}".to_owned(), Err(NoEdit::Malformed)),
            ("delete_user_data", format!(r#"{{"user_id": "{second}"}}"#), Ok(())),
            ("link", format!(r#"{{"conversation_id": "{third}", "user_id": "other"}}"#), Ok(())),
            ("upload", r#"{"conversation_id": "old", "created_at": "2020-01-01T00:00:00Z"}"#.to_owned(), Ok(())),
            ("upload", r#"{"conversation_id": "old"}"#.to_owned(), Err(NoEdit::Malformed)),
            ("elsewhere", "{}".to_owned(), Err(NoEdit::Unknown)),
        ] {
            assert_eq!(edits.apply(action, &body, &world, now), expected, "{action} {body}");
        }
        let numbers: Vec<_> = edits.numbers(&world, now).collect();
        assert_eq!((numbers.len(), numbers.first(), numbers.last()), (19, Some(&2), Some(&UPLOADED)));
        assert_eq!(field(&edits, 2, "user_id"), "other");
        assert_eq!(edits.times(&world, 2, now).unwrap().updated_at, now);
        assert_eq!(field(&edits, UPLOADED, "conversation_id"), "old");
    }
}
