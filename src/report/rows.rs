//! Reads one partition's conversations with their messages and tags, side by side.
//!
//! Guarantees: bounded memory, because the three files are read in the order of their ids, a batch at a time. Only the
//! columns that a page needs are decoded. Must not depend on: what is counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::files::{FoundFile, SortedReader};
use crate::lake::Lake;
use crate::model::{LakeColumns, PerTable, Table, column, from_micros, ints, texts, times};

/// Who a message of the customer is by.
const USER: &str = "USER";
/// Who a message of Decagon is by, and the destination of a conversation that was not handed over.
const AI: &str = "AI";

/// What a page says of one conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConversationFacts {
    pub(super) id: String,
    pub(super) created_at: Option<DateTime<Utc>>,
    /// Whether the AI resolved it alone; `None` if the API does not say.
    pub(super) is_deflected: Option<bool>,
    /// The customer's rating: `csat_rating`, else `csat`.
    pub(super) rating: Option<i32>,
    /// Whether its destination is not the AI, or somebody else than the user and the AI has written.
    pub(super) is_handed_over: bool,
    pub(super) messages: u64,
    /// From the user's first message to the first answer after it.
    pub(super) first_response_secs: Option<u32>,
    /// From its creation to its last message.
    pub(super) duration_secs: Option<u32>,
    pub(super) is_deleted: bool,
    /// Its summary, if it was asked for.
    pub(super) summary: Option<String>,
    /// The names of its tags; the id of a tag without one.
    pub(super) tags: BTreeSet<String>,
}

/// The files of a partition, and what to read them with.
pub(super) struct PartitionRows {
    pub(super) lake: Lake,
    pub(super) columns: LakeColumns,
    pub(super) files: PerTable<Option<FoundFile>>,
    pub(super) with_summaries: bool,
    pub(super) runtime: Handle,
}

impl PartitionRows {
    /// Passes each conversation to `visit`. Blocks.
    ///
    /// # Errors
    /// Kind `Integrity` if a file is damaged, kind `Held` if it was replaced meanwhile.
    pub(super) fn each(&self, mut visit: impl FnMut(ConversationFacts)) -> Result<()> {
        let mut wanted = CONVERSATIONS.to_vec();
        wanted.extend(self.with_summaries.then_some(column::SUMMARY));
        let Some(mut conversations) = self.open(Table::Conversations, &wanted, ConversationBlock::of)? else {
            return Ok(());
        };
        let mut messages = self.open(Table::Messages, MESSAGES, MessageBlock::of)?;
        let mut tags = self.open(Table::Tags, TAGS, TagBlock::of)?;
        while let Some((block, row)) = conversations.head() {
            let mut facts = block.facts(row);
            if let Some(messages) = &mut messages {
                read_messages(messages, &mut facts)?;
            }
            if let Some(tags) = &mut tags {
                tags.each_of(&facts.id.clone(), |block, row| facts.tags.extend(block.name(row)))?;
            }
            visit(facts);
            conversations.advance()?;
        }
        Ok(())
    }

    fn open<B: Block>(&self, table: Table, wanted: &[&str], of: MakeBlock<B>) -> Result<Option<RowCursor<B>>> {
        let Some(file) = self.files.get(table) else { return Ok(None) };
        let columns = self.columns.of(table);
        let reader = SortedReader::open_columns(self.lake.store(), columns, file, wanted, &self.runtime)?;
        let mut cursor = RowCursor { reader, of, block: None, row: 0 };
        cursor.fill()?;
        Ok(Some(cursor))
    }
}

/// Adds what the messages say.
fn read_messages(messages: &mut RowCursor<MessageBlock>, facts: &mut ConversationFacts) -> Result<()> {
    let (mut asked_at, mut answered_at) = (None, None);
    let mut by_others = false;
    messages.each_of(&facts.id.clone(), |block, row| {
        let role = text(&block.roles, row);
        by_others |= role.is_some_and(|role| role != USER && role != AI);
        match (role, asked_at) {
            (Some(USER), None) => asked_at = Some(micros(&block.created_at, row)),
            (Some(role), Some(_)) if role != USER && answered_at.is_none() => {
                answered_at = Some(micros(&block.created_at, row));
            }
            _ => {}
        }
    })?;
    facts.is_handed_over |= by_others;
    facts.first_response_secs = seconds(asked_at.flatten(), answered_at.flatten());
    Ok(())
}

/// The whole seconds from one time to another that is not before it.
fn seconds(from: Option<i64>, to: Option<i64>) -> Option<u32> {
    let micros = to?.checked_sub(from?)?;
    u32::try_from(u64::try_from(micros).ok()? / 1_000_000).ok()
}

/// Makes the columns of a batch.
type MakeBlock<B> = fn(&RecordBatch) -> Option<B>;

/// The columns of a batch.
trait Block {
    fn ids(&self) -> &StringArray;
}

/// Reads a file row by row.
struct RowCursor<B> {
    reader: SortedReader,
    of: MakeBlock<B>,
    block: Option<Arc<B>>,
    row: usize,
}

impl<B: Block> RowCursor<B> {
    /// The current row; `None` at the end.
    fn head(&self) -> Option<(Arc<B>, usize)> {
        Some((Arc::clone(self.block.as_ref()?), self.row))
    }

    fn advance(&mut self) -> Result<()> {
        self.row += 1;
        self.fill()
    }

