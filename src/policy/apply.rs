//! Applies a policy to the JSON of a conversation.
//!
//! Guarantees: what no rule covers stays the same to the byte, and nothing is copied if nothing is covered; nesting
//! costs no stack; JSON that cannot be followed yields an error, never a part of it in the clear. Names are compared
//! without their escapes, and every one of several fields with the same name is masked. Must not depend on: pages.

use std::borrow::Cow;

use serde::de::{Deserializer as _, Visitor};

use super::mask::PolicyKey;
use super::rules::Policy;
use super::tree::{MaskAction, NodeId, RuleHits, TextAction, Tree};
use crate::error::{Error, Result};
use crate::json::{skip_space, string_end, value_end};
use crate::model::{epoch_time, means_no_time, parse_api_time};

/// The length of a hash in hexadecimal digits.
const HASH_DIGITS: usize = 64;

/// Applies a policy.
#[derive(Debug)]
pub struct Masker {
    pub(super) tree: Tree,
    /// The same for malformed entries.
    strays: Tree,
    key: Option<PolicyKey>,
    /// Whether what looks like a hash is taken for one.
    keeps_hashes: bool,
}

/// What may be kept of a malformed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The masked entry, if it is an object.
    pub raw: Option<String>,
    /// The bytes of the entry.
    pub bytes: usize,
    /// The keyed hash of the entry, if there is a key, so that two can be compared.
    pub hmac: Option<String>,
}

impl Masker {
    /// The masker of a policy, for values that follow the `earlier` one, if any.
    ///
    /// # Errors
    /// Kind `Usage` if the key is missing.
    pub(super) fn new(
        policy: &Policy,
        earlier: Option<&Policy>,
        key: Option<PolicyKey>,
        keeps_hashes: bool,
    ) -> Result<Self> {
        let (tree, strays) = (Tree::new(policy, earlier)?, Tree::new(policy, earlier)?.with_strays());
        if key.is_none() && tree.hashes() {
            return Err(Error::usage("the policy hashes values, but there is no policy key")
                .with_hint("set DECAGON_POLICY_KEY or --policy-key-file to the key of this lake"));
        }
        Ok(Masker { tree, strays, key, keeps_hashes })
    }

    /// Masks a conversation, or any entry of a page. `None` if it is not valid JSON.
    pub fn conversation<'a>(&self, json: &'a str, hits: &mut RuleHits) -> Option<Cow<'a, str>> {
        hits.conversations = hits.conversations.saturating_add(1);
        self.walk(&self.tree, 0, false, json, hits)
    }

    /// Says what may be kept of a malformed entry, as it came.
    pub fn quarantined(&self, raw: &str) -> Quarantined {
        let is_object = raw.trim_start().starts_with('{');
        let is_json = is_object && serde_json::from_str::<serde::de::IgnoredAny>(raw).is_ok();
        let masked = is_json.then(|| self.walk(&self.strays, 0, false, raw, &mut RuleHits::default())).flatten();
        let hmac = self.key.as_ref().map(|key| key.hash(raw.as_bytes()));
        Quarantined { raw: masked.map(Cow::into_owned), bytes: raw.len(), hmac }
    }

    /// Masks the value `json`, which is at `node` of the tree. `None` if it is not valid JSON.
    pub(super) fn value<'a>(&self, node: NodeId, in_array: bool, json: &'a str) -> Option<Cow<'a, str>> {
        self.walk(&self.tree, node, in_array, json, &mut RuleHits::default())
    }

    fn walk<'a>(
        &self,
        tree: &Tree,
        node: NodeId,
        in_array: bool,
        json: &'a str,
        hits: &mut RuleHits,
    ) -> Option<Cow<'a, str>> {
        let mut walk = MaskWalk { masker: self, tree, json, at: 0, copied: 0, out: String::new(), hits };
        walk.all(node, in_array)?;
        if walk.copied == 0 {
            return Some(Cow::Borrowed(json));
        }
        walk.out.push_str(json.get(walk.copied..)?);
        Some(Cow::Owned(walk.out))
    }

    /// Does `action` with the text that a column holds.
    pub(super) fn column_text<'a>(&self, action: &MaskAction, text: &'a str) -> Option<Cow<'a, str>> {
        match action {
            MaskAction::Keep => Some(Cow::Borrowed(text)),
            MaskAction::Drop => None,
            MaskAction::Hash => Some(self.hash(text.as_bytes()).map_or(Cow::Borrowed(text), Cow::Owned)),
            MaskAction::Text(of) => Some(of.change(text).map_or(Cow::Borrowed(text), Cow::Owned)),
        }
    }

    /// The hash of a value; `None` if it is to stay as it is.
    fn hash(&self, value: &[u8]) -> Option<String> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if self.keeps_hashes && value.len() == HASH_DIGITS && value.iter().all(is_digit) {
            return None;
        }
        // Without a key no tree has a hash; if it had, the value must not stay.
        Some(self.key.as_ref().map(|key| key.hash(value)).unwrap_or_default())
    }
}

