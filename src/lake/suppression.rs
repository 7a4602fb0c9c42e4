//! The conversations that must not come back, because somebody asked to forget them: `_state/suppression.json`.
//!
//! Guarantees: it holds no personal data, because an id is kept only as its HMAC-SHA-256 with a random key of this lake.
//! Only the holder of the lease changes it. Must not depend on: how conversations are erased.

use std::collections::BTreeSet;

use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout;
use crate::policy::{KeyedHash, hex};
use crate::store::{Store, to_json};

/// As it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSuppression {
    /// The key of the hashes, in hexadecimal digits.
    key: String,
    /// The hashes of the ids, in hexadecimal digits.
    conversation_ids: BTreeSet<String>,
    /// Whether an erasure of some of them has begun and has not ended.
    #[serde(default)]
    unfinished: bool,
}

/// The suppressed conversations.
#[derive(Debug, Clone, Default)]
pub struct Suppression(Option<Keyed>);

/// What is stored, ready for comparisons.
#[derive(Debug, Clone)]
struct Keyed {
    stored: StoredSuppression,
    hash: KeyedHash,
    /// The object that it was read from; `None` if it is not stored yet.
    object: Option<ObjectMeta>,
}

impl Suppression {
    /// Reads it; there is none if the lake has never forgotten a conversation.
    ///
    /// # Errors
    /// If the store fails or the object is damaged.
    pub async fn load(store: &Store) -> Result<Self> {
        let key = layout::suppression();
        let Some(found) = store.request(&key).await? else { return Ok(Suppression(None)) };
        let object = found.meta().clone();
        let stored: StoredSuppression = store.parse(&key, &found.read().await?)?;
        Ok(Suppression(Some(Keyed::of(stored, Some(object))?)))
    }

    /// Whether none is suppressed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are suppressed.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |keyed| keyed.stored.conversation_ids.len())
    }

    /// Whether it is stored.
    pub(super) fn is_stored(&self) -> bool {
        self.0.as_ref().is_some_and(|keyed| keyed.object.is_some())
    }

    /// Whether an erasure has begun and has not ended.
    pub fn is_unfinished(&self) -> bool {
        self.0.as_ref().is_some_and(|keyed| keyed.stored.unfinished)
    }

    /// Whether the conversation is suppressed.
    pub fn contains(&self, conversation_id: &str) -> bool {
        let keyed = self.0.as_ref().filter(|keyed| !keyed.stored.conversation_ids.is_empty());
        keyed.is_some_and(|keyed| keyed.stored.conversation_ids.contains(&keyed.hash(conversation_id)))
    }

    /// Whether a text, such as a malformed entry, names a suppressed conversation.
    pub fn is_mentioned_in(&self, text: &str) -> bool {
        !self.is_empty() && words(text).any(|word| self.contains(word))
    }

    /// Suppresses conversations, whose erasure begins; returns how many were not suppressed before.
    ///
    /// # Errors
    /// If the system has no random numbers for the key.
    pub fn begin<'a>(&mut self, conversation_ids: impl IntoIterator<Item = &'a str>) -> Result<usize> {
        let keyed = match &mut self.0 {
            Some(keyed) => keyed,
            none => none.insert(Keyed::new()?),
        };
        let before = keyed.stored.conversation_ids.len();
        let hashes: Vec<_> = conversation_ids.into_iter().map(|id| keyed.hash(id)).collect();
        keyed.stored.conversation_ids.extend(hashes);
        keyed.stored.unfinished = true;
        Ok(keyed.stored.conversation_ids.len() - before)
    }

    /// Notes that the erasure has ended.
    pub fn finish(&mut self) {
        if let Some(keyed) = &mut self.0 {
            keyed.stored.unfinished = false;
        }
    }

    /// Lets conversations come back; returns how many were suppressed.
    pub fn lift<'a>(&mut self, conversation_ids: impl IntoIterator<Item = &'a str>) -> usize {
        let Some(keyed) = &mut self.0 else { return 0 };
        let hashes: Vec<_> = conversation_ids.into_iter().map(|id| keyed.hash(id)).collect();
        hashes.iter().filter(|hash| keyed.stored.conversation_ids.remove(*hash)).count()
    }

    /// Stores it, unless another run has stored one since.
    ///
    /// # Errors
    /// If the store fails; kind `Held` if another run has changed it.
    pub async fn save(&mut self, store: &Store) -> Result<()> {
        let Some(keyed) = &mut self.0 else { return Ok(()) };
        let key = layout::suppression();
        store.replace(&key, keyed.object.as_ref(), to_json(&keyed.stored)?).await?;
        keyed.object = store.head(&key).await?;
        Ok(())
    }
}

