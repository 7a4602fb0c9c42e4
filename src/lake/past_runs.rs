//! Reads the reports of earlier runs, from this release and older ones.
//!
//! Guarantees: a report that cannot be read is left out, because nothing depends on them.
//! Must not depend on: what they are read for.

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::history::run_reports;
use super::report::RunOutcome;
use crate::error::Result;
use crate::model::PerTable;
use crate::store::Store;

/// What the report of an earlier run says, as far as its release wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRun {
    /// The run.
    pub run_id: String,
    /// The command.
    pub command: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How it ended: `done`, `set_aside`, `interrupted` or `failed`.
    #[serde(default)]
    pub outcome: String,
    /// The exit code; none in reports of releases that did not write it.
    #[serde(default)]
    pub exit_code: Option<u8>,
    /// The error and its causes.
    #[serde(default)]
    pub error: Vec<String>,
    /// The problems that a verification found.
    #[serde(default)]
    pub problems: Option<u64>,
    /// Pages fetched.
    #[serde(default)]
    pub pages: u64,
    /// Requests sent.
    #[serde(default)]
    pub requests: u64,
    /// Those of them that were retries.
    #[serde(default)]
    pub retries: u64,
    /// Rows staged.
    #[serde(default, rename = "landed_rows")]
    pub staged_rows: PerTable<u64>,
    /// Versions that a later version of the same conversation replaced.
    #[serde(default)]
    pub duplicates_resolved: u64,
    /// Malformed entries quarantined.
    #[serde(default)]
    pub quarantined: u64,
    /// Times that could not be read.
    #[serde(default)]
    pub unreadable_times: u64,
}

impl PastRun {
    /// How many seconds it took, rounded up, because no run takes no time.
    pub fn secs(&self) -> u64 {
        u64::try_from((self.finished_at - self.started_at).num_milliseconds()).unwrap_or(0).div_ceil(1_000)
    }

    /// How it ended, as people read it.
    pub fn words(&self) -> &str {
        match self.outcome.as_str() {
            "set_aside" => RunOutcome::Quarantined.words(),
            outcome => outcome,
        }
    }

    /// Whether it did what it was asked to do.
    pub fn is_done(&self) -> bool {
        self.outcome == "done" || self.outcome == "set_aside"
    }
}

/// Reads the newest `most` reports, the newest first.
///
/// # Errors
/// If the store fails.
pub async fn past_runs(store: &Store, most: usize) -> Result<Vec<PastRun>> {
    let mut keys = run_reports(store).await?;
    // Names sort by time.
    keys.sort_unstable_by(|one, other| other.cmp(one));
    keys.truncate(most);
    let reads: Vec<_> = keys.into_iter().map(|key| async move { read(store, &key).await }).collect();
    let read: Vec<_> = stream::iter(reads).buffered(store.concurrency()).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

async fn read(store: &Store, key: &Path) -> Result<Option<PastRun>> {
    let Some(body) = store.get(key).await? else { return Ok(None) };
    Ok(serde_json::from_slice(&body).inspect_err(|error| tracing::debug!("{key} is no run's report: {error}")).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;
    use crate::error::Error;
    use crate::lake::RunReport;
    use crate::layout;
    use crate::model::RunId;

    #[tokio::test]
    async fn the_newest_reports_are_read_and_what_is_none_is_left_out() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let at = |hour: i64| DateTime::from_timestamp(hour * 3_600, 0).unwrap();
        let id = |hour: i64| RunId::new(at(hour), 1);
        for hour in 0..4 {
            let mut report = RunReport::new("sync", id(hour), at(hour));
            report.duplicates_resolved = 7;
            let result = if hour == 2 { Err(Error::store("it failed")) } else { Ok(()) };
            report.end(&result, false, at(hour + 1));
            report.save(&store).await.unwrap();
        }
        store.put(&layout::run_report(&id(5)), "{").await.unwrap();
        let old = r#"{"run_id": "x", "command": "compact", "started_at": "2024-01-01T00:00:00Z",
            "finished_at": "2024-01-01T00:00:01Z", "outcome": "done"}"#;
        store.put(&layout::run_report(&id(6)), old).await.unwrap();
        store.put(&layout::run_reports().join("notes.json"), "{}").await.unwrap();
        let read = past_runs(&store, 4).await.unwrap();
        let is = |run: &PastRun| (run.command.clone(), run.exit_code, run.is_done(), run.secs());
        let expected = [("compact", None, true, 1), ("sync", Some(0), true, 3_600), ("sync", Some(5), false, 3_600)];
        let expected = expected.map(|(command, code, done, secs)| (command.to_owned(), code, done, secs));
        assert_eq!(read.iter().map(is).collect::<Vec<_>>(), expected);
        assert_eq!(read.iter().map(|run| run.duplicates_resolved).collect::<Vec<_>>(), [0, 7, 7]);
    }
}
