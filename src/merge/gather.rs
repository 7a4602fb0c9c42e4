//! Gathers ranges of rows from many record batches into new batches, copying each value once.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, make_array};
use arrow_data::transform::MutableArrayData;
use arrow_schema::Schema;

use crate::error::Result;

/// A batch is full at this many rows, or bytes.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 8 << 20;

/// A range of rows of one batch.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The batch.
    pub batch: Arc<RecordBatch>,
    /// The rows of the batch.
    pub range: Range<usize>,
}

/// Gathers rows of one table, all with the same columns, until there are enough for a record batch.
#[derive(Debug, Default)]
pub struct Gather {
    /// The batches, and about how many bytes a row of each takes.
    batches: Vec<(Arc<RecordBatch>, usize)>,
    /// The position of each range's batch in `batches`, and the range.
    ranges: Vec<(usize, Range<usize>)>,
    rows: usize,
    bytes: usize,
}

impl Gather {
    /// Adds a range of rows.
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
        match self.ranges.last_mut() {
            Some((last, previous)) if *last == position && previous.end == range.start => previous.end = range.end,
            _ => self.ranges.push((position, range.clone())),
        }
        self.rows += range.len();
        self.bytes += row_bytes * range.len();
    }

    /// Whether there are enough rows for a batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Returns the rows gathered so far as one batch; `None` if there are none.
    ///
    /// # Errors
    /// Only on a bug: if the batches do not have the same columns.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        let (batches, ranges) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.ranges));
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if let ([(batch, _)], [(_, range)]) = (batches.as_slice(), ranges.as_slice()) {
            return Ok(Some(batch.slice(range.start, range.len())));
        }
        if rows == 0 {
            return Ok(None);
        }
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |(batch, _)| batch.schema());
        let columns = (0..schema.fields().len())
            .map(|column| gather_column(&batches, column, &ranges, rows))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}

fn gather_column(
    batches: &[(Arc<RecordBatch>, usize)],
    column: usize,
    ranges: &[(usize, Range<usize>)],
    rows: usize,
) -> Result<ArrayRef> {
    let sources: Vec<_> = batches.iter().map(|(batch, _)| batch.column(column).to_data()).collect();
    let mut target = MutableArrayData::try_new(sources.iter().collect(), false, rows)?;
    for (source, range) in ranges {
        target.try_extend(*source, range.start, range.end)?;
    }
    Ok(make_array(target.freeze()))
}
