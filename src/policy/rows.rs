//! Applies a policy to rows of a table that landed before it.
//!
//! Guarantees: the cells that no rule covers stay the same. Must not depend on: files.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow_schema::Schema;

use super::apply::Masker;
use super::tree::{MaskAction, NodeId};
use crate::error::{Error, Result};
use crate::model::{Column, ColumnKind, ColumnSource, Table, TableColumns, column, texts};

impl Masker {
    /// Masks rows of a table. If `metadata` may have changed, the columns of its keys are left out: they have to be
    /// filled again.
    ///
    /// # Errors
    /// Kind `Integrity` if a cell is not JSON as this program writes it.
    pub fn rows(&self, columns: &TableColumns, rows: &RecordBatch) -> Result<RecordBatch> {
        let table = columns.table();
        let path: &[&str] = if table == Table::Conversations { &[] } else { &[table.name()] };
        let Some(object) = self.tree.at(path) else { return Ok(rows.clone()) };
        let metadata = self.tree.child(object, column::METADATA).filter(|_| table == Table::Conversations);
        let (mut fields, mut masked) = (Vec::new(), Vec::new());
        for (field, cells) in rows.schema().fields().iter().zip(rows.columns()) {
            let column = columns.columns().iter().find(|column| column.name == *field.name());
            let cells = match column.map(|column| (column, &column.source)) {
                Some((_, ColumnSource::Metadata(_))) if metadata.is_some() => continue,
                Some((column, ColumnSource::Field(name))) => match self.tree.child(object, name) {
                    Some(node) => self.cells(node, column, rows, cells)?,
                    None => Arc::clone(cells),
                },
                // An element that is no object is kept whole.
                Some((_, ColumnSource::Extra)) => {
                    self.json_cells(object, table != Table::Conversations, texts_of(rows, field.name())?)?
                }
                _ => Arc::clone(cells),
            };
            fields.push(Arc::clone(field));
            masked.push(cells);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), masked)?)
    }

    /// Masks the cells of a field's column.
    fn cells(&self, node: NodeId, column: &Column, rows: &RecordBatch, cells: &ArrayRef) -> Result<ArrayRef> {
        let missing = || Error::bug("a node of a policy is missing");
        let node_of = self.tree.node(node).ok_or_else(missing)?;
        match column.kind {
            ColumnKind::Json => self.json_cells(node, false, texts_of(rows, &column.name)?),
            ColumnKind::Text | ColumnKind::Id => {
                let found = texts_of(rows, &column.name)?;
                let mut masked = StringBuilder::with_capacity(found.len(), found.value_data().len());
                for text in found {
                    masked.append_option(text.and_then(|text| self.column_text(&node_of.scalar, text)));
                }
                Ok(Arc::new(masked.finish()))
            }
            // A hash is no number.
            ColumnKind::Int | ColumnKind::BigInt | ColumnKind::Double | ColumnKind::Bool => match node_of.scalar {
                MaskAction::Drop | MaskAction::Hash => Ok(new_null_array(cells.data_type(), cells.len())),
                MaskAction::Keep | MaskAction::Text(_) => Ok(Arc::clone(cells)),
            },
            ColumnKind::Time => Ok(Arc::clone(cells)),
        }
    }

    fn json_cells(&self, node: NodeId, in_array: bool, found: &StringArray) -> Result<ArrayRef> {
        let mut masked = StringBuilder::with_capacity(found.len(), found.value_data().len());
        for text in found {
            let cell = match text {
                None => None,
                Some(text) => {
                    let cell = self.value(node, in_array, text);
                    Some(cell.ok_or_else(|| Error::integrity("a value that a policy covers is not JSON"))?)
                }
            };
            // A JSON column has no null inside JSON.
            masked.append_option(cell.filter(|cell| cell != "null" || text == Some("null")));
        }
        Ok(Arc::new(masked.finish()))
    }
}

fn texts_of<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    texts(rows, name).ok_or_else(|| Error::bug(format!("rows lack the column {name}")))
}
