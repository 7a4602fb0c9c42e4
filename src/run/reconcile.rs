//! `reconcile`: compares the lake with the API, fetches what is missing or stale, and reports, marks or removes what is
//! gone at the source.
//!
//! Guarantees: nothing is marked or removed unless a complete walk and a second look both lack it, and never more than
//! the settings allow. It can be killed anywhere and repeated: the walk continues from its checkpoint, and all that
//! follows is done again. Must not depend on: how conversations are compared.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::fetch::check_range;
use super::session::{RunFailure, Session, hold};
use super::settings::{OnDeleted, ReconcileSettings};
use crate::api::Client;
use crate::compact::Removal;
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::export::{self, OnBadRecord, OnIgnoredFilter, Planned, Run};
use crate::lake::{Asked, Governed, Lake, Purpose, Reconciled, Reconciliation, RunReport, State, Walk, Wanted};
use crate::model::{CreatedDate, PageSize, Request, Table, TimestampFilter, Window};
use crate::reconcile::{Comparison, IdHasher, Judgment, Scope, Survey, second_look};
use crate::tables::Tables;
use crate::verify::Ids;

/// Compares the lake with the API over a range of `created_at`: stages and compacts what the lake lacks, and does with
/// the conversations that are gone at the source what the settings say.
///
/// # Errors
/// Those of a backfill and a compaction; kind `Usage` if there is no lake or the range is empty; `Integrity` if more
/// conversations are gone than the settings allow.
pub fn reconcile<'a>(
    lake: &'a Lake,
    client: &'a mut Client,
    settings: &'a ReconcileSettings,
) -> BoxFuture<'a, Result<RunReport, RunFailure>> {
    // Boxed for the same reasons as `sync`.
    Box::pin(async move {
        settings.from.zip(settings.to).map_or(Ok(()), |(from, to)| check_range(from, to))?;
        lake.existing().await?;
        let work = async |session: &mut Session| {
            session.key = Some(client.key().clone());
            session.policy_key = settings.compact.policy_key.clone();
            let result = session.reconcile(client, settings).await;
            session.control.progress.send_replace(None);
            let tally = client.tally();
            (session.report.requests, session.report.retries) = (tally.requests, tally.retries);
            session.last_request_at = tally.last_request_at.max(session.last_request_at);
            result
        };
        hold(lake, "reconcile", &settings.compact.control, settings.compact.history, work).await
    })
}

impl Session {
    async fn reconcile(&mut self, client: &mut Client, settings: &ReconcileSettings) -> Result<()> {
        self.claim_existing(client, settings).await?;
        self.report.admitted = true;
        self.sweep().await?;
        if let Some(last_request_at) = self.last_request_at {
            client.follow(last_request_at);
        }
        let retain = settings.compact.retain;
        // What is staged must not look as if it were missing.
        self.compact(retain).await?;
        let tables = self.own_tables()?;
        let reconciliation = self.plan_reconciliation(settings).await?;
        self.report.request = Some(reconciliation.walk.request.clone());
        *client.page_size() = PageSize::new(settings.page_size, self.ledger.state().page_size, self.clock.now());
        if !reconciliation.is_walked {
            self.compare(client, settings, &tables, &reconciliation).await?;
            // What is staged could bring back what is marked or removed.
            self.compact(retain).await?;
        }
        let tables = self.own_tables()?;
        self.settle(client, settings, &tables).await
    }

    /// Makes sure that the lake holds the conversations of this API, and brings it to the newest schema.
    async fn claim_existing(&mut self, client: &mut Client, settings: &ReconcileSettings) -> Result<()> {
        let base_url = client.base_url().trim_end_matches('/').to_owned();
        let wanted = Wanted {
            base_url: &base_url,
            user_filters: settings.user_filters.as_ref(),
            format: None,
            partition_by: None,
            metadata_columns: &[],
            governed: Governed { policy: None, key: self.policy_key.as_ref() },
        };
        let found = self.found.take();
        let identity = self.lake.claim(found, wanted, self.ledger.is_new(), self.clock.now()).await?;
        if self.policies_of(&identity)?.is_some() {
            client.hide_quotes();
        }
        self.identity = Some(identity);
        Ok(())
    }

    fn own_tables(&mut self) -> Result<Tables> {
        let identity = self.identity.clone().ok_or_else(|| Error::bug("a lake that was claimed has no identity"))?;
        self.tables_of(&identity)
    }

