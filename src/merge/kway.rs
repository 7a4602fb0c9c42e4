//! The streaming k-way merge over the four tables together.
//!
//! Every input is sorted by `conversation_id`, then `_seq`, then the child's index. For one id after the other, all
//! copies are taken from all inputs, each with its child rows, and the newest is passed on whole. Memory is one batch
//! per input and table, plus the rows being gathered; the copies of one conversation have to fit.
//!
//! Promises: a copy's children are those with its `_run_id` and `_seq` in the same input. So an input whose tables are
//! of different age (a compaction that died between two of them) yields no mixture, as long as the input with the
//! newer copies is merged in again: of equal copies the one from the later input counts.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, Int64Array, RecordBatch, StringArray};

use super::gather::{Gather, Rows};
use super::version::{Version, changed_at, latest, time};
use crate::error::{Error, Result};
use crate::model::{PerTable, Table, big_ints, column, texts};

/// One input: copies of conversations with their children, each table sorted.
pub trait Copies {
    /// The next rows of `table`; `None` at its end.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>>;

    /// If it was staged by an increment: the time before its watermark that it asked for again, in microseconds. A
    /// conversation that changed then was to be there already.
    fn overlap(&self) -> Option<Range<i64>> {
        None
    }
}

/// What a merge read and passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Copies of conversations that were read.
    pub copies: u64,
    /// Copies that another one replaced; the same copy met twice is not counted.
    pub duplicates: u64,
    /// Rows that were passed on.
    pub rows: PerTable<u64>,
    /// Conversations that came late.
    pub late: Late,
}

/// Conversations that an increment was the first to see although they say that they changed before its watermark: the API
/// had published them later than others that changed later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub arrivals: u64,
    /// The longest time that one of them had changed before the watermark, in microseconds.
    pub longest_micros: i64,
}

impl Late {
    /// Adds `other`.
    pub fn add(&mut self, other: Late) {
        self.arrivals = self.arrivals.saturating_add(other.arrivals);
        self.longest_micros = self.longest_micros.max(other.longest_micros);
    }
}

/// Merges `inputs`, oldest first, and passes each conversation's newest copy to `emit`, in the order of the ids.
///
/// # Errors
/// What an input or `emit` failed with.
pub fn merge<C: Copies>(inputs: Vec<C>, mut emit: impl FnMut(Table, RecordBatch) -> Result<()>) -> Result<Merged> {
    let mut inputs = inputs.into_iter().map(Input::open).collect::<Result<Vec<_>>>()?;
    let mut output = PerTable::from_fn(Gather::new);
    let mut merged = Merged::default();
    while let Some(id) = inputs.iter().filter_map(Input::head).min().map(str::to_owned) {
        let (mut copies, mut overlaps) = (Vec::new(), Vec::new());
        for input in &mut inputs {
            while input.head() == Some(&id) {
                copies.push(input.take_copy(&id)?);
                overlaps.push(input.copies.overlap());
            }
        }
        merged.copies = merged.copies.saturating_add(u64::try_from(copies.len()).unwrap_or(u64::MAX));
        merged.late.add(late(&copies, &overlaps));
        let (newest, duplicates) = newest(copies)?;
        merged.duplicates = merged.duplicates.saturating_add(duplicates);
        for table in Table::ALL {
            let gather = output.get_mut(table);
            for rows in newest.rows.get(table) {
                gather.push(rows);
            }
            if gather.is_full() {
                hand_on(table, gather, &mut merged, &mut emit)?;
            }
        }
    }
    for table in Table::ALL {
        hand_on(table, output.get_mut(table), &mut merged, &mut emit)?;
    }
    Ok(merged)
}

fn hand_on(
    table: Table,
    gather: &mut Gather,
    merged: &mut Merged,
    emit: &mut impl FnMut(Table, RecordBatch) -> Result<()>,
) -> Result<()> {
    if let Some(batch) = gather.take()? {
        let rows = merged.rows.get_mut(table);
        *rows = rows.saturating_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX));
        emit(table, batch)?;
    }
    Ok(())
}

/// One copy.
struct InputRow {
    /// Where the conversation's row is.
    block: Arc<InputBlock>,
    row: usize,
    /// That row, and the runs of its children.
    rows: PerTable<Vec<Rows>>,
}

/// The newest of the copies, and how many others it replaces. A copy that is met twice, in a table and in the landing that it
/// came from, is one: of these the last counts.
fn newest(mut copies: Vec<InputRow>) -> Result<(InputRow, u64)> {
    let none = || Error::bug("no copy of a conversation that was there");
    if copies.len() == 1 {
        return copies.pop().map(|copy| (copy, 0)).ok_or_else(none);
    }
    let versions: Vec<_> = copies.iter().map(version).collect();
    let newest = latest(&versions).ok_or_else(none)?;
    let mut commits: Vec<_> = versions.iter().map(Version::commit).collect();
    commits.sort_unstable();
    commits.dedup();
    let replaced = u64::try_from(commits.len().saturating_sub(1)).unwrap_or(u64::MAX);
    Ok((copies.swap_remove(newest), replaced))
}

