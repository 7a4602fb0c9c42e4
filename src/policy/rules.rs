//! Reads a policy file, and compares policies.
//!
//! Guarantees: a policy file with anything that is not understood is refused, with its line; two policies that mean the
//! same have the same hash. Must not depend on: how rules are applied.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::field::{Allows, Field, Star, is_known};
use super::mask::{Mask, Pattern, digest};
use super::redact::check_regex;
use crate::error::{Error, Result};

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    text: String,
    rules: Vec<Rule>,
    fields: BTreeMap<Field, Mask>,
    hash: String,
}

/// One rule, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it covers.
    pub field: Field,
    /// What becomes of that.
    pub mask: Mask,
    /// The field and the action, for people.
    pub name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    rules: Vec<Spanned<WrittenRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    field: String,
    action: Option<RuleAction>,
    patterns: Option<Vec<WrittenPattern>>,
    truncate: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RuleAction {
    Drop,
    Hash,
    Redact,
    Truncate,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPattern {
    Named(String),
    Own(OwnPattern),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPattern {
    name: String,
    regex: String,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// Kind `Usage` with the line of the first fault.
    pub fn parse(text: &str) -> Result<Self> {
        let file: PolicyFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let why = error.message().lines().next().unwrap_or_default().to_owned();
            Error::usage(format!("the policy is malformed in line {line}: {why}")).with_hint(FORM)
        })?;
        let mut rules = Vec::new();
        for written in file.rules {
            let line = line_of(text, written.span().start);
            let rule = Rule::of(written.into_inner()).map_err(|error| {
                let hint = error.hint().unwrap_or(FORM).to_owned();
                Error::usage(format!("the policy has a fault in the rule of line {line}: {error}")).with_hint(hint)
            })?;
            rules.push(rule);
        }
        if rules.is_empty() {
            return Err(Error::usage("the policy has no rules").with_hint(FORM));
        }
        let mut fields: BTreeMap<Field, Mask> = BTreeMap::new();
        for rule in &rules {
            let mask = fields.remove(&rule.field).unwrap_or_default().and(&rule.mask);
            fields.insert(rule.field.clone(), mask);
        }
        let canonical: Vec<_> = fields.iter().map(|(field, mask)| (field.to_string(), mask)).collect();
        let canonical = serde_json::to_vec(&canonical)
            .map_err(|error| Error::bug("cannot write a policy as JSON").caused_by(error))?;
        Ok(Policy { text: text.to_owned(), rules, fields, hash: digest(&canonical) })
    }

    /// Its file, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What its rules mean, as SHA-256 in hexadecimal digits. Comments and the order of the rules do not count.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Its rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a rule needs the key.
    pub fn hashes(&self) -> bool {
        self.rules.iter().any(|rule| rule.mask.hash)
    }

    /// The first field of which it shows more than `earlier` does.
    pub(super) fn weaker_than(&self, earlier: &Policy) -> Option<(Field, Mask, Mask)> {
        earlier.fields.keys().find_map(|field| {
            let (own, before) = (self.mask_of(field), earlier.mask_of(field));
            (!own.is_as_strict_as(&before)).then(|| (field.clone(), before, own))
        })
    }

    /// Whether it covers the unnamed fields of the objects at a path, so that their names may be as personal as their
    /// values.
    pub fn covers_unnamed(&self, path: &[String]) -> bool {
        !self.mask_below(path).is_none()
    }

    /// All fields that rules name.
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.keys()
    }

    /// What becomes of a field.
    fn mask_of(&self, field: &Field) -> Mask {
        match field.star {
            Star::No => self.mask_at(&field.path),
            Star::All | Star::Others => self.mask_below(&field.path),
        }
    }

    /// What becomes of the value at a path, by the rules for it, for its siblings, and for what it is in.
    pub(super) fn mask_at(&self, path: &[String]) -> Mask {
        let Some((name, parent)) = path.split_last() else { return Mask::default() };
        let mut mask = self.mask_at(parent);
        let mut stars = vec![Star::All];
        if !is_known(parent, name) {
            stars.push(Star::Others);
        }
        for star in stars {
            mask = mask.and(self.own(&Field::below(parent, star)));
        }
        mask.and(self.own(&Field::exact(path)))
    }

    /// What becomes of the fields at a path that no rule names.
    pub(super) fn mask_below(&self, path: &[String]) -> Mask {
        let of_all = self.mask_at(path).and(self.own(&Field::below(path, Star::All)));
        of_all.and(self.own(&Field::below(path, Star::Others)))
    }

    fn own(&self, field: &Field) -> &Mask {
        const NONE: &Mask =
            &Mask { drop: false, hash: false, patterns: std::collections::BTreeSet::new(), truncate: None };
        self.fields.get(field).unwrap_or(NONE)
    }
}

