//! Compares the merge with a simple model: sort all versions of an id and keep the last.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::flatten::{Batch, Origin, flatten};
use crate::model::{LakeColumns, RunId};

/// When run `run` fetches, in seconds of the test's day. Some versions changed later than that.
fn fetched(run: usize) -> u8 {
    u8::try_from(12 + run).unwrap()
}

/// A version as the test states it.
#[derive(Debug, Clone)]
struct Stated {
    id: u8,
    updated_at: Option<u8>,
    messages: u8,
}

fn at(secs: u8) -> String {
    format!("2024-01-01T00:{:02}:{:02}Z", secs / 60, secs % 60)
}

/// Each message is a second later than the one before, so without `updated_at` more messages mean a later change.
fn json_of(version: &Stated) -> String {
    let messages: Vec<_> =
        (0..version.messages).map(|i| json!({"role": "USER", "text": format!("m{i}"), "created_at": at(i)})).collect();
    let logs = vec![json!({"text": "log"}); usize::from(version.messages % 3)];
    json!({
        "conversation_id": format!("c{:03}", version.id),
        "updated_at": version.updated_at.map(at),
        "messages": messages,
        "audit_logs": logs,
    })
    .to_string()
}

/// An input that returns its rows in small pieces.
struct Pieces(PerTable<VecDeque<RecordBatch>>);

impl MergeInput for Pieces {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        Ok(self.0.get_mut(table).pop_front())
    }
}

/// Makes an input of run `run`, sorted as staged files are, in pieces of `size` rows.
fn input(run: usize, versions: &[Stated], size: usize) -> Pieces {
    let mut sorted: Vec<&Stated> = versions.iter().collect();
    sorted.sort_by_key(|version| version.id);
    let texts: Vec<String> = sorted.iter().map(|version| json_of(version)).collect();
    let run_id = RunId::new(DateTime::UNIX_EPOCH, run.try_into().unwrap());
    let exported_at = DateTime::from_timestamp(1_704_067_200 + i64::from(fetched(run)), 0).unwrap();
    let origin = Origin { run_id: &run_id, exported_at, first_seq: 0 };
    let batch: Batch = flatten(texts.iter().map(String::as_str), &LakeColumns::default(), &origin).unwrap();
    Pieces(PerTable::from_fn(|table| {
        let rows = batch.tables.get(table);
        (0..rows.num_rows()).step_by(size).map(|at| rows.slice(at, size.min(rows.num_rows() - at))).collect()
    }))
}

/// For each id of the output its run and seq, and for each child table the (run, seq, index) of its rows.
type Output = BTreeMap<String, (String, i64, PerTable<Vec<(String, i64, i32)>>)>;

