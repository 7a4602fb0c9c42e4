//! The merge against the obvious: sort all copies of an id and keep the last.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::flatten::{Batch, Origin, flatten};
use crate::model::RunId;

/// When run `run` fetches, in seconds of the test's day: some copies say that they changed later than that.
fn fetched(run: usize) -> u8 {
    u8::try_from(12 + run).unwrap()
}

/// A copy as the test states it.
#[derive(Debug, Clone)]
struct Stated {
    id: u8,
    updated_at: Option<u8>,
    messages: u8,
}

fn at(secs: u8) -> String {
    format!("2024-01-01T00:{:02}:{:02}Z", secs / 60, secs % 60)
}

/// A message's time where there is no `updated_at`: the more messages, the later the newest.
fn json_of(copy: &Stated) -> String {
    let messages: Vec<_> =
        (0..copy.messages).map(|i| json!({"role": "USER", "text": format!("m{i}"), "created_at": at(i)})).collect();
    let logs = vec![json!({"text": "log"}); usize::from(copy.messages % 3)];
    json!({
        "conversation_id": format!("c{:03}", copy.id),
        "updated_at": copy.updated_at.map(at),
        "messages": messages,
        "audit_logs": logs,
    })
    .to_string()
}

/// An input that hands out its rows in small pieces.
struct Pieces(PerTable<VecDeque<RecordBatch>>);

impl Copies for Pieces {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        Ok(self.0.get_mut(table).pop_front())
    }
}

/// Makes an input of run `run`, sorted as landing is, in pieces of `size` rows.
fn input(run: usize, copies: &[Stated], size: usize) -> Pieces {
    let mut sorted: Vec<&Stated> = copies.iter().collect();
    sorted.sort_by_key(|copy| copy.id);
    let texts: Vec<String> = sorted.iter().map(|copy| json_of(copy)).collect();
    let run_id = RunId::new(DateTime::UNIX_EPOCH, run.try_into().unwrap());
    let exported_at = DateTime::from_timestamp(1_704_067_200 + i64::from(fetched(run)), 0).unwrap();
    let batch: Batch =
        flatten(texts.iter().map(String::as_str), &Origin { run_id: &run_id, exported_at, first_seq: 0 }).unwrap();
    Pieces(PerTable::from_fn(|table| {
        let rows = batch.tables.get(table);
        (0..rows.num_rows()).step_by(size).map(|at| rows.slice(at, size.min(rows.num_rows() - at))).collect()
    }))
}

/// What came out: for each id its run and seq, and for each child table the (run, seq, index) of its rows.
type Merges = BTreeMap<String, (String, i64, PerTable<Vec<(String, i64, i32)>>)>;

fn run(inputs: Vec<Pieces>) -> (Merges, Merged) {
    let mut seen = Merges::new();
    let mut children = Vec::new();
    let mut last_id = String::new();
    let merged = merge(inputs, |table, batch| {
        let block = InputBlock::new(table, batch).unwrap();
        for row in 0..block.ids.len() {
            let (id, key) =
                (block.ids.value(row).to_owned(), (block.runs.value(row).to_owned(), block.seqs.value(row)));
            if table == Table::Conversations {
                assert!(last_id < id, "ids come in order, each once");
                last_id.clone_from(&id);
                seen.insert(id, (key.0, key.1, PerTable::default()));
            } else {
                let index = block.batch.column(1).as_primitive::<Int32Type>().value(row);
                children.push((table, id, (key.0, key.1, index)));
            }
        }
        Ok(())
    })
    .unwrap();
    for (table, id, child) in children {
        seen.get_mut(&id).unwrap().2.get_mut(table).push(child);
    }
    (seen, merged)
}

/// The same by looking at all copies of an id: none before the last one that is ahead counts, of the rest the last of those
/// that changed last.
fn expected(inputs: &[Vec<Stated>]) -> Merges {
    type Order = (Option<u8>, usize, usize);
    let mut all: BTreeMap<u8, Vec<(Order, Stated)>> = BTreeMap::new();
    for (run, copies) in inputs.iter().enumerate() {
        let mut sorted = copies.clone();
        sorted.sort_by_key(|copy| copy.id);
        for (seq, copy) in sorted.into_iter().enumerate() {
            let changed = copy.updated_at.or_else(|| copy.messages.checked_sub(1));
            let ahead = changed.is_some_and(|changed| changed > fetched(run));
            let of_id = all.entry(copy.id).or_default();
            if ahead {
                of_id.clear();
            }
            of_id.push(((changed.filter(|_| !ahead), run, seq), copy));
        }
    }
    let newest = all.into_iter().map(|(id, copies)| (id, copies.into_iter().max_by_key(|(order, _)| *order).unwrap()));
    newest
        .map(|(id, ((_, run, seq), copy))| {
            let run = RunId::new(DateTime::UNIX_EPOCH, run.try_into().unwrap()).to_string();
            let seq = i64::try_from(seq).unwrap();
            let rows = |count: u8| (0..i32::from(count)).map(|index| (run.clone(), seq, index)).collect::<Vec<_>>();
            let children = PerTable::from_fn(|table| match table {
                Table::Messages => rows(copy.messages),
                Table::AuditLogs => rows(copy.messages % 3),
                _ => Vec::new(),
            });
            (format!("c{id:03}"), (run.clone(), seq, children))
        })
        .collect()
}

