//! The streaming k-way merge of the four tables.
//!
//! Every input is sorted by `conversation_id`, then `_seq`, then the child's index. For each id in order, the merge
//! takes all versions from all inputs, each with its child rows, and passes on the latest. Memory is bounded by one
//! batch per input and table, the rows being gathered, and the versions of one conversation.
//!
//! Guarantees: versions never mix, because a version's children are the rows with its `_run_id` and `_seq` in the same
//! input. That holds even if a compaction died between two tables of an input, as long as the input with the newer
//! versions is merged again: of two equal versions, the one from the later input counts.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, Int64Array, RecordBatch, StringArray};

use super::gather::{Gather, Rows};
use super::version::{Version, changed_at, latest, time};
use crate::error::{Error, Result};
use crate::model::{PerTable, Table, big_ints, column, texts};

/// An input: versions of conversations with their children, each table sorted.
pub trait MergeInput {
    /// Returns the next rows of `table`; `None` at its end.
    ///
    /// # Errors
    /// If they cannot be read.
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>>;

    /// If an increment staged it: the time before the watermark that the increment fetched again, in microseconds. A
    /// conversation that changed then should have come earlier.
    fn overlap(&self) -> Option<Range<i64>> {
        None
    }
}

/// The result of a merge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Versions read.
    pub versions: u64,
    /// Versions replaced by another one; a version that occurs twice is not counted.
    pub duplicates: u64,
    /// Rows passed on.
    pub rows: PerTable<u64>,
    /// Conversations that came late.
    pub late: Late,
}

/// Conversations that an increment was the first to return, although they changed before its watermark: the API
/// published them later than newer changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Late {
    /// The number of these conversations.
    pub arrivals: u64,
    /// The longest time between such a change and the watermark, in microseconds.
    pub longest_micros: i64,
}

impl Late {
    /// Adds `other`.
    pub fn add(&mut self, other: Late) {
        self.arrivals = self.arrivals.saturating_add(other.arrivals);
        self.longest_micros = self.longest_micros.max(other.longest_micros);
    }
}

/// Merges `inputs`, oldest first, and passes each conversation's latest version to `emit`, in the order of the ids.
///
/// # Errors
/// Those of the inputs and of `emit`.
pub fn merge<I: MergeInput>(inputs: Vec<I>, mut emit: impl FnMut(Table, RecordBatch) -> Result<()>) -> Result<Merged> {
    let mut inputs = inputs.into_iter().map(OpenInput::open).collect::<Result<Vec<_>>>()?;
    let mut output = PerTable::from_fn(|_| Gather::default());
    let mut merged = Merged::default();
    while let Some(id) = inputs.iter().filter_map(OpenInput::head).min().map(str::to_owned) {
        let (mut versions, mut overlaps) = (Vec::new(), Vec::new());
        for input in &mut inputs {
            while input.head() == Some(&id) {
                versions.push(input.take_version(&id)?);
                overlaps.push(input.input.overlap());
            }
        }
        merged.versions += versions.len() as u64;
        merged.late.add(late(&versions, &overlaps));
        let (latest, duplicates) = take_latest(versions)?;
        merged.duplicates += duplicates;
        for table in Table::ALL {
            let gather = output.get_mut(table);
            for rows in latest.rows.get(table) {
                gather.push(rows);
            }
            if gather.is_full() {
                pass_on(table, gather, &mut merged, &mut emit)?;
            }
        }
    }
    for table in Table::ALL {
        pass_on(table, output.get_mut(table), &mut merged, &mut emit)?;
    }
    Ok(merged)
}

fn pass_on(
    table: Table,
    gather: &mut Gather,
    merged: &mut Merged,
    emit: &mut impl FnMut(Table, RecordBatch) -> Result<()>,
) -> Result<()> {
    if let Some(batch) = gather.take()? {
        *merged.rows.get_mut(table) += batch.num_rows() as u64;
        emit(table, batch)?;
    }
    Ok(())
}

/// A version in an input.
struct InputVersion {
    /// Where the conversation's row is.
    block: Arc<InputBlock>,
    row: usize,
    /// That row, and the rows of its children.
    rows: PerTable<Vec<Rows>>,
}

impl InputVersion {
    fn version(&self) -> Version<'_> {
        let InputVersion { block, row, rows } = self;
        let children = [Table::Messages, Table::AuditLogs].into_iter().flat_map(|table| rows.get(table));
        let children = children.map(|rows| (rows.batch.as_ref(), rows.range.clone()));
        Version {
            changed_at: changed_at(&block.batch, *row, children),
            exported_at: time(&block.batch, column::EXPORTED_AT, *row),
            run_id: block.runs.value(*row),
            seq: block.seqs.value(*row),
        }
    }
}

/// Takes the latest of `versions`, and counts the others that it replaces. A version that occurs twice, in a table and
/// in its staged file, counts once, and its last occurrence is taken.
fn take_latest(mut versions: Vec<InputVersion>) -> Result<(InputVersion, u64)> {
    let none = || Error::bug("a conversation in an input has no version");
    if versions.len() == 1 {
        return versions.pop().map(|only| (only, 0)).ok_or_else(none);
    }
    let compared: Vec<_> = versions.iter().map(InputVersion::version).collect();
    let latest = latest(&compared).ok_or_else(none)?;
    let mut commits: Vec<_> = compared.iter().map(Version::commit).collect();
    commits.sort_unstable();
    commits.dedup();
    let replaced = commits.len().saturating_sub(1) as u64;
    Ok((versions.swap_remove(latest), replaced))
}

