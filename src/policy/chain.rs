//! The policies that a lake has had, and what has to be done with rows of each.
//!
//! Guarantees: a policy that follows another shows no more than it; rows that follow an earlier policy get what that
//! did not do, and no hash is hashed again. Must not depend on: where rows are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::apply::Masker;
use super::mask::PolicyKey;
use super::rules::Policy;
use crate::error::{Error, Result};
use crate::model::RowPolicy;

/// A policy as a lake keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPolicy {
    /// What its rules mean; see [`Policy::hash`].
    pub hash: String,
    /// The policy file, as it was read.
    pub text: String,
}

/// The policies of a lake, the oldest first, with the key for their hashes.
#[derive(Debug)]
pub struct PolicyChain {
    policies: Vec<Policy>,
    key: Option<PolicyKey>,
    /// The maskers that were needed, by the policy that rows follow.
    known: Mutex<BTreeMap<RowPolicy, Arc<Masker>>>,
}

impl PolicyChain {
    /// The chain of a lake's policies; `None` if it has none.
    ///
    /// # Errors
    /// Kind `Integrity` if one cannot be read.
    pub fn of(kept: &[KeptPolicy], key: Option<&PolicyKey>) -> Result<Option<Self>> {
        let read = |kept: &KeptPolicy| {
            let damaged = || Error::integrity("a policy in _state/lake.json is damaged");
            let policy = Policy::parse(&kept.text).map_err(|error| damaged().caused_by(error))?;
            if policy.hash() == kept.hash { Ok(policy) } else { Err(damaged()) }
        };
        let policies = kept.iter().map(read).collect::<Result<Vec<_>>>()?;
        let chain = PolicyChain { policies, key: key.cloned(), known: Mutex::default() };
        Ok((!kept.is_empty()).then_some(chain))
    }

    /// The policy that counts.
    ///
    /// # Errors
    /// Only on a bug.
    pub fn current(&self) -> Result<&Policy> {
        self.policies.last().ok_or_else(|| Error::bug("a lake's policies are empty"))
    }

    /// What has to be done with rows that follow `policy`; `None` if nothing.
    ///
    /// # Errors
    /// Kind `Usage` if the key is missing, `Integrity` if the lake never had that policy.
    pub fn after(&self, policy: &RowPolicy) -> Result<Option<Arc<Masker>>> {
        let current = self.current()?;
        let earlier = match policy {
            RowPolicy::Named(hash) if hash == current.hash() => return Ok(None),
            RowPolicy::Named(hash) => match self.policies.iter().find(|known| known.hash() == hash) {
                Some(earlier) => Some(earlier),
                None => return Err(Error::integrity("a file follows a policy that the lake never had")),
            },
            RowPolicy::None | RowPolicy::Unknown => None,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(masker) = known.get(policy) {
            return Ok(Some(Arc::clone(masker)));
        }
        let masker = Masker::new(current, earlier, self.key.clone(), *policy == RowPolicy::Unknown)?;
        let masker = Arc::new(masker);
        known.insert(policy.clone(), Arc::clone(&masker));
        Ok(Some(masker))
    }

    /// What has to be done with conversations as the API sends them.
    ///
    /// # Errors
    /// Kind `Usage` if the key is missing.
    pub fn masker(&self) -> Result<Arc<Masker>> {
        self.after(&RowPolicy::None)?.ok_or_else(|| Error::bug("a policy does nothing"))
    }
}

impl KeptPolicy {
    /// The policies of a lake that has had `kept` ones, once `wanted` counts. The lake keeps what it has if nothing is
    /// wanted, or the same.
    ///
    /// # Errors
    /// Kind `Usage` if the wanted one shows more.
    pub fn grown(kept: &[KeptPolicy], wanted: Option<&Policy>) -> Result<Vec<KeptPolicy>> {
        let mut all = kept.to_vec();
        let Some(wanted) = wanted else { return Ok(all) };
        if let Some(chain) = PolicyChain::of(kept, None)? {
            let current = chain.current()?;
            if current.hash() == wanted.hash() {
                return Ok(all);
            }
            // Rows may follow any of them, and each shows no more than those before.
            if let Some((field, before, now)) = wanted.weaker_than(current) {
                return Err(Error::usage(format!(
                    "the policy is weaker than the lake's: {field} has {}, in place of {}",
                    now.describe(),
                    before.describe()
                ))
                .with_hint(
                    "add what is missing (`jq -r .policies[-1].text _state/lake.json` shows the lake's policy), omit \
                     --policy to use that, or use another --lake",
                ));
            }
        }
        all.push(KeptPolicy { hash: wanted.hash().to_owned(), text: wanted.text().to_owned() });
        Ok(all)
    }
}
