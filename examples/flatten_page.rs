//! Uses the library without a lake: flattens a page of the export API from stdin into record batches.
//!
//! ```text
//! cargo run --release --example flatten_page < tests/vendor/example_response.json
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::io::Read;

use chrono::DateTime;
use decagon_lake::api::Page;
use decagon_lake::flatten::{Origin, flatten};
use decagon_lake::model::{LakeColumns, RunId, Table};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let page = Page::parse(body)?;
    let run_id = RunId::new(DateTime::UNIX_EPOCH, 0);
    let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
    let batch = flatten(page.conversations(), &LakeColumns::default(), &origin)?;
    for table in Table::ALL {
        println!("{:<14} {:>3} rows", table.name(), batch.tables.get(table).num_rows());
    }
    println!("next page at   {}", page.next().map_or("the end".to_owned(), ToString::to_string));
    Ok(())
}
