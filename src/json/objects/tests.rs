//! Splitting in one pass gives the same parts as splitting step by step, unchanged.

use super::*;
use proptest::prelude::*;

#[test]
fn parts_are_unchanged() {
    let json = r#"{"a": 1.50, "b\u0061": [1, {"x": "\ud800"}], "a": null, "é\n": "z", "ba": 2}"#;
    let mut objects = Objects::new(&["a", "ba"]);
    objects.split(json).unwrap();
    let object = objects.get(0).unwrap();
    assert!(object.known(0).is_none());
    assert_eq!(object.known(1).unwrap().get(), "2");
    assert_eq!(object.others.iter().map(|(k, v)| (*k, v.get())).collect::<Vec<_>>(), [(r"é\n", "\"z\"")]);
}

#[test]
fn other_values_are_refused() {
    let mut objects = Objects::new(&["a"]);
    objects.split(r#"{"a": 7, "b": 8}"#).unwrap();
    for json in ["", "[]", "null", "\"a\"", "{\"a\":}", "{} {}", "{\"a\":1", "{\"b\":1,\"a\""] {
        assert!(objects.split(json).is_err(), "{json}");
    }
    assert_eq!(objects.len(), 1);
    objects.split("{}").unwrap();
    let parts: Vec<_> =
        objects.iter().map(|object| (object.known(0).map(RawValue::get), object.others.len())).collect();
    assert_eq!(parts, [(Some("7"), 1), (None, 0)], "a refused value leaves nothing behind");
}

#[test]
fn deep_nesting_is_read() {
    let json = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let mut objects = Objects::new(&["a"]);
    objects.split(&json).unwrap();
    assert_eq!(objects.get(0).unwrap().known(0).unwrap().get().len(), 400_000);
}

#[test]
fn well_formed_objects_take_one_pass() {
    let (names, mut arrays) = (["a", "list"], [Array::of_objects(&["x"])]);
    let mut objects = Objects::new(&names);
    for (json, found) in [
        (r#"{"list": [{"x": 1}], "a": 2}"#, true),
        (r#"{"a": 2, "list": null}"#, false),
        (r#"{"list": [7], "a": 2}"#, false),
        (r#"{"li\u0073t": [], "a": 2}"#, false),
        (r#"[]"#, false),
    ] {
        objects.clear();
        assert_eq!(objects.split_with_arrays(json, &mut arrays).is_ok(), json != "[]", "{json}");
        assert_eq!(arrays[0].found, found, "{json}");
        let left = objects.get(0).is_some_and(|object| object.known(1).is_some());
        assert_eq!(left, json.contains("[7]") || json.contains("u0073"), "{json}");
    }
}

/// JSON that mostly looks like an API's.
fn json() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just(r#""a""#), Just(r#""list""#), Just(r#""x""#), Just(r#""\u0061""#), Just(r#""é""#)];
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("1.50".to_owned()),
        Just(r#""t \" []""#.to_owned()),
        Just("true".to_owned())
    ];
    let value = scalar.prop_recursive(3, 24, 4, move |inner| {
        let field = (name(), inner.clone()).prop_map(|(name, value)| format!("{name}: {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(" ,"))),
            prop::collection::vec(field, 0..4).prop_map(|fields| format!("{{ {} }}", fields.join(",")))
        ]
    });
    prop::collection::vec((name(), value), 0..5).prop_map(|fields| {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", fields.join(", "))
    })
}

fn parts<'a>(object: &Object<'_, 'a>) -> (Option<&'a str>, Vec<(&'a str, &'a str)>) {
    let others = object.others.iter().map(|(name, value)| (*name, value.get())).collect();
    (object.known(0).map(RawValue::get), others)
}

proptest! {
    #[test]
    fn one_pass_finds_the_same_as_step_by_step(json in json()) {
        let names = ["a", "list"];
        let mut stepwise = Objects::new(&names);
        stepwise.split(&json).unwrap();
        let object = stepwise.get(0).unwrap();
        let raw = object.known(1).map(|list| elements(list).ok_or(()));
        for of_objects in [false, true] {
            let mut at_once = Objects::new(&names);
            let mut arrays = [if of_objects { Array::of_objects(&names[..1]) } else { Array::of_values() }];
            at_once.split_with_arrays(&json, &mut arrays).unwrap();
            prop_assert_eq!(at_once.len(), 1);
            let found = at_once.get(0).unwrap();
            prop_assert_eq!(parts(&found), parts(&object));
            if !arrays[0].found {
                prop_assert_eq!(found.known(1).map(RawValue::get), object.known(1).map(RawValue::get));
            }
            let left = found.known(1).is_some();
            prop_assert_eq!(arrays[0].found || left, raw.is_some());
            prop_assert!(!(arrays[0].found && left));
            let elements = match &raw {
                _ if left => vec![],
                raw => raw.clone().transpose().expect("only arrays get here").unwrap_or_default(),
            };
            match &arrays[0].elements {
                Elements::Raw(values) => {
                    let texts = |values: &[&RawValue]| values.iter().map(|value| value.get().to_owned()).collect::<Vec<_>>();
                    prop_assert_eq!(texts(values), texts(&elements));
                }
                Elements::Objects(objects) => {
                    let mut stepwise = Objects::new(&names[..1]);
                    for element in elements {
                        stepwise.split(element.get()).unwrap();
                    }
                    let all = |objects: &Objects<'_, '_>| objects.iter().map(|o| format!("{:?}", parts(&o))).collect::<Vec<_>>();
                    prop_assert_eq!(all(objects), all(&stepwise));
                }
            }
        }
    }
}
