//! Checks that the store and the API do what a run needs.
//!
//! Guarantees: a check leaves nothing behind in the lake, because each probe deletes its objects; it keeps the
//! account's pace.
//! Must not depend on: how results are printed.

use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::api::Client;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Lease};
use crate::layout;
use crate::model::{Request, RunId, Window};
use crate::store::{Capability, Probe};

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    /// What was checked.
    #[serde(rename = "check", serialize_with = "by_name")]
    pub item: Item,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: CheckOutcome,
}

/// A subject of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A capability of the store.
    Store(Capability),
    /// That the API accepts the key.
    Api,
}

/// How a check ended.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It works.
    Ok,
    /// It does not.
    Failed {
        /// The failure and its causes.
        error: Vec<String>,
        /// What to do about it.
        hint: Option<String>,
        /// The kind of the failure, which decides the exit code.
        #[serde(skip)]
        kind: Kind,
    },
    /// It was not checked.
    Skipped {
        /// Why.
        why: String,
    },
}

impl Item {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Item::Store(Capability::List) => "list",
            Item::Store(Capability::Put) => "put",
            Item::Store(Capability::Read) => "read",
            Item::Store(Capability::ReadRange) => "read_range",
            Item::Store(Capability::KeepApart) => "keep_apart",
            Item::Store(Capability::Parts) => "parts",
            Item::Store(Capability::Delete) => "delete",
            Item::Api => "api",
        }
    }

    /// Describes the capability for people.
    pub fn describe(self) -> &'static str {
        match self {
            Item::Store(Capability::List) => "objects can be listed",
            Item::Store(Capability::Put) => "an object can be written",
            Item::Store(Capability::Read) => "an object can be read",
            Item::Store(Capability::ReadRange) => "a byte range of an object can be read",
            Item::Store(Capability::KeepApart) => "of two writers at once the second is refused",
            Item::Store(Capability::Parts) => "a large object can be written in parts",
            Item::Store(Capability::Delete) => "objects can be deleted",
            Item::Api => "the API accepts the key",
        }
    }
}

fn by_name<S: Serializer>(item: &Item, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(item.name())
}

impl From<Result<()>> for CheckOutcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => CheckOutcome::Ok,
            Err(error) => {
                CheckOutcome::Failed { error: error.chain(), hint: error.hint().map(str::to_owned), kind: error.kind() }
            }
        }
    }
}

/// Checks everything. If `client` could not be set up, the check of the API fails with that error.
///
/// # Errors
/// Only kind `Interrupted`; a failed check is a result, not an error.
pub async fn check(
    lake: &Lake,
    client: Result<Client>,
    run: RunId,
    shutdown: &CancellationToken,
) -> Result<Vec<CheckResult>> {
    let mut checked = Vec::new();
    let probe = Probe::new(lake.store(), layout::probes(), run.to_string());
    try_store(&probe, &mut checked, shutdown).await;
    probe.clean().await;
    if shutdown.is_cancelled() {
        return Err(Error::new(Kind::Interrupted, "interrupted"));
    }
    checked.push(CheckResult { item: Item::Api, outcome: try_api(lake, client, shutdown).await });
    Ok(checked)
}

async fn try_store(probe: &Probe<'_>, checked: &mut Vec<CheckResult>, shutdown: &CancellationToken) {
    let mut written = true;
    for capability in Capability::ALL {
        // Between probes only, because an unfinished upload would be left behind.
        if shutdown.is_cancelled() {
            return;
        }
        let needs_object = !matches!(capability, Capability::List | Capability::Put);
        let outcome = match needs_object && !written {
            true => CheckOutcome::Skipped { why: "no object could be written".to_owned() },
            false => CheckOutcome::from(probe.test(capability).await),
        };
        if capability == Capability::Put {
            written = matches!(outcome, CheckOutcome::Ok);
        }
        checked.push(CheckResult { item: Item::Store(capability), outcome });
    }
}

async fn try_api(lake: &Lake, client: Result<Client>, shutdown: &CancellationToken) -> CheckOutcome {
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return CheckOutcome::from(Err(error)),
    };
    // The failure of a store is in the results already.
    let occupancy = Lease::occupancy(lake.store()).await.unwrap_or_default();
    if let Some(holder) = occupancy.holder {
        return CheckOutcome::Skipped {
            why: format!("the API allows one client at a time, and {holder} may be using it"),
        };
    }
    if let Some(last_request_at) = occupancy.last_request_at {
        client.follow(last_request_at);
    }
    let request = Request { window: Window::EVERYTHING, page_size: None, user_filters: None };
    let fetched = client.fetch(&request, None, shutdown).await.map(drop);
    // A run that follows does not know of this request.
    client.rest(shutdown).await;
    CheckOutcome::from(fetched)
}
