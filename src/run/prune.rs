//! What a run removes at its end of the lake's past.

use super::session::Session;
use crate::error::{Kind, Result};
use crate::lake::{History, history};

impl Session {
    /// Removes what is too old of the lake's past, though not what no run has told of yet, or this one is about to. That it
    /// failed is no failure of the run.
    pub(super) async fn prune(&self, result: &Result<()>, quarantined: bool) {
        let lost = result.as_ref().is_err_and(|error| error.kind() == Kind::Held);
        if !self.report.admitted || lost || self.control.shutdown.is_cancelled() {
            return;
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
        for (what, pruned) in [("run reports", reports), ("quarantine files", quarantine)] {
            match pruned {
                Ok(0) => {}
                Ok(count) => tracing::info!("removed {count} old {what}"),
                Err(error) => tracing::warn!("cannot remove old {what}: {}", error.chain().join(": ")),
            }
        }
    }
}
