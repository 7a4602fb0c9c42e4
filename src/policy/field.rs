//! The field that a rule names: a column or a path in the API's JSON, both as one path from the conversation.
//!
//! Guarantees: a name that is neither a column nor below `extra` is refused, because a slip of the pen would let the
//! real field land in the clear. Must not depend on: what is done with the field.

use crate::error::{Error, Result};
use crate::model::{ColumnKind, ColumnSource, LakeColumns, Table, column};

/// The schema whose columns count as known. Fields that get a column later stay in `extra.*`, so that a rule covers the
/// same values for ever.
const SCHEMA: u32 = 2;

/// Whether a path ends in a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Star {
    /// It names one value.
    No,
    /// It names all fields of an object.
    All,
    /// It names the fields of an object that have no column.
    Others,
}

/// Where values are: a path from the conversation. Arrays are passed through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The names of the fields from the outside in.
    pub path: Vec<String>,
    /// The wildcard after them.
    pub star: Star,
}

/// Which actions a field allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allows {
    /// All of them.
    Everything,
    /// `drop`, because its column holds no text.
    Drop,
}

impl Field {
    /// The value at a path.
    pub(super) fn exact(path: &[String]) -> Self {
        Field { path: path.to_vec(), star: Star::No }
    }

    /// The wildcard below a path.
    pub(super) fn below(path: &[String], star: Star) -> Self {
        Field { path: path.to_vec(), star }
    }

    /// Reads a field as a policy file names it.
    ///
    /// # Errors
    /// Kind `Usage` if there is no such column, or it cannot be masked.
    pub(super) fn parse(text: &str) -> Result<(Self, Allows)> {
        let names = split(text)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let child = Table::CHILDREN.into_iter().find(|table| names.first() == Some(&table.name()));
        let (table, inside) = match child {
            Some(table) => (table, names.get(1..).unwrap_or_default()),
            None => (Table::Conversations, names.as_slice()),
        };
        let base: Vec<String> = child.iter().map(|table| table.name().to_owned()).collect();
        let path = |names: &[&str]| base.iter().cloned().chain(names.iter().map(|name| (*name).to_owned())).collect();
        match inside {
            [] | ["*"] if child.is_none() => Err(refused(text, "names no field").with_hint(FORMS)),
            [] => Err(refused(text, "names a whole table")
                .with_hint(format!("name one of its columns, or all of them: {text}.*"))),
            ["*"] => Ok((Field { path: path(&[]), star: Star::All }, Allows::Everything)),
            ["extra"] | ["extra", "*"] => Ok((Field { path: path(&[]), star: Star::Others }, Allows::Everything)),
            ["extra", name, ..] if is_known(&base, name) => {
                let own: Vec<_> = base.iter().map(String::as_str).chain(inside.iter().skip(1).copied()).collect();
                Err(refused(text, "names a field that has a column").with_hint(format!("write {}", own.join("."))))
            }
            ["extra", names @ ..] => Ok((of(path(names)), Allows::Everything)),
            [name, deeper @ ..] => {
                let columns = LakeColumns::of_schema(SCHEMA, &[]);
                let columns = columns.of(table).columns();
                let found = columns.iter().find(|column| {
                    column.name == *name || matches!(column.source, ColumnSource::Field(field) if field == *name)
                });
                let Some(found) = found else {
                    let extra = base.iter().map(String::as_str).chain(["extra"]).chain(inside.iter().copied());
                    let extra: Vec<_> = extra.collect();
                    return Err(refused(text, "names no column").with_hint(format!(
                        "correct the name, or write {} for a field that has no column",
                        extra.join(".")
                    )));
                };
                let ColumnSource::Field(field) = found.source else { return Err(is_key(text)) };
                match (found.kind, deeper) {
                    (ColumnKind::Time, _) => Err(is_key(text)),
                    (ColumnKind::Json, _) | (_, []) => {
                        let names: Vec<_> = std::iter::once(field).chain(deeper.iter().copied()).collect();
                        let is_text = matches!(found.kind, ColumnKind::Text | ColumnKind::Id | ColumnKind::Json);
                        Ok((of(path(&names)), if is_text { Allows::Everything } else { Allows::Drop }))
                    }
                    _ => Err(refused(text, "goes into a column that holds no JSON").with_hint(format!("write {name}"))),
                }
            }
        }
    }
}

/// The path as policy files write it.
impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let quoted = |name: &String| match !name.is_empty() && name.chars().all(plain) {
            true => name.clone(),
            false => format!("\"{name}\""),
        };
        let mut names: Vec<_> = self.path.iter().map(quoted).collect();
        let known = self.path.first().is_none_or(|first| is_known(&[], first));
        if !known {
            names.insert(0, "extra".to_owned());
        }
        if let [table, name, ..] = self.path.as_slice()
            && is_table(table)
            && !is_known(std::slice::from_ref(table), name)
        {
            names.insert(1, "extra".to_owned());
        }
        match self.star {
            Star::No => {}
            Star::All => names.push("*".to_owned()),
            Star::Others => names.extend(["extra", "*"].map(str::to_owned)),
        }
        f.write_str(&names.join("."))
    }
}

/// The forms of a field, for hints.
const FORMS: &str = "write a column or a path, as in user_id, metadata.email, metadata.*, messages.text, extra.*; a name with points goes in \
                     quotes: metadata.\"a.b\"";

fn of(mut path: Vec<String>) -> Field {
    match path.pop_if(|last| last == "*") {
        Some(_) => Field { path, star: Star::All },
        None => Field { path, star: Star::No },
    }
}