fn any_inputs() -> impl Strategy<Value = Vec<Vec<Stated>>> {
    let copy = (0u8..12, prop::option::weighted(0.7, 0u8..20), 0u8..9).prop_map(|(id, updated_at, messages)| Stated {
        id,
        updated_at,
        messages,
    });
    prop::collection::vec(prop::collection::vec(copy, 0..12), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_the_newest_copy_whole(inputs in any_inputs(), size in 1usize..7) {
        let pieces = inputs.iter().enumerate().map(|(run, copies)| input(run, copies, size)).collect();
        let (seen, merged) = run(pieces);
        prop_assert_eq!(merged.copies, inputs.iter().map(|copies| copies.len() as u64).sum::<u64>());
        prop_assert_eq!(merged.rows.get(Table::Conversations), &(seen.len() as u64));
        prop_assert_eq!(seen, expected(&inputs));
    }
}

/// A compaction that died after it had replaced `messages` and before it replaced `conversations`: the table's
/// messages are those of the landed copies, which are merged in again.
#[test]
fn a_table_half_replaced_is_mended_by_the_landing_it_was_made_from() {
    let old = [Stated { id: 1, updated_at: Some(1), messages: 3 }, Stated { id: 2, updated_at: Some(1), messages: 2 }];
    let landed =
        [Stated { id: 1, updated_at: Some(2), messages: 1 }, Stated { id: 3, updated_at: Some(2), messages: 1 }];
    let both = |size| vec![input(0, &old, size), input(1, &landed, size)];
    let (whole, _) = run(both(10));

    let mut replaced = PerTable::from_fn(|_| VecDeque::new());
    merge(both(10), |table, batch| {
        replaced.get_mut(table).push_back(batch);
        Ok(())
    })
    .unwrap();
    let Pieces(mut half) = input(0, &old, 10);
    half.get_mut(Table::Messages).clone_from(replaced.get(Table::Messages));
    let (mended, _) = run(vec![Pieces(half), input(1, &landed, 10)]);
    assert_eq!(mended, whole);

    let (again, merged) = run(vec![Pieces(replaced), input(1, &landed, 10)]);
    assert_eq!(again, whole);
    assert_eq!((merged.copies, merged.duplicates), (5, 0), "the same copies met twice are no duplicates");
}

/// A staged input of an increment whose watermark was at this second.
struct Staged(Pieces, Option<Range<i64>>);

impl Copies for Staged {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        self.0.next(table)
    }

    fn overlap(&self) -> Option<Range<i64>> {
        self.1.clone()
    }
}

#[test]
fn what_an_increment_sees_for_the_first_time_and_changed_before_its_watermark_came_late() {
    let stated = |id, updated_at| Stated { id, updated_at, messages: 3 };
    let late = |inputs: Vec<(&[Stated], Option<u8>)>| {
        let staged = |(run, (copies, watermark)): (usize, (&[Stated], Option<u8>))| {
            let micros = |secs| (1_704_067_200 + i64::from(secs)) * 1_000_000;
            // What it asks for again begins with the third second.
            Staged(input(run, copies, 10), watermark.map(|secs| micros(3)..micros(secs)))
        };
        let late = merge(inputs.into_iter().enumerate().map(staged).collect(), |_, _| Ok(())).unwrap().late;
        (late.arrivals, late.longest_micros / 1_000_000)
    };
    let news = [stated(1, Some(3)), stated(2, Some(7)), stated(3, Some(10)), stated(4, Some(11))];
    assert_eq!(late(vec![(&news, Some(10))]), (2, 7));
    assert_eq!(late(vec![(&news, None)]), (0, 0), "of a backfill or a first walk");
    assert_eq!(late(vec![(&news[..1], None), (&news, Some(10))]), (1, 3), "the table had the other");
    assert_eq!(late(vec![(&news[..1], Some(2)), (&news, Some(10))]), (1, 3), "an increment before had the other");
    assert_eq!(late(vec![(&news, Some(10)), (&news, Some(12))]), (2, 7), "it came late once");
    assert_eq!(late(vec![(&[stated(1, Some(2))], Some(10))]), (0, 0), "it was not asked for");
    assert_eq!(late(vec![(&[stated(1, None)], Some(10))]), (0, 0), "it does not say when it changed");
    assert_eq!(late(vec![(&[stated(1, Some(14))], Some(19))]), (0, 0), "not to be believed");
}

#[test]
fn children_of_another_run_are_not_taken_for_a_copy_s_own() {
    let copy = [Stated { id: 1, updated_at: Some(1), messages: 3 }];
    let (Pieces(mut conversations), Pieces(other)) = (input(0, &copy, 10), input(1, &copy, 10));
    conversations.get_mut(Table::Messages).clone_from(other.get(Table::Messages));
    let (seen, merged) = run(vec![Pieces(conversations)]);
    assert_eq!(seen.len(), 1);
    assert_eq!(merged.rows.get(Table::Messages), &0);
}
