//! Splits a page of malformed JSON, so that one bad entry does not cost the others.
//!
//! Entries of `conversations` with one clear meaning are repaired ([`repair`]); of the others, text and offset are
//! kept. After such an entry the next one is found by its fields. Guarantees: the whole text up to the page's closing
//! bracket is accounted for; otherwise it is not a page. Must not depend on: why the JSON is malformed.

use crate::json::{Fault, Objects, Repaired, repair, skip_space};
use crate::model::column;

/// At how many positions an entry, or the end, is looked for.
const MOST_TRIES: usize = 10_000;
/// The field of a repaired entry with the original texts of values that became null, by JSON pointer.
const NOT_JSON: &str = "_not_json";
/// Fields of messages, tags and logs that conversations lack, because a child may have its conversation's id, too.
const OF_CHILDREN: [&str; 4] = ["text", "role", "payload", "level"];

/// A repaired page.
#[derive(Debug)]
pub(super) struct Salvaged {
    /// The page as JSON.
    pub(super) json: String,
    /// Where each entry began in the original.
    pub(super) offsets: Vec<usize>,
    /// How many of the entries were repaired.
    pub(super) repaired: usize,
    /// The entries that could not be repaired.
    pub(super) broken: Vec<Broken>,
}

/// An entry that could not be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its text, up to the next entry or the end.
    pub raw: String,
    /// What is malformed.
    pub reason: String,
    /// Where it begins in the response's body, in bytes.
    pub offset: usize,
}

/// Splits the page `text`. `cursors` are the names of cursors. If the text `may_be_cut`, the end of the page after a
/// broken entry counts only with one of them, because it may be the end of an entry.
///
/// # Errors
/// If it is not an object with an array `conversations`, or is malformed outside of that.
pub(super) fn salvage(text: &[u8], cursors: &[&str], may_be_cut: bool) -> Result<Salvaged, Fault> {
    let mut page = MalformedPage { text, cursors, may_be_cut, tries: 0, salvaged: Salvaged::new() };
    let mut fields = Vec::new();
    let mut at = page.expect(b'{', 0)?;
    loop {
        let (name, value_at) = page.name(at)?;
        if is_named(&name, "conversations") && text.get(value_at) == Some(&b'[') {
            let (entries, tail) = page.entries(value_at.saturating_add(1))?;
            fields.push(("\"conversations\"".to_owned(), format!("[{}]", entries.join(","))));
            fields.extend(tail);
            break;
        }
        let Repaired { json, end, .. } = repair(text, value_at)?;
        fields.push((name, json));
        at = page.expect(b',', end)?;
    }
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    page.salvaged.json = format!("{{{}}}", fields.join(","));
    Ok(page.salvaged)
}

impl Salvaged {
    fn new() -> Self {
        Salvaged { json: String::new(), offsets: Vec::new(), repaired: 0, broken: Vec::new() }
    }
}

/// Names and values of fields of the page, as JSON.
type Fields = Vec<(String, String)>;

/// The next readable position after a broken entry.
enum Next {
    Entry(usize),
    End(usize, Fields),
}

struct MalformedPage<'a> {
    text: &'a [u8],
    cursors: &'a [&'a str],
    may_be_cut: bool,
    tries: usize,
    salvaged: Salvaged,
}

