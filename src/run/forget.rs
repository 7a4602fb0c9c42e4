//! `forget`: erases conversations from every place in a lake, and keeps them out.
//!
//! Guarantees: it can be killed anywhere and repeated, because the conversations are suppressed before anything is
//! erased, and every step looks for those that are suppressed. So any later `forget` completes it. Must not depend on:
//! how rows are found and rewritten.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::forget::{Hit, Mentions, OldFiles, Receipt, Search, Traces, Where, erase_from_history, erase_from_state};
use crate::lake::{Lake, Ledger, RunReport, Suppression};
use crate::layout;
use crate::model::{CreatedDate, LakeColumns, PerTable, Selector, Table};
use crate::store::Remains;
use crate::tables::Tables;

use super::session::{RunFailure, Session, hold};
use super::settings::ForgetSettings;

/// Erases the chosen conversations from a lake. Returns the receipt, and the report of the run unless it only looked.
///
/// # Errors
/// As [`compact`](super::compact()); kind `Usage` if the settings choose nothing that can be erased.
pub async fn forget(lake: &Lake, settings: &ForgetSettings) -> Result<(Receipt, Option<RunReport>), RunFailure> {
    let identity = lake.existing().await?;
    check(settings, &identity.columns(), identity.suppresses)?;
    let settings = &with_hashes(settings);
    if settings.dry_run {
        return Ok((rehearse(lake, settings).await?, None));
    }
    let mut receipt = None;
    let work = async |session: &mut Session| {
        session.policy_key = settings.compact.policy_key.clone();
        session.report.admitted = true;
        session.sweep().await?;
        let done = if settings.lift { session.lift(settings).await? } else { session.forget(settings).await? };
        done.save(session.lake.store()).await?;
        receipt = Some(done);
        Ok(())
    };
    let (control, history) = (&settings.compact.control, settings.compact.history);
    let report = hold(lake, "forget", control, history, work).await?;
    Ok((receipt.ok_or_else(|| Error::bug("a forget ended without a receipt"))?, Some(report)))
}

fn check(settings: &ForgetSettings, columns: &LakeColumns, suppresses: bool) -> Result<()> {
    for selector in &settings.selectors {
        if let Some(fault) = selector.fault(columns) {
            return Err(Error::usage(format!("cannot choose conversations by {selector}: {fault}"))
                .with_hint("choose by conversation_id, user_id, another column of text, metadata.KEY or extra.KEY"));
        }
        if settings.lift && selector.conversation_id().is_none() {
            return Err(Error::usage(format!("--lift cannot find conversations by {selector}"))
                .with_hint("the lake no longer knows whose they were: name them with --conversation-id"));
        }
    }
    if settings.selectors.is_empty() && (settings.lift || !suppresses) {
        return Err(Error::usage("nobody to forget is named")
            .with_hint("pass --user-id, --conversation-id, --match or --from-file"));
    }
    Ok(())
}

/// The settings that choose by hashes too, which a policy may have put in the place of values.
fn with_hashes(settings: &ForgetSettings) -> ForgetSettings {
    let mut settings = settings.clone();
    if let Some(key) = &settings.compact.policy_key {
        let others = settings.selectors.iter().filter(|selector| selector.conversation_id().is_none());
        let hashed = others.map(|selector| selector.with_value(key.hash(selector.value().as_bytes())));
        settings.selectors.extend(hashed.collect::<Vec<_>>());
    }
    settings
}

/// Says what a `forget` would erase.
async fn rehearse(lake: &Lake, settings: &ForgetSettings) -> Result<Receipt> {
    let identity = lake.existing().await?;
    let suppression = lake.suppression(&identity).await?;
    let (tables, ledger) = (Tables::of(lake.store(), &identity)?, Ledger::load(lake.store()).await?);
    let (state, stop) = (ledger.state(), &settings.compact.control.shutdown);
    let search = Search { lake, tables: &tables, state, stop };
    let mut receipt = receipt(lake, settings, &suppression);
    let mut ids = BTreeSet::new();
    for place in [Where::Tables, Where::Staging, Where::OldVersions] {
        let hits = search.chosen(place, &settings.selectors).await?.hits;
        ids.extend(hits.iter().flat_map(|hit| &hit.ids).cloned());
        match place {
            Where::Tables => {
                receipt.partitions = dates(&hits).len() as u64;
                *receipt.rows.get_mut(Table::Conversations) = hits.iter().map(|hit| hit.ids.len() as u64).sum();
            }
            Where::Staging => receipt.staged_files = hits.len() as u64,
            Where::OldVersions => *receipt.old_files.get_mut(Table::Conversations) = hits.len() as u64,
        }
    }
    receipt.conversations = ids.iter().filter(|id| !suppression.contains(id)).count() as u64;
    receipt.not_reached = lake.store().remains(&layout::identity()).await?;
    receipt.finished_at = lake.clock().now();
    Ok(receipt)
}

