//! Counts by name: of fields that have no column, and of values that do not fit theirs.
//!
//! Guarantees: the memory is bounded, whatever the API sends, because there are at most 100 names of bounded length
//! (1,000 while they are gathered); all others count as `other`. Knows names only, never values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldCounts(BTreeMap<String, u64>);

impl FieldCounts {
    /// The most names that are kept.
    const KEPT: usize = 100;
    /// The most names while pages are counted, so that one odd page does not hide the names that are kept.
    const GATHERED: usize = 1_000;
    /// The most characters of a name.
    const NAME_CHARS: usize = 100;
    /// The name that the others count as.
    pub const OTHER: &'static str = "other";

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and counts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Keeps only some names.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// Counts `name` once more.
    pub fn note(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(known) => *known = known.saturating_add(1),
            None => drop(self.add(name, 1, Self::GATHERED)),
        }
    }

    /// The same counts by other names; equal names count together.
    #[must_use]
    pub fn renamed(self, name: impl Fn(&str) -> Option<String>) -> Self {
        let mut renamed = FieldCounts::default();
        for (old, count) in self.0 {
            renamed.add(&name(&old).unwrap_or(old), count, usize::MAX);
        }
        renamed
    }

    /// Adds counts of a part of a page, whose names get `prefix`.
    pub fn gather(&mut self, prefix: &str, others: &FieldCounts) {
        for (name, count) in others.iter() {
            let named = if name == Self::OTHER { name.to_owned() } else { format!("{prefix}{name}") };
            self.add(&named, count, Self::GATHERED);
        }
    }

    /// Adds counts to those that are kept; returns the names that are new.
    pub fn keep(&mut self, others: &FieldCounts) -> Vec<String> {
        others.iter().filter_map(|(name, count)| self.add(name, count, Self::KEPT)).collect()
    }

    /// Adds to the count of `name`, or of `other` if there are `most` names; returns the name as it is kept if it is
    /// new.
    fn add(&mut self, name: &str, count: u64, most: usize) -> Option<String> {
        let short = match name.char_indices().nth(Self::NAME_CHARS) {
            Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
            None => name.to_owned(),
        };
        let full = self.0.len() - usize::from(self.0.contains_key(Self::OTHER)) >= most;
        let kept = if full && !self.0.contains_key(&short) { Self::OTHER.to_owned() } else { short };
        let is_new = kept != Self::OTHER && !self.0.contains_key(&kept);
        let known = self.0.entry(kept.clone()).or_default();
        *known = known.saturating_add(count);
        is_new.then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let (mut page, mut kept) = (FieldCounts::default(), FieldCounts::default());
        for number in 0..1_100 {
            page.note(&format!("field {number:04}"));
            page.note("field 0000");
        }
        page.note("field 1099");
        assert_eq!((page.iter().count(), page.iter().last()), (1_001, Some(("other", 101))));
        kept.keep(&page);
        let found: Vec<_> = kept.iter().collect();
        assert_eq!(found.len(), 101);
        assert_eq!((found[0], found[99], found[100]), (("field 0000", 1_101), ("field 0099", 1), ("other", 1_001)));

        let mut long = FieldCounts::default();
        long.note(&"ü".repeat(5_000));
        long.note(&"ü".repeat(6_000));
        assert_eq!(long.iter().collect::<Vec<_>>(), [(format!("{}…", "ü".repeat(100)).as_str(), 2)]);
    }

    #[test]
    fn each_name_is_new_once() {
        let (mut known, mut page, mut of_table) = <(FieldCounts, FieldCounts, FieldCounts)>::default();
        of_table.note("channel");
        of_table.note("channel");
        page.gather("conversations.", &of_table);
        assert_eq!(known.keep(&page), ["conversations.channel"]);
        of_table.note("mood");
        page.gather("messages.", &of_table);
        assert_eq!(known.keep(&page), ["messages.channel", "messages.mood"]);
        let json = r#"{"conversations.channel":4,"messages.channel":2,"messages.mood":1}"#;
        assert_eq!(serde_json::to_string(&known).unwrap(), json);

        let mut many = FieldCounts::default();
        (0..2_000).for_each(|number| many.note(&number.to_string()));
        let new = known.keep(&many);
        assert!(new.len() == 97 && !new.iter().any(|name| name == "other"));
        assert_eq!(known.iter().find(|(name, _)| *name == "other"), Some(("other", 1_903)));
        assert_eq!(known.keep(&page), Vec::<String>::new(), "known names go on being counted");
        assert_eq!(known.iter().find(|(name, _)| *name == "messages.mood"), Some(("messages.mood", 2)));
    }
}
