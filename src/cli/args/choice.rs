//! Parses a flag that has a fixed set of values. The enums belong to modules that must not depend on clap, so their
//! names on the command line and their help texts are given here or where the flag is.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::model::{PartitionBy, TimestampFilter};

/// A value of a flag: the value, its name, its help text.
pub(super) type Choice<T> = (T, &'static str, &'static str);

/// Parses one of `choices`. Help texts, completions and the manual page list all of them.
pub(super) fn choice<T, const N: usize>(choices: [Choice<T>; N]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.map(|(_, name, help)| PossibleValue::new(name).help(help))).try_map(
        move |typed| {
            let found = choices.iter().find(|(_, name, _)| *name == typed);
            found.map(|(value, ..)| *value).ok_or("it is none of the possible values")
        },
    )
}

/// Parses the time of a conversation that the bounds of a range apply to.
pub(super) fn timestamp_filter() -> impl TypedValueParser<Value = TimestampFilter> {
    let choice_of = |filter: TimestampFilter, help| (filter, filter.as_str(), help);
    choice([
        choice_of(TimestampFilter::CreatedAt, "When the conversation began, which never changes"),
        choice_of(TimestampFilter::UpdatedAt, "When it last changed"),
        choice_of(TimestampFilter::LastMessageTime, "When its last message arrived"),
    ])
}

/// Parses how much time a partition covers.
pub(super) fn partition_by() -> impl TypedValueParser<Value = PartitionBy> {
    let choice_of = |by: PartitionBy, help| (by, by.name(), help);
    choice([
        choice_of(PartitionBy::Day, "created_date=2024-02-29, for accounts of any size"),
        choice_of(PartitionBy::Month, "created_month=2024-02-01, for less than some 20,000 conversations a day"),
    ])
}
