//! The first stage: fetches the pages of a walk.
//!
//! Guarantees: a walk ends as complete only at a page without a next cursor. A page that looks like a failure, or lacks
//! the field for a cursor, is fetched again before it counts. Must not depend on: what becomes of the pages.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use chrono::DateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched, Page, Quotes, Sign, excerpt};
use crate::error::{Error, Result};
use crate::model::{Cursor, LearnedPageSize, Request, USUAL_PAGE};

/// How often one cursor is sent with a larger page because it came back: from the smallest page to the largest.
const ENLARGEMENTS: u32 = 6;
/// The most bytes of pages that wait to be flattened; a larger page waits by itself.
const WAITING_BYTES: usize = 16 << 20;
/// The statuses with which the API refuses a cursor that it no longer knows.
const CURSOR_REFUSED: [u16; 4] = [400, 404, 410, 422];

/// A page of a walk, and where the walk continues.
pub(super) struct Step {
    pub(super) fetched: Fetched,
    /// What the API's answers taught about the size of pages, up to this one.
    pub(super) page_size: Option<LearnedPageSize>,
    /// `None` if the walk is complete.
    pub(super) next: Option<Cursor>,
    /// Whether the walk ends with a full page, so that more pages may exist.
    pub(super) full_without_cursor: bool,
    /// Whether the walk ends with an empty page without a field for a cursor, although earlier pages had one.
    pub(super) end_without_field: bool,
    /// Its share of the bytes that may wait.
    pub(super) permit: OwnedSemaphorePermit,
}

/// How fetching ended without a failure.
#[derive(Debug)]
pub(super) enum FetchEnd {
    /// There are no more pages, or the next stage has stopped.
    Complete,
    /// The API refuses the cursor that an earlier run stored.
    CursorRefused(Error),
}

/// What this run remembers of the pages of a walk.
#[derive(Debug, Default)]
pub(super) struct Trail {
    hasher: RandomState,
    /// Hashes of the cursors so far: eight bytes each, because a walk may have hundreds of thousands.
    cursors: HashSet<u64>,
    /// The most conversations of a page.
    largest: Option<usize>,
    /// The `page_size` of the last page, and the most conversations of those that it brought without a change of it.
    largest_of_size: Option<(Option<u32>, usize)>,
    /// Whether a page had a field for a cursor.
    had_cursor_field: bool,
    /// A sign of failure on a page with conversations, which was no failure.
    harmless: Option<Sign>,
}

/// The first stage.
pub(super) struct Fetcher<'a> {
    pub(super) client: &'a mut Client,
    pub(super) request: &'a Request,
    pub(super) trail: Trail,
    /// Whether an earlier run stored the first cursor.
    pub(super) resumed: bool,
    pub(super) shutdown: &'a CancellationToken,
}

impl Fetcher<'_> {
    /// Fetches every page from `cursor` on and sends it down `pages`.
    ///
    /// # Errors
    /// Those of the client; a cursor that repeats; a page that reports a failure twice; `Interrupted` after `shutdown`.
    pub(super) async fn fetch(mut self, mut cursor: Option<Cursor>, pages: mpsc::Sender<Step>) -> Result<FetchEnd> {
        self.trail.had_cursor_field |= cursor.is_some();
        if let Some(cursor) = &cursor {
            self.trail.insert(cursor);
        }
        let waiting = Arc::new(Semaphore::new(WAITING_BYTES));
        let mut enlarged = 0;
        for fetched_before in 0_u64.. {
            let fetched = match self.page(cursor.as_ref()).await {
                Ok(fetched) => fetched,
                Err(error) if fetched_before == 0 && self.resumed && is_refusal(&error) => {
                    return Ok(FetchEnd::CursorRefused(error));
                }
                Err(error) => return Err(error),
            };
            let step = self.step(fetched, cursor.as_ref(), &waiting).await?;
            let (rows, next) = (step.fetched.page.len(), step.next.clone());
            if pages.send(step).await.is_err() {
                // The next stage has failed and reports why.
                return Ok(FetchEnd::Complete);
            }
            match next {
                None => return Ok(FetchEnd::Complete),
                Some(next) if Some(&next) == cursor.as_ref() => {
                    // If the cursor is a second, a page that holds all of it leads on.
                    if rows == 0 || enlarged == ENLARGEMENTS || !self.client.page_size().enlarge() {
                        return Err(repeats_at_once(&next, rows));
                    }
                    enlarged += 1;
                }
                Some(next) if !self.trail.insert(&next) => return Err(repeats(&next)),
                Some(next) => (cursor, enlarged) = (Some(next), 0),
            }
        }
        Err(Error::bug("ran out of numbers for pages"))
    }

    /// Fetches a page, and once more if there is a doubt about it.
    async fn page(&mut self, cursor: Option<&Cursor>) -> Result<Fetched> {
        let fetched = self.client.fetch(self.request, cursor, self.shutdown).await?;
        let Some(doubt) = self.trail.doubt(&fetched.page, cursor) else { return Ok(fetched) };
        tracing::info!("the API returned a page {doubt}, which may not be the last; fetching it again");
        let again = self.client.fetch(self.request, cursor, self.shutdown).await?;
        match self.trail.doubt(&again.page, cursor) {
            Some(Doubt::Failure(sign)) => Err(failed(&sign)),
            _ => Ok(again),
        }
    }

    async fn step(&mut self, fetched: Fetched, cursor: Option<&Cursor>, waiting: &Arc<Semaphore>) -> Result<Step> {
        let page = &fetched.page;
        let (rows, bytes) = (page.len(), page.bytes().clamp(1, WAITING_BYTES));
        let end_without_field = matches!(self.trail.doubt(page, cursor), Some(Doubt::NoCursorField));
        let next = if is_echo(page, cursor) { None } else { page.next().cloned() };
        let full_without_cursor = next.is_none() && self.trail.is_full(rows, fetched.page_size);
        self.trail.remember(page, fetched.page_size);
        let page_size = self.client.page_size().learned();
        let bytes = u32::try_from(bytes).map_err(|error| Error::bug("a page has no size").caused_by(error))?;
        let permit = tokio::select! {
            biased;
            // A fetched page is kept, unless it would have to wait.
            permit = Arc::clone(waiting).acquire_many_owned(bytes) => permit,
            () = self.shutdown.cancelled() => return Err(Error::interrupted()),
        };
        let permit = permit.map_err(|error| Error::bug("the semaphore of the pages is closed").caused_by(error))?;
        Ok(Step { fetched, page_size, next, full_without_cursor, end_without_field, permit })
    }
}

