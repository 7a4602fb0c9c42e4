//! The first stage: fetches page after page of a walk until the API says that there are no more.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use chrono::DateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api::{Client, Fetched, Page, Sign, excerpt};
use crate::error::{Error, Result};
use crate::model::{Cursor, Request};

/// How many conversations a page has at most where no `page_size` is sent (*doc*: "up to 100 at a time"), or where it is
/// ignored.
const USUAL_PAGE: usize = 100;
/// How many bytes of pages wait to be flattened, at most; a larger page waits alone.
const WAITING_BYTES: usize = 16 << 20;
/// The statuses that a cursor is refused with which the API does not know any more.
const CURSOR_REFUSED: [u16; 4] = [400, 404, 410, 422];

/// A page of a walk, and where the walk goes on from it.
pub(super) struct Step {
    pub(super) fetched: Fetched,
    /// `None` where the walk is complete.
    pub(super) next: Option<Cursor>,
    /// Whether the walk ends with a page that looks as if more were to come.
    pub(super) full_without_cursor: bool,
    /// Whether the walk ends with an empty page that has no field for a cursor, where those before it had one.
    pub(super) end_without_field: bool,
    /// Its room among the waiting pages, given back with the page.
    pub(super) room: OwnedSemaphorePermit,
}

/// How a walk came to its end without a failure.
#[derive(Debug)]
pub(super) enum Walked {
    /// There are no more pages, or nobody takes them.
    Through,
    /// As many pages were fetched as were to be fetched at a time.
    Paused,
    /// The API refuses the cursor that an earlier run has stored.
    CursorRefused(Error),
}

/// What is known of a walk while this run does it.
#[derive(Debug, Default)]
pub(super) struct Trail {
    hasher: RandomState,
    /// The cursors so far. Eight bytes a page, not the cursor itself: a walk may have hundreds of thousands.
    cursors: HashSet<u64>,
    /// The most conversations of a page.
    largest: Option<usize>,
    /// Whether a page had a field for a cursor.
    had_cursor_field: bool,
    /// What sounded like a failure on a page that was none: it had conversations.
    harmless: Option<Sign>,
}

/// A walk to be fetched.
pub(super) struct Fetching<'a> {
    pub(super) client: &'a mut Client,
    pub(super) request: &'a Request,
    pub(super) trail: &'a mut Trail,
    /// After how many pages it pauses.
    pub(super) pause_after: u64,
    /// Whether its first cursor was stored by an earlier run.
    pub(super) resumed: bool,
    pub(super) shutdown: &'a CancellationToken,
}

impl Fetching<'_> {
    /// Fetches every page from `cursor` on and sends it down `pages`.
    ///
    /// Ends with [`Walked::Through`], after a last page that has no next cursor, only when the walk is complete.
    ///
    /// # Errors
    /// What the client fails with; a cursor that comes back; an empty page that tells of a failure; `Interrupted` when
    /// `shutdown` came.
    pub(super) async fn walk(mut self, mut cursor: Option<Cursor>, pages: mpsc::Sender<Step>) -> Result<Walked> {
        self.trail.had_cursor_field |= cursor.is_some();
        if let Some(cursor) = &cursor {
            self.trail.adds(cursor);
        }
        let rooms = Arc::new(Semaphore::new(WAITING_BYTES));
        for fetched_before in 0_u64.. {
            if fetched_before == self.pause_after {
                return Ok(Walked::Paused);
            }
            let fetched = match self.fetch(cursor.as_ref()).await {
                Ok(fetched) => fetched,
                Err(error) if fetched_before == 0 && self.resumed && is_refusal(&error) => {
                    return Ok(Walked::CursorRefused(error));
                }
                Err(error) => return Err(error),
            };
            let step = self.step(fetched, cursor.as_ref(), &rooms).await?;
            let (rows, next) = (step.fetched.page.len(), step.next.clone());
            if pages.send(step).await.is_err() {
                // The stages behind have failed and will say why.
                return Ok(Walked::Through);
            }
            match next {
                None => return Ok(Walked::Through),
                Some(next) if Some(&next) == cursor.as_ref() => return Err(stands_still(&next, rows)),
                Some(next) if !self.trail.adds(&next) => return Err(comes_back(&next)),
                Some(next) => cursor = Some(next),
            }
        }
        Err(Error::bug("ran out of numbers for pages"))
    }

    /// Fetches a page; once more where it may be no end although it looks like one.
    async fn fetch(&mut self, cursor: Option<&Cursor>) -> Result<Fetched> {
        let fetched = self.client.fetch(self.request, cursor, self.shutdown).await?;
        let Some(doubt) = self.trail.doubt(&fetched.page, cursor) else { return Ok(fetched) };
        tracing::info!("the API sent a page {doubt}, which may be no end; asking once more");
        let again = self.client.fetch(self.request, cursor, self.shutdown).await?;
        match self.trail.doubt(&again.page, cursor) {
            Some(Doubt::Failure(sign)) => Err(failed(&sign)),
            _ => Ok(again),
        }
    }

    async fn step(&mut self, fetched: Fetched, cursor: Option<&Cursor>, rooms: &Arc<Semaphore>) -> Result<Step> {
        let page = &fetched.page;
        let (rows, bytes) = (page.len(), page.bytes().clamp(1, WAITING_BYTES));
        let end_without_field = matches!(self.trail.doubt(page, cursor), Some(Doubt::NoCursorField));
        let next = if is_echo(page, cursor) { None } else { page.next().cloned() };
        let full_without_cursor = next.is_none() && is_full(rows, self.request, self.trail.largest);
        self.trail.note(page);
        let bytes = u32::try_from(bytes).map_err(|error| Error::bug("a page has no size").caused_by(error))?;
        let room = tokio::select! {
            biased;
            // A page that is there is taken, unless it would have to wait.
            room = Arc::clone(rooms).acquire_many_owned(bytes) => room,
            () = self.shutdown.cancelled() => return Err(Error::interrupted()),
        };
        let room = room.map_err(|error| Error::bug("the pages' room was closed").caused_by(error))?;
        Ok(Step { fetched, next, full_without_cursor, end_without_field, room })
    }
}