/// The words of a text that may be ids or the values of fields: what stands between quotes, white space and the signs of
/// JSON, and the same without signs at its ends.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('"');
    let between = text.split(is_sign);
    let bare = between.clone().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    quoted.chain(between).chain(bare).filter(|word| !word.is_empty())
}

/// Whether a character separates words.
pub fn is_sign(c: char) -> bool {
    c.is_whitespace() || "\"'\\,;:{}[]()<>=/|".contains(c)
}

impl Keyed {
    fn new() -> Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| Error::bug("the system has no random numbers").caused_by(error))?;
        let key = hex(&random);
        Self::of(StoredSuppression { key, conversation_ids: BTreeSet::new(), unfinished: false }, None)
    }

    fn of(stored: StoredSuppression, object: Option<ObjectMeta>) -> Result<Self> {
        let hash = KeyedHash::new(stored.key.as_bytes())?;
        Ok(Keyed { stored, hash, object })
    }

    fn hash(&self, conversation_id: &str) -> String {
        self.hash.of(conversation_id.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_does_not_say_whom_it_is_about() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let mut suppression = Suppression::load(&store).await.unwrap();
        assert!(suppression.is_empty() && !suppression.is_stored() && !suppression.contains("c-1"));
        assert_eq!(suppression.begin(["c-1", "c-2", "c-1"]).unwrap(), 2);
        assert_eq!(suppression.begin(["c-2"]).unwrap(), 0);
        suppression.save(&store).await.unwrap();
        let stored = store.get(&layout::suppression()).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("c-1"));

        let mut again = Suppression::load(&store).await.unwrap();
        assert!(again.is_stored() && again.is_unfinished() && again.len() == 2);
        assert!(again.contains("c-1") && again.contains("c-2") && !again.contains("c-3") && !again.contains("C-1"));
        again.finish();
        assert_eq!(again.lift(["c-1", "c-3"]), 1);
        again.save(&store).await.unwrap();
        let last = Suppression::load(&store).await.unwrap();
        assert!(!last.is_unfinished() && !last.contains("c-1") && last.contains("c-2"));
        assert_eq!(suppression.save(&store).await.unwrap_err().kind(), crate::error::Kind::Held, "it is outdated");
    }

    #[test]
    fn a_mention_is_a_whole_word_or_a_quoted_text() {
        let mut suppression = Suppression::default();
        suppression.begin(["c-1", "an id: 7", "j@x.com"]).unwrap();
        for text in
            ["c-1", "{\"conversation_id\":\"c-1\"", "see c-1.", "\"an id: 7\"", "<j@x.com>,", "a/c-1/b", "\\\"c-1\\\""]
        {
            assert!(suppression.is_mentioned_in(text), "{text}");
        }
        for text in ["c-12", "xc-1", "an id", "x.com", ""] {
            assert!(!suppression.is_mentioned_in(text), "{text}");
        }
        assert!(!Suppression::default().is_mentioned_in("c-1"));
    }

    /// A value of RFC 4231, test case 2.
    #[test]
    fn the_hash_is_hmac_sha_256() {
        let stored = StoredSuppression { key: "Jefe".to_owned(), conversation_ids: BTreeSet::new(), unfinished: false };
        let hash = Keyed::of(stored, None).unwrap().hash("what do ya want for nothing?");
        assert_eq!(hash, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn each_lake_has_its_own_key() {
        let [one, other] = [Keyed::new().unwrap(), Keyed::new().unwrap()];
        assert_eq!(one.stored.key.len(), 64);
        assert_ne!(one.hash("c"), other.hash("c"));
    }
}
