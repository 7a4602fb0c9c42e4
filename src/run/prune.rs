//! Removes old run reports and quarantine files at the end of a run.
//!
//! Guarantees: a quarantine file stays until a run has reported its entries, because nothing is removed from the
//! quarantine while the state counts unreported ones. Must not depend on: what the run did.

use super::session::Session;
use crate::counted::counted;
use crate::error::{Kind, Result};
use crate::lake::history::AT_ONCE;
use crate::lake::{History, history};

impl Session {
    /// Removes the run reports and quarantine files that are older than the settings allow, except quarantine files if
    /// some entries are not reported yet or this run reports them (`quarantined`). Does so once a day, and whenever the
    /// settings have changed. Returns whether it has removed all of them. A failure is only logged.
    pub(super) async fn prune(&self, result: &Result<()>, quarantined: bool) -> bool {
        let lost = result.as_ref().is_err_and(|error| error.kind() == Kind::Held);
        let is_due = self.upkeep.as_ref().is_none_or(|upkeep| !upkeep.is_by(self.history));
        if !is_due || !self.report.admitted || lost || self.control.shutdown.is_cancelled() {
            return false;
        }
        let History { reports, quarantine } = self.history;
        let age = chrono::Duration::from_std(quarantine).ok();
        let oldest = age.and_then(|age| self.clock.now().checked_sub_signed(age));
        let reports = history::prune_reports(self.lake.store(), reports.saturating_sub(1));
        let quarantine = async {
            match oldest.filter(|_| !quarantined && self.ledger.state().quarantined == 0) {
                Some(oldest) => history::prune_quarantine(self.lake.store(), oldest).await,
                None => Ok(0),
            }
        };
        let (reports, quarantine) = tokio::join!(reports, quarantine);
        let is_done = [&reports, &quarantine].iter().all(|pruned| matches!(pruned, Ok(count) if *count < AT_ONCE));
        for (what, pruned) in [("old run report", reports), ("old quarantine file", quarantine)] {
            match pruned {
                Ok(0) => {}
                Ok(count) => tracing::info!("removed {}", counted(count, what)),
                Err(error) => tracing::warn!("cannot remove an {what}: {}", error.chain().join(": ")),
            }
        }
        is_done
    }
}