/// Why a page may be no end.
enum Doubt {
    /// It tells of a failure.
    Failure(Sign),
    /// It has no field for a cursor, and those before it had one.
    NoCursorField,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doubt::Failure(sign) => write!(f, "with {}", told(sign)),
            Doubt::NoCursorField => f.write_str("without conversations and without any field for a cursor"),
        }
    }
}

impl Trail {
    /// Takes note of a cursor; false where it was there before.
    fn adds(&mut self, cursor: &Cursor) -> bool {
        self.cursors.insert(self.hasher.hash_one(cursor))
    }

    /// Takes note of a page that was taken.
    fn note(&mut self, page: &Page) {
        self.largest = self.largest.max(Some(page.len()));
        self.had_cursor_field |= page.has_cursor_field();
        if !page.is_empty() {
            self.harmless = page.sign().cloned();
        }
    }

    /// Why `page`, which came for `cursor`, may be no end although it looks like one, or lacks what it should have.
    fn doubt(&self, page: &Page, cursor: Option<&Cursor>) -> Option<Doubt> {
        if !page.broken().is_empty() {
            return None;
        }
        let is_last = page.next().is_none() || is_echo(page, cursor);
        let news = page.sign().filter(|sign| self.harmless.as_ref() != Some(sign));
        if let Some(sign) = news.filter(|sign| page.is_empty() || is_last && sign.is_error()) {
            return Some(Doubt::Failure(sign.clone()));
        }
        let no_field = page.is_empty() && self.had_cursor_field && !page.has_cursor_field();
        no_field.then_some(Doubt::NoCursorField)
    }
}

/// Some servers answer the end with the cursor that was sent, and nothing else.
fn is_echo(page: &Page, cursor: Option<&Cursor>) -> bool {
    page.is_empty() && cursor.is_some() && page.next() == cursor
}

fn is_refusal(error: &Error) -> bool {
    error.status().is_some_and(|status| CURSOR_REFUSED.contains(&status))
}

/// Whether a page holds as much as a page of this walk can: as was asked for, as the API's usual page, or as much as the
/// largest page before it.
fn is_full(rows: usize, request: &Request, largest: Option<usize>) -> bool {
    let asked = request.page_size.and_then(|size| usize::try_from(size).ok());
    rows > 0
        && (asked == Some(rows) || rows == USUAL_PAGE || largest.is_some_and(|largest| largest > 0 && rows >= largest))
}

fn told(Sign { name, value }: &Sign) -> String {
    excerpt(&format!("\"{name}\": {value}"))
}

/// A page that tells of a failure, twice.
fn failed(sign: &Sign) -> Error {
    Error::api(format!("the API answers with {} in place of a page, and did so again", told(sign)))
        .with_hint("what came is landed; run the same command again later, it goes on from there")
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
            .with_hint(
                "what came is landed; run the same command again with a larger --page-size, or --restart with it",
            ),
        _ => error.with_hint(LARGER_PAGES),
    }
}

fn comes_back(cursor: &Cursor) -> Error {
    Error::api(format!("the API sent the cursor {:?} a second time, which would go on for ever", cursor.as_str()))
        .with_hint(LARGER_PAGES)
}

/// What may help where cursors go in circles.
const LARGER_PAGES: &str = "what came is landed; run the same command again with a larger --page-size, or --restart";