/// Splits a field at its points, except in quotes.
fn split(text: &str) -> Result<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), text.trim());
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(|| refused(text, "has no closing quote"))?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        names.push(name.to_owned());
        rest = match after.strip_prefix('.') {
            Some(rest) => rest,
            None if after.is_empty() => break,
            None => return Err(refused(text, "has text after a quote").with_hint(FORMS)),
        };
    }
    let last = names.len().saturating_sub(1);
    if names.iter().enumerate().any(|(place, name)| name.is_empty() || name == "*" && place < last) {
        return Err(refused(text, "has an empty name, or a wildcard that is not its end").with_hint(FORMS));
    }
    Ok(names)
}

fn refused(text: &str, why: &str) -> Error {
    Error::usage(format!("the field {text:?} {why}"))
}

fn is_key(text: &str) -> Error {
    refused(text, "cannot be masked")
        .with_hint("ids, times of conversations, positions and columns that begin with _ keep the rows of a lake apart")
}

/// Whether this is the array of a child table.
pub(super) fn is_table(name: &str) -> bool {
    Table::CHILDREN.iter().any(|table| table.name() == name)
}

/// The table whose objects are at a path.
pub(super) fn table_at(path: &[String]) -> Option<Table> {
    match path {
        [] => Some(Table::Conversations),
        [name] => Table::CHILDREN.into_iter().find(|table| table.name() == name),
        _ => None,
    }
}

/// The fields of the objects at a path that are not in `extra`: those with a column, and of conversations also the id
/// and the arrays. Also whether each holds a time.
pub(super) fn known_fields(path: &[String]) -> Vec<(&'static str, bool)> {
    let Some(table) = table_at(path) else { return Vec::new() };
    let columns = LakeColumns::of_schema(SCHEMA, &[]);
    let mut known: Vec<_> = columns
        .of(table)
        .columns()
        .iter()
        .filter_map(|column| match column.source {
            ColumnSource::Field(name) => Some((name, column.kind == ColumnKind::Time)),
            _ => None,
        })
        .collect();
    if table == Table::Conversations {
        known.push((column::CONVERSATION_ID, false));
        known.extend(Table::CHILDREN.map(|table| (table.name(), false)));
    }
    known
}

/// Whether the objects at a path have a column for the field, or the field is their id or an array of children.
pub(super) fn is_known(path: &[String], name: &str) -> bool {
    known_fields(path).iter().any(|(known, _)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, Star, Allows) {
        let (Field { path, star }, allows) = Field::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(Field::parse(&Field { path: path.clone(), star }.to_string()).unwrap().0.path, path, "{text}");
        (path, star, allows)
    }

    #[test]
    fn columns_and_paths_are_read() {
        let all = Allows::Everything;
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (text, names, star, allows) in [
            ("user_id", &["user_id"][..], Star::No, all),
            ("metadata.email", &["metadata", "email"], Star::No, all),
            ("metadata.\"a.b\".c", &["metadata", "a.b", "c"], Star::No, all),
            ("metadata.*", &["metadata"], Star::All, all),
            ("metadata", &["metadata"], Star::No, all),
            ("messages.text", &["messages", "text"], Star::No, all),
            ("messages.*", &["messages"], Star::All, all),
            ("messages.extra.*", &["messages"], Star::Others, all),
            ("messages.extra.mood", &["messages", "mood"], Star::No, all),
            ("messages.message_id", &["messages", "id"], Star::No, all),
            ("tags.tag_id", &["tags", "id"], Star::No, all),
            ("audit_logs.payload.x.y", &["audit_logs", "payload", "x", "y"], Star::No, all),
            ("extra.*", &[], Star::Others, all),
            ("extra", &[], Star::Others, all),
            ("extra.channel.name", &["channel", "name"], Star::No, all),
            ("csat_rating", &["csat_rating"], Star::No, Allows::Drop),
            ("tags.level", &["tags", "level"], Star::No, Allows::Drop),
        ] {
            assert_eq!(parsed(text), (path(names), star, allows), "{text}");
        }
    }

    #[test]
    fn what_is_no_column_or_a_key_is_refused_with_a_hint() {
        for (text, why, hint) in [
            ("sumary", "no column", "extra.sumary"),
            ("messages.mood", "no column", "messages.extra.mood"),
            ("extra.summary", "has a column", "write summary"),
            ("messages.extra.text", "has a column", "write messages.text"),
            ("messages", "whole table", "messages.*"),
            ("summary.x", "no JSON", "write summary"),
            ("*", "no field", "metadata.*"),
            ("", "empty name", ""),
            ("metadata.*.x", "wildcard", ""),
            ("conversation_id", "cannot be masked", ""),
            ("created_at", "cannot be masked", ""),
            ("updated_at", "cannot be masked", ""),
            ("last_message_at", "cannot be masked", ""),
            ("messages.created_at", "cannot be masked", ""),
            ("messages.message_index", "cannot be masked", ""),
            ("messages.conversation_id", "cannot be masked", ""),
            ("_run_id", "cannot be masked", ""),
            ("tags._seq", "cannot be masked", ""),
            ("_exported_at", "cannot be masked", ""),
            ("message_count", "cannot be masked", ""),
        ] {
            let error = Field::parse(text).unwrap_err();
            assert!(error.to_string().contains(why) && error.kind().exit_code() == 2, "{text}: {error}");
            assert!(error.hint().is_some_and(|it| it.contains(hint)), "{text}: {:?}", error.hint());
        }
    }
}
