//! The first stage: fetches page after page of a walk until the API says that there are no more.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched};
use crate::error::{Error, Result};
use crate::model::{Cursor, Request};

/// Fetches every page of `request` from `cursor` on and sends it down `pages`.
///
/// Ends without an error, and with a last page that has no next cursor, only when the walk is complete.
///
/// # Errors
/// What the client fails with; a cursor that does not advance; `Interrupted` when `shutdown` came.
pub(super) async fn walk(
    client: &mut Client,
    request: &Request,
    mut cursor: Option<Cursor>,
    pages: mpsc::Sender<Fetched>,
    shutdown: &CancellationToken,
) -> Result<()> {
    loop {
        let fetched = client.fetch(request, cursor.as_ref(), shutdown).await?;
        let next = fetched.page.next().cloned();
        if pages.send(fetched).await.is_err() {
            // The stages behind have failed and will say why.
            return Ok(());
        }
        match next {
            None => return Ok(()),
            Some(next) if cursor.as_ref() == Some(&next) => return Err(stuck(&next)),
            Some(next) => cursor = Some(next),
        }
    }
}

fn stuck(cursor: &Cursor) -> Error {
    Error::api(format!(
        "the API answered cursor {:?} with the same cursor, which would go on for ever",
        cursor.as_str()
    ))
    .with_hint("what came is landed; try again later, or in another lake with a larger --page-size")
}
