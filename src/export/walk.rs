//! The first stage: fetches page after page of a walk until the API says that there are no more.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use chrono::DateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched, Page};
use crate::error::{Error, Result};
use crate::model::{Cursor, Request};

/// How many conversations a page has at most where no `page_size` is sent (*doc*: "up to 100 at a time"), or where it is
/// ignored.
const USUAL_PAGE: usize = 100;

/// A page of a walk, and where the walk goes on from it.
pub(super) struct Step {
    pub(super) fetched: Fetched,
    /// `None` where the walk is complete.
    pub(super) next: Option<Cursor>,
    /// Whether the walk ends with a page that looks as if more were to come.
    pub(super) full_without_cursor: bool,
}

/// Fetches every page of `request` from `cursor` on and sends it down `pages`.
///
/// Ends without an error, and with a last page that has no next cursor, only when the walk is complete.
///
/// # Errors
/// What the client fails with; a cursor that comes back; `Interrupted` when `shutdown` came.
pub(super) async fn walk(
    client: &mut Client,
    request: &Request,
    mut cursor: Option<Cursor>,
    pages: mpsc::Sender<Step>,
    shutdown: &CancellationToken,
) -> Result<()> {
    // Eight bytes a page, not the cursor itself: a walk may have hundreds of thousands.
    let (hasher, mut seen) = (RandomState::new(), HashSet::new());
    seen.extend(cursor.as_ref().map(|cursor| hasher.hash_one(cursor)));
    let mut largest = None;
    loop {
        let fetched = client.fetch(request, cursor.as_ref(), shutdown).await?;
        let rows = fetched.page.len();
        // Some servers answer the end with the cursor that was sent, and nothing else.
        let at_end = rows == 0 && fetched.page.next() == cursor.as_ref();
        let next = fetched.page.next().filter(|_| !at_end).cloned();
        let full_without_cursor = next.is_none() && is_full(rows, request, largest);
        if full_without_cursor {
            warn_of_the_end(&fetched.page);
        }
        largest = largest.max(Some(rows));
        if pages.send(Step { fetched, next: next.clone(), full_without_cursor }).await.is_err() {
            // The stages behind have failed and will say why.
            return Ok(());
        }
        match next {
            None => return Ok(()),
            Some(next) if Some(&next) == cursor.as_ref() => return Err(stands_still(&next, rows)),
            Some(next) if !seen.insert(hasher.hash_one(&next)) => return Err(comes_back(&next)),
            Some(next) => cursor = Some(next),
        }
    }
}

/// Whether a page holds as much as a page of this walk can: as was asked for, as the API's usual page, or as much as the
/// largest page before it.
fn is_full(rows: usize, request: &Request, largest: Option<usize>) -> bool {
    let asked = request.page_size.and_then(|size| usize::try_from(size).ok());
    rows > 0
        && (asked == Some(rows) || rows == USUAL_PAGE || largest.is_some_and(|largest| largest > 0 && rows >= largest))
}

/// A full page without a cursor is the true end, or one whose cursor has a name that is not known here.
fn warn_of_the_end(page: &Page) {
    let others = match page.other_fields() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    tracing::warn!(
        conversations = page.len(),
        "the export ends with a full page and no cursor for another one; should conversations be missing, the API may \
         have renamed its cursor (the response's other fields: {others})"
    );
}

/// The next page is the one that was just sent.
fn stands_still(cursor: &Cursor, rows: usize) -> Error {
    let error = Error::api(format!("the API sent the cursor {:?} again, which would go on for ever", cursor.as_str()));
    // Epoch seconds have nine digits since 1973.
    let secs = cursor.as_str().parse().ok().filter(|secs: &i64| *secs >= 100_000_000);
    match secs.and_then(|secs| DateTime::from_timestamp(secs, 0)) {
        Some(second) if rows > 0 => error
            .caused_by(Error::api(format!(
                "at least as many conversations changed in the second {second} as a page of {rows} holds"
            )))
            .with_hint("what came is landed; give --restart with a larger --page-size"),
        _ => error.with_hint("what came is landed; try --restart, or --restart with a larger --page-size"),
    }
}

fn comes_back(cursor: &Cursor) -> Error {
    Error::api(format!("the API sent the cursor {:?} a second time, which would go on for ever", cursor.as_str()))
        .with_hint("what came is landed; try --restart, or --restart with a larger --page-size")
}
