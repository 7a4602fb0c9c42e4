//! Whether conversations that were forgotten are in the tables again, as after a restore.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::beside::{Beside, PAUSE, TRIES};
use super::problems::{Check, Verification};
use crate::clock::Clock;
use crate::counted::counted;
use crate::error::{Kind, Result};
use crate::forget::{Search, Where};
use crate::lake::{Lake, State};
use crate::model::Table;
use crate::tables::Tables;

/// Reads the ids of all conversations, if any were forgotten, and adds those that are back to `found`. While a live run
/// forgets, it does nothing.
///
/// # Errors
/// If the store fails.
pub(super) async fn verify(
    lake: &Lake,
    tables: &Tables,
    beside: &mut Beside<'_>,
    clock: Clock,
    found: &mut Verification,
) -> Result<()> {
    let (state, stop) = (State::default(), CancellationToken::new());
    let search = Search { lake, tables, state: &state, stop: &stop };
    for tried in 1.. {
        let suppression = Arc::new(lake.suppression(&lake.existing().await?).await?);
        if suppression.is_empty() || suppression.is_unfinished() && beside.is_alive().await? {
            return Ok(());
        }
        match search.suppressed(Where::Tables, Table::Conversations, &suppression).await {
            Ok(back) => {
                for hit in back.hits {
                    let conversations = counted(hit.ids.len(), "forgotten conversation");
                    found.note(Check::Forgotten, Some(&hit.file.object().location), || format!("has {conversations}"));
                }
                return Ok(());
            }
            // A file was replaced meanwhile.
            Err(error) if error.kind() == Kind::Held && tried < TRIES => {
                tables.invalidate();
                clock.sleep(PAUSE).await;
            }
            // Another check names the file that is damaged.
            Err(error) if error.kind() == Kind::Integrity => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
