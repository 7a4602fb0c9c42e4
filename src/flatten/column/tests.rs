//! Tests of how single values become values of a column.

use super::*;
use arrow_array::cast::AsArray;

fn fit(kind: ColumnKind, json: &str) -> (Fit, ArrayRef) {
    let mut column = ColumnBuilder::new(kind);
    let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
    let fit = column.append(&raw);
    (fit, column.finish())
}

fn append(kind: ColumnKind, json: &str) -> (bool, ArrayRef) {
    let (fit, column) = fit(kind, json);
    (fit == Fit::Whole, column)
}

#[test]
fn text_is_unescaped_and_half_surrogates_are_replaced() {
    let text = |json: &str| {
        let (whole, array) = append(ColumnKind::Text, json);
        (whole, array.as_string::<i32>().iter().next().unwrap().map(str::to_owned))
    };
    assert_eq!(text(r#""plain""#), (true, Some("plain".into())));
    assert_eq!(text(r#""a\n\u00e9\ud83d\ude00""#), (true, Some("a\né😀".into())));
    let (whole, lossy) = text(r#""ok \ud83d end""#);
    assert!(!whole);
    let lossy = lossy.unwrap();
    assert!(lossy.starts_with("ok \u{fffd}") && lossy.ends_with(" end"), "{lossy}");
    assert_eq!(text("5"), (false, Some("5".into())));
    assert_eq!(text("{}"), (false, None));
}

#[test]
fn an_id_is_a_whole_number_or_text_that_is_none() {
    for (json, value, whole) in [
        ("7001", Some("7001"), true),
        ("-5", Some("-5"), true),
        (r#""msg-2""#, Some("msg-2"), true),
        (r#""7001""#, Some("7001"), false),
        (r#""007""#, Some("007"), true),
        ("7.0", Some("7.0"), false),
        ("99999999999999999999", Some("99999999999999999999"), false),
        ("true", Some("true"), false),
        (r#"{"a": 1}"#, None, false),
    ] {
        let (fits, array) = append(ColumnKind::Id, json);
        assert_eq!((array.as_string::<i32>().iter().next().unwrap(), fits), (value, whole), "{json}");
    }
}

#[test]
fn a_copy_is_the_nearest_value_that_the_column_can_hold() {
    for (kind, json, value, fits) in [
        (ColumnKind::Text, r#""p\u0072o""#, "pro", true),
        (ColumnKind::Text, "1.50", "1.50", true),
        (ColumnKind::Text, "true", "true", true),
        (ColumnKind::Text, r#"{"name": "pro"}"#, "", false),
        (ColumnKind::Text, "null", "", true),
        (ColumnKind::BigInt, "9007199254740993", "9007199254740993", true),
        (ColumnKind::BigInt, r#"" 7 ""#, "7", true),
        (ColumnKind::BigInt, "7.5", "", false),
        (ColumnKind::BigInt, r#""""#, "", false),
        (ColumnKind::Double, "12.50", "12.5", true),
        (ColumnKind::Double, "7", "7.0", true),
        (ColumnKind::Double, r#""1e3""#, "1000.0", true),
        (ColumnKind::Double, "1e400", "", false),
        (ColumnKind::Double, r#""inf""#, "", false),
        (ColumnKind::Double, r#"".5""#, "", false),
        (ColumnKind::Double, "[1]", "", false),
        (ColumnKind::Bool, "true", "true", true),
        (ColumnKind::Bool, r#""False""#, "false", true),
        (ColumnKind::Bool, "1", "true", true),
        (ColumnKind::Bool, r#""maybe""#, "", false),
        (ColumnKind::Time, "1704067200", "2024-01-01T00:00:00Z", true),
        (ColumnKind::Time, r#""2024-01-01T00:00""#, "2024-01-01T00:00:00Z", true),
        (ColumnKind::Time, r#""""#, "", true),
        (ColumnKind::Time, r#""soon""#, "", false),
    ] {
        let mut column = ColumnBuilder::new(kind);
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        let found = column.append_copy(&raw);
        let shown = arrow_cast::display::array_value_to_string(&column.finish(), 0).unwrap();
        assert_eq!((shown.as_str(), found), (value, fits), "{kind:?} {json}");
    }
}

#[test]
fn only_whole_numbers_in_range_fit() {
    for (json, fits) in [
        ("4", true),
        ("4.0", true),
        ("40e-1", true),
        ("-0", true),
        ("4.5", false),
        ("\"4\"", false),
        ("1e400", false),
        ("2147483648", false),
        ("true", false),
    ] {
        assert_eq!(append(ColumnKind::Int, json).0, fits, "{json}");
    }
}

#[test]
fn lenient_numbers_and_booleans_are_read_but_never_fit_whole() {
    for (json, value) in [
        (r#""4""#, Some(4)),
        (r#"" 5 ""#, Some(5)),
        (r#""5.0""#, Some(5)),
        (r#""\u0034""#, Some(4)),
        (r#""-3""#, Some(-3)),
        (r#""4.5""#, None),
        (r#""2147483648""#, None),
        (r#""four""#, None),
        (r#""""#, None),
        ("[4]", None),
    ] {
        let (fit, array) = fit(ColumnKind::Int, json);
        let ints = array.as_primitive::<arrow_array::types::Int32Type>();
        assert_eq!((fit, ints.iter().next().unwrap()), (Fit::InPart, value), "{json}");
    }
    for (json, expected, value) in [
        ("true", Fit::Whole, Some(true)),
        (r#""true""#, Fit::InPart, Some(true)),
        (r#""False""#, Fit::InPart, Some(false)),
        (r#"" TRUE""#, Fit::InPart, Some(true)),
        ("0", Fit::InPart, Some(false)),
        ("1.0", Fit::InPart, Some(true)),
        (r#""1""#, Fit::InPart, Some(true)),
        ("2", Fit::InPart, None),
        (r#""yes""#, Fit::InPart, None),
    ] {
        let (fit, array) = fit(ColumnKind::Bool, json);
        assert_eq!((fit, array.as_boolean().iter().next().unwrap()), (expected, value), "{json}");
    }
}

#[test]
fn a_time_fits_if_its_instant_says_all_of_it() {
    const SECOND: i64 = 1_704_067_200_000_000;
    for (json, expected, micros) in [
        (r#""2024-01-01T00:00:00Z""#, Fit::Whole, Some(SECOND)),
        (r#""2024-01-01T00:00:00\u002B00:00""#, Fit::Whole, Some(SECOND)),
        (r#""2024\u002d01-01T00:00\u005a""#, Fit::Whole, Some(SECOND)),
        (r#""2024-01-01T00:00:00.123456789Z""#, Fit::InPart, Some(SECOND + 123_456)),
        ("1704067200", Fit::InPart, Some(SECOND)),
        ("1704067200.5", Fit::InPart, Some(SECOND + 500_000)),
        (r#""1704067200000""#, Fit::InPart, Some(SECOND)),
        (r#""0001-01-01T00:00:00Z""#, Fit::InPart, None),
        (r#""""#, Fit::InPart, None),
        ("0", Fit::InPart, None),
        (r#""soon""#, Fit::UnreadableTime, None),
        (r#""\ud800""#, Fit::UnreadableTime, None),
        ("17", Fit::UnreadableTime, None),
        ("true", Fit::UnreadableTime, None),
        (r#"{"secs": 1704067200}"#, Fit::UnreadableTime, None),
    ] {
        let (fit, array) = fit(ColumnKind::Time, json);
        let times = array.as_primitive::<arrow_array::types::TimestampMicrosecondType>();
        assert_eq!((fit, times.iter().next().unwrap()), (expected, micros), "{json}");
    }
}
