//! Renders a conversation as the API would send it at a moment.
//!
//! All forms that the vendor's page and live accounts show occur: times with and without a zone, tags with and without
//! ids, fields that are null or missing, fields without a column in the lake.

use std::borrow::Cow;

use chrono::{DateTime, FixedOffset, SecondsFormat};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::world::World;
use crate::model::from_micros;

#[derive(Serialize)]
struct Conversation {
    conversation_id: String,
    user_id: String,
    destination: &'static str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message_at: Option<String>,
    metadata: Value,
    undeflected: bool,
    summary: Option<String>,
    resolution: Option<&'static str>,
    messages: Vec<Message>,
    csat_rating: Option<u8>,
    csat_role: Option<&'static str>,
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_type: Option<&'static str>,
    notes: Option<Cow<'static, str>>,
    audit_logs: Vec<AuditLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all_tags: Option<Value>,
}

#[derive(Serialize)]
struct Message {
    text: String,
    role: &'static str,
    created_at: String,
}

#[derive(Serialize)]
struct Tag {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'static str,
    level: u8,
}

#[derive(Serialize)]
struct AuditLog {
    text: String,
    payload: Value,
    created_at: String,
}

const TAGS: [&str; 8] = ["Greeting", "Billing", "Refund", "Shipping", "Login", "Cancellation", "Bug report", "Praise"];
const FLOWS: [&str; 3] = ["chat", "email", "voice"];
const RESOLUTIONS: [&str; 3] =
    ["The agent answered the question.", "The customer was handed over.", "A refund was issued."];
const WORDS: [&str; 48] = [
    "account",
    "again",
    "agent",
    "already",
    "answer",
    "because",
    "before",
    "billing",
    "cancel",
    "card",
    "change",
    "charge",
    "check",
    "café",
    "delivery",
    "email",
    "error",
    "find",
    "good",
    "hello",
    "help",
    "invoice",
    "item",
    "later",
    "login",
    "message",
    "money",
    "month",
    "naïve",
    "number",
    "order",
    "password",
    "payment",
    "please",
    "problem",
    "refund",
    "reset",
    "send",
    "shipping",
    "subscription",
    "thanks",
    "today",
    "track",
    "update",
    "warten",
    "“quoted”",
    "\"plain\"",
    "👋🏽",
];

/// Renders conversation `number` at `now`; `None` if it has not begun.
pub(super) fn conversation(world: &World, number: u64, now: i64, with_updated_at: bool) -> Option<String> {
    let timeline = world.timeline(number);
    let times = timeline.times(now)?;
    let mut rng = world.rng(number, 3);
    let style = number;
    let time = |micros| format_time(style, micros);
    let is_over = timeline.visible(now) == timeline.messages.len();
    let handed_over = rng.u8(0..4) == 0;
    let destination = if handed_over { "AGENT" } else { "AI" };

    let shown = timeline.messages.iter().take(timeline.visible(now));
    let messages: Vec<Message> = (0_usize..)
        .zip(shown)
        .map(|(index, at)| {
            let role = match index % 2 {
                0 => "USER",
                _ if handed_over && index > 3 => "AGENT",
                _ => "AI",
            };
            Message { text: text(&mut world.rng(number, 16 + index as u64)), role, created_at: time(*at) }
        })
        .collect();
    let rated_at = timeline.rated_at.filter(|at| *at <= now);
    let rating = rng.u8(1..=5);
    let conversation = Conversation {
        conversation_id: uuid(&mut rng),
        user_id: format!("user_{}", rng.u32(0..50_000)),
        destination,
        created_at: time(times.created_at),
        updated_at: with_updated_at.then(|| time(times.updated_at)),
        last_message_at: (with_updated_at && !number.is_multiple_of(3)).then(|| time(times.last_message_at)),
        metadata: metadata(&mut rng),
        undeflected: handed_over,
        summary: is_over.then(|| format!("The customer wrote about {}.", rng.choice(TAGS).unwrap_or_default())),
        resolution: if is_over { rng.choice(RESOLUTIONS) } else { None },
        messages,
        csat_rating: rated_at.map(|_| rating),
        csat_role: rated_at.map(|_| destination),
        tags: tags(&mut rng, number),
        flow_type: if number.is_multiple_of(5) { None } else { rng.choice(FLOWS) },
        notes: number.is_multiple_of(13).then_some("This is an internal note.\nIt has two lines.".into()),
        audit_logs: rated_at.into_iter().map(|at| rating_log(rating, at)).collect(),
        all_tags: number.is_multiple_of(9).then(|| json!({"Topics": {"Billing": ["Refund"]}, "version": 2.50})),
    };
    serde_json::to_string(&conversation).ok()
}

fn rating_log(rating: u8, at: i64) -> AuditLog {
    let payload = if rating > 3 { json!({}) } else { json!({"from": null, "to": rating}) };
    AuditLog { text: format!("CSAT set to {rating}"), payload, created_at: format_time(3, at) }
}

fn tags(rng: &mut Rng, number: u64) -> Vec<Tag> {
    let count = rng.u8(0..4);
    let first = rng.usize(0..TAGS.len());
    let names = TAGS.iter().cycle().skip(first);
    let id = |name: &str| number.is_multiple_of(11).then(|| format!("tag_{}", name.to_lowercase().replace(' ', "_")));
    (0..count).zip(names).map(|(level, name)| Tag { id: id(name), name, level }).collect()
}

fn metadata(rng: &mut Rng) -> Value {
    match rng.u8(0..4) {
        0 => json!({}),
        1 => json!({"user_type": "VIP", "email": format!("user{}@example.com", rng.u16(..))}),
        2 => json!({"plan": {"name": "pro", "seats": rng.u8(1..40)}, "beta": true, "ratio": 0.5}),
        _ => json!({"user_type": "regular", "locale": "de-DE", "order_id": rng.u32(..)}),
    }
}

fn uuid(rng: &mut Rng) -> String {
    let (high, low) = (rng.u64(..), rng.u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

fn text(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.u8(6..64) {
        if !text.is_empty() {
            text.push(if rng.u8(0..24) == 0 { '\n' } else { ' ' });
        }
        text.push_str(rng.choice(WORDS).unwrap_or_default());
    }
    text
}

/// Formats a time in one of the forms that the API is known to use.
fn format_time(style: u64, micros: i64) -> String {
    let time = from_micros(micros).unwrap_or(DateTime::UNIX_EPOCH);
    match style % 4 {
        0 => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        1 => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        2 => {
            let zone = FixedOffset::east_opt(2 * 3_600).map_or(time.fixed_offset(), |zone| time.with_timezone(&zone));
            zone.to_rfc3339_opts(SecondsFormat::Micros, false)
        }
        _ => time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
    }
}