/// Whether the conversation of `versions` came late: an increment staged the first of them in the order of commits.
/// Only `updated_at` counts, because other times may be long past when the API first returns a conversation.
fn late(versions: &[InputVersion], overlaps: &[Option<Range<i64>>]) -> Late {
    let mut first: Option<(Version<'_>, &InputVersion, Option<&Range<i64>>)> = None;
    if overlaps.iter().any(Option::is_some) {
        for (candidate, overlap) in versions.iter().zip(overlaps) {
            let version = candidate.version();
            // A version that is also in a table is not new.
            if first.as_ref().is_none_or(|(known, _, of_known)| {
                (version.commit(), overlap.is_some()) < (known.commit(), of_known.is_some())
            }) {
                first = Some((version, candidate, overlap.as_ref()));
            }
        }
    }
    let Some((_, first, Some(overlap))) = first.filter(|(version, ..)| !version.is_ahead()) else {
        return Late::default();
    };
    match time(&first.block.batch, column::UPDATED_AT, first.row).filter(|updated_at| overlap.contains(updated_at)) {
        Some(updated_at) => Late { arrivals: 1, longest_micros: overlap.end.saturating_sub(updated_at) },
        None => Late::default(),
    }
}

/// An input, and the merge's position in each of its tables.
struct OpenInput<I> {
    input: I,
    streams: PerTable<Stream>,
}

impl<I: MergeInput> OpenInput<I> {
    fn open(input: I) -> Result<Self> {
        let mut open = OpenInput { input, streams: PerTable::from_fn(|_| Stream::default()) };
        open.streams.get_mut(Table::Conversations).fill(Table::Conversations, &mut open.input)?;
        Ok(open)
    }

    /// The id of the next version.
    fn head(&self) -> Option<&str> {
        self.streams.get(Table::Conversations).block.as_ref().map(|block| block.ids.value(self.row()))
    }

    fn row(&self) -> usize {
        self.streams.get(Table::Conversations).row
    }

    /// Takes the next version, which is one of the conversation `id`.
    fn take_version(&mut self, id: &str) -> Result<InputVersion> {
        let stream = self.streams.get_mut(Table::Conversations);
        let Some(block) = stream.block.clone() else { return Err(Error::bug("an input ended within a conversation")) };
        let row = stream.row;
        stream.row += 1;
        stream.fill(Table::Conversations, &mut self.input)?;

        let owner = Owner { id, seq: block.seqs.value(row), run: block.runs.value(row) };
        let mut rows = PerTable::default();
        for table in Table::CHILDREN {
            *rows.get_mut(table) = self.streams.get_mut(table).take_children(table, &mut self.input, &owner)?;
        }
        *rows.get_mut(Table::Conversations) = vec![Rows { batch: Arc::clone(&block.batch), range: row..row + 1 }];
        Ok(InputVersion { block, row, rows })
    }
}

/// The values that a child row must have to belong to a version.
struct Owner<'a> {
    id: &'a str,
    seq: i64,
    run: &'a str,
}

/// A table of an input.
#[derive(Default)]
struct Stream {
    block: Option<Arc<InputBlock>>,
    row: usize,
    ended: bool,
}

/// A batch with the columns that the merge reads.
struct InputBlock {
    batch: Arc<RecordBatch>,
    ids: StringArray,
    seqs: Int64Array,
    runs: StringArray,
}

impl Stream {
    /// Reads on until `row` is a row of `block`, or `block` is none at the end.
    fn fill(&mut self, table: Table, input: &mut impl MergeInput) -> Result<()> {
        while !self.ended && self.block.as_ref().is_none_or(|block| self.row >= block.ids.len()) {
            self.row = 0;
            self.block = input.next(table)?.map(|batch| InputBlock::new(table, batch).map(Arc::new)).transpose()?;
            self.ended = self.block.is_none();
        }
        Ok(())
    }

    /// Takes the rows of `owner`, and skips earlier rows that belong to no version.
    fn take_children(&mut self, table: Table, input: &mut impl MergeInput, owner: &Owner<'_>) -> Result<Vec<Rows>> {
        let mut taken: Vec<Rows> = Vec::new();
        loop {
            self.fill(table, input)?;
            let Some(block) = &self.block else { return Ok(taken) };
            let order = |row: usize| (block.ids.value(row), block.seqs.value(row)).cmp(&(owner.id, owner.seq));
            while self.row < block.ids.len() && order(self.row).is_lt() {
                self.row += 1;
            }
            let start = self.row;
            while self.row < block.ids.len() && order(self.row).is_eq() {
                self.row += 1;
            }
            if start < self.row && block.runs.value(start) == owner.run {
                taken.push(Rows { batch: Arc::clone(&block.batch), range: start..self.row });
            }
            if self.row < block.ids.len() {
                return Ok(taken);
            }
        }
    }
}

impl InputBlock {
    fn new(table: Table, batch: RecordBatch) -> Result<Self> {
        let missing = |name: &str| Error::integrity(format!("a file of {} lacks a usable column {name}", table.name()));
        let text = |name: &str| texts(&batch, name).cloned().ok_or_else(|| missing(name));
        Ok(InputBlock {
            ids: text(column::CONVERSATION_ID)?,
            runs: text(column::RUN_ID)?,
            seqs: big_ints(&batch, column::SEQ).cloned().ok_or_else(|| missing(column::SEQ))?,
            batch: Arc::new(batch),
        })
    }
}

#[cfg(test)]
mod tests;
