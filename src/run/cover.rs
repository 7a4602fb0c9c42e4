//! What a run has to do with the lake's policy, besides rows: it reads the policy, says which rules covered nothing, and
//! brings quarantine files, run reports and the names of counted fields to it.
//!
//! Guarantees: it can be killed anywhere and repeated, because everything that was brought to a policy names it. Must
//! not depend on: how rows are masked.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use serde_json::{Map, Value};

use super::session::Session;
use crate::api::Quotes;
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::export::without_covered_names;
use crate::lake::{Identity, State};
use crate::layout;
use crate::model::FieldCounts;
use crate::policy::{PolicyChain, Quarantined};
use crate::store::to_json;

/// The field of a report that was brought to a policy after its run, with the hash of that.
const COVERED_BY: &str = "covered_by";

impl Session {
    /// The policies of a lake with this identity, if it has any.
    ///
    /// # Errors
    /// Kind `Usage` if the key of its hashes is missing, or another one.
    pub(super) fn policies_of(&mut self, identity: &Identity) -> Result<Option<Arc<PolicyChain>>> {
        let known = self.policies.as_ref().map(|policies| policies.current()).transpose()?;
        if known.map(|policy| policy.hash()) != identity.policy_hash() {
            self.policies = identity.policies(self.policy_key.as_ref())?.map(Arc::new);
        }
        Ok(self.policies.clone())
    }

    /// The rules of the policy that covered nothing of what the run fetched.
    pub(super) fn unmatched_rules(&self) -> Vec<String> {
        let hits = &self.report.hits;
        let policy = self.policies.as_ref().and_then(|policies| policies.current().ok());
        let Some(policy) = policy.filter(|_| hits.conversations > 0) else { return Vec::new() };
        let of = |number| hits.by_rule.get(number).is_some_and(|(covered, _)| *covered > 0);
        let rules = policy.rules().iter().enumerate().filter(|(number, _)| !of(*number));
        rules.map(|(_, rule)| rule.name.clone()).collect()
    }

    /// Applies the lake's policy to what the lake keeps besides rows.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn cover(&mut self) -> Result<()> {
        let Some(policies) = self.policies.clone() else { return Ok(()) };
        let state = self.ledger.state();
        let fields_without_column = without_covered_names(state.fields_without_column.clone(), &policies)?;
        if fields_without_column != state.fields_without_column {
            let state = State { fields_without_column, ..state.clone() };
            self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        }
        let quarantine = self.rewrite_each(layout::quarantines(), |body| quarantine(body, &policies)).await?;
        let reports = self.rewrite_each(layout::run_reports(), |body| report(body, &policies)).await?;
        if quarantine + reports > 0 {
            tracing::info!(
                "applied the policy to {} and {}",
                counted(quarantine, "quarantine file"),
                counted(reports, "run report")
            );
        }
        Ok(())
    }

    /// Replaces the objects of a folder for which `change` returns a new body; returns how many.
    async fn rewrite_each(&self, folder: Path, change: impl Fn(&[u8]) -> Result<Option<Vec<u8>>>) -> Result<usize> {
        let store = self.lake.store();
        let keys: Vec<_> = store.list(folder).map_ok(|object| object.location).try_collect().await?;
        let mut changed = 0;
        for key in keys {
            if self.lease.stop().is_cancelled() {
                return Err(Error::interrupted());
            }
            let Some(body) = store.get(&key).await? else { continue };
            if let Some(body) = change(&body)? {
                store.put(&key, body).await?;
                changed += 1;
            }
        }
        Ok(changed)
    }
}

/// The lines of a quarantine file under the lake's policy; `None` if they follow it. Of a line that follows an earlier
/// policy only the reason and the position stay.
fn quarantine(body: &[u8], policies: &PolicyChain) -> Result<Option<Vec<u8>>> {
    let (hash, masker) = (policies.current()?.hash(), policies.masker()?);
    let (mut lines, mut is_changed) = (Vec::new(), false);
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read = serde_json::from_slice::<Map<String, Value>>(line).ok();
        let before = read.as_ref().and_then(|line| line.get("policy")).and_then(Value::as_str);
        if before == Some(hash) {
            lines.extend_from_slice(line);
            lines.push(b'\n');
            continue;
        }
        is_changed = true;
        let has_policy = before.is_some();
        // What cannot be read cannot be masked.
        let Some(mut line) = read else { continue };
        let raw = line.remove("raw");
        if let Some(raw) = raw.as_ref().and_then(Value::as_str).filter(|_| !has_policy) {
            let Quarantined { raw, bytes, hmac } = masker.quarantined(raw);
            line.extend(raw.map(|raw| ("raw".to_owned(), raw.into())));
            line.insert("bytes".to_owned(), bytes.into());
            line.extend(hmac.map(|hmac| ("hmac".to_owned(), hmac.into())));
        }
        line.insert("policy".to_owned(), hash.into());
        lines.extend(to_json(&line)?);
        lines.push(b'\n');
    }
    Ok(is_changed.then_some(lines))
}

/// A run report under the lake's policy; `None` if it follows it. Errors of runs before it may quote the API.
fn report(body: &[u8], policies: &PolicyChain) -> Result<Option<Vec<u8>>> {
    let hash = policies.current()?.hash();
    let Ok(mut report) = serde_json::from_slice::<Map<String, Value>>(body) else { return Ok(None) };
    let own = report.get("policy").and_then(|policy| policy.get("hash")).and_then(Value::as_str);
    let covered_by = report.get(COVERED_BY).and_then(Value::as_str);
    if own == Some(hash) || covered_by == Some(hash) {
        return Ok(None);
    }
    let quotes = own.is_none() && covered_by.is_none();
    if let Some(Value::Array(error)) = report.get_mut("error")
        && quotes
        && !error.is_empty()
    {
        *error = vec![Quotes::HIDDEN.into()];
    }
    if let Some(counts) = report.get_mut("fields_without_column") {
        let known = serde_json::from_value::<FieldCounts>(counts.take()).unwrap_or_default();
        let hidden = without_covered_names(known, policies)?;
        *counts = serde_json::to_value(hidden).map_err(|error| Error::bug("cannot write counts").caused_by(error))?;
    }
    report.insert(COVERED_BY.to_owned(), hash.into());
    to_json(&report).map(Some)
}
