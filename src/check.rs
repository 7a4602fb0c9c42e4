//! Checks that the store and the API do what a run needs.
//!
//! Guarantees: a check leaves nothing behind in the lake, because each probe deletes its objects; it keeps the
//! account's pace.
//! Must not depend on: how results are printed.

use object_store::ObjectMeta;
use serde::{Serialize, Serializer};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched};
use crate::error::{Error, Kind, Result};
use crate::files::FileReader;
use crate::lake::{Lake, Lease};
use crate::layout;
use crate::model::{CreatedDate, PartitionBy, Request, RunId, Table, Window};
use crate::store::{Capability, Probe};
use crate::tables::Tables;

/// Below this many conversations a day, partitions of a month are the better ones (docs/stores.md has the reasons).
pub const BY_MONTH_BELOW: u64 = 20_000;

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    /// What was checked.
    #[serde(rename = "check", serialize_with = "by_name")]
    pub item: Item,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: CheckOutcome,
    /// What else was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
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
    checked.push(try_api(lake, client, shutdown).await);
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
        checked.push(CheckResult { item: Item::Store(capability), outcome, note: None });
    }
}

async fn try_api(lake: &Lake, client: Result<Client>, shutdown: &CancellationToken) -> CheckResult {
    let result = |outcome, note| CheckResult { item: Item::Api, outcome, note };
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return result(CheckOutcome::from(Err(error)), None),
    };
    // The failure of a store is in the results already.
    let occupancy = Lease::occupancy(lake.store()).await.unwrap_or_default();
    if let Some(holder) = occupancy.holder {
        let why = format!("the API allows one client at a time, and {holder} may be using it");
        return result(CheckOutcome::Skipped { why }, None);
    }
    if let Some(last_request_at) = occupancy.last_request_at {
        client.follow(last_request_at);
    }
    if !matches!(&lake.describe().await, Ok(identity) if identity.as_ref().is_none_or(|it| it.policy_hash().is_none()))
    {
        client.hide_quotes();
    }
    let request = Request { window: Window::EVERYTHING, user_filters: None };
    let asked = client.page_size().asked();
    let fetched = client.fetch(&request, None, shutdown).await;
    // A run that follows does not know of this request.
    client.rest(shutdown).await;
    let note = asked.and_then(|asked| describe_pages(asked, fetched.as_ref().ok()?));
    result(CheckOutcome::from(fetched.map(drop)), note)
}

/// Describes what the API does with `page_size`, as far as one page shows it.
fn describe_pages(asked: u32, fetched: &Fetched) -> Option<String> {
    let (rows, sent) = (fetched.page.len(), fetched.page_size);
    Some(match sent {
        None => format!("it refuses page_size {asked}, and returns {rows} conversations per request without it"),
        Some(size) if usize::try_from(size).is_ok_and(|size| rows >= size) => {
            format!("it returns {rows} conversations per request, as page_size asks for")
        }
        // The account has no more.
        Some(_) if fetched.page.next().is_none() => return None,
        Some(size) => format!("it returns {rows} conversations per request, although page_size asks for {size}"),
    })
}

/// What is known of a lake's partitions, to choose between days and months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// How much time a partition covers; `None` if there is no lake yet.
    pub by: Option<PartitionBy>,
    /// How many conversations were created a day of late; `None` if no partition is complete yet.
    pub conversations_a_day: Option<u64>,
}

/// Finds out what is known of a lake's partitions: counts the conversations of its newest complete week or month.
///
/// # Errors
/// If the store fails, or a file is damaged.
pub async fn partitions(lake: &Lake) -> Result<Partitions> {
    let Some(identity) = lake.describe().await? else {
        return Ok(Partitions { by: None, conversations_a_day: None });
    };
    let tables = Tables::of(lake.store(), &identity)?;
    let (files, _) = tables.files(Table::Conversations).await?;
    let conversations_a_day = match newest_complete(files, identity.partition_by) {
        Some((days, files)) => Some(count(lake, &tables, files).await? / days),
        None => None,
    };
    Ok(Partitions { by: Some(identity.partition_by), conversations_a_day })
}

/// The files of the newest week or month that more conversations are unlikely to be added to, and how many days they
/// cover.
fn newest_complete(files: Vec<(CreatedDate, ObjectMeta)>, by: PartitionBy) -> Option<(u64, Vec<ObjectMeta>)> {
    let most = match by {
        PartitionBy::Day => 7,
        PartitionBy::Month => 1,
    };
    let mut dated: Vec<_> = files.into_iter().filter(|(partition, _)| partition.date().is_some()).collect();
    dated.sort_unstable_by_key(|(partition, _)| std::cmp::Reverse(*partition));
    // The newest one is under way.
    let complete: Vec<_> = dated.into_iter().skip(1).take(most).collect();
    let (last, first) = (complete.first()?.0.last_day()?, complete.last()?.0.date()?);
    let days = u64::try_from(last.signed_duration_since(first).num_days()).ok()?.checked_add(1)?;
    Some((days, complete.into_iter().map(|(_, file)| file).collect()))
}

async fn count(lake: &Lake, tables: &Tables, files: Vec<ObjectMeta>) -> Result<u64> {
    let (lake, columns, runtime) = (lake.clone(), tables.columns().clone(), Handle::current());
    let counting = move || {
        files.into_iter().try_fold(0_u64, |sum, file| {
            let (footer, _) = FileReader::read_footer(lake.store(), columns.of(Table::Conversations), file, &runtime)?;
            Ok(sum.saturating_add(footer.rows))
        })
    };
    let task = tokio::task::spawn_blocking(counting);
    task.await.map_err(|error| Error::bug("the reader failed").caused_by(error))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn files(by: PartitionBy, values: &[&str]) -> Vec<(CreatedDate, ObjectMeta)> {
        let file = |value: &&str| {
            let partition = by.parse(value).unwrap();
            let location = layout::table_file(Table::Conversations, partition);
            let last_modified = DateTime::UNIX_EPOCH;
            (partition, ObjectMeta { location, last_modified, size: 1, e_tag: None, version: None })
        };
        values.iter().map(file).collect()
    }

    #[test]
    fn the_newest_complete_week_or_month_is_counted() {
        let newest = |by, values: &[&str]| {
            let (days, files) = newest_complete(files(by, values), by)?;
            Some((days, files.iter().map(|file| file.location.parts().nth(1).unwrap().as_ref().to_owned()).collect()))
        };
        let unknown = crate::model::UNKNOWN_PARTITION;
        for by in PartitionBy::ALL {
            assert_eq!(newest(by, &[]), None::<(u64, Vec<String>)>);
            assert_eq!(newest(by, &[unknown, "2024-02-01"]), None, "the only one is under way");
        }
        let february = vec!["created_month=2024-02-01".to_owned()];
        assert_eq!(
            newest(PartitionBy::Month, &["2024-01-01", "2024-03-01", unknown, "2024-02-01"]),
            Some((29, february))
        );
        let (days, files) =
            newest(PartitionBy::Day, &["2024-03-03", "2024-03-01", "2024-02-28", "2024-03-04"]).unwrap();
        assert_eq!((days, files.len()), (5, 3), "a day without conversations counts");
        let many: Vec<_> = (1..=20).map(|day| format!("2024-03-{day:02}")).collect();
        let (days, files) = newest(PartitionBy::Day, &many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert_eq!((days, files.len(), files[0].as_str()), (7, 7, "created_date=2024-03-19"));
    }
}