/// The receipt of a run that has not done anything yet.
fn receipt(lake: &Lake, settings: &ForgetSettings, suppression: &Suppression) -> Receipt {
    let now = lake.clock().now();
    Receipt {
        run_id: None,
        version: env!("CARGO_PKG_VERSION"),
        started_at: now,
        finished_at: now,
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        reason: settings.reason.clone(),
        dry_run: settings.dry_run,
        conversations: 0,
        lifted: None,
        suppressed: suppression.len() as u64,
        rows: PerTable::default(),
        partitions: 0,
        staged_files: 0,
        old_files: PerTable::default(),
        log_parts: 0,
        traces: Traces::default(),
        not_reached: Vec::new(),
    }
}

fn dates(hits: &[Hit]) -> BTreeSet<CreatedDate> {
    hits.iter().map(|hit| hit.date).collect()
}

impl Session {
    /// Lets conversations come back.
    async fn lift(&mut self, settings: &ForgetSettings) -> Result<Receipt> {
        let mut suppression = (*self.suppression).clone();
        let ids = settings.selectors.iter().filter_map(Selector::conversation_id);
        let lifted = suppression.lift(ids) as u64;
        if lifted > 0 {
            suppression.save(self.lake.store()).await?;
        }
        Ok(Receipt {
            lifted: Some(lifted),
            run_id: Some(self.report.run_id.clone()),
            ..receipt(&self.lake, settings, &suppression)
        })
    }

    async fn forget(&mut self, settings: &ForgetSettings) -> Result<Receipt> {
        self.complete_last_run(settings).await?;
        let started_at = self.report.started_at;
        let chosen = self.choose(settings).await?;
        // It may be stored although the lake does not say so yet, if a run died in between.
        let mut suppression = Suppression::load(self.lake.store()).await?;
        let conversations = suppression.begin(chosen.iter().map(String::as_str))? as u64;
        self.identity = Some(self.lake.suppress(&mut suppression).await?);
        self.suppression = Arc::new(suppression.clone());

        let (staged_files, mut partitions) = self.erase_from_staging(settings).await?;
        partitions.extend(self.erase_from_tables(settings).await?);
        let old_files = self.erase_from_old_versions().await?;
        let tables = self.known_tables()?;
        let (log_parts, foreign) = tables.cut_logs(&self.lease).await?;
        let mentions = Mentions { selectors: settings.selectors.clone(), suppression: Arc::clone(&self.suppression) };
        let run = self.report.run_id.clone();
        let checkpoints = erase_from_state(&self.lake, &mut self.ledger, &run, &mentions).await?;
        let mut traces = Traces { checkpoints, ..Traces::default() };
        erase_from_history(&self.lake, &mentions, &mut traces).await?;
        suppression.finish();
        suppression.save(self.lake.store()).await?;

        let mut not_reached = self.lake.store().remains(&layout::suppression()).await?;
        not_reached.extend(of_tables(&old_files, &foreign));
        Ok(Receipt {
            run_id: Some(run),
            started_at,
            finished_at: self.clock.now(),
            conversations,
            rows: self.report.forgotten_rows,
            partitions: partitions.len() as u64,
            staged_files,
            old_files: old_files.deleted,
            log_parts,
            traces,
            not_reached,
            ..receipt(&self.lake, settings, &suppression)
        })
    }

