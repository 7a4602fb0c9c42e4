//! Parsers of numbers, sizes and JSON that check what the work below relies on.

use bytesize::ByteSize;
use serde_json::Value;

use crate::model::PageSizeChoice;
use crate::run::MaxDeleted;

/// A number per second; 0 means no limit.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.000_1..=1e9).contains(&rate) => Ok(rate),
        _ => Err("expected 0, or a number from 0.0001 to a billion".to_owned()),
    }
}

/// How many conversations to request at a time.
pub(super) fn page_size(text: &str) -> Result<PageSizeChoice, String> {
    match (text, text.parse::<u32>()) {
        ("auto", _) => Ok(PageSizeChoice::Auto),
        ("none", _) => Ok(PageSizeChoice::Unset),
        (_, Ok(size @ 1..)) => Ok(PageSizeChoice::Fixed(size)),
        _ => Err("expected auto, none, or a number from 1".to_owned()),
    }
}

/// How many conversations may be gone: a number, or a part of a hundred.
pub(super) fn max_deleted(text: &str) -> Result<MaxDeleted, String> {
    let percent = text.strip_suffix('%').map(|number| number.trim_end().parse::<f64>());
    match (percent, text.parse()) {
        (Some(Ok(percent)), _) if (0.0..=100.0).contains(&percent) => Ok(MaxDeleted::Percent(percent)),
        (None, Ok(count)) => Ok(MaxDeleted::Count(count)),
        _ => Err("expected a number of conversations, as in 20, or a part from 0% to 100%, as in 1%".to_owned()),
    }
}

/// The size of a response. A page is in memory several times over, and one of its columns must not reach 2 GiB.
pub(super) fn response_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>()? {
        size if size <= ByteSize::gib(1) => Ok(size),
        _ => Err("expected 1GiB at most".to_owned()),
    }
}

/// A JSON object.
pub(super) fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("expected a JSON object, as in {\"deflected_filter\": true}".to_owned()),
        Err(error) => Err(format!("expected a JSON object: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_part() {
        assert_eq!(max_deleted("20"), Ok(MaxDeleted::Count(20)));
        assert_eq!([max_deleted("1%"), max_deleted("0.5 %")], [1.0, 0.5].map(|part| Ok(MaxDeleted::Percent(part))));
        for text in ["", "%", "-1", "-1%", "101%", "NaN%", "1.5", "many"] {
            assert!(max_deleted(text).is_err(), "{text}");
        }
    }
}
