//! The first stage: fetches page after page of a walk until the API says that there are no more.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched};
use crate::error::{Error, Result};
use crate::model::{Cursor, Request};

/// A page of a walk, and where the walk goes on from it.
pub(super) struct Step {
    pub(super) fetched: Fetched,
    /// `None` where the walk is complete.
    pub(super) next: Option<Cursor>,
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
    loop {
        let fetched = client.fetch(request, cursor.as_ref(), shutdown).await?;
        // Some servers answer the end with the cursor that was sent, and nothing else.
        let at_end = fetched.page.is_empty() && fetched.page.next() == cursor.as_ref();
        let next = fetched.page.next().filter(|_| !at_end).cloned();
        if pages.send(Step { fetched, next: next.clone() }).await.is_err() {
            // The stages behind have failed and will say why.
            return Ok(());
        }
        match next {
            None => return Ok(()),
            Some(next) if !seen.insert(hasher.hash_one(&next)) => return Err(comes_back(&next)),
            Some(next) => cursor = Some(next),
        }
    }
}

fn comes_back(cursor: &Cursor) -> Error {
    Error::api(format!("the API sent the cursor {:?} again, which would go on for ever", cursor.as_str()))
        .with_hint("what came is landed; try --restart, or --restart with a larger --page-size")
}
