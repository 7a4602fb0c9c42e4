//! `verify --repair`: a run that verifies a lake and repairs it.
//!
//! Must not depend on: what is wrong with a lake.

use super::session::{Session, hold};
use super::settings::Control;
use crate::error::{Error, Result};
use crate::lake::{History, Lake};
use crate::verify::{self, Verification};

/// Verifies a lake, and repairs the problems that can be repaired without the API.
///
/// # Errors
/// As [`compact`](super::compact).
pub async fn repair(lake: &Lake, control: &Control) -> Result<Verification> {
    lake.existing().await?;
    let mut found = None;
    let work = async |session: &mut Session| {
        session.report.admitted = true;
        session.sweep().await?;
        let Session { lake, lease, ledger, suppression, clock, .. } = session;
        lake.evolve().await?;
        let verified = verify::repair(lake, lease, ledger, suppression, *clock).await?;
        session.report.found_problems(verified.problems());
        found = Some(verified);
        Ok(())
    };
    hold(lake, "verify", control, History::default(), work).await?;
    found.ok_or_else(|| Error::bug("a repair ended without a result"))
}