impl TextAction {
    /// Whether a JSON string, without its quotes, certainly stays as it is.
    fn keeps(&self, raw: &str) -> bool {
        self.redactor.as_ref().is_none_or(|redactor| redactor.is_clear(raw))
            && self.truncate.is_none_or(|most| raw.len() <= most)
    }

    /// The text that takes the place of `text`; `None` if it stays.
    fn change(&self, text: &str) -> Option<String> {
        let redacted = self.redactor.as_ref().and_then(|redactor| redactor.redact(text));
        let most = self.truncate.unwrap_or(usize::MAX);
        let now = redacted.as_deref().unwrap_or(text);
        match now.char_indices().nth(most) {
            Some((end, _)) => Some(now.get(..end).unwrap_or_default().to_owned()),
            None => redacted,
        }
    }
}

/// An object or array that is not closed yet.
struct OpenValue {
    node: NodeId,
    is_array: bool,
}

/// The value that comes next.
struct NextValue {
    /// Where it is in the tree; `None` if nothing is done with it.
    node: Option<NodeId>,
    in_array: bool,
}

struct MaskWalk<'w, 'a> {
    masker: &'w Masker,
    tree: &'w Tree,
    json: &'a str,
    at: usize,
    /// How much of the JSON is in `out`, or replaced there.
    copied: usize,
    out: String,
    hits: &'w mut RuleHits,
}

