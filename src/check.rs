//! Tries whatever a run needs, before the first one: of the lake's store, and of the API. What `check` does.
//!
//! Promises: nothing is left behind in the lake, and the account's pace is kept. Must not know: how it is printed.

use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::api::Client;
use crate::error::{Error, Result};
use crate::lake::{Capability, Lake, Lease, Probe};
use crate::model::{Request, RunId, Window};

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Tried {
    /// What.
    #[serde(serialize_with = "by_name")]
    pub what: What,
    /// What came of it.
    #[serde(flatten)]
    pub came: Came,
}

/// What can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Something of the store.
    Store(Capability),
    /// That the API accepts the key.
    Api,
}

/// What came of a trial.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Came {
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
        kind: crate::error::Kind,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        why: String,
    },
}

impl What {
    /// The name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            What::Store(Capability::List) => "list",
            What::Store(Capability::Put) => "put",
            What::Store(Capability::Read) => "read",
            What::Store(Capability::ReadRange) => "read_range",
            What::Store(Capability::KeepApart) => "keep_apart",
            What::Store(Capability::Parts) => "parts",
            What::Store(Capability::Delete) => "delete",
            What::Api => "api",
        }
    }

    /// What it shows, for people.
    pub fn told(self) -> &'static str {
        match self {
            What::Store(Capability::List) => "objects can be listed",
            What::Store(Capability::Put) => "an object can be written",
            What::Store(Capability::Read) => "it reads back",
            What::Store(Capability::ReadRange) => "a range of it does",
            What::Store(Capability::KeepApart) => "of two writers at once the second is refused",
            What::Store(Capability::Parts) => "a large object can be written in parts",
            What::Store(Capability::Delete) => "objects can be deleted",
            What::Api => "the API accepts the key",
        }
    }
}

fn by_name<S: Serializer>(what: &What, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(what.name())
}

impl From<Result<()>> for Came {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Came::Ok,
            Err(error) => {
                Came::Failed { error: error.chain(), hint: error.hint().map(str::to_owned), kind: error.kind() }
            }
        }
    }
}

/// Tries everything. A `client` that could not be set up is told as a failure of the API.
///
/// # Errors
/// Kind `Interrupted` alone; what does not work is no error here.
pub async fn check(
    lake: &Lake,
    client: Result<Client>,
    run: RunId,
    shutdown: &CancellationToken,
) -> Result<Vec<Tried>> {
    let mut tried = Vec::new();
    let probe = Probe::new(lake, run);
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = try_store(&probe, &mut tried) => {}
    }
    probe.clean().await;
    if shutdown.is_cancelled() {
        return Err(Error::new(crate::error::Kind::Interrupted, "interrupted"));
    }
    tried.push(Tried { what: What::Api, came: try_api(lake, client, shutdown).await });
    Ok(tried)
}

async fn try_store(probe: &Probe<'_>, tried: &mut Vec<Tried>) {
    let mut written = true;
    for capability in Capability::ALL {
        let needs_object = !matches!(capability, Capability::List | Capability::Put);
        let came = match needs_object && !written {
            true => Came::Skipped { why: "nothing could be written".to_owned() },
            false => Came::from(probe.of(capability).await),
        };
        if capability == Capability::Put {
            written = matches!(came, Came::Ok);
        }
        tried.push(Tried { what: What::Store(capability), came });
    }
}

async fn try_api(lake: &Lake, client: Result<Client>, shutdown: &CancellationToken) -> Came {
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return Came::from(Err(error)),
    };
    // A store that fails has been told.
    let seen = Lease::seen(lake).await.unwrap_or_default();
    if let Some(holder) = seen.holder {
        return Came::Skipped { why: format!("it allows one run at a time, and {holder} may be asking it") };
    }
    if let Some(last_request_at) = seen.last_request_at {
        client.follow(last_request_at);
    }
    let request = Request { window: Window::EVERYTHING, page_size: None, user_filters: None };
    let fetched = client.fetch(&request, None, shutdown).await.map(drop);
    // The run that may follow does not know of this request.
    client.rest(shutdown).await;
    Came::from(fetched)
}