impl Rule {
    fn of(written: WrittenRule) -> Result<Self> {
        let WrittenRule { field: text, action, patterns, truncate } = written;
        let (field, allows) = Field::parse(&text)?;
        let action = match (action, truncate) {
            (Some(action), _) => action,
            (None, Some(_)) => RuleAction::Truncate,
            (None, None) => return Err(Error::usage("it has no action")),
        };
        if patterns.is_some() != (action == RuleAction::Redact) {
            let what = if patterns.is_some() { "patterns belong to redact only" } else { "redact needs patterns" };
            return Err(Error::usage(what));
        }
        match (action, truncate) {
            (RuleAction::Truncate, None) => {
                return Err(Error::usage("truncate needs a number of characters: truncate = 80"));
            }
            (RuleAction::Drop | RuleAction::Hash, Some(_)) => {
                return Err(Error::usage("it has truncate, but nothing is left of the text"));
            }
            _ => {}
        }
        if allows == Allows::Drop && action != RuleAction::Drop {
            return Err(Error::usage(format!("the column of {text} holds no text")).with_hint("use the action drop"));
        }
        let patterns = patterns.unwrap_or_default().into_iter().map(WrittenPattern::read).collect::<Result<_>>()?;
        let mask = Mask { drop: action == RuleAction::Drop, hash: action == RuleAction::Hash, patterns, truncate };
        if action == RuleAction::Redact && mask.patterns.is_empty() {
            return Err(Error::usage("redact has no patterns"));
        }
        let name = format!("{text} {}", mask.describe());
        Ok(Rule { field, mask, name })
    }
}

impl WrittenPattern {
    fn read(self) -> Result<Pattern> {
        match self {
            WrittenPattern::Named(name) => match name.as_str() {
                "email" => Ok(Pattern::Email),
                "phone" => Ok(Pattern::Phone),
                "card" => Ok(Pattern::Card),
                "iban" => Ok(Pattern::Iban),
                "ip" => Ok(Pattern::Ip),
                _ => Err(Error::usage(format!("there is no pattern {name:?}")).with_hint(
                    "use email, phone, card, iban, ip, or one of your own: { name = \"order\", regex = \"ORD-[0-9]+\" }",
                )),
            },
            WrittenPattern::Own(OwnPattern { name, regex }) => {
                if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                    return Err(Error::usage(format!("the name {name:?} of a pattern is no word"))
                        .with_hint("use letters, digits, _ and -: the name replaces what is found, as in [order]"));
                }
                check_regex(&regex)?;
                Ok(Pattern::Regex { regex, name })
            }
        }
    }
}

/// The form of a rule, for hints.
const FORM: &str = "a rule has the form [[rules]], field = \"metadata.email\", action = \"drop\", \"hash\", \"redact\" (with patterns) or \
                    \"truncate\" (with truncate = 80); see docs/privacy.md";