/// Why a page may not be the last.
enum Doubt {
    /// It reports a failure.
    Failure(Sign),
    /// It has no field for a cursor, although earlier pages had one.
    NoCursorField,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doubt::Failure(sign) => write!(f, "with {}", describe(sign)),
            Doubt::NoCursorField => f.write_str("without conversations and without any field for a cursor"),
        }
    }
}

impl Trail {
    /// Remembers a cursor; false if it is a repeat.
    fn insert(&mut self, cursor: &Cursor) -> bool {
        self.cursors.insert(self.hasher.hash_one(cursor))
    }

    /// Remembers a page that counts.
    fn remember(&mut self, page: &Page, asked: Option<u32>) {
        self.largest = self.largest.max(Some(page.len()));
        self.largest_of_size = Some((asked, self.largest_of_size(asked).map_or(page.len(), |it| it.max(page.len()))));
        self.had_cursor_field |= page.has_cursor_field();
        if !page.is_empty() {
            self.harmless = page.sign().cloned();
        }
    }

    /// The most conversations of the pages that came last, if they were asked for with this size.
    fn largest_of_size(&self, asked: Option<u32>) -> Option<usize> {
        self.largest_of_size.filter(|(of, _)| *of == asked).map(|(_, rows)| rows)
    }

    /// Whether a page is full: as large as asked for, as the API's usual page, as the largest page before it, or as the
    /// largest since the size last changed.
    fn is_full(&self, rows: usize, asked: Option<u32>) -> bool {
        let size = u32::try_from(rows).unwrap_or(u32::MAX);
        let before = |largest: Option<usize>| largest.is_some_and(|largest| largest > 0 && rows >= largest);
        rows > 0
            && (asked.is_some_and(|asked| size >= asked)
                || size == USUAL_PAGE
                || before(self.largest)
                || before(self.largest_of_size(asked)))
    }

    /// Returns why `page`, the response to `cursor`, may report a failure or may not be the last.
    fn doubt(&self, page: &Page, cursor: Option<&Cursor>) -> Option<Doubt> {
        if !page.broken().is_empty() {
            return None;
        }
        let is_last = page.next().is_none() || is_echo(page, cursor);
        let new = page.sign().filter(|sign| self.harmless.as_ref() != Some(sign));
        if let Some(sign) = new.filter(|sign| page.is_empty() || is_last && sign.is_error()) {
            return Some(Doubt::Failure(sign.clone()));
        }
        let no_field = page.is_empty() && self.had_cursor_field && !page.has_cursor_field();
        no_field.then_some(Doubt::NoCursorField)
    }
}

/// Whether a page is empty and repeats the cursor that was sent: some servers mark the end so.
fn is_echo(page: &Page, cursor: Option<&Cursor>) -> bool {
    page.is_empty() && cursor.is_some() && page.next() == cursor
}

fn is_refusal(error: &Error) -> bool {
    error.status().is_some_and(|status| CURSOR_REFUSED.contains(&status))
}

fn describe(Sign { name, value, quotes }: &Sign) -> String {
    match quotes {
        Quotes::Shown => excerpt(&format!("\"{name}\": {value}")),
        Quotes::Hidden => format!("{}: {}", excerpt(&format!("\"{name}\"")), Quotes::HIDDEN),
    }
}

/// A page reports a failure, twice.
fn failed(sign: &Sign) -> Error {
    Error::api(format!("the API returned {} instead of a page, twice", describe(sign)))
        .with_hint("the pages before it are staged; to continue, run the same command again later")
}

/// The next cursor is the one that was just sent.
fn repeats_at_once(cursor: &Cursor, rows: usize) -> Error {
    let error = repeats(cursor);
    // Epoch seconds have had nine digits since 1973.
    let secs = cursor.as_str().parse().ok().filter(|secs: &i64| *secs >= 100_000_000);
    match secs.and_then(|secs| DateTime::from_timestamp(secs, 0)) {
        Some(second) if rows > 0 => error.caused_by(Error::api(format!(
            "the conversations that changed in the second {second} fill a page of {rows}"
        ))),
        _ => error,
    }
}

/// The next cursor is one of the walk's earlier ones.
fn repeats(cursor: &Cursor) -> Error {
    Error::api(format!("paging is stuck: the API returned cursor {:?} again", cursor.as_str())).with_hint(
        "the pages so far are staged; run the same command again with a larger --page-size; if that does not help, \
         add --restart",
    )
}
