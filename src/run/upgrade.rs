//! `upgrade`: brings what a lake holds to the form that this release writes, and changes what a lake keeps for good.
//!
//! Guarantees: it can be killed anywhere and repeated. Must not depend on: what differs between the forms.

use super::session::{RunFailure, Session, hold};
use super::settings::UpgradeSettings;
use crate::counted::counted;
use crate::error::Result;
use crate::lake::{Lake, RunReport, State};

/// Compacts a lake, then rewrites the partitions whose files have older columns or encodings. Before that, makes the
/// changes that the settings ask for.
///
/// # Errors
/// As [`compact`](super::compact); kind `Usage` if columns of metadata contradict those that the lake has.
pub async fn upgrade(lake: &Lake, settings: &UpgradeSettings) -> Result<RunReport, RunFailure> {
    lake.existing().await?;
    let UpgradeSettings { base_url, metadata_columns, abandon_backfill, compact } = settings;
    let work = async |session: &mut Session| {
        session.report.admitted = true;
        session.sweep().await?;
        let identity = session.lake.change(base_url.as_deref(), metadata_columns).await?;
        let before = session.identity.replace(identity.clone());
        if let Some(before) = before.filter(|before| before.base_url != identity.base_url) {
            tracing::info!("moved the lake from {} to {}", before.base_url, identity.base_url);
        }
        if *abandon_backfill {
            session.abandon_backfills().await?;
        }
        session.compact(compact.retain).await?;
        session.rewrite(compact.retain).await
    };
    hold(lake, "upgrade", &compact.control, compact.history, work).await
}

impl Session {
    /// Gives up the unfinished backfills. What they have staged stays.
    async fn abandon_backfills(&mut self) -> Result<()> {
        let backfills = self.ledger.state().backfills.len();
        if backfills == 0 {
            return Ok(());
        }
        let state = State { backfills: Vec::new(), ..self.ledger.state().clone() };
        self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        self.report.abandoned_backfills = backfills as u64;
        tracing::info!("gave up {}; what was fetched stays", counted(backfills, "unfinished backfill"));
        Ok(())
    }

    async fn rewrite(&mut self, retain: std::time::Duration) -> Result<()> {
        let Some(identity) = self.identity.clone() else { return Ok(()) };
        let tables = self.tables_of(&identity)?;
        self.compaction(&tables, retain).upgrade().await
    }
}