/// The number of the line at an offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = r#"
# what the issue shows
[[rules]]
field = "metadata.email"
action = "hash"
[[rules]]
field = "messages.text"
action = "redact"
patterns = ["email", "phone", "card", "iban", "ip", { name = "order", regex = "ORD-[0-9]+" }]
"#;

    fn policy(rules: &[(&str, &str)]) -> Policy {
        let rule = |(field, rest): &(&str, &str)| format!("[[rules]]\nfield = '{field}'\n{rest}\n");
        Policy::parse(&rules.iter().map(rule).collect::<String>()).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_meaning() {
        let fixed = Policy::parse(FIXED).unwrap();
        assert_eq!((fixed.rules().len(), fixed.hashes(), fixed.hash().len()), (2, true, 64));
        let other = policy(&[
            (
                "messages.text",
                r#"patterns = ["ip", "iban", {name = "order", regex = "ORD-[0-9]+"}, "card", "email", "phone"]
                action = "redact""#,
            ),
            ("metadata.email", "action = 'hash'"),
        ]);
        assert_eq!(fixed.hash(), other.hash());
        assert_ne!(fixed.hash(), policy(&[("metadata.email", "action = 'hash'")]).hash());
        let aliases = [policy(&[("tags.id", "action='drop'")]), policy(&[("tags.tag_id", "action='drop'")])];
        assert_eq!(aliases[0].hash(), aliases[1].hash());
    }

    #[test]
    fn faults_are_refused_with_their_line() {
        for (text, why) in [
            ("", "no rules"),
            ("\n[[rules]]\nfield = 3\naction = 'drop'", "line 3"),
            ("[[rule]]\nfield = 'notes'", "line 1: unknown field `rule`"),
            ("[[rules]]\nfield = 'notes'\naction = 'keep'", "line 3: unknown variant `keep`"),
            ("[[rules]]\nfield = 'notes'\nactions = 'drop'", "line 3: unknown field `actions`"),
            ("[[rules]]\nfield = 'notes'", "rule of line 1: it has no action"),
            (
                "\n\n[[rules]]\nfield = 'sumary'\naction = 'drop'",
                "rule of line 3: the field \"sumary\" names no column",
            ),
            ("[[rules]]\nfield = 'notes'\naction = 'redact'", "needs patterns"),
            ("[[rules]]\nfield = 'notes'\naction = 'redact'\npatterns = []", "no patterns"),
            ("[[rules]]\nfield = 'notes'\naction = 'redact'\npatterns = ['ssn']", "no pattern \"ssn\""),
            ("[[rules]]\nfield = 'notes'\naction = 'drop'\npatterns = ['ip']", "belong to redact"),
            ("[[rules]]\nfield = 'notes'\naction = 'truncate'", "needs a number"),
            ("[[rules]]\nfield = 'notes'\naction = 'hash'\ntruncate = 3", "nothing is left"),
            ("[[rules]]\nfield = 'csat'\naction = 'hash'", "holds no text"),
            ("[[rules]]\nfield = 'notes'\naction = 'redact'\npatterns = [{name='a b', regex='x'}]", "no word"),
            ("[[rules]]\nfield = 'notes'\naction = 'redact'\npatterns = [{name='a', regex='('}]", "cannot be used"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert!(error.hint().is_some() && error.kind().exit_code() == 2, "{text}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_policy_that_shows_more_is_weaker() {
        let (hash, drop) = ("action = 'hash'", "action = 'drop'");
        let both = "action = 'redact'\npatterns = ['email', 'phone']";
        let email = "action = 'redact'\npatterns = ['email']";
        for (later, earlier, weaker) in [
            (&[("metadata.email", hash)][..], &[("metadata.email", hash)][..], None),
            (&[("metadata.email", drop)], &[("metadata.email", hash)], None),
            (&[("metadata.email", hash)], &[("metadata.email", drop)], Some("metadata.email")),
            (&[("user_id", hash)], &[("metadata.email", hash)], Some("metadata.email")),
            (&[("metadata.*", hash)], &[("metadata.email", hash)], None),
            (&[("metadata", drop)], &[("metadata.email", hash), ("metadata.*", both)], None),
            (&[("metadata.email", hash)], &[("metadata.*", hash)], Some("metadata.*")),
            (&[("messages.text", both)], &[("messages.text", email)], None),
            (&[("messages.text", email)], &[("messages.text", both)], Some("messages.text")),
            (&[("messages.*", both)], &[("messages.text", both), ("messages.extra.*", email)], None),
            (&[("messages.text", "truncate = 9")], &[("messages.text", "truncate = 9")], None),
            (&[("messages.text", "truncate = 10")], &[("messages.text", "truncate = 9")], Some("messages.text")),
            (
                &[("messages.text", both)],
                &[("messages.text", both), ("messages.text", "truncate = 9")],
                Some("messages.text"),
            ),
            (&[("extra.*", hash)], &[("extra.channel", both)], None),
            (&[("extra.*", hash)], &[("summary", both)], Some("summary")),
        ] {
            let found = policy(later).weaker_than(&policy(earlier)).map(|(field, ..)| field.to_string());
            assert_eq!(found.as_deref(), weaker, "{later:?} after {earlier:?}");
        }
    }

    #[test]
    fn all_rules_that_cover_a_value_apply() {
        let policy = policy(&[
            ("metadata", "action = 'redact'\npatterns = ['email']"),
            ("metadata.*", "truncate = 9"),
            ("metadata.phone", "action = 'hash'"),
            ("extra.*", "action = 'drop'"),
        ]);
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mask = policy.mask_at(&path(&["metadata", "phone"]));
        assert!(mask.hash && mask.truncate == Some(9) && mask.patterns.len() == 1 && !mask.drop);
        assert!(policy.mask_at(&path(&["metadata", "a", "b"])).truncate == Some(9));
        assert!(policy.mask_at(&path(&["channel"])).drop && policy.mask_at(&path(&["summary"])).is_none());
        assert!(policy.covers_unnamed(&path(&["metadata"])) && policy.covers_unnamed(&[]));
        assert!(!policy.covers_unnamed(&path(&["messages"])));
    }
}
