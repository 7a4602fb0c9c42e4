//! The malformed entries of a page, and what is kept of them in the quarantine.
//!
//! Guarantees: with a policy, nothing is kept that it does not allow, because an entry is governed before anything else is
//! done with it. Must not depend on: I/O.

use serde::Serialize;

use super::govern::Governor;
use crate::api::{Page, Quotes};
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::flatten::Reject;
use crate::model::RunId;
use crate::policy::Quarantined;

/// A malformed entry, the number of its page in the walk (from 1), and its position in the response.
pub(super) struct BadRecord {
    pub(super) page: u64,
    pub(super) byte_offset: Option<usize>,
    pub(super) reject: Reject,
    /// What a policy allows to keep of it, and the hash of that policy.
    governed: Option<(Quarantined, String)>,
}

/// The malformed entries of a page whose first entry is at `first_seq` in the run: those that `flatten` rejected, and
/// those that are no JSON.
pub(super) fn bad_records(number: u64, page: &Page, first_seq: i64, rejected: Vec<Reject>) -> Vec<BadRecord> {
    if page.repaired() > 0 || !page.broken().is_empty() {
        tracing::warn!(
            "page {number} of the export is malformed JSON: repaired {}, could not repair {}",
            counted(page.repaired(), "conversation"),
            counted(page.broken().len(), "entry")
        );
    }
    let record = |byte_offset, reject| BadRecord { page: number, byte_offset, reject, governed: None };
    let place = |seq: i64| usize::try_from(seq.saturating_sub(first_seq)).ok();
    let rejected = rejected.into_iter().map(|reject| {
        let byte_offset = place(reject.seq).and_then(|place| page.offset(place));
        record(byte_offset, reject)
    });
    let broken = page.broken().iter().enumerate().map(|(place, broken)| {
        let (raw, reason) = (broken.raw.clone(), broken.reason.clone());
        record(Some(broken.offset), Reject { raw, reason, seq: seq_of(first_seq, page.len() + place) })
    });
    rejected.chain(broken).collect()
}

/// The position in the run of the entry at `place` on a page whose first entry is at `first_seq`.
pub(super) fn seq_of(first_seq: i64, place: usize) -> i64 {
    first_seq.saturating_add(i64::try_from(place).unwrap_or(i64::MAX))
}

impl BadRecord {
    /// Keeps only what the policy allows.
    ///
    /// # Errors
    /// Only on a bug.
    pub(super) fn govern(&mut self, governor: &Governor) -> Result<()> {
        let raw = std::mem::take(&mut self.reject.raw);
        self.governed = Some((governor.quarantined(&raw), governor.hash()?.to_owned()));
        Ok(())
    }

    /// The error of a run that ends at it.
    pub(super) fn failure(&self, quotes: Quotes) -> Error {
        let BadRecord { page, reject: Reject { raw, reason, .. }, .. } = self;
        Error::integrity(format!("page {page} of the export has a malformed entry ({reason}): {}", quotes.of(raw)))
            .with_hint(
                "the pages before it are staged; to quarantine such entries and go on, pass --on-bad-record quarantine",
            )
    }
}

/// Renders malformed entries for the quarantine, one line of JSON each.
///
/// # Errors
/// Never, short of a bug.
pub(super) fn quarantine_lines(bad_records: &[BadRecord], run_id: &RunId) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct QuarantineLine<'a> {
        run_id: &'a RunId,
        page: u64,
        seq: i64,
        byte_offset: Option<usize>,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        raw: Option<&'a str>,
        #[serde(flatten)]
        governed: Option<GovernedLine<'a>>,
    }
    /// What a policy adds.
    #[derive(Serialize)]
    struct GovernedLine<'a> {
        bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        hmac: Option<&'a str>,
        policy: &'a str,
    }
    let mut lines = Vec::new();
    for BadRecord { page, byte_offset, reject: Reject { raw, reason, seq }, governed } in bad_records {
        let (raw, governed) = match governed {
            None => (Some(raw.as_str()), None),
            Some((Quarantined { raw, bytes, hmac }, policy)) => {
                (raw.as_deref(), Some(GovernedLine { bytes: *bytes, hmac: hmac.as_deref(), policy }))
            }
        };
        let line = QuarantineLine { run_id, page: *page, seq: *seq, byte_offset: *byte_offset, reason, raw, governed };
        serde_json::to_writer(&mut lines, &line).map_err(|e| Error::bug("cannot write the quarantine").caused_by(e))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
