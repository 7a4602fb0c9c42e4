//! Columns for keys of the conversations' `metadata`, which differ from account to account: how flags write them, and
//! what they are called. Must not depend on: how values are read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::column_kind::ColumnKind;

/// A key of `metadata` that a lake keeps as a column of `conversations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataColumn {
    /// The key.
    pub key: String,
    /// The column's name: `metadata_` and the key in lower case, with `_` for what is no letter from a to z and no
    /// digit.
    pub name: String,
    /// The column's type.
    #[serde(rename = "type")]
    pub kind: MetadataType,
}

/// The type of a column of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataType {
    /// Text; a number or boolean is its JSON text.
    Text,
    /// A whole number of 64 bits.
    BigInt,
    /// A number with a fraction.
    Double,
    /// True or false.
    Boolean,
    /// An instant.
    Timestamp,
}

impl MetadataType {
    const ALL: [MetadataType; 5] = [Self::Text, Self::BigInt, Self::Double, Self::Boolean, Self::Timestamp];

    /// Its name in flags and `lake.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::BigInt => "bigint",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }

    pub(super) fn kind(self) -> ColumnKind {
        match self {
            Self::Text => ColumnKind::Text,
            Self::BigInt => ColumnKind::BigInt,
            Self::Double => ColumnKind::Double,
            Self::Boolean => ColumnKind::Bool,
            Self::Timestamp => ColumnKind::Time,
        }
    }
}

impl MetadataColumn {
    /// The most columns of metadata that a lake has.
    const MOST: usize = 100;
    /// The most characters of a key.
    const KEY_CHARS: usize = 100;

    /// Adds the `wanted` columns to those that a lake has. Wanting one that it has changes nothing.
    ///
    /// # Errors
    /// What contradicts: a key with two types, two keys with one column, too many columns.
    pub fn grown(known: &[Self], wanted: &[Self]) -> Result<Vec<Self>, String> {
        let mut all = known.to_vec();
        for (number, column) in wanted.iter().enumerate() {
            if wanted.iter().take(number).any(|other| other.key == column.key) {
                return Err(format!("the key {:?} of metadata is named twice", column.key));
            }
            match all.iter().find(|other| other.name == column.name) {
                None => all.push(column.clone()),
                Some(other) if other == column => {}
                Some(other) if other.key == column.key => {
                    let (theirs, mine) = (other.kind.name(), column.kind.name());
                    return Err(format!("the column {} has the type {theirs}, not {mine}", column.name));
                }
                Some(other) => {
                    let (one, two) = (&other.key, &column.key);
                    return Err(format!("the keys {one:?} and {two:?} of metadata would both become {}", column.name));
                }
            }
        }
        match all.len() {
            count if count > Self::MOST => Err(format!("{count} columns of metadata are more than {}", Self::MOST)),
            _ => Ok(all),
        }
    }
}

/// Reads `key` or `key:type`; a key that has a colon needs its type. The type is text if it is not given.
impl FromStr for MetadataColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, kind) = match text.rsplit_once(':') {
            None => (text, MetadataType::Text),
            Some((key, named)) => {
                let kind = MetadataType::ALL.into_iter().find(|kind| kind.name() == named.trim());
                let types = MetadataType::ALL.map(MetadataType::name).join(", ");
                (key, kind.ok_or_else(|| format!("{:?} is no type; the types are {types}", named.trim()))?)
            }
        };
        let key = key.trim();
        if key.is_empty() {
            return Err("a key of metadata is empty".to_owned());
        }
        if key.chars().count() > Self::KEY_CHARS {
            return Err(format!("a key of metadata has more than {} characters", Self::KEY_CHARS));
        }
        let plain = |letter: char| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => letter,
            _ => '_',
        };
        Ok(MetadataColumn {
            name: format!("metadata_{}", key.chars().map(plain).collect::<String>()),
            key: key.to_owned(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<MetadataColumn> {
        text.split(',').map(|column| column.parse().unwrap()).collect()
    }

    #[test]
    fn a_column_is_named_after_its_key() {
        for (text, key, name, kind) in [
            ("plan", "plan", "metadata_plan", "text"),
            (" order_total : double", "order_total", "metadata_order_total", "double"),
            ("Order Total:bigint", "Order Total", "metadata_order_total", "bigint"),
            ("größe:text", "größe", "metadata_gr__e", "text"),
            ("utm:source:boolean", "utm:source", "metadata_utm_source", "boolean"),
            ("2nd:timestamp", "2nd", "metadata_2nd", "timestamp"),
        ] {
            let MetadataColumn { key: found, name: called, kind: of } = text.parse().unwrap();
            assert_eq!((found.as_str(), called.as_str(), of.name()), (key, name, kind), "{text}");
        }
        for (text, told) in [
            ("", "empty"),
            (":double", "empty"),
            ("plan:int", "is no type; the types are text, bigint, double, boolean, timestamp"),
            ("utm:source", "is no type"),
            (&"k".repeat(101), "more than 100 characters"),
        ] {
            assert!(text.parse::<MetadataColumn>().unwrap_err().contains(told), "{text}");
        }
    }

    #[test]
    fn columns_are_added_and_never_change() {
        let known = parsed("plan,vip:boolean");
        assert_eq!(MetadataColumn::grown(&[], &known), Ok(known.clone()));
        assert_eq!(MetadataColumn::grown(&known, &parsed("vip:boolean")), Ok(known.clone()), "a part of them");
        assert_eq!(MetadataColumn::grown(&known, &[]), Ok(known.clone()));
        assert_eq!(
            MetadataColumn::grown(&known, &parsed("seats:bigint,plan")),
            Ok(parsed("plan,vip:boolean,seats:bigint"))
        );
        for (wanted, told) in [
            ("vip", "metadata_vip has the type boolean, not text"),
            ("seats,seats", "named twice"),
            ("seats,seats:double", "named twice"),
            ("Plan", r#"the keys "plan" and "Plan" of metadata would both become metadata_plan"#),
            ("a b,a-b", "both become metadata_a_b"),
        ] {
            let refused = MetadataColumn::grown(&known, &parsed(wanted)).unwrap_err();
            assert!(refused.contains(told), "{wanted}: {refused}");
        }
        let many: Vec<_> = (0..101).map(|number| format!("k{number}").parse().unwrap()).collect();
        assert!(MetadataColumn::grown(&[], &many).unwrap_err().contains("more than 100"));
    }
}
