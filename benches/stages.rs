//! Measures the stages without I/O, in bytes of the API's JSON per second: `cargo bench`.
//!
//! One page of the simulator's conversations goes through each stage on one thread: `parse` splits it into raw
//! conversations, `flatten_rows` turns them into rows, `encode` writes the Parquet files of the four tables, and
//! `merge_two` merges two versions of every conversation. `benches/compare` measures whole runs and compares other
//! tools.

#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::collections::VecDeque;
use std::error::Error;
use std::hint::black_box;

use arrow_array::RecordBatch;
use chrono::{DateTime, TimeZone, Utc};
use decagon_lake::api::Page;
use decagon_lake::clock::Clock;
use decagon_lake::error::Result;
use decagon_lake::files::{self, WrittenFor};
use decagon_lake::flatten::{Batch, Origin, flatten};
use decagon_lake::merge::{MergeInput, merge};
use decagon_lake::model::{LakeColumns, PerTable, RunId, Table};
use decagon_lake::simulate::{Settings, Simulator, World, WorldSettings};
use divan::Bencher;
use divan::counter::BytesCount;

/// A page of one day of a busy account.
const CONVERSATIONS: u32 = 2_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn parse(bencher: Bencher) {
    let body = body();
    bencher.counter(BytesCount::new(body.len())).with_inputs(|| body.clone()).bench_local_values(Page::parse);
}

#[divan::bench]
fn flatten_rows(bencher: Bencher) {
    let page = page();
    bencher.counter(BytesCount::new(page.bytes())).bench_local(|| rows(black_box(&page), 1));
}

#[divan::bench(args = [WrittenFor::Table, WrittenFor::Staging])]
fn encode(bencher: Bencher, written_for: WrittenFor) {
    let page = page();
    let (batch, columns) = (rows(&page, 1), LakeColumns::default());
    bencher.counter(BytesCount::new(page.bytes())).bench_local(|| {
        Table::ALL.map(|table| {
            files::encode(columns.of(table), written_for, std::slice::from_ref(batch.tables.get(table).as_ref()), &[])
        })
    });
}

/// Both inputs count, so the page counts twice.
#[divan::bench]
fn merge_two(bencher: Bencher) {
    let page = page();
    let inputs = [rows(&page, 1), rows(&page, 2)];
    bencher
        .counter(BytesCount::new(2 * page.bytes()))
        .with_inputs(|| inputs.iter().map(Pieces::of).collect::<Vec<_>>())
        .bench_local_values(|inputs| {
            merge(inputs, |_, batch| {
                black_box(batch);
                Ok(())
            })
        });
}

/// The rows of a batch in pieces, as a file's reader returns them.
struct Pieces(PerTable<VecDeque<RecordBatch>>);

impl Pieces {
    fn of(batch: &Batch) -> Self {
        const ROWS: usize = 4_096;
        Pieces(PerTable::from_fn(|table| {
            let rows = batch.tables.get(table);
            let starts = (0..rows.num_rows()).step_by(ROWS);
            starts.map(|start| rows.slice(start, ROWS.min(rows.num_rows() - start))).collect()
        }))
    }
}

impl MergeInput for Pieces {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        Ok(self.0.get_mut(table).pop_front())
    }
}

fn rows(page: &Page, run: u32) -> Batch {
    let run_id = RunId::new(DateTime::UNIX_EPOCH, run);
    let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
    flatten(page.conversations(), &LakeColumns::default(), &origin)
        .expect("the simulator's conversations can be flattened")
}

fn page() -> Page {
    Page::parse(body()).expect("the simulator's conversations make a page")
}

/// Returns a response with the conversations of the simulated day, in the order of their ids as the merge needs them.
fn body() -> Vec<u8> {
    let mut conversations = simulated().expect("the simulator listens on loopback");
    conversations.sort_unstable();
    format!(r#"{{"conversations":[{}],"next_page_cursor":"1704067200"}}"#, conversations.join(",")).into_bytes()
}

fn simulated() -> std::result::Result<Vec<String>, Box<dyn Error>> {
    let now = Utc.timestamp_opt(1_717_200_000, 0).single().ok_or("no such time")?;
    let world = World::new(WorldSettings { seed: 1, conversations: CONVERSATIONS, days: 1, messages: 10, now });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let simulator = runtime.block_on(Simulator::bind(world, Settings::without_limits("key"), Clock::system()))?;
    Ok(simulator.time().conversations().map(|line| line.trim_end().to_owned()).collect())
}
