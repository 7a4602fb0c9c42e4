//! Collects runs of rows from many record batches into new ones, copying each value once.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, make_array};
use arrow_data::transform::MutableArrayData;

use crate::error::Result;
use crate::model::Table;

/// The fewest rows, or bytes, that make it worth handing a batch on.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 8 << 20;

/// A run of rows of one batch.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Where the rows are.
    pub batch: Arc<RecordBatch>,
    /// Which they are.
    pub range: Range<usize>,
}

/// Rows of one table, gathered until there are enough for a record batch.
#[derive(Debug)]
pub struct Gather {
    table: Table,
    /// The batches, and how many bytes a row of each takes, about.
    batches: Vec<(Arc<RecordBatch>, usize)>,
    /// Runs of rows: the batch's position in `batches`, and the range.
    runs: Vec<(usize, Range<usize>)>,
    rows: usize,
    bytes: usize,
}

impl Gather {
    /// Gathers rows of `table`.
    pub fn new(table: Table) -> Self {
        Gather { table, batches: Vec::new(), runs: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Adds a run of rows.
    pub fn push(&mut self, rows: &Rows) {
        let Rows { batch, range } = rows;
        if range.is_empty() {
            return;
        }
        let known = self.batches.iter().enumerate().rfind(|(_, (known, _))| Arc::ptr_eq(known, batch));
        let (position, row_bytes) =
            known.map(|(position, (_, row_bytes))| (position, *row_bytes)).unwrap_or_else(|| {
                let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
                self.batches.push((Arc::clone(batch), row_bytes));
                (self.batches.len() - 1, row_bytes)
            });
        match self.runs.last_mut() {
            Some((last, run)) if *last == position && run.end == range.start => run.end = range.end,
            _ => self.runs.push((position, range.clone())),
        }
        self.rows += range.len();
        self.bytes = self.bytes.saturating_add(row_bytes.saturating_mul(range.len()));
    }

    /// Whether there are enough rows for a batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// The rows gathered so far as one batch; `None` where there are none.
    ///
    /// # Errors
    /// Where the batches are not of the table's schema, which is a bug.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        let (batches, runs) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.runs));
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if let ([(batch, _)], [(_, range)]) = (batches.as_slice(), runs.as_slice()) {
            return Ok(Some(batch.slice(range.start, range.len())));
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns = (0..self.table.columns().len())
            .map(|column| gather_column(&batches, column, &runs, rows))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(RecordBatch::try_new(self.table.schema(), columns)?))
    }
}

fn gather_column(
    batches: &[(Arc<RecordBatch>, usize)],
    column: usize,
    runs: &[(usize, Range<usize>)],
    rows: usize,
) -> Result<ArrayRef> {
    let sources: Vec<_> = batches.iter().map(|(batch, _)| batch.column(column).to_data()).collect();
    let mut target = MutableArrayData::try_new(sources.iter().collect(), false, rows)?;
    for (source, range) in runs {
        target.try_extend(*source, range.start, range.end)?;
    }
    Ok(make_array(target.freeze()))
}