/// Whether the conversation of `copies` came late: the first of them in the order of commits was staged by an increment. Only
/// its `updated_at` tells: other times may be long past when the API shows a conversation for the first time.
fn late(copies: &[InputRow], overlaps: &[Option<Range<i64>>]) -> Late {
    let mut first: Option<(Version<'_>, &InputRow, Option<&Range<i64>>)> = None;
    if overlaps.iter().any(Option::is_some) {
        for (copy, overlap) in copies.iter().zip(overlaps) {
            let version = version(copy);
            // What is in a table as well was there before.
            if first.as_ref().is_none_or(|(known, _, of_known)| {
                (version.commit(), overlap.is_some()) < (known.commit(), of_known.is_some())
            }) {
                first = Some((version, copy, overlap.as_ref()));
            }
        }
    }
    let Some((_, copy, Some(overlap))) = first.filter(|(version, ..)| !version.is_ahead()) else {
        return Late::default();
    };
    match time(&copy.block.batch, column::UPDATED_AT, copy.row).filter(|updated_at| overlap.contains(updated_at)) {
        Some(updated_at) => Late { arrivals: 1, longest_micros: overlap.end.saturating_sub(updated_at) },
        None => Late::default(),
    }
}

fn version(copy: &InputRow) -> Version<'_> {
    let InputRow { block, row, rows } = copy;
    let children = [Table::Messages, Table::AuditLogs].into_iter().flat_map(|table| rows.get(table));
    let children = children.map(|rows| (rows.batch.as_ref(), rows.range.clone()));
    Version {
        changed_at: changed_at(&block.batch, *row, children),
        exported_at: time(&block.batch, column::EXPORTED_AT, *row),
        run_id: block.runs.value(*row),
        seq: block.seqs.value(*row),
    }
}

/// One input and where the merge stands in each of its tables.
struct Input<C> {
    copies: C,
    streams: PerTable<Stream>,
}

impl<C: Copies> Input<C> {
    fn open(copies: C) -> Result<Self> {
        let mut input = Input { copies, streams: PerTable::from_fn(|_| Stream::default()) };
        input.streams.get_mut(Table::Conversations).fill(Table::Conversations, &mut input.copies)?;
        Ok(input)
    }

    /// The id of the next copy.
    fn head(&self) -> Option<&str> {
        self.streams.get(Table::Conversations).block.as_ref().map(|block| block.ids.value(self.row()))
    }

    fn row(&self) -> usize {
        self.streams.get(Table::Conversations).row
    }

    /// Takes the next copy, which is one of the conversation `id`.
    fn take_copy(&mut self, id: &str) -> Result<InputRow> {
        let stream = self.streams.get_mut(Table::Conversations);
        let Some(block) = stream.block.clone() else { return Err(Error::bug("an input ended within a conversation")) };
        let row = stream.row;
        stream.row += 1;
        stream.fill(Table::Conversations, &mut self.copies)?;

        let owner = Owner { id, seq: block.seqs.value(row), run: block.runs.value(row) };
        let mut rows = PerTable::default();
        for table in Table::CHILDREN {
            *rows.get_mut(table) = self.streams.get_mut(table).take_children(table, &mut self.copies, &owner)?;
        }
        *rows.get_mut(Table::Conversations) = vec![Rows { batch: Arc::clone(&block.batch), range: row..row + 1 }];
        Ok(InputRow { block, row, rows })
    }
}

/// What a child row must say to belong to a copy.
struct Owner<'a> {
    id: &'a str,
    seq: i64,
    run: &'a str,
}

/// One table of one input.
#[derive(Default)]
struct Stream {
    block: Option<Arc<InputBlock>>,
    row: usize,
    ended: bool,
}

/// A batch with the columns that the merge looks at.
struct InputBlock {
    batch: Arc<RecordBatch>,
    ids: StringArray,
    seqs: Int64Array,
    runs: StringArray,
}

impl Stream {
    /// Makes sure that `row` is a row of `block`, or that `block` is none at the end.
    fn fill(&mut self, table: Table, copies: &mut impl Copies) -> Result<()> {
        while !self.ended && self.block.as_ref().is_none_or(|block| self.row >= block.ids.len()) {
            self.row = 0;
            self.block = copies.next(table)?.map(|batch| InputBlock::new(table, batch).map(Arc::new)).transpose()?;
            self.ended = self.block.is_none();
        }
        Ok(())
    }

    /// Takes the rows of `owner`, and passes over rows that belong to no copy before it.
    fn take_children(&mut self, table: Table, copies: &mut impl Copies, owner: &Owner<'_>) -> Result<Vec<Rows>> {
        let mut taken: Vec<Rows> = Vec::new();
        loop {
            self.fill(table, copies)?;
            let Some(block) = &self.block else { return Ok(taken) };
            let place = |row: usize| (block.ids.value(row), block.seqs.value(row)).cmp(&(owner.id, owner.seq));
            while self.row < block.ids.len() && place(self.row).is_lt() {
                self.row += 1;
            }
            let start = self.row;
            while self.row < block.ids.len() && place(self.row).is_eq() {
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
        let missing = |name: &str| Error::integrity(format!("a file of {} has no usable column {name}", table.name()));
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
