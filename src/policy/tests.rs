//! Policies applied to conversations, malformed entries and rows.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::RecordBatch;
use chrono::DateTime;

use super::*;
use crate::flatten::{Origin, fill, flatten};
use crate::model::{LakeColumns, MetadataColumn, RowPolicy, RunId, Table};

const KEY: &[u8] = b"the key of these tests";
const ALL: &str = r#"action = "redact"
patterns = ["email", "phone", "card", "iban", "ip", { name = "order", regex = "ORD-[0-9]+" }]"#;
const HASH: &str = "action = 'hash'";
const DROP: &str = "action = 'drop'";

fn key() -> PolicyKey {
    PolicyKey::from_bytes(KEY, "the test").unwrap()
}

fn policy(rules: &[(&str, &str)]) -> Policy {
    let rule = |(field, rest): &(&str, &str)| format!("[[rules]]\nfield = '{field}'\n{rest}\n");
    Policy::parse(&rules.iter().map(rule).collect::<String>()).unwrap()
}

/// The chain of a lake that has had these policies.
fn chain(policies: &[&Policy]) -> PolicyChain {
    let mut kept = Vec::new();
    for policy in policies {
        kept = KeptPolicy::grown(&kept, Some(policy)).unwrap();
    }
    PolicyChain::of(&kept, Some(&key())).unwrap().unwrap()
}

fn masker(rules: &[(&str, &str)]) -> Arc<Masker> {
    chain(&[&policy(rules)]).masker().unwrap()
}

fn masked(rules: &[(&str, &str)], json: &str) -> String {
    masker(rules).conversation(json, &mut RuleHits::default()).unwrap().into_owned()
}

fn hash(text: &str) -> String {
    key().hash(text.as_bytes())
}

#[test]
fn what_no_rule_covers_stays_to_the_byte() {
    let json = " { \"a\" :1.50 , \"m\\u0065tadata\": {\"x\" : [ 1, {\"y\":\"\\ud83d\\ude00 \\/\"} ] }, \"messages\":[ {\"text\":\"hi\\n\"} , null] } ";
    let masker = masker(&[("metadata.email", HASH), ("messages.text", ALL), ("tags.name", DROP)]);
    assert!(matches!(masker.conversation(json, &mut RuleHits::default()), Some(Cow::Borrowed(same)) if same == json));
    let with = json.replace("\"hi\\n\"", "\"a@b.co\\n\"");
    let found = masker.conversation(&with, &mut RuleHits::default()).unwrap();
    assert_eq!(found, json.replace("\"hi\\n\"", "\"[email]\\n\""));
}

#[test]
fn every_spelling_of_a_name_and_every_repetition_is_covered() {
    let json = r#"{"\u006detadata": {"\u0065mail": "a", "email": "b", "EMAIL": "c"}, "metadata": {"email": "d"}}"#;
    let expected =
        r#"{"\u006detadata": {"\u0065mail": null, "email": null, "EMAIL": "c"}, "metadata": {"email": null}}"#;
    assert_eq!(masked(&[("metadata.email", DROP)], json), expected);
}