    /// Completes what a run that died has begun in the tables, so that they are searched as they will stay.
    async fn complete_last_run(&mut self, settings: &ForgetSettings) -> Result<()> {
        let identity = self.lake.evolve().await?;
        self.identity = Some(identity.clone());
        let tables = self.tables_of(&identity)?;
        self.compaction(&tables, settings.compact.retain).complete().await
    }

    /// The conversations that the settings choose, wherever the lake knows them.
    async fn choose(&mut self, settings: &ForgetSettings) -> Result<BTreeSet<String>> {
        let (named, others): (Vec<_>, Vec<_>) =
            settings.selectors.iter().cloned().partition(|selector| selector.conversation_id().is_some());
        let mut chosen: BTreeSet<String> =
            named.iter().filter_map(Selector::conversation_id).map(str::to_owned).collect();
        if others.is_empty() {
            return Ok(chosen);
        }
        let tables = self.known_tables()?;
        let search = self.search(&tables);
        for place in [Where::Tables, Where::Staging, Where::OldVersions] {
            for hit in search.chosen(place, &others).await?.hits {
                chosen.extend(hit.ids);
            }
        }
        Ok(chosen)
    }

    /// Compacts the staged files if they hold suppressed conversations, which the compaction leaves out. Returns how
    /// many do, and their partitions.
    async fn erase_from_staging(&mut self, settings: &ForgetSettings) -> Result<(u64, BTreeSet<CreatedDate>)> {
        let (tables, suppression) = (self.known_tables()?, Arc::clone(&self.suppression));
        let found = self.search(&tables).suppressed(Where::Staging, Table::Conversations, &suppression).await?;
        if !found.hits.is_empty() {
            self.compact(settings.compact.retain).await?;
        }
        Ok((found.hits.len() as u64, dates(&found.hits)))
    }

    /// Rewrites the partitions that hold suppressed conversations, and returns them.
    async fn erase_from_tables(&mut self, settings: &ForgetSettings) -> Result<Vec<CreatedDate>> {
        let (tables, suppression) = (self.known_tables()?, Arc::clone(&self.suppression));
        // Conversations are written last, so while one is left, its children may be too.
        let found = self.search(&tables).suppressed(Where::Tables, Table::Conversations, &suppression).await?;
        let partitions: Vec<_> = dates(&found.hits).into_iter().collect();
        if !partitions.is_empty() {
            self.compaction(&tables, settings.compact.retain).forget(&partitions).await?;
        }
        Ok(partitions)
    }

    /// Deletes the files of earlier versions of Delta tables that hold suppressed conversations.
    async fn erase_from_old_versions(&mut self) -> Result<OldFiles> {
        let (tables, suppression) = (self.known_tables()?, Arc::clone(&self.suppression));
        let mut old = OldFiles::default();
        for table in Table::ALL {
            let found = self.search(&tables).suppressed(Where::OldVersions, table, &suppression).await?;
            let keys: Vec<_> = found.hits.into_iter().map(|hit| hit.file.object().location.clone()).collect();
            *old.deleted.get_mut(table) = keys.len() as u64;
            old.unreadable = old.unreadable.saturating_add(found.unreadable);
            if !keys.is_empty() {
                self.lease.prove().await?;
                self.lake.store().delete(keys).await?;
            }
        }
        Ok(old)
    }

    fn known_tables(&mut self) -> Result<Tables> {
        let identity = self.identity.clone().ok_or_else(|| Error::bug("a lake without an identity is erased from"))?;
        self.tables_of(&identity)
    }

    fn search<'a>(&'a self, tables: &'a Tables) -> Search<'a> {
        Search { lake: &self.lake, tables, state: self.ledger.state(), stop: self.lease.stop() }
    }
}

/// What of the tables could not be reached.
fn of_tables(old: &OldFiles, foreign: &[Table]) -> Vec<Remains> {
    let mut remains = Vec::new();
    if old.unreadable > 0 {
        remains.push(Remains {
            what: format!("{} unreadable files that Delta tables do not use any more", old.unreadable),
            remedy: "let `compact` delete them when --retain has passed".to_owned(),
        });
    }
    remains.extend(foreign.iter().map(|table| Remains {
        what: format!("the newest commit of the Delta table {}, which another writer made", table.name()),
        remedy: "run this again after the next compaction of that table".to_owned(),
    }));
    remains
}