    /// The unfinished reconciliation of the same range, or a new one.
    async fn plan_reconciliation(&mut self, settings: &ReconcileSettings) -> Result<Reconciliation> {
        let asked = Asked { from: settings.from, to: settings.to };
        let before = self.ledger.state().reconciliation.clone();
        let has_begun = |known: &&Reconciliation| known.walk.pages > 0 && known.asked == asked;
        if let Some(known) = before.as_ref().filter(has_begun).filter(|_| !settings.restart) {
            tracing::info!("continuing the reconciliation after {}", counted(known.walk.pages, "page"));
            self.report.resumed = true;
            return Ok(known.clone());
        }
        let now = self.clock.now();
        let recent = chrono::Duration::from_std(ReconcileSettings::RECENT).unwrap_or_default();
        // The API's bounds are whole seconds.
        let recent = || DateTime::from_timestamp(now.checked_sub_signed(recent)?.timestamp(), 0);
        let to = asked.to.or_else(recent);
        asked.from.zip(to).map_or(Ok(()), |(from, to)| check_range(from, to))?;
        let window = Window { filter: TimestampFilter::CreatedAt, from: asked.from, to };
        let user_filters = settings.user_filters.clone();
        let walk = Walk::new(Request { window, user_filters }, now);
        tracing::info!("reconciling {}", window.describe().unwrap_or_else(|| "the whole history".to_owned()));
        let new = Reconciliation::new(asked, walk, fastrand::u64(..));
        self.replace_reconciliation(Some(new.clone())).await?;
        Ok(new)
    }

    /// Commits another reconciliation, or that there is none, and discards the objects of the one before.
    async fn replace_reconciliation(&mut self, new: Option<Reconciliation>) -> Result<()> {
        let before = self.ledger.state().reconciliation.clone();
        let state = State { reconciliation: new, ..self.ledger.state().clone() };
        self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        self.ledger.discard(before.iter().flat_map(Reconciliation::keys).collect()).await
    }

    /// Walks the range and stages what the lake lacks, or has an older version of.
    async fn compare(
        &mut self,
        client: &mut Client,
        settings: &ReconcileSettings,
        tables: &Tables,
        reconciliation: &Reconciliation,
    ) -> Result<()> {
        let comparison = Comparison::new(&self.lake, tables, IdHasher::new(reconciliation.hash_key));
        let walk = reconciliation.walk.clone();
        let planned = Planned { purpose: Purpose::Reconcile, resumed: walk.pages > 0, walk };
        let partition_by = self.identity.as_ref().map(|identity| identity.partition_by).unwrap_or_default();
        let run = Run {
            lake: &self.lake,
            partition_by,
            columns: tables.columns(),
            suppression: &self.suppression,
            ledger: &mut self.ledger,
            client,
            report: &mut self.report,
            policy: settings.flush,
            on_bad_record: OnBadRecord::Quarantine,
            policies: self.policies.clone(),
            on_ignored_filter: OnIgnoredFilter::Fail,
            progress: &self.control.progress,
            meanwhile: None,
            sieve: Some(Box::new(comparison)),
            next_file: &mut self.next_file,
            clock: self.clock,
            shutdown: self.lease.stop(),
        };
        export::run(run, planned).await
    }