impl<'a> MaskWalk<'_, 'a> {
    fn byte(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        self.at = skip_space(self.json.as_bytes(), self.at);
    }

    fn advance(&mut self) -> Option<()> {
        self.at = self.at.checked_add(1)?;
        Some(())
    }

    /// Walks through the only value of the JSON.
    fn all(&mut self, node: NodeId, in_array: bool) -> Option<()> {
        let mut open: Vec<OpenValue> = Vec::new();
        let mut next = Some(NextValue { node: Some(node), in_array });
        loop {
            if let Some(NextValue { node, in_array }) = next.take() {
                self.space();
                match node {
                    None => self.at = value_end(self.json.as_bytes(), self.at)?,
                    Some(node) => {
                        if let Some(opened) = self.one(node, in_array)? {
                            next = self.first(&opened)?;
                            open.push(opened);
                            continue;
                        }
                    }
                }
            }
            // Behind a value, or at the end of an empty container.
            self.space();
            let Some(innermost) = open.last() else { break };
            let closing = if innermost.is_array { b']' } else { b'}' };
            match self.byte()? {
                b',' => {
                    self.advance()?;
                    self.space();
                    next = Some(self.element(innermost)?);
                }
                byte if byte == closing => {
                    self.advance()?;
                    open.pop();
                }
                _ => return None,
            }
        }
        (self.at == self.json.len()).then_some(())
    }

    /// Enters a container; returns what its first value is, if it has any.
    fn first(&mut self, opened: &OpenValue) -> Option<Option<NextValue>> {
        self.advance()?;
        self.space();
        let closing = if opened.is_array { b']' } else { b'}' };
        if self.byte()? == closing {
            return Some(None);
        }
        self.element(opened).map(Some)
    }

    /// Reads up to the next value of a container.
    fn element(&mut self, inside: &OpenValue) -> Option<NextValue> {
        if inside.is_array {
            return Some(NextValue { node: Some(inside.node), in_array: true });
        }
        if self.byte()? != b'"' {
            return None;
        }
        let (start, end) = (self.at, string_end(self.json.as_bytes(), self.at)?);
        let quoted = self.json.get(start..end)?;
        let plain = inner(quoted)?;
        let name = if plain.contains('\\') { Cow::Owned(lossy(quoted)) } else { Cow::Borrowed(plain) };
        self.at = end;
        let node = self.tree.child(inside.node, &name);
        if let Some(MaskAction::Text(of)) = self.tree.node(inside.node).map(|node| &node.action)
            && !self.tree.names(inside.node, &name)
            && let Some(changed) = of.redactor.as_ref().and_then(|redactor| redactor.redact(&name))
        {
            self.replace(start, end, &quote(&changed));
        }
        self.space();
        if self.byte()? != b':' {
            return None;
        }
        self.advance()?;
        Some(NextValue { node, in_array: false })
    }

    /// Masks the value that begins here. Returns it if it is a container whose parts have to be masked.
    fn one(&mut self, node: NodeId, in_array: bool) -> Option<Option<OpenValue>> {
        let known = self.tree.node(node)?;
        let (start, first) = (self.at, self.byte()?);
        let is_array = first == b'[';
        if is_array || first == b'{' {
            return match known.action {
                MaskAction::Keep | MaskAction::Text(_) => Some(Some(OpenValue { node, is_array })),
                MaskAction::Hash if is_array => Some(Some(OpenValue { node, is_array })),
                MaskAction::Hash | MaskAction::Drop => {
                    let end = value_end(self.json.as_bytes(), start)?;
                    let hash = || self.masker.hash(self.json.get(start..end).unwrap_or_default().as_bytes());
                    let becomes = match known.action {
                        MaskAction::Hash => hash().map_or_else(|| "null".to_owned(), |hash| quote(&hash)),
                        _ => "null".to_owned(),
                    };
                    self.at = end;
                    self.hits.note(&known.rules, true);
                    self.replace(start, end, &becomes);
                    Some(None)
                }
            };
        }
        let end = value_end(self.json.as_bytes(), start)?;
        self.at = end;
        let raw = self.json.get(start..end)?;
        if raw == "null" || known.keeps_times && is_time(raw) {
            return Some(None);
        }
        let action = known.bare.as_ref().filter(|_| in_array).unwrap_or(&known.scalar);
        let becomes = self.masked(action, raw);
        self.hits.note(&known.rules, becomes.is_some());
        if let Some(becomes) = becomes {
            self.replace(start, end, &becomes);
        }
        Some(None)
    }

    /// The JSON that takes the place of a text, number or boolean; `None` if it stays.
    fn masked(&self, action: &MaskAction, raw: &str) -> Option<String> {
        match action {
            MaskAction::Keep => None,
            MaskAction::Drop => Some("null".to_owned()),
            MaskAction::Hash => self.masker.hash(&decoded(raw)).map(|hash| quote(&hash)),
            MaskAction::Text(of) => match inner(raw) {
                Some(plain) if of.keeps(plain) => None,
                Some(plain) if !plain.contains('\\') => of.change(plain).map(|text| quote(&text)),
                Some(_) => of.change(&lossy(raw)).map(|text| quote(&text)),
                None if matches!(raw, "true" | "false") => None,
                None => of.change(raw).map(|text| quote(&text)),
            },
        }
    }

    fn replace(&mut self, start: usize, end: usize, by: &str) {
        self.out.push_str(self.json.get(self.copied..start).unwrap_or_default());
        self.out.push_str(by);
        self.copied = end;
    }
}

/// The text between the quotes of a JSON string; `None` for other values.
fn inner(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// A text as JSON.
fn quote(text: &str) -> String {
    // A text is always JSON; if it were not, it must not stay.
    serde_json::to_string(text).unwrap_or_else(|_| "null".to_owned())
}

/// The bytes of a JSON string without its escapes, or of any other value as it is. Halves of surrogate pairs, which are
/// not Unicode, keep their own bytes.
fn decoded(raw: &str) -> Cow<'_, [u8]> {
    struct TextBytes;
    impl Visitor<'_> for TextBytes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    match inner(raw) {
        Some(plain) if plain.contains('\\') => {
            let bytes = serde_json::Deserializer::from_str(raw).deserialize_bytes(TextBytes);
            bytes.map_or(Cow::Borrowed(raw.as_bytes()), Cow::Owned)
        }
        Some(plain) => Cow::Borrowed(plain.as_bytes()),
        None => Cow::Borrowed(raw.as_bytes()),
    }
}

/// The text of a JSON string. U+FFFD replaces what is not Unicode.
fn lossy(raw: &str) -> String {
    String::from_utf8_lossy(&decoded(raw)).into_owned()
}

/// Whether a value is a readable time, or stands for none.
fn is_time(raw: &str) -> bool {
    match inner(raw) {
        Some(_) => {
            let text = lossy(raw);
            parse_api_time(&text).is_some() || means_no_time(&text)
        }
        None => epoch_time(raw).is_some() || means_no_time(raw),
    }
}
