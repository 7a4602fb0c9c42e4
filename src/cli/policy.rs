//! Reads policy files and their key, and shows what a policy does: `policy test`.
//!
//! Guarantees: the key is kept out of every log line; no message quotes what was read on stdin.

use std::io::Read;
use std::path::Path;

use super::args::{PolicyKeyArgs, PolicyTestArgs};
use super::{logging, output};
use crate::api::{Page, PageError};
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::policy::{KeptPolicy, Masker, Policy, PolicyChain, PolicyKey, RuleHits};

/// The environment variable that holds the key of hashes. Never a flag: it would show in the list of processes.
const POLICY_KEY: &str = "DECAGON_POLICY_KEY";
/// The key of `policy test` if there is none. Its hashes are those of no lake.
const TEST_KEY: &[u8] = b"the key of no lake";
/// The largest input of `policy test`.
const MOST_BYTES: u64 = 1 << 30;

/// Reads a policy file.
///
/// # Errors
/// Kind `Usage` if it cannot be read or is no policy.
pub(super) fn read(file: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::usage(format!("cannot read the policy {}", file.display()))
            .caused_by(error)
            .with_hint("check --policy, and that this user may read the file")
    })?;
    Policy::parse(&text).map_err(|error| {
        let hint = error.hint().unwrap_or_default().to_owned();
        Error::usage(format!("{}: {error}", file.display())).with_hint(hint)
    })
}

/// Reads the key, if there is one; it is kept out of every log line from now on.
///
/// # Errors
/// Kind `Usage` if it cannot be read or cannot be a key.
pub(super) fn key(args: &PolicyKeyArgs) -> Result<Option<PolicyKey>> {
    let variable = std::env::var_os(POLICY_KEY).filter(|value| !value.is_empty());
    let key = match (&args.policy_key_file, variable) {
        (Some(file), _) => {
            let bytes = std::fs::read(file).map_err(|error| {
                Error::usage(format!("cannot read the policy key from {}", file.display()))
                    .caused_by(error)
                    .with_hint("check --policy-key-file, and that this user may read the file")
            })?;
            Some(PolicyKey::from_bytes(&bytes, &file.display().to_string())?)
        }
        (None, Some(value)) => Some(PolicyKey::from_bytes(value.as_encoded_bytes(), POLICY_KEY)?),
        (None, None) => None,
    };
    if let Some(key) = &key {
        logging::hide_policy_key(key);
    }
    Ok(key)
}

/// `policy test`.
pub(super) fn test(args: &PolicyTestArgs) -> Result<()> {
    let policy = read(&args.policy)?;
    let key = match key(&args.key)? {
        Some(key) => key,
        None => {
            if policy.hashes() {
                tracing::warn!("{POLICY_KEY} is not set: the hashes are made with another key than those of a lake");
            }
            PolicyKey::from_bytes(TEST_KEY, "the program")?
        }
    };
    let kept = KeptPolicy::grown(&[], Some(&policy))?;
    let masker = PolicyChain::of(&kept, Some(&key))?.ok_or_else(|| Error::bug("a policy is lost"))?.masker()?;
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut input);
    read.map_err(|error| Error::usage("cannot read stdin").caused_by(error))?;
    let mut hits = RuleHits::default();
    output::line(masked(input, &masker, &mut hits)?.trim_end());
    for (number, rule) in policy.rules().iter().enumerate() {
        let (covered, changed) = hits.by_rule.get(number).copied().unwrap_or_default();
        tracing::info!("{}: covered {}, changed {changed}", rule.name, counted(covered, "value"));
        if covered == 0 && hits.conversations > 0 {
            tracing::warn!("the rule `{}` covered nothing; check its field", rule.name);
        }
    }
    Ok(())
}

/// The masked input: a page, a list of conversations, or one.
fn masked(input: Vec<u8>, masker: &Masker, hits: &mut RuleHits) -> Result<String> {
    let no_json = || {
        Error::usage("stdin is no valid JSON")
            .with_hint("give a page of the API, a list of conversations, or one conversation, as JSON in UTF-8")
    };
    let text = String::from_utf8(input).map_err(|_| no_json())?;
    let json = text.trim_start_matches('\u{feff}').trim();
    if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
        return Err(no_json());
    }
    // A page has no place for a conversation but its list, so the rest is passed on as it is.
    let page = if json.starts_with('[') { format!("{{\"conversations\":{json}}}") } else { json.to_owned() };
    let page = match Page::parse(page.into_bytes()) {
        Ok(page) => page,
        Err(PageError::NoConversations { .. }) => {
            return masker.conversation(json, hits).map(|json| json.into_owned()).ok_or_else(no_json);
        }
        Err(other) => return Err(Error::usage(format!("stdin is no page: {}", other.plainly()))),
    };
    let (mut result, mut at) = (String::with_capacity(json.len()), 0);
    let begin = if json.starts_with('[') { "{\"conversations\":".len() } else { 0 };
    for (number, raw) in page.conversations().enumerate() {
        let start = page.offset(number).and_then(|start| start.checked_sub(begin)).ok_or_else(no_json)?;
        result.push_str(json.get(at..start).unwrap_or_default());
        result.push_str(&masker.conversation(raw, hits).ok_or_else(no_json)?);
        at = start.saturating_add(raw.len());
    }
    result.push_str(json.get(at..).unwrap_or_default());
    Ok(result)
}
