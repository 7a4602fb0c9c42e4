//! Checks the staged files against the checkpoint that names them, and discards damaged ones.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures::future::ready;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::problems::{Check, Verification};
use super::rows::CheckedRows;
use crate::counted::counted;
use crate::error::{Error, Kind, Result};
use crate::files::{FoundFile, Lanes};
use crate::lake::{Lake, Ledger, StagedFile, StagedFlush};
use crate::layout;
use crate::model::{CreatedDate, LakeColumns, RunId, Table, from_micros};

/// Checks every staged file that the newest checkpoint names, and counts the others.
///
/// # Errors
/// If the store fails, or the checkpoint is damaged.
pub(super) async fn verify(lake: &Lake, columns: &LakeColumns, found: &mut Verification) -> Result<()> {
    let ledger = Ledger::load(lake.store()).await?;
    let files: Vec<_> = ledger.state().staged.iter().flat_map(StagedFlush::files).collect();
    found.staged_files += u64::try_from(files.len()).map_err(|_| Error::bug("more files than can be counted"))?;
    found.staged_rows += files.iter().map(|file| file.rows).sum::<u64>();
    let problems = problems(lake, columns, files).await?;
    // A compaction may have deleted files meanwhile: only those that are still named have to exist.
    let known = Ledger::load(lake.store()).await?.state().staged_keys();
    for (file, problem) in problems.into_iter().filter(|(file, _)| known.contains(&file.key)) {
        found.note(Check::StagedFiles, Some(&file.key), || problem);
    }
    let mut listed = lake.store().list(layout::landing());
    while let Some(object) = listed.try_next().await? {
        found.unnamed_files += u64::from(!known.contains(&object.location));
    }
    Ok(())
}

/// Discards the staged files of a flush and partition if one is missing or damaged, and returns how often. They can
/// never be compacted, and they block the other staged files of that partition.
///
/// # Errors
/// If the store fails; kind `Held` if another run has taken the lake.
pub(super) async fn discard_damaged(
    lake: &Lake,
    columns: &LakeColumns,
    ledger: &mut Ledger,
    run: &RunId,
    now: DateTime<Utc>,
) -> Result<u64> {
    let files: Vec<_> = ledger.state().staged.iter().flat_map(StagedFlush::files).collect();
    let problems = problems(lake, columns, files).await?;
    let damaged: BTreeSet<_> = problems.into_iter().map(|(file, _)| (file.flush, file.date)).collect();
    let mut state = ledger.state().clone();
    for (flush, date) in &damaged {
        let range = match (date.date(), date.last_day().and_then(|last| last.succ_opt())) {
            (Some(from), Some(to)) => format!(" --from {from} --to {to}"),
            // Nothing says when these conversations were created.
            _ => String::new(),
        };
        tracing::warn!(
            "discarding the staged files of flush {flush} in {}; fetch it again with `backfill \
             --timestamp-filter created_at{range}`",
            date.folder()
        );
        state.discard_staged(flush, *date);
    }
    ledger.commit(state, run, now).await?;
    Ok(damaged.len() as u64)
}

/// The staged files that are missing or damaged, each with its problem, in the order of `files`.
async fn problems(lake: &Lake, columns: &LakeColumns, files: Vec<StagedFile>) -> Result<Vec<(StagedFile, String)>> {
    let lanes = &Lanes::of(lake.store());
    let checks = files.into_iter().map(|file| async move {
        let problem = problem(lake, columns, lanes, &file).await?;
        Ok::<_, Error>(problem.map(|problem| (file, problem)))
    });
    let checks: Vec<_> = checks.collect();
    stream::iter(checks).buffered(lanes.at_once()).try_filter_map(|problem| ready(Ok(problem))).try_collect().await
}

/// The problem of one staged file.
async fn problem(lake: &Lake, columns: &LakeColumns, lanes: &Lanes, file: &StagedFile) -> Result<Option<String>> {
    let StagedFile { table, date, key, rows, bytes, .. } = file;
    let Some(there) = lake.store().head(key).await? else { return Ok(Some("is missing".to_owned())) };
    if there.size != *bytes {
        return Ok(Some(format!("has {}, not {bytes}", counted(there.size, "byte"))));
    }
    let lane = lanes.enter(*bytes).await?;
    let mut found = FoundFile::not_read(there);
    if Lanes::are_small(*bytes) {
        found = found.load(lake.store()).await?;
    }
    let (own, columns, runtime) = (lake.clone(), columns.clone(), Handle::current());
    let (table, date) = (*table, *date);
    let counting =
        move || CheckedRows::open(&own, &columns, table, &found, &runtime).and_then(|file| count(file, date));
    match lanes.work(&lane, counting).await? {
        Ok((read, _)) if read != *rows => Ok(Some(format!("has {}, not {rows}", counted(read, "row")))),
        Ok((_, Some(id))) => Ok(Some(format!("has conversation {id} of another partition"))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == Kind::Integrity => Ok(Some(error.chain().join(": "))),
        Err(error) => Err(error),
    }
}

/// How many rows a file has, and a conversation of another partition.
fn count(mut file: CheckedRows, date: CreatedDate) -> Result<(u64, Option<String>)> {
    let mut stray = None;
    while let Some(row) = file.head() {
        if file.table() == Table::Conversations && date.by().of(row.created_at.and_then(from_micros)) != date {
            stray.get_or_insert_with(|| row.id.to_owned());
        }
        file.advance()?;
    }
    Ok((file.read, stray))
}
