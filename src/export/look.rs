//! Looks at which conversations the API returns for a window, and stages none of them.
//!
//! Guarantees: the pages are fetched and judged as those of a walk, so a look that succeeds has seen the whole window.
//! Must not depend on: the lake.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fetch::{FetchEnd, Fetcher, Step, Trail};
use super::inspect::change_time;
use super::last_page::{LastPage, NewestSeen};
use crate::api::{Client, Fetched};
use crate::error::{Error, Result};
use crate::flatten::{Batch, Origin, flatten};
use crate::model::{LakeColumns, Request, RunId};

/// How many fetched pages wait to be read.
const PAGES_WAITING: usize = 2;

/// What a look has seen besides the ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Malformed entries, which may be any conversation.
    pub malformed: u64,
}

/// Fetches all pages of `request` and calls `visit` with the id of each conversation.
///
/// # Errors
/// Those of the client; kind `Api` if the pages break off; `Interrupted` after `shutdown`.
pub async fn look(
    client: &mut Client,
    request: &Request,
    run_id: &RunId,
    shutdown: &CancellationToken,
    mut visit: impl FnMut(&str),
) -> Result<Looked> {
    client.page_size().begin_walk(None, None);
    let (sender, mut receiver) = mpsc::channel::<Step>(PAGES_WAITING);
    let fetcher = Fetcher { client, request, trail: Trail::default(), resumed: false, shutdown };
    let (mut looked, mut seen, mut last_page) = (Looked::default(), NewestSeen::default(), None);
    let run: Arc<RunId> = Arc::new(run_id.clone());
    let reading = async {
        while let Some(step) = receiver.recv().await {
            let (full, fields) = (step.full_without_cursor, step.fetched.page.other_fields().to_vec());
            let (rows, answered_at) = (step.fetched.page.len(), step.fetched.answered_at);
            let run = Arc::clone(&run);
            let flattened = tokio::task::spawn_blocking(move || flattened(step, &run)).await;
            let (batch, broken) = flattened.map_err(|error| Error::bug("the flattening failed").caused_by(error))??;
            looked.malformed = looked.malformed.saturating_add(broken + batch.rejects.len() as u64);
            for (row, id) in batch.conversation_ids()?.iter().flatten().enumerate() {
                seen.note(id, change_time(&batch, &request.window, row)?, answered_at);
                visit(id);
            }
            let last = || LastPage { rows, answered_at, other_fields: fields, resumed_at: None };
            last_page = full.then(last);
        }
        Ok::<_, Error>(())
    };
    let (fetched, read) = tokio::join!(fetcher.fetch(None, sender), reading);
    read?;
    match fetched? {
        FetchEnd::Complete => {}
        FetchEnd::CursorRefused(error) => return Err(error),
    }
    if let Some(last_page) = last_page {
        last_page.check_is_end(client, request, &seen, run_id, shutdown).await?;
    }
    Ok(looked)
}

/// The rows of a page, and how many of its entries are no JSON.
fn flattened(step: Step, run_id: &RunId) -> Result<(Batch, u64)> {
    let Fetched { page, answered_at, .. } = step.fetched;
    let origin = Origin { run_id, exported_at: answered_at, first_seq: 0 };
    let batch = flatten(page.conversations(), &LakeColumns::default(), &origin)?;
    Ok((batch, page.broken().len() as u64))
}