#[test]
fn hashes_are_those_of_the_value() {
    for (value, of) in [
        (r#""jane""#, "jane"),
        (r#""j\u0061ne""#, "jane"),
        ("17", "17"),
        ("1.50", "1.50"),
        ("true", "true"),
        (r#"{"a": [1]}"#, r#"{"a": [1]}"#),
        (r#""""#, ""),
    ] {
        let json = format!(r#"{{"user_id": {value}, "x": 1}}"#);
        assert_eq!(masked(&[("user_id", HASH)], &json), format!(r#"{{"user_id": "{}", "x": 1}}"#, hash(of)), "{value}");
    }
    assert_eq!(masked(&[("user_id", HASH)], r#"{"user_id": null}"#), r#"{"user_id": null}"#);
    let list = masked(&[("metadata.mails", HASH)], r#"{"metadata": {"mails": ["a", [null, "b"]]}}"#);
    assert_eq!(list, format!(r#"{{"metadata": {{"mails": ["{}", [null, "{}"]]}}}}"#, hash("a"), hash("b")));
    let halves =
        [r#""\ud800""#, r#""\ud801""#].map(|half| masked(&[("notes", HASH)], &format!(r#"{{"notes": {half}}}"#)));
    assert_ne!(halves[0], halves[1]);
}

#[test]
fn texts_inside_a_redacted_value_are_searched_with_their_names() {
    let json =
        r#"{"metadata": {"a@b.co": [1, {"c@d.co": "e@f.co", "n": 4111111111111111, "ok": false}], "kept": "x"}}"#;
    let expected = r#"{"metadata": {"[email]": [1, {"[email]": "[email]", "n": "[card]", "ok": false}], "kept": "x"}}"#;
    assert_eq!(masked(&[("metadata", ALL)], json), expected);
    let below = expected.replacen("[email]", "a@b.co", 1);
    assert_eq!(masked(&[("metadata.*", ALL)], json), below, "a path does not cover its own names");
}

#[test]
fn texts_are_cut_by_characters() {
    for (value, expected) in [
        (r#""äöüß""#, r#""äö""#),
        (r#""a\u00e9b""#, r#""aé""#),
        (r#""ab""#, r#""ab""#),
        (r#""\ud83d\ude00\ud83d\ude00\ud83d\ude00""#, r#""😀😀""#),
        (r#""\ud800x\ud800""#, "\"\u{fffd}\u{fffd}\""),
        ("12345", r#""12""#),
    ] {
        let json = format!(r#"{{"notes": {value}}}"#);
        assert_eq!(masked(&[("notes", "truncate = 2")], &json), format!(r#"{{"notes": {expected}}}"#), "{value}");
    }
    let both = [("notes", ALL), ("notes", "truncate = 9")];
    assert_eq!(masked(&both, r#"{"notes": "to a@b.co, 12"}"#), r#"{"notes": "to [email"}"#);
}

#[test]
fn a_value_of_an_unexpected_shape_gets_the_strictest_action() {
    let rules = [
        ("messages.text", ALL),
        ("messages.role", DROP),
        ("metadata.email", HASH),
        ("tags.id", HASH),
        ("tags.name", DROP),
    ];
    let json = r#"{"messages": "jane", "metadata": "{\"email\": 1}", "tags": ["t1", {"name": "n"}, 7, null, "t1"]}"#;
    let (text, t1, seven) = (hash(r#"{"email": 1}"#), hash("t1"), hash("7"));
    let expected = format!(
        r#"{{"messages": null, "metadata": "{text}", "tags": ["{t1}", {{"name": null}}, "{seven}", null, "{t1}"]}}"#
    );
    assert_eq!(masked(&rules, json), expected);
    assert_eq!(
        masked(&rules, r#"{"messages": [["x", {"text": "a@b.co"}]]}"#),
        r#"{"messages": [[null, {"text": "[email]"}]]}"#
    );
}

#[test]
fn wildcards_cover_what_they_say() {
    let json = r#"{"conversation_id": "c", "created_at": "2024-01-01", "summary": "s", "mood": {"a": 1},
        "messages": [{"text": "t", "id": 5, "created_at": "2024-01-01T00:00:00Z", "mood": "m"}, {"created_at": "jane"}]}"#;
    let others = masked(&[("extra.*", DROP), ("messages.extra.*", DROP)], json);
    assert_eq!(others, json.replace(r#"{"a": 1}"#, "null").replace(r#""m""#, "null"));
    let all = masked(&[("messages.*", DROP)], json);
    let expected = json.replace(r#""t""#, "null").replace("5,", "null,").replace(r#""m""#, "null");
    assert_eq!(all, expected.replace(r#""jane""#, "null"), "a readable time stays");
}

#[test]
fn nesting_costs_no_stack_and_malformed_json_is_no_panic() {
    let deep = format!(r#"{{"metadata": {}"a@b.co"{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(masked(&[("metadata", ALL)], &deep).contains("[email]"));
    assert!(!masked(&[("metadata.x", HASH)], &deep).contains("a@b.co"));
    let masker = masker(&[("metadata", ALL), ("messages.text", DROP)]);
    for json in [
        "",
        "{",
        "{\"metadata\"",
        "{\"metadata\":",
        "{\"metadata\":}",
        "[1 2]",
        "{\"a\" 1}",
        "{} x",
        "{\"messages\":[{]}",
    ] {
        assert_eq!(masker.conversation(json, &mut RuleHits::default()), None, "{json}");
    }
}

#[test]
fn rules_are_counted() {
    let rules = [("metadata.email", HASH), ("messages.text", ALL), ("extra.gone", DROP)];
    let mut hits = RuleHits::default();
    let json = r#"{"metadata": {"email": "a"}, "messages": [{"text": "x"}, {"text": "a@b.co"}, {"text": null}]}"#;
    let masker = masker(&rules);
    masker.conversation(json, &mut hits).unwrap();
    assert_eq!((hits.conversations, hits.by_rule.as_slice()), (1, &[(1, 1), (2, 1)][..]));
}

#[test]
fn of_a_malformed_entry_only_a_masked_object_stays() {
    let masker = masker(&[("messages.text", ALL), ("metadata.email", HASH)]);
    let found = masker.quarantined(r#"{"text": "a@b.co", "metadata": {"email": "jane"}, "x": 1}"#);
    let expected = format!(r#"{{"text": "[email]", "metadata": {{"email": "{}"}}, "x": 1}}"#, hash("jane"));
    assert_eq!(found.raw.as_deref(), Some(expected.as_str()), "a message may stand in the place of a conversation");
    for raw in [r#""jane""#, "[1]", r#"{"metadata": {"email": "jane""#, "{\"a\": \"\u{1}\"}"] {
        let found = masker.quarantined(raw);
        assert_eq!((found.raw, found.bytes, found.hmac.unwrap()), (None, raw.len(), hash(raw)), "{raw}");
    }
}

#[test]
fn a_key_is_needed_for_hashes_only() {
    let kept = |rules| KeptPolicy::grown(&[], Some(&policy(rules))).unwrap();
    let error = PolicyChain::of(&kept(&[("user_id", HASH)]), None).unwrap().unwrap().masker().unwrap_err();
    assert!(error.kind().exit_code() == 2 && error.hint().unwrap().contains("DECAGON_POLICY_KEY"));
    let plain = PolicyChain::of(&kept(&[("user_id", DROP)]), None).unwrap().unwrap().masker().unwrap();
    assert_eq!(plain.quarantined("x").hmac, None);
}

#[test]
fn a_weaker_policy_is_refused_by_name() {
    let kept = KeptPolicy::grown(&[], Some(&policy(&[("user_id", HASH), ("metadata.email", DROP)]))).unwrap();
    assert_eq!(KeptPolicy::grown(&kept, None).unwrap(), kept);
    let error = KeptPolicy::grown(&kept, Some(&policy(&[("user_id", HASH), ("metadata.email", HASH)]))).unwrap_err();
    assert_eq!(error.to_string(), "the policy is weaker than the lake's: metadata.email has hash, in place of drop");
    assert!(error.kind().exit_code() == 2 && error.hint().is_some());
    let stricter = policy(&[("user_id", HASH), ("metadata.*", DROP)]);
    let grown = KeptPolicy::grown(&kept, Some(&stricter)).unwrap();
    assert_eq!(grown.len(), 2);
    assert_eq!(KeptPolicy::grown(&grown, Some(&stricter)).unwrap(), grown);
}

const SENT: [&str; 3] = [
    r#"{"conversation_id": "a", "user_id": "jane", "summary": "call 555-123-4567", "created_at": "2024-01-01T00:00:00Z",
        "csat": 4, "metadata": {"email": "jane@example.com", "plan": "pro", "total": 12.5},
        "all_tags": {"h": [{"name": "n"}]}, "channel": {"from": "jane@example.com"},
        "messages": [{"text": "I am jane@example.com", "role": "USER", "id": 7, "mood": "glad"}, {"text": "hi"}],
        "tags": ["t1", {"id": "t2", "name": "vip", "level": 0}],
        "audit_logs": [{"text": "ok", "payload": {"x": "10.1.2.3", "y": 1}}]}"#,
    r#"{"conversation_id": "b", "user_id": "joe", "metadata": {}, "notes": "4111 1111 1111 1111"}"#,
    r#"{"conversation_id": "c", "messages": [], "tags": null, "metadata": {"email": null, "plan": ["x"]}}"#,
];

const COVERED: [(&str, &str); 10] = [
    ("user_id", HASH),
    ("summary", ALL),
    ("notes", ALL),
    ("csat", DROP),
    ("metadata.email", HASH),
    ("metadata.*", ALL),
    ("extra.*", ALL),
    ("messages.text", ALL),
    ("tags.*", HASH),
    ("audit_logs.payload.x", ALL),
];

fn flattened(texts: &[Cow<'_, str>], columns: &LakeColumns) -> crate::model::PerTable<Arc<RecordBatch>> {
    let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
    let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
    flatten(texts.iter().map(AsRef::as_ref), columns, &origin).unwrap().tables
}

/// What `masker` makes of the texts of conversations.
fn masked_texts<'a>(masker: &Masker, texts: &[Cow<'a, str>]) -> Vec<Cow<'a, str>> {
    let mask = |text: &Cow<'_, str>| masker.conversation(text, &mut RuleHits::default()).unwrap().into_owned();
    texts.iter().map(|text| Cow::Owned(mask(text))).collect()
}

fn columns() -> LakeColumns {
    let metadata: Vec<MetadataColumn> =
        ["plan", "email", "total:double"].iter().map(|column| column.parse().unwrap()).collect();
    LakeColumns::new(&metadata)
}

/// Rows that landed before a policy become those that flattening masked conversations makes.
#[test]
fn masked_rows_are_those_of_masked_conversations() {
    let columns = columns();
    // The level of a tag is no text, so its hash has no place in a row that has landed.
    let covered: Vec<_> =
        COVERED.into_iter().filter(|(field, _)| *field != "tags.*").chain([("tags.name", HASH)]).collect();
    let (sent, masker) = (SENT.map(Cow::Borrowed), masker(&covered));
    let (before, expected) = (flattened(&sent, &columns), flattened(&masked_texts(&masker, &sent), &columns));
    for table in Table::ALL {
        let rows = masker.rows(columns.of(table), before.get(table)).unwrap();
        let rows = fill(columns.of(table), &rows).unwrap().rows;
        assert_eq!(&rows, expected.get(table).as_ref(), "{}", table.name());
    }
}

/// A stricter policy does the rest, and hashes nothing twice.
#[test]
fn rows_of_an_earlier_policy_get_what_is_missing() {
    let columns = columns();
    let earlier =
        policy(&[("user_id", HASH), ("metadata.email", HASH), ("messages.text", "action='redact'\npatterns=['ip']")]);
    let later = policy(&COVERED);
    let chain = chain(&[&earlier, &later]);
    let sent = SENT.map(Cow::Borrowed);
    let (first, last) = (masker_of(&earlier), chain.masker().unwrap());
    let delta = chain.after(&RowPolicy::Named(earlier.hash().to_owned())).unwrap().unwrap();
    let of_first = masked_texts(&first, &sent);
    assert_eq!(masked_texts(&delta, &of_first), masked_texts(&last, &sent));
    let rows = delta.rows(columns.of(Table::Conversations), flattened(&of_first, &columns).get(Table::Conversations));
    let rows = fill(columns.of(Table::Conversations), &rows.unwrap()).unwrap().rows;
    assert_eq!(&rows, flattened(&masked_texts(&last, &sent), &columns).get(Table::Conversations).as_ref());
    assert!(chain.after(&RowPolicy::Named(later.hash().to_owned())).unwrap().is_none());
    assert!(chain.after(&RowPolicy::Named("other".to_owned())).is_err());
}

fn masker_of(policy: &Policy) -> Arc<Masker> {
    chain(&[policy]).masker().unwrap()
}

/// Another program's copy of rows names no policy.
#[test]
fn what_looks_like_a_hash_stays_in_files_of_other_programs() {
    let chain = chain(&[&policy(&[("user_id", HASH)])]);
    let (known, unknown) = (chain.masker().unwrap(), chain.after(&RowPolicy::Unknown).unwrap().unwrap());
    let once = masked_texts(&known, &[Cow::Borrowed(SENT[0])]);
    assert_eq!(masked_texts(&unknown, &once), once);
    assert_ne!(masked_texts(&known, &once), once);
}
