//! Reads the rows of one file in turn, with the columns that the checks need. All columns are decoded.

use arrow_array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::files::{FoundFile, SortedReader};
use crate::lake::Lake;
use crate::model::{LakeColumns, Table, big_ints, column, ints, texts, times};

/// A file being read.
pub(super) struct CheckedRows {
    table: Table,
    pub(super) key: Path,
    reader: SortedReader,
    block: Option<RowBlock>,
    row: usize,
    /// How many rows were read.
    pub(super) read: u64,
}

/// The columns of one batch.
struct RowBlock {
    rows: usize,
    ids: StringArray,
    runs: StringArray,
    seqs: Int64Array,
    /// The index of a child row, or the `message_count` of a conversation.
    numbers: Int32Array,
    /// `created_at`, of a conversation.
    created_at: Option<TimestampMicrosecondArray>,
    /// `updated_at`, of a conversation.
    updated_at: Option<TimestampMicrosecondArray>,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    /// The version that it belongs to, as its `_run_id` and `_seq`.
    pub(super) version: (&'a str, i64),
    /// The index of a child row, or the `message_count` of a conversation.
    pub(super) number: i32,
    /// `created_at`, of a conversation.
    pub(super) created_at: Option<i64>,
    /// `updated_at`, of a conversation.
    pub(super) updated_at: Option<i64>,
}

impl CheckedRows {
    /// Opens a file of `table`.
    ///
    /// # Errors
    /// Kind `Integrity` if it is no file of `table`, kind `Held` if it was replaced meanwhile.
    pub(super) fn open(
        lake: &Lake,
        columns: &LakeColumns,
        table: Table,
        file: &FoundFile,
        runtime: &Handle,
    ) -> Result<Self> {
        let reader = SortedReader::open(lake.store(), columns.of(table), file, None, runtime)?;
        let mut rows = CheckedRows { table, key: file.object().location.clone(), reader, block: None, row: 0, read: 0 };
        rows.fill()?;
        Ok(rows)
    }

    /// Whether the rows were not sorted in the file.
    pub(super) fn are_sorted_here(&self) -> bool {
        self.reader.sorts()
    }

    /// The table of the rows.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// Reads the remaining rows.
    ///
    /// # Errors
    /// Kind `Integrity` if the file is damaged.
    pub(super) fn drain(&mut self) -> Result<()> {
        while self.head().is_some() {
            self.advance()?;
        }
        Ok(())
    }

    /// The current row; `None` at the end.
    pub(super) fn head(&self) -> Option<Row<'_>> {
        let RowBlock { ids, runs, seqs, numbers, created_at, updated_at, .. } = self.block.as_ref()?;
        let row = self.row;
        let time = |times: &Option<TimestampMicrosecondArray>| {
            times.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row))
        };
        Some(Row {
            id: ids.value(row),
            version: (runs.value(row), seqs.value(row)),
            number: numbers.value(row),
            created_at: time(created_at),
            updated_at: time(updated_at),
        })
    }

    /// Moves to the next row.
    ///
    /// # Errors
    /// Kind `Integrity` if the file is damaged.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.row += 1;
        self.read += 1;
        self.fill()
    }

    fn fill(&mut self) -> Result<()> {
        while self.block.as_ref().is_none_or(|block| self.row >= block.rows) {
            self.row = 0;
            let Some(batch) = self.reader.next_batch()? else {
                self.block = None;
                return Ok(());
            };
            self.block = Some(RowBlock::of(self.table, &batch)?);
        }
        Ok(())
    }
}

impl RowBlock {
    fn of(table: Table, batch: &RecordBatch) -> Result<Self> {
        let missing = || Error::bug(format!("a file of {} lacks columns although they were checked", table.name()));
        let number = table.index_column().unwrap_or(column::MESSAGE_COUNT);
        let of_conversations = |name| times(batch, name).filter(|_| table == Table::Conversations).cloned();
        Ok(RowBlock {
            rows: batch.num_rows(),
            ids: texts(batch, column::CONVERSATION_ID).ok_or_else(missing)?.clone(),
            runs: texts(batch, column::RUN_ID).ok_or_else(missing)?.clone(),
            seqs: big_ints(batch, column::SEQ).ok_or_else(missing)?.clone(),
            numbers: ints(batch, number).ok_or_else(missing)?.clone(),
            created_at: of_conversations(column::CREATED_AT),
            updated_at: of_conversations(column::UPDATED_AT),
        })
    }
}
