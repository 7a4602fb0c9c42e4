//! `upgrade`: brings what a lake holds to the form that this release writes, and changes what a lake keeps for good.
//!
//! Guarantees: it can be killed anywhere and repeated. Must not depend on: what differs between the forms.

use super::session::{RunFailure, Session, hold};
use super::settings::UpgradeSettings;
use crate::counted::counted;
use crate::error::Result;
use crate::lake::{Format, Governed, Identity, Lake, RunReport, State};

/// Compacts a lake, then rewrites the partitions whose files have older columns or encodings. Before that, makes the
/// changes that the settings ask for.
///
/// # Errors
/// As [`compact`](super::compact); kind `Usage` if columns of metadata contradict those that the lake has.
pub async fn upgrade(lake: &Lake, settings: &UpgradeSettings) -> Result<RunReport, RunFailure> {
    lake.existing().await?;
    let UpgradeSettings { base_url, metadata_columns, policy, abandon_backfill, compact } = settings;
    let work = async |session: &mut Session| {
        session.policy_key = compact.policy_key.clone();
        session.report.admitted = true;
        session.sweep().await?;
        let governed = Governed { policy: policy.as_ref(), key: compact.policy_key.as_ref() };
        let identity = session.lake.change(base_url.as_deref(), metadata_columns, Some(governed)).await?;
        let before = session.identity.replace(identity.clone());
        if let Some(before) = before.filter(|before| before.base_url != identity.base_url) {
            tracing::info!("moved the lake from {} to {}", before.base_url, identity.base_url);
        }
        session.policies_of(&identity)?;
        if *abandon_backfill {
            session.abandon_backfills().await?;
        }
        session.compact(compact.retain).await?;
        session.rewrite(compact.retain).await?;
        session.cover().await?;
        log_retained(&identity, &session.report);
        Ok(())
    };
    hold(lake, "upgrade", &compact.control, compact.history, work).await
}

/// Says how long the files stay that a policy was applied to.
fn log_retained(identity: &Identity, report: &RunReport) {
    let partitions = report.upgraded_partitions.saturating_add(report.compacted_dates.len() as u64);
    if identity.policy_hash().is_some() && identity.format == Format::Delta && partitions > 0 {
        tracing::info!(
            "the tables follow the policy; their earlier versions still hold what it covers until a compaction deletes \
             them after --retain"
        );
    }
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