impl MalformedPage<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// The position after `byte`, which must come next.
    fn expect(&self, byte: u8, at: usize) -> Result<usize, Fault> {
        let at = skip_space(self.text, at);
        match self.byte(at) {
            Some(found) if found == byte => Ok(at.saturating_add(1)),
            _ => Err(Fault { reason: "the page is malformed outside of its conversations", at }),
        }
    }

    /// Reads a field's name, and finds where its value begins.
    fn name(&self, at: usize) -> Result<(String, usize), Fault> {
        let at = skip_space(self.text, at);
        if self.byte(at) != Some(b'"') {
            return Err(Fault { reason: "a field of the page has no name in quotes", at });
        }
        let Repaired { json, end, .. } = repair(self.text, at)?;
        Ok((json, skip_space(self.text, self.expect(b':', end)?)))
    }

    /// Reads the fields after a value to the end of the page.
    fn tail(&self, mut at: usize) -> Result<Fields, Fault> {
        let mut fields = Vec::new();
        loop {
            at = skip_space(self.text, at);
            match self.byte(at) {
                Some(b',') => {
                    let next = skip_space(self.text, at.saturating_add(1));
                    if self.byte(next) == Some(b'}') {
                        at = next;
                        continue;
                    }
                    let (name, value_at) = self.name(next)?;
                    let Repaired { json, end, .. } = repair(self.text, value_at)?;
                    fields.push((name, json));
                    at = end;
                }
                Some(b'}') => {
                    let end = skip_space(self.text, at.saturating_add(1));
                    let rest = self.text.get(end..).unwrap_or_default();
                    return match rest.iter().all(|byte| *byte == 0) {
                        true => Ok(fields),
                        false => Err(Fault { reason: "text follows the page", at: end }),
                    };
                }
                _ => return Err(Fault { reason: "the page is malformed after its conversations", at }),
            }
        }
    }

    /// Reads the entries from `at` on, and the fields after them.
    fn entries(&mut self, mut at: usize) -> Result<(Vec<String>, Fields), Fault> {
        let mut entries = Vec::new();
        loop {
            at = skip_space(self.text, at);
            let fault = if self.byte(at) == Some(b']') {
                match self.tail(at.saturating_add(1)) {
                    Ok(tail) => return Ok((entries, tail)),
                    Err(fault) => fault,
                }
            } else {
                match self.entry(at) {
                    Ok((repaired, next)) => {
                        self.salvaged.offsets.push(at);
                        self.salvaged.repaired += usize::from(self.is_changed(at, &repaired));
                        entries.push(with_nulls(repaired));
                        at = next;
                        continue;
                    }
                    Err(fault) => fault,
                }
            };
            let (end, tail) = match self.next(at.saturating_add(1))? {
                Next::Entry(next) => (next, None),
                Next::End(end, tail) => (end, Some(tail)),
            };
            self.note_broken(at, end, &fault);
            match tail {
                Some(tail) => return Ok((entries, tail)),
                None => at = end,
            }
        }
    }

    /// Reads the entry at `at`; returns also where the next entry or the closing bracket begins.
    fn entry(&self, at: usize) -> Result<(Repaired, usize), Fault> {
        let repaired = repair(self.text, at)?;
        let behind = skip_space(self.text, repaired.end);
        match self.byte(behind) {
            Some(b',') => Ok((repaired, behind.saturating_add(1))),
            Some(b']') => Ok((repaired, behind)),
            _ => Err(Fault { reason: "neither a comma nor the closing bracket follows the entry", at: behind }),
        }
    }

    fn is_changed(&self, at: usize, repaired: &Repaired) -> bool {
        self.text.get(at..repaired.end).is_none_or(|text| text != repaired.json.as_bytes())
    }

    fn note_broken(&mut self, begin: usize, end: usize, fault: &Fault) {
        let text = self.text.get(begin..end).unwrap_or_default();
        let raw = String::from_utf8_lossy(text).trim_end_matches([',', ' ', '\t', '\n', '\r']).to_owned();
        let reason = format!("malformed JSON: {} (byte {})", fault.reason, fault.at);
        self.salvaged.broken.push(Broken { raw, reason, offset: begin });
    }

    /// Finds the next entry or the end from `from` on.
    fn next(&mut self, from: usize) -> Result<Next, Fault> {
        for (at, byte) in self.text.iter().enumerate().skip(from) {
            if !matches!(byte, b'{' | b']') {
                continue;
            }
            self.tries += 1;
            if self.tries > MOST_TRIES {
                break;
            }
            if *byte == b'{' {
                if self.entry(at).is_ok_and(|(repaired, _)| is_conversation(&repaired.json)) {
                    return Ok(Next::Entry(at));
                }
            } else if let Ok(tail) = self.tail(at.saturating_add(1)) {
                let has_cursor = tail.iter().any(|(name, _)| self.cursors.iter().any(|cursor| is_named(name, cursor)));
                if has_cursor || !self.may_be_cut {
                    return Ok(Next::End(at, tail));
                }
            }
        }
        Err(Fault { reason: "neither another entry nor the end of the page follows a broken entry", at: from })
    }
}

/// Whether a name in JSON is `name`.
fn is_named(json: &str, name: &str) -> bool {
    serde_json::from_str::<String>(json).is_ok_and(|found| found == name)
}

fn is_conversation(json: &str) -> bool {
    const NAMES: [&str; 5] = [column::CONVERSATION_ID, OF_CHILDREN[0], OF_CHILDREN[1], OF_CHILDREN[2], OF_CHILDREN[3]];
    let mut objects = Objects::new(&NAMES);
    let split = objects.split(json).is_ok();
    let object = objects.get(0).filter(|_| split);
    object.is_some_and(|object| {
        object.known(0).is_some() && (1..NAMES.len()).all(|of_children| object.known(of_children).is_none())
    })
}