    fn fill(&mut self) -> Result<()> {
        while self.block.as_ref().is_none_or(|block| self.row >= block.ids().len()) {
            self.row = 0;
            let Some(batch) = self.reader.next_batch()? else {
                self.block = None;
                return Ok(());
            };
            let missing = || Error::bug("a file was read without its columns");
            self.block = Some(Arc::new((self.of)(&batch).ok_or_else(missing)?));
        }
        Ok(())
    }

    /// Passes each row of the conversation `id` to `visit`, and skips those of ids before it.
    fn each_of(&mut self, id: &str, mut visit: impl FnMut(&B, usize)) -> Result<()> {
        while let Some((block, row)) = self.head().filter(|(block, row)| block.ids().value(*row) <= id) {
            if block.ids().value(row) == id {
                visit(&block, row);
            }
            self.advance()?;
        }
        Ok(())
    }
}

const CONVERSATIONS: &[&str] = &[
    column::CONVERSATION_ID,
    column::CREATED_AT,
    column::LAST_MESSAGE_AT,
    column::UNDEFLECTED,
    column::CSAT_RATING,
    column::CSAT,
    column::DESTINATION,
    column::MESSAGE_COUNT,
    column::DELETED_AT,
];

struct ConversationBlock {
    ids: StringArray,
    created_at: TimestampMicrosecondArray,
    last_message_at: TimestampMicrosecondArray,
    undeflected: BooleanArray,
    ratings: Int32Array,
    other_ratings: Int32Array,
    destinations: StringArray,
    messages: Int32Array,
    /// Older files have none.
    deleted_at: Option<TimestampMicrosecondArray>,
    summaries: Option<StringArray>,
}

impl Block for ConversationBlock {
    fn ids(&self) -> &StringArray {
        &self.ids
    }
}

impl ConversationBlock {
    fn of(batch: &RecordBatch) -> Option<Self> {
        Some(ConversationBlock {
            ids: texts(batch, column::CONVERSATION_ID)?.clone(),
            created_at: times(batch, column::CREATED_AT)?.clone(),
            last_message_at: times(batch, column::LAST_MESSAGE_AT)?.clone(),
            undeflected: batch.column_by_name(column::UNDEFLECTED)?.as_boolean_opt()?.clone(),
            ratings: ints(batch, column::CSAT_RATING)?.clone(),
            other_ratings: ints(batch, column::CSAT)?.clone(),
            destinations: texts(batch, column::DESTINATION)?.clone(),
            messages: ints(batch, column::MESSAGE_COUNT)?.clone(),
            deleted_at: times(batch, column::DELETED_AT).cloned(),
            summaries: texts(batch, column::SUMMARY).cloned(),
        })
    }

    fn facts(&self, row: usize) -> ConversationFacts {
        let created_at = micros(&self.created_at, row);
        let rating = |ratings: &Int32Array| ratings.is_valid(row).then(|| ratings.value(row));
        ConversationFacts {
            id: self.ids.value(row).to_owned(),
            created_at: created_at.and_then(from_micros),
            is_deflected: self.undeflected.is_valid(row).then(|| !self.undeflected.value(row)),
            rating: rating(&self.ratings).or_else(|| rating(&self.other_ratings)),
            is_handed_over: text(&self.destinations, row).is_some_and(|destination| destination != AI),
            messages: u64::try_from(self.messages.value(row)).unwrap_or(0),
            first_response_secs: None,
            duration_secs: seconds(created_at, micros(&self.last_message_at, row)),
            is_deleted: self.deleted_at.as_ref().is_some_and(|times| times.is_valid(row)),
            summary: self.summaries.as_ref().and_then(|summaries| text(summaries, row)).map(str::to_owned),
            tags: BTreeSet::new(),
        }
    }
}

const MESSAGES: &[&str] = &[column::CONVERSATION_ID, column::ROLE, column::CREATED_AT];

struct MessageBlock {
    ids: StringArray,
    roles: StringArray,
    created_at: TimestampMicrosecondArray,
}

impl Block for MessageBlock {
    fn ids(&self) -> &StringArray {
        &self.ids
    }
}

impl MessageBlock {
    fn of(batch: &RecordBatch) -> Option<Self> {
        Some(MessageBlock {
            ids: texts(batch, column::CONVERSATION_ID)?.clone(),
            roles: texts(batch, column::ROLE)?.clone(),
            created_at: times(batch, column::CREATED_AT)?.clone(),
        })
    }
}

const TAGS: &[&str] = &[column::CONVERSATION_ID, column::TAG_ID, column::NAME];

struct TagBlock {
    ids: StringArray,
    tag_ids: StringArray,
    names: StringArray,
}

impl Block for TagBlock {
    fn ids(&self) -> &StringArray {
        &self.ids
    }
}

impl TagBlock {
    fn of(batch: &RecordBatch) -> Option<Self> {
        Some(TagBlock {
            ids: texts(batch, column::CONVERSATION_ID)?.clone(),
            tag_ids: texts(batch, column::TAG_ID)?.clone(),
            names: texts(batch, column::NAME)?.clone(),
        })
    }

    fn name(&self, row: usize) -> Option<String> {
        text(&self.names, row).or_else(|| text(&self.tag_ids, row)).map(str::to_owned)
    }
}

fn text(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

fn micros(times: &TimestampMicrosecondArray, row: usize) -> Option<i64> {
    times.is_valid(row).then(|| times.value(row))
}
