//! Tries whatever a run needs, before the first one: of the lake's store, and of the API. What `check` does.
//!
//! Promises: nothing is left behind in the lake, and the account's pace is kept. Must not know: how it is printed.

use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::api::Client;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Lease};
use crate::layout;
use crate::model::{Request, RunId, Window};
use crate::store::{Capability, Probe};

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    /// What.
    #[serde(rename = "check", serialize_with = "by_name")]
    pub item: Item,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: CheckOutcome,
}

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// Something of the store.
    Store(Capability),
    /// That the API accepts the key.
    Api,
}

/// What came of a check.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It works.
    Ok,
    /// It does not.
    Failed {
        /// Why: the failure and its causes.
        error: Vec<String>,
        /// What to do about it.
        hint: Option<String>,
        /// What the process ends with.
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
    /// The name, for programs.
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

    /// What it shows, for people.
    pub fn told(self) -> &'static str {
        match self {
            Item::Store(Capability::List) => "objects can be listed",
            Item::Store(Capability::Put) => "an object can be written",
            Item::Store(Capability::Read) => "it reads back",
            Item::Store(Capability::ReadRange) => "a range of it does",
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

/// Checks everything. A `client` that could not be set up is told as a failure of the API.
///
/// # Errors
/// Kind `Interrupted` alone; what does not work is no error here.
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
        // Not in the middle of one: an upload that is not ended would be left behind.
        if shutdown.is_cancelled() {
            return;
        }
        let needs_object = !matches!(capability, Capability::List | Capability::Put);
        let outcome = match needs_object && !written {
            true => CheckOutcome::Skipped { why: "nothing could be written".to_owned() },
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
    // A store that fails has been told.
    let seen = Lease::seen(lake.store()).await.unwrap_or_default();
    if let Some(holder) = seen.holder {
        return CheckOutcome::Skipped { why: format!("it allows one run at a time, and {holder} may be asking it") };
    }
    if let Some(last_request_at) = seen.last_request_at {
        client.follow(last_request_at);
    }
    let request = Request { window: Window::EVERYTHING, page_size: None, user_filters: None };
    let fetched = client.fetch(&request, None, shutdown).await.map(drop);
    // The run that may follow does not know of this request.
    client.rest(shutdown).await;
    CheckOutcome::from(fetched)
}