/// Adds the field [`NOT_JSON`] to an entry with values that became null. No column has that name, so it goes to
/// `extra`.
fn with_nulls(Repaired { mut json, nulls, .. }: Repaired) -> String {
    if nulls.is_empty() || !json.ends_with('}') {
        return json;
    }
    let nulls: serde_json::Map<_, _> = nulls.into_iter().map(|(pointer, text)| (pointer, text.into())).collect();
    json.pop();
    json.push_str(&format!(",\"{NOT_JSON}\":{}}}", serde_json::Value::Object(nulls)));
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<(Value, Vec<String>), &'static str> {
        let found = salvage(text.as_bytes(), &["next"], false).map_err(|fault| fault.reason)?;
        let page: Value = serde_json::from_str(&found.json).unwrap();
        for broken in &found.broken {
            assert!(text.get(broken.offset..).unwrap().starts_with(&broken.raw));
        }
        let entries = page["conversations"].as_array().unwrap().len();
        assert_eq!(entries, found.offsets.len());
        Ok((page, found.broken.into_iter().map(|broken| broken.raw).collect()))
    }

    fn ids(page: &Value) -> Vec<&str> {
        page["conversations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["conversation_id"].as_str().unwrap())
            .collect()
    }

    /// A well-formed entry.
    fn whole(id: &str) -> String {
        format!(
            r#"{{"conversation_id": "{id}", "messages": [{{"text": "[{{]", "conversation_id": "{id}"}}], "tags": [{{"name": "t"}}]}}"#
        )
    }

    #[test]
    fn a_broken_entry_does_not_cost_the_others() {
        let broken = [
            r#"{"conversation_id":"x","messages":[{"role":"USER","text":}]}"#,
            r#"{"conversation_id":"x","messages":[{"text":"no end}]}"#,
            r#"{"conversation_id":"x","messages":[{"text":"a"}"#,
            r#"{"conversation_id":"x","messages":[{"text":"a","conversation_id":"x"}]"#,
            r#"{"conversation_id":"x","messages":[]]}"#,
            r#"{"conversation_id":"x"}}"#,
            r#"{"conversation_id":"x" "tags":[]}"#,
            r#"{"conversation_id":"x","a":"\q"}"#,
            r#"{conversation_id:"x"}"#,
            r#"<html>"#,
            r#"{"#,
            r#"nonsense"#,
        ];
        for broken in broken {
            for place in 0..3 {
                let mut entries = vec![whole("a"), whole("b")];
                entries.insert(place, broken.to_owned());
                let text = format!(r#"{{"total": NaN, "conversations": [{}], "next": "n"}}"#, entries.join(", "));
                let (page, raw) = read(&text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
                assert_eq!(ids(&page), ["a", "b"], "{text}");
                assert_eq!(page["next"], "n", "{text}");
                assert_eq!(raw.len(), 1, "{text}: {raw:?}");
                assert!(raw[0].starts_with(broken.get(..1).unwrap()), "{text}: {raw:?}");
            }
        }
    }

    #[test]
    fn the_texts_of_values_that_became_null_are_kept() {
        let text =
            r#"{"conversations": [{"conversation_id": "a", "metadata": {"score": NaN}}, 7, {"conversation_id": "b"}]}"#;
        let (page, broken) = read(text).unwrap();
        assert_eq!(
            page["conversations"][0],
            json!({"conversation_id": "a", "metadata": {"score": null}, "_not_json": {"/metadata/score": "NaN"}})
        );
        assert_eq!((&page["conversations"][1], broken.len()), (&json!(7), 0));
        assert_eq!(salvage(text.as_bytes(), &["next"], false).unwrap().repaired, 1);
    }

    #[test]
    fn several_entries_may_be_broken() {
        let text = format!(
            r#"{{"next": "n", "conversations": [{{"a":}}, {}, {{"b":}}, {{"c":}}, {},], "more": [1,], }}  "#,
            whole("a"),
            whole("b")
        );
        let (page, broken) = read(&text).unwrap();
        assert_eq!((ids(&page), &page["next"], &page["more"]), (vec!["a", "b"], &json!("n"), &json!([1])));
        assert_eq!(broken, [r#"{"a":}"#, r#"{"b":}, {"c":}"#]);
    }

    #[test]
    fn two_pages_in_one_lose_no_conversation() {
        let text = format!(
            r#"{{"conversations": [{}], "next": "1"}}{{"conversations": [{}], "next": "2"}}"#,
            whole("a"),
            whole("b")
        );
        let (page, broken) = read(&text).unwrap();
        assert_eq!((ids(&page), &page["next"]), (vec!["a", "b"], &json!("2")));
        assert_eq!(broken, [r#"], "next": "1"}{"conversations": ["#]);
    }

    #[test]
    fn text_that_is_no_page_or_has_no_end_is_refused() {
        for text in [
            "",
            "[]",
            "<html>",
            r#"{"conversations": {}}"#,
            r#"{"conversations": [{"conversation_id": "a"}"#,
            r#"{"conversations": [{"conversation_id": "a"}]"#,
            r#"{"conversations": [{"conversation_id": "a"}], "next": }"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        // Cut right after a message, which looks like the page's end but has no cursor.
        let cut = br#"{"conversations": [{"conversation_id": "a", "messages": [{"text": "x"}]}"#;
        assert!(salvage(cut, &["next"], true).is_err());
    }
}