fn run(inputs: Vec<Pieces>) -> (Output, Merged) {
    let mut seen = Output::new();
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

/// The output of the model: the last version that is ahead replaces those before it; of the rest, the last of those
/// that changed last.
fn expected(inputs: &[Vec<Stated>]) -> Output {
    type Order = (Option<u8>, usize, usize);
    let mut all: BTreeMap<u8, Vec<(Order, Stated)>> = BTreeMap::new();
    for (run, versions) in inputs.iter().enumerate() {
        let mut sorted = versions.clone();
        sorted.sort_by_key(|version| version.id);
        for (seq, version) in sorted.into_iter().enumerate() {
            let changed = version.updated_at.or_else(|| version.messages.checked_sub(1));
            let ahead = changed.is_some_and(|changed| changed > fetched(run));
            let of_id = all.entry(version.id).or_default();
            if ahead {
                of_id.clear();
            }
            of_id.push(((changed.filter(|_| !ahead), run, seq), version));
        }
    }
    let latest =
        all.into_iter().map(|(id, versions)| (id, versions.into_iter().max_by_key(|(order, _)| *order).unwrap()));
    latest
        .map(|(id, ((_, run, seq), version))| {
            let run = RunId::new(DateTime::UNIX_EPOCH, run.try_into().unwrap()).to_string();
            let seq = i64::try_from(seq).unwrap();
            let rows = |count: u8| (0..i32::from(count)).map(|index| (run.clone(), seq, index)).collect::<Vec<_>>();
            let children = PerTable::from_fn(|table| match table {
                Table::Messages => rows(version.messages),
                Table::AuditLogs => rows(version.messages % 3),
                _ => Vec::new(),
            });
            (format!("c{id:03}"), (run.clone(), seq, children))
        })
        .collect()
}

fn any_inputs() -> impl Strategy<Value = Vec<Vec<Stated>>> {
    let version = (0u8..12, prop::option::weighted(0.7, 0u8..20), 0u8..9)
        .prop_map(|(id, updated_at, messages)| Stated { id, updated_at, messages });
    prop::collection::vec(prop::collection::vec(version, 0..12), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_the_latest_version_whole(inputs in any_inputs(), size in 1usize..7) {
        let pieces = inputs.iter().enumerate().map(|(run, versions)| input(run, versions, size)).collect();
        let (seen, merged) = run(pieces);
        prop_assert_eq!(merged.versions, inputs.iter().map(|versions| versions.len() as u64).sum::<u64>());
        prop_assert_eq!(merged.rows.get(Table::Conversations), &(seen.len() as u64));
        prop_assert_eq!(seen, expected(&inputs));
    }
}

/// A compaction died after it replaced `messages` and before it replaced `conversations`: the table's messages are
/// those of the staged versions, which are merged again.
#[test]
fn a_half_replaced_partition_is_repaired_by_merging_its_staged_files_again() {
    let old = [Stated { id: 1, updated_at: Some(1), messages: 3 }, Stated { id: 2, updated_at: Some(1), messages: 2 }];
    let staged =
        [Stated { id: 1, updated_at: Some(2), messages: 1 }, Stated { id: 3, updated_at: Some(2), messages: 1 }];
    let both = |size| vec![input(0, &old, size), input(1, &staged, size)];
    let (whole, _) = run(both(10));

    let mut replaced = PerTable::from_fn(|_| VecDeque::new());
    merge(both(10), |table, batch| {
        replaced.get_mut(table).push_back(batch);
        Ok(())
    })
    .unwrap();
    let Pieces(mut half) = input(0, &old, 10);
    half.get_mut(Table::Messages).clone_from(replaced.get(Table::Messages));
    let (repaired, _) = run(vec![Pieces(half), input(1, &staged, 10)]);
    assert_eq!(repaired, whole);

    let (again, merged) = run(vec![Pieces(replaced), input(1, &staged, 10)]);
    assert_eq!(again, whole);
    assert_eq!((merged.versions, merged.duplicates), (5, 0), "a version that occurs twice is no duplicate");
}

/// A staged input of an increment whose watermark was at this second.
struct Staged(Pieces, Option<Range<i64>>);

impl MergeInput for Staged {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        self.0.next(table)
    }

    fn overlap(&self) -> Option<Range<i64>> {
        self.1.clone()
    }
}

#[test]
fn a_new_conversation_that_changed_before_the_watermark_of_its_increment_came_late() {
    let stated = |id, updated_at| Stated { id, updated_at, messages: 3 };
    let late = |inputs: Vec<(&[Stated], Option<u8>)>| {
        let staged = |(run, (versions, watermark)): (usize, (&[Stated], Option<u8>))| {
            let micros = |secs| (1_704_067_200 + i64::from(secs)) * 1_000_000;
            // Its overlap begins with the third second.
            Staged(input(run, versions, 10), watermark.map(|secs| micros(3)..micros(secs)))
        };
        let late = merge(inputs.into_iter().enumerate().map(staged).collect(), |_, _| Ok(())).unwrap().late;
        (late.arrivals, late.longest_micros / 1_000_000)
    };
    let news = [stated(1, Some(3)), stated(2, Some(7)), stated(3, Some(10)), stated(4, Some(11))];
    assert_eq!(late(vec![(&news, Some(10))]), (2, 7));
    assert_eq!(late(vec![(&news, None)]), (0, 0), "of a backfill or a first walk");
    assert_eq!(late(vec![(&news[..1], None), (&news, Some(10))]), (1, 3), "the table had the other");
    assert_eq!(late(vec![(&news[..1], Some(2)), (&news, Some(10))]), (1, 3), "an earlier increment had the other");
    assert_eq!(late(vec![(&news, Some(10)), (&news, Some(12))]), (2, 7), "it came late once");
    assert_eq!(late(vec![(&[stated(1, Some(2))], Some(10))]), (0, 0), "the overlap begins later");
    assert_eq!(late(vec![(&[stated(1, None)], Some(10))]), (0, 0), "it has no updated_at");
    assert_eq!(late(vec![(&[stated(1, Some(14))], Some(19))]), (0, 0), "it changed after the response");
}

#[test]
fn children_of_another_run_do_not_belong_to_a_version() {
    let version = [Stated { id: 1, updated_at: Some(1), messages: 3 }];
    let (Pieces(mut conversations), Pieces(other)) = (input(0, &version, 10), input(1, &version, 10));
    conversations.get_mut(Table::Messages).clone_from(other.get(Table::Messages));
    let (seen, merged) = run(vec![Pieces(conversations)]);
    assert_eq!(seen.len(), 1);
    assert_eq!(merged.rows.get(Table::Messages), &0);
}