    /// Judges what a complete walk did not return, acts on it, and ends the reconciliation.
    async fn settle(&mut self, client: &mut Client, settings: &ReconcileSettings, tables: &Tables) -> Result<()> {
        let reconciliation = self.ledger.state().reconciliation.clone();
        let reconciliation = reconciliation.filter(|it| it.is_walked);
        let reconciliation =
            reconciliation.ok_or_else(|| Error::bug("a reconciliation whose walk is complete is gone"))?;
        let hasher = IdHasher::new(reconciliation.hash_key);
        let Walk { request, started_at, .. } = reconciliation.walk.clone();
        let dates = dates(tables, &request.window).await?;
        let ids = Ids { lake: self.lake.clone(), tables: tables.clone(), dates, runtime: Handle::current() };
        let scope = Scope { ids, window: request.window, began_at: started_at, hasher };
        let surveyed = reconciliation.clone();
        let (scope, survey) = blocking(move || scope.survey(&surveyed).map(|survey| (scope, survey))).await?;

        let judgment = match reconciliation.compared.malformed {
            0 => second_look(client, &request, &survey, hasher, &self.report.run_id, self.lease.stop()).await?,
            _ => Judgment::Unknown("the API sent malformed entries, which may be any conversation"),
        };
        let mut reconciled = reconciled(&reconciliation, &survey, &judgment, settings.on_deleted);
        self.report.reconciled = Some(reconciled);
        let gone = match judgment {
            Judgment::Gone(gone) => gone,
            Judgment::Unknown(why) => {
                tracing::warn!("nothing can be said about deletions: {why}");
                HashSet::new()
            }
        };
        if settings.max_deleted.is_exceeded(reconciled.gone, reconciled.conversations_here) {
            // The next run must not trust this walk.
            self.replace_reconciliation(None).await?;
            return Err(too_many(&reconciled, settings));
        }
        if !gone.is_empty() && settings.on_deleted != OnDeleted::Report {
            let ids = blocking(move || scope.ids_of(&gone)).await?;
            let change = match settings.on_deleted {
                OnDeleted::Remove => Removal::Rows,
                OnDeleted::Mark | OnDeleted::Report => Removal::Mark { at: started_at },
            };
            self.compaction(tables, settings.compact.retain).change(ids, change).await?;
            match change {
                Removal::Rows => reconciled.removed = reconciled.gone,
                Removal::Mark { .. } => reconciled.marked = reconciled.gone,
            }
            self.report.reconciled = Some(reconciled);
        } else if reconciled.gone > 0 {
            tracing::warn!(
                "{} of the lake {} gone at the source; to mark or remove them, run this again with --on-deleted mark or \
                 --on-deleted remove",
                counted(reconciled.gone, "conversation"),
                if reconciled.gone == 1 { "is" } else { "are" },
            );
        }
        self.replace_reconciliation(None).await
    }
}

/// Runs work that takes the processor or waits for the store.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::bug("the comparison with the lake failed").caused_by(error))?
}

/// The partitions that may have conversations of `window`, and the one of those without a readable `created_at`.
async fn dates(tables: &Tables, window: &Window) -> Result<Vec<CreatedDate>> {
    let day = |time: DateTime<Utc>| time.date_naive();
    let is_inside = |date: &CreatedDate| {
        date.last_day().is_none_or(|last| window.from.is_none_or(|from| day(from) <= last))
            && date.date().is_none_or(|first| window.to.is_none_or(|to| first <= day(to)))
    };
    let (files, _) = tables.files(Table::Conversations).await?;
    Ok(files.into_iter().map(|(date, _)| date).filter(is_inside).collect())
}

fn reconciled(of: &Reconciliation, survey: &Survey, judgment: &Judgment, on_deleted: OnDeleted) -> Reconciled {
    let (compared, Window { from, to, .. }) = (of.compared, of.walk.request.window);
    let gone = match judgment {
        Judgment::Gone(gone) => gone.len() as u64,
        Judgment::Unknown(_) => 0,
    };
    // Those that only the second look returned are there too.
    let late = match judgment {
        Judgment::Gone(gone) => survey.missed.len().saturating_sub(gone.len()) as u64,
        Judgment::Unknown(_) => 0,
    };
    let why_incomplete = match judgment {
        Judgment::Gone(_) => None,
        Judgment::Unknown(why) => Some(*why),
    };
    Reconciled {
        from,
        to,
        walked_at: of.walk.started_at,
        conversations_there: survey.there.saturating_add(late),
        // What was fetched is in the tables by now.
        conversations_here: survey.here.saturating_sub(compared.missing).saturating_sub(compared.returned),
        missing: compared.missing,
        stale: compared.stale,
        returned: compared.returned,
        gone,
        marked: 0,
        removed: 0,
        on_deleted: on_deleted.name(),
        complete: why_incomplete.is_none(),
        why_incomplete,
    }
}

fn too_many(found: &Reconciled, settings: &ReconcileSettings) -> Error {
    Error::integrity(format!(
        "{} of the {} in the range are gone at the source, more than --max-deleted {}",
        found.gone,
        counted(found.conversations_here, "conversation"),
        settings.max_deleted
    ))
    .with_hint(format!(
        "nothing was marked or removed; if the account did delete them, pass --max-deleted {}",
        found.gone
    ))
}
